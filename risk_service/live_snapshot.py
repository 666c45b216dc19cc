"""The live state as a call may use it: a copy at one snapshot, made between two turns of the live loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from protos.risk.v1.risk_pb2 import RiskMetrics
from risk_service.analytics_bars import NO_BARS, History
from risk_service.market_state import Clocks, MarketState
from risk_service.valuation import Book, Valuation, value
from risk_service.vol_marks import VolMarks
from service_kit.errors import QuotaExceeded, Unavailable

# When a caller should come again while the logs are being read.
CATCH_UP_RETRY_S = 1.0
# When a caller that found the queue full should come again; the loop answers a whole queue every few ms.
RETRY_AFTER_S = 0.1


@dataclass(slots=True)
class Measured:
    """What the loop last worked out for a portfolio. None of its underlyings has ticked since."""

    engine: gk.Engine
    book: Book
    marks: VolMarks
    pnl: NDArray[np.float64]  # one per historical scenario
    market: MarketState  # as it was measured at: the snapshot's prices, its own moment
    snapshot_id: str
    _valuation: Valuation | None = None

    @property
    def valuation(self) -> Valuation:
        """The positions with their inputs, collected when first asked for: most never are."""
        if self._valuation is None:
            self._valuation = value(self.engine, self.market, self.book, self.marks.copy())
        return self._valuation


class LastNumber(NamedTuple):
    """What the loop worked out for a book the last time, and when."""

    book: Book
    pnl: NDArray[np.float64]
    clocks: Clocks
    snapshot_id: str
    metrics: RiskMetrics  # as published

    def at(self, market: MarketState, marks: VolMarks, engine: gk.Engine) -> Measured:
        """As a snapshot tells it; none of its underlyings has ticked since."""
        seen = market.at(self.clocks)
        return Measured(engine, self.book, marks, self.pnl, seen, self.snapshot_id)


@dataclass(frozen=True, slots=True)
class LiveSnapshot:
    """Copies that nobody changes any more."""

    market: MarketState
    marks: VolMarks
    books: Mapping[str, Book]
    measured: Mapping[str, Measured]
    fills: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # quantity by portfolio and symbol
    executions_snapshot_id: str = ""  # the prefix of orders.executed that these come from
    bars: History = NO_BARS


class NotYet(Unavailable):
    """The logs are still being read: what they say of the market and of fills is half of it."""

    def __init__(self) -> None:
        super().__init__("the logs are still being read after a start", CATCH_UP_RETRY_S)


@dataclass(slots=True)
class SnapshotDesk:
    """Where calls ask for a snapshot and the live loop hands it out, one and the same to all who wait."""

    waiting_max: int
    catching_up: bool = False  # until the loop says otherwise
    _waiting: list[Future[LiveSnapshot]] = field(default_factory=list)
    _closed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self) -> Future[LiveSnapshot]:
        """A snapshot as soon as the loop has ended its turn; QuotaExceeded when too many wait already."""
        asked: Future[LiveSnapshot] = Future()
        with self._lock:
            if self._closed:
                raise Unavailable("the live market is not followed any more")
            if self.catching_up:
                raise NotYet
            if len(self._waiting) >= self.waiting_max:
                # Who has gone away takes no place.
                self._waiting = [one for one in self._waiting if not one.cancelled()]
            if len(self._waiting) >= self.waiting_max:
                raise QuotaExceeded(
                    f"{self.waiting_max} calls wait for the live market already", RETRY_AFTER_S
                )
            self._waiting.append(asked)
        return asked

    def asked(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting)

    def answer(self, make: Callable[[], LiveSnapshot]) -> None:
        """Gives everybody who waits the snapshot that `make` makes; makes none when nobody does."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        waiting = [one for one in waiting if one.set_running_or_notify_cancel()]
        if not waiting:
            return
        try:
            snapshot = make()
        except BaseException:
            for one in waiting:
                one.set_exception(Unavailable("the live market is not followed any more"))
            raise
        for one in waiting:
            one.set_result(snapshot)

    def close(self) -> None:
        """Refuses who waits and who comes."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, []
        for one in waiting:
            if one.set_running_or_notify_cancel():
                one.set_exception(Unavailable("the live market is not followed any more"))
