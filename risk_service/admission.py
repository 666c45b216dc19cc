"""Which work is let in: by its estimated cost, for each principal and for all together.

Cost counts revaluations: one European option under one scenario. How many of them a second takes is measured
on the work that was done, so limits are in seconds of waiting, on any machine. What does not fit is refused
at once and told when to come again: a refusal costs microseconds, a queue costs everybody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from service_kit.errors import QuotaExceeded

# Until something has been measured; a slow machine learns quickly that it is too much.
RATE_AT_FIRST = 50e6  # revaluations per second
RATE_MIN = 1e3
# Seconds of work over which the rate is averaged.
MEMORY_S = 2.0
RETRY_S_MIN, RETRY_S_MAX = 0.05, 30.0


@dataclass(slots=True)
class Room:
    """What a request has of the backlog."""

    goes_on: Future[Any] | None = None  # what its thread still does when the request has ended


@dataclass(slots=True)
class Admission:
    """Counts the work that is in. Safe to use from several threads."""

    backlog_s_max: float
    share_max: float = 1.0  # of the backlog, for one principal
    clock: Callable[[], float] = time.monotonic
    rate: float = RATE_AT_FIRST  # revaluations per second, measured
    refused: int = 0
    _in: float = 0.0
    _by_principal: dict[str, tuple[int, float]] = field(default_factory=dict)  # requests and their cost
    _busy_since: float = 0.0
    _done: float = 0.0  # cost of work that ended since the rate was last worked out
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def backlog_s(self) -> float:
        """Seconds that the work now in will take."""
        return self._in / self.rate

    def expect_room(self, principal: str, cost: float) -> None:
        """As `admitted`, of work that costs at least so much, before anything of it is read."""
        with self._lock:
            self._expect_room(principal, cost)

    @contextmanager
    def admitted(self, principal: str, cost: float) -> Iterator[Room]:
        """Lets work in until block and thread have ended; QuotaExceeded with a delay if it is full."""
        with self._lock:
            self._expect_room(principal, cost)
            if not self._by_principal:
                self._busy_since = self.clock()
            self._in += cost
            count, own = self._by_principal.get(principal, (0, 0.0))
            self._by_principal[principal] = count + 1, own + cost
        room, done = Room(), False

        def leave(_: object = None) -> None:
            with self._lock:
                self._leave(principal, cost, done)

        try:
            yield room
            done = True
        finally:
            if room.goes_on is None:
                leave()
            else:
                room.goes_on.add_done_callback(leave)

    def _expect_room(self, principal: str, cost: float) -> None:
        most = self.backlog_s_max * self.rate
        share = most * self.share_max
        _, own = self._by_principal.get(principal, (0, 0.0))
        # Beyond its share a principal's one large request is in its own way alone.
        counted = sum(min(cost_in, share) for _, cost_in in self._by_principal.values())
        # One request alone is never too much: its own limit has let it through. So is the first of a
        # principal while there is room for anybody: a heavy caller must not keep the others out.
        if counted and counted >= most:
            self._refuse(f"{self.backlog_s:.2f} s of work wait already", self._in - most / 2.0)
        if own and own + cost > share:
            self._refuse(f"{own / self.rate:.2f} s of work of this principal wait already", own + cost - most)

    def _refuse(self, why: str, excess: float) -> None:
        self.refused += 1
        raise QuotaExceeded(why, min(RETRY_S_MAX, max(RETRY_S_MIN, excess / self.rate)))

    def _leave(self, principal: str, cost: float, done: bool) -> None:
        count, own = self._by_principal.pop(principal)
        if count > 1:
            self._by_principal[principal] = count - 1, own - cost
        # Sums of floats leave crumbs; nothing in is nothing.
        self._in = self._in - cost if self._by_principal else 0.0
        now = self.clock()
        # Work side by side shares the time since the last of it ended.
        seconds, self._busy_since = now - self._busy_since, now
        self._done += cost if done else 0.0
        if done and seconds > 0.0:
            weight = min(1.0, seconds / MEMORY_S)
            self.rate = max(RATE_MIN, (1.0 - weight) * self.rate + weight * self._done / seconds)
            self._done = 0.0
