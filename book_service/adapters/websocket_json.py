"""A JSON feed over WebSocket, for as long as it is wanted: connect, subscribe, recover, connect again."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from book_service.adapters.errors import FeedError, WebSocketError
from book_service.adapters.json_feed import JsonFeed
from book_service.adapters.raw_columns import RawColumns
from book_service.adapters.websocket import WebSocket, WebSocketLimits, connect


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before connecting again: doubling from the least to the most, half of it by chance."""

    least_s: float = 0.25
    most_s: float = 30.0

    def wait_s(self, failures: int, chance: float) -> float:
        """Seconds before the next try after so many failures in a row; `chance` is from 0 to 1."""
        full = min(self.most_s, self.least_s * 2.0 ** min(failures - 1, 60))
        return full * (0.5 + 0.5 * chance)


@dataclass(slots=True)
class FeedCounts:
    """What a feed went through."""

    connections: int = 0
    resubscriptions: int = 0
    bad_messages: int = 0
    last_fault: str = ""


@dataclass(slots=True)
class WebSocketFeed:
    """Events of a feed; a lost connection is taken up again until the iterator is closed."""

    url: str
    feed: JsonFeed
    limits: WebSocketLimits = field(default_factory=WebSocketLimits)
    backoff: Backoff = field(default_factory=Backoff)
    tls: ssl.SSLContext | None = None
    counts: FeedCounts = field(default_factory=FeedCounts)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: Callable[[], float] = random.random
    bad_in_a_row_max: int = 100  # messages; a peer that sends nothing else is not what we think it is

    async def events(self) -> AsyncGenerator[RawColumns, None]:
        """Events as they come, over every connection."""
        failures = 0
        while True:
            try:
                async with await connect(self.url, self.limits, self.tls) as socket:
                    self.counts.connections += 1
                    await socket.send(self.feed.subscription())
                    async with aclosing(self._one_connection(socket)) as found:
                        async for events in found:
                            # Only data says that the peer is well: one that hangs up at once is not.
                            failures = 0
                            yield events
                self.counts.last_fault = "the peer closed the connection"
            except (OSError, WebSocketError) as error:
                self.counts.last_fault = str(error)
            lost = self.feed.disconnected()
            if len(lost):
                yield lost
            failures += 1
            await self.sleep(self.backoff.wait_s(failures, self.chance()))

    async def _one_connection(self, socket: WebSocket) -> AsyncGenerator[RawColumns, None]:
        bad_in_a_row = 0
        while (text := await socket.receive()) is not None:
            try:
                taken = self.feed.take(text)
            except FeedError as error:
                self.counts.bad_messages += 1
                self.counts.last_fault = str(error)
                bad_in_a_row += 1
                if bad_in_a_row > self.bad_in_a_row_max:
                    raise WebSocketError(
                        f"{bad_in_a_row} bad messages in a row, the last: {error}"
                    ) from error
                continue
            bad_in_a_row = 0
            if len(taken.events):
                yield taken.events
            if taken.resubscribe:
                self.counts.resubscriptions += 1
                await socket.send(self.feed.subscription(taken.resubscribe))
