"""The latest risk of every portfolio, between the thread that computes it and the calls that watch it.

A watcher holds the names that changed since it last looked, never a queue of values: however slow it is, it
costs the same and is given the newest.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from protos.risk.v1.risk_pb2 import RiskMetrics
from service_kit.errors import QuotaExceeded, Unavailable

# When to come again to a service that stands by.
ELSEWHERE_RETRY_S = 1.0


@dataclass(slots=True)
class RiskBoard:
    """Latest metrics by portfolio. What is put on it must not be changed afterwards."""

    watchers_max: int
    _latest: dict[str, RiskMetrics] = field(default_factory=dict)
    _watchers: set[Watcher] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _suspended: str = ""

    def publish(self, metrics: RiskMetrics) -> None:
        """Replaces a portfolio's metrics and wakes who watches it."""
        with self._lock:
            self._latest[metrics.portfolio] = metrics
            watchers = tuple(self._watchers)
        for watcher in watchers:
            watcher.tell(metrics.portfolio)

    def remove(self, portfolio: str) -> None:
        """Forgets a portfolio that was deleted."""
        with self._lock:
            self._latest.pop(portfolio, None)

    def suspend(self, why: str) -> None:
        """Ends every watch, and refuses new ones, until `resume`: the numbers are told elsewhere."""
        with self._lock:
            self._suspended, watchers = why, tuple(self._watchers)
        for watcher in watchers:
            watcher.end(why)

    def resume(self) -> None:
        """Numbers come again."""
        with self._lock:
            self._suspended = ""

    def latest(self, portfolio: str) -> RiskMetrics | None:
        """The newest metrics of a portfolio, if there are any yet."""
        with self._lock:
            return self._latest.get(portfolio)

    @contextmanager
    def watch(self, wanted: Callable[[str], bool]) -> Iterator[Watcher]:
        """A watcher of the portfolios that `wanted` accepts; call from a running event loop."""
        watcher = Watcher(asyncio.get_running_loop(), wanted)
        with self._lock:
            if self._suspended:
                raise Unavailable(self._suspended, ELSEWHERE_RETRY_S)
            if len(self._watchers) >= self.watchers_max:
                raise QuotaExceeded(f"{self.watchers_max} watchers are the most this service has", 5.0)
            self._watchers.add(watcher)
            names = tuple(self._latest)
        for name in names:
            watcher.tell(name)
        try:
            yield watcher
        finally:
            with self._lock:
                self._watchers.discard(watcher)

    def watchers(self) -> int:
        """How many watch now."""
        with self._lock:
            return len(self._watchers)


@dataclass(slots=True, eq=False)
class Watcher:
    """The names that changed since the last look."""

    _loop: asyncio.AbstractEventLoop
    _wanted: Callable[[str], bool]
    _changed: dict[str, None] = field(default_factory=dict)  # in the order of their first change
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: str = ""

    def end(self, why: str) -> None:
        """Nothing more comes. Safe from any thread."""
        self._ended = why
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._woken.set)

    def tell(self, portfolio: str) -> None:
        """A portfolio has changed. Safe from any thread."""
        if not self._wanted(portfolio):
            return
        with self._lock:
            first = not self._changed
            self._changed[portfolio] = None
        if first and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._woken.set)

    async def changed(self) -> list[str]:
        """Waits for a change; then the names that changed, each once. Unavailable once the watch is ended."""
        while True:
            await self._woken.wait()
            if self._ended:
                raise Unavailable(self._ended, ELSEWHERE_RETRY_S)
            with self._lock:
                self._woken.clear()
                names, self._changed = list(self._changed), {}
            if names:
                return names
