"""Monte Carlo and analytics in a process of their own, which never holds the interpreter while a tick waits.

A thread of low priority would: whoever is put aside while holding the interpreter's lock makes the live loop
wait for it. Here a thread only carries snapshots and numbers.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import gpu_kernels as gk
from protos.risk.v1.risk_pb2 import TailRisk
from risk_service.analytics import Analytics, Result
from risk_service.analytics_bars import History
from risk_service.child_process import LOOK_S, Child, child, settle
from risk_service.live_risk import ScenarioSource
from risk_service.live_snapshot import LiveSnapshot, NotYet, SnapshotDesk
from risk_service.market_state import MarketState
from risk_service.slow_risk import EVERY_S, LOG, SlowNumbers, SlowRisk
from risk_service.valuation import Book
from risk_service.vol_marks import VolMarks
from service_kit.errors import QuotaExceeded, Unavailable
from service_kit.lifecycle import Stop

PATIENCE_S = 2.0  # with a round that idle cores alone do not get done


class _Question(NamedTuple):
    market: MarketState
    marks: VolMarks
    books: list[Book] | None  # None: as in the last question
    bars: History  # those after the last question's


class _Found(NamedTuple):
    tail: bytes
    component_es: tuple[float, ...]
    component_es_by_group: tuple[float, ...]
    time_ns: int


@dataclass(slots=True)
class SlowProcess:
    """Asks for snapshots, has them measured in a child, and keeps its newest numbers."""

    desk: SnapshotDesk
    engine: str  # one that computes in the process that asks it
    source: ScenarioSource
    level: float
    tell: Callable[[Sequence[Result]], None]  # what analytics says
    latest: dict[str, SlowNumbers] = field(default_factory=dict)  # replaced as a whole
    pid: int | None = None  # of the child

    def run(self, stop: Stop) -> None:
        """Until told to stop, or the live market is not followed any more; a child that dies is replaced."""
        while not stop.is_set():
            history, days = self.source.history, self.source.days
            with child(_serve, self.engine, history, days, self.level, name="monte carlo") as made:
                self.pid = made.pid
                try:
                    self._carry(made, stop)
                    return
                except (EOFError, OSError):
                    LOG.warning("the process of Monte Carlo died; another one is started")
            stop.wait(EVERY_S)

    def _carry(self, made: Child, stop: Stop) -> None:
        known: list[Book] = []
        told = 0  # bars before this second
        while not stop.is_set():
            began = time.monotonic()
            try:
                snapshot = self.desk.ask().result()
            except NotYet:
                stop.wait(LOOK_S)
                continue
            except (Unavailable, CancelledError):
                return
            except QuotaExceeded:
                LOG.info("the live loop is busy; Monte Carlo waits")
                stop.wait(EVERY_S)
                continue
            books = [book for _, book in sorted(snapshot.books.items())]
            same = len(books) == len(known) and all(a is b for a, b in zip(books, known, strict=True))
            bars = snapshot.bars.since(told)
            made.connection.send(_Question(snapshot.market, snapshot.marks, None if same else books, bars))
            known, told = books, bars.ends
            if not made.answered(stop, PATIENCE_S):
                return
            self.tell(made.connection.recv())
            if not made.answered(stop, PATIENCE_S):
                return
            found: Sequence[_Found] = made.connection.recv()
            self.latest = {
                book.held.name: SlowNumbers(book, TailRisk.FromString(one.tail), *one[1:])
                for book, one in zip(books, found, strict=bool(found))
            }
            stop.wait(max(0.0, EVERY_S - (time.monotonic() - began)))


def _serve(connection: Connection, engine: str, history: Any, days: int, level: float) -> None:
    """The child's whole life; it ends when the service lets go of the pipe, or dies."""
    settle()
    risk = SlowRisk.of(gk.engine(engine), ScenarioSource(history, days), level)
    analytics, books = Analytics(), list[Book]()
    while True:
        try:
            question: _Question = connection.recv()
        except (EOFError, OSError):
            return
        # Monte Carlo may take long: it comes apart, and second.
        with contextlib.suppress(BrokenPipeError):
            connection.send(analytics.results(question.bars))
        books = books if question.books is None else question.books
        held = {book.held.name: book for book in books}
        risk.measure(LiveSnapshot(question.market, question.marks, held, {}), Stop())
        found = [risk.latest.get(book.held.name) for book in books]
        with contextlib.suppress(BrokenPipeError):
            connection.send(
                [
                    _Found(
                        one.tail.SerializeToString(),
                        one.component_es,
                        one.component_es_by_group,
                        one.time_ns,
                    )
                    for one in found
                    if one is not None
                ]
            )
