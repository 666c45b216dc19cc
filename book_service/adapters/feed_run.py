"""Sources as records of market.data.raw, given to `send`; what became of their events is counted."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from book_service.adapters.feed_plan import SourcePlan, open_file, open_socket
from book_service.adapters.raw_columns import RawColumns
from book_service.adapters.replay_pace import Pace, paced, wait_for
from book_service.adapters.websocket_json import WebSocketFeed

Send = Callable[[str, bytes], None]  # key and value of a record
STOP_CHECK_S = 0.05


@dataclass(slots=True)
class SourceCounts:
    """What a source has given."""

    events: int = 0
    records: int = 0


@dataclass(slots=True)
class Publisher:
    """Writes events as records, one symbol each; safe to share between the threads of different sources."""

    send: Send
    # The record's key by source and our symbol: an option's is its underlying: both share a partition.
    key_of: Callable[[str, str], str] = lambda source, symbol: symbol
    events_max: int = 5_000  # of a record
    counts: dict[str, SourceCounts] = field(default_factory=dict)

    def publish(self, events: RawColumns) -> None:
        """Sends events of one source, already in our terms."""
        counts = self.counts.setdefault(events.source, SourceCounts())
        for symbol, batch in events.by_symbol(self.events_max):
            self.send(self.key_of(events.source, symbol), batch.SerializeToString())
            counts.records += 1
        counts.events += len(events)


def replay_files(
    plans: Sequence[SourcePlan],
    pace: Pace,
    publisher: Publisher,
    stop: threading.Event,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Plays files as one stream to their end, or until told to stop."""
    due = paced([open_file(plan) for plan in plans], pace, time.time_ns())
    for one in wait_for(due, stop.wait, clock):
        publisher.publish(one.events)


def follow_socket(
    plan: SourcePlan, publisher: Publisher, stop: threading.Event, feed: WebSocketFeed | None = None
) -> None:
    """Passes a WebSocket's events on until told to stop; a lost connection is taken up again."""
    asyncio.run(_follow(plan, publisher, stop, feed or open_socket(plan)))


async def _follow(plan: SourcePlan, publisher: Publisher, stop: threading.Event, feed: WebSocketFeed) -> None:
    reading = asyncio.create_task(_read(plan, publisher, feed))
    while not stop.is_set() and not reading.done():
        await asyncio.wait((reading,), timeout=STOP_CHECK_S)
    reading.cancel()
    try:
        await reading
    except asyncio.CancelledError:
        return


async def _read(plan: SourcePlan, publisher: Publisher, feed: WebSocketFeed) -> None:
    async with aclosing(feed.events()) as found:
        async for events in found:
            ours = plan.terms.apply(events)
            if len(ours):
                publisher.publish(ours)
