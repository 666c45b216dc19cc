"""What the live loop tells: numbers to Kafka and to watchers, and alerts as they rise and end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import gpu_kernels as gk
from protos import topics
from protos.risk.v1.risk_pb2 import RiskAlert, RiskMetrics
from risk_service.alerts import AlertBook
from risk_service.board import RiskBoard
from risk_service.desk_books import DeskBooks
from risk_service.due_books import DueBooks
from risk_service.lateness import LATE_S
from risk_service.live_metrics import MetricsWriter
from risk_service.live_snapshot import LastNumber
from risk_service.market_state import MarketState
from risk_service.positions import Positions
from risk_service.service_metrics import ServiceMetrics
from risk_service.silence import aged
from risk_service.slow_risk import SlowNumbers
from risk_service.valuation import Book
from service_kit.kafka.producer import Producer
from service_kit.telemetry.traces import Headers, Traces

# Longest time for which books are told before the next look at the market; the others wait for their turn.
TELL_S_MAX = 0.02

Came = tuple[tuple[str, bytes], ...]  # headers that a trace goes on from


@dataclass(slots=True)
class Teller:
    """Used by the live loop's thread."""

    producer: Producer
    board: RiskBoard
    writer: MetricsWriter
    positions: Positions
    alerts: AlertBook
    metrics: ServiceMetrics
    traces: Traces
    clock_ns: Callable[[], int]
    due: DueBooks = field(default_factory=DueBooks)
    last: dict[str, LastNumber] = field(default_factory=dict)  # of each book that was measured
    _slow: Mapping[str, SlowNumbers] = field(default_factory=dict)  # as seen the last time
    _slow_told: dict[str, SlowNumbers] = field(default_factory=dict)  # with the last number of each book

    def tell_due(
        self, books: DeskBooks, market: MarketState, slow: Mapping[str, SlowNumbers], came: Came
    ) -> None:
        """Tells what has changed, for a while: a book that must wait is told its newest number then."""
        self._note(slow, books)
        ends = time.monotonic() + TELL_S_MAX
        for name, since in self.due.take():
            # It may be gone by now.
            book = books.books.get(name)
            if book is not None:
                late = time.monotonic() - since > LATE_S
                self._tell(book, books, market, slow.get(name), came, late=late)
            if time.monotonic() >= ends:
                return

    def _note(self, slow: Mapping[str, SlowNumbers], books: DeskBooks) -> None:
        """What Monte Carlo has found since a book was told is told where the market is quiet, too."""
        if slow is self._slow:
            return
        self._slow = slow
        for name, found in slow.items():
            told = self._slow_told.get(name)
            if told is not None and told.book is found.book and told.time_ns == found.time_ns:
                continue
            if name in self.last and books.books.get(name) is found.book:
                self.due.add(name, found.book.held.owner, time.monotonic())

    def age(self, by_ns: int, why: str) -> list[tuple[RiskMetrics, float]]:
        """Tells watchers the last numbers again, so much older; with the hysteresis of each book's alerts."""
        told = []
        for last in self.last.values():
            older = aged(last.metrics, by_ns, why)
            self.board.publish(older)
            told.append((older, last.book.held.limits.hysteresis))
        return told

    def alert(self, number: RiskMetrics, hysteresis: float) -> None:
        """What a number raises or ends."""
        self._send(self.alerts.update(number, hysteresis))

    def forget(self, name: str, market: MarketState) -> None:
        """A portfolio is no more: nothing of it is told or kept."""
        self.last.pop(name, None)
        self._slow_told.pop(name, None)
        self.board.remove(name)
        self.writer.forget(name)
        self.end_alerts(name, market)

    def end_alerts(self, name: str, market: MarketState) -> None:
        """Ends what stands for a portfolio that is no more."""
        self._send(self.alerts.forget(name, market.snapshot_id(), market.clocks.source_time_ns))

    def step_down(self, why: str) -> None:
        """Nothing is told any more until `restore`; who watches is told why."""
        self.alerts.clear()
        self.due.clear()
        self.age(0, why)

    def restore(self, logged: Callable[[], Iterable[RiskAlert]]) -> None:
        """What stands is what the log says, and nothing else."""
        self.alerts.clear()
        self.alerts.restore(logged())

    def _tell(
        self,
        book: Book,
        books: DeskBooks,
        market: MarketState,
        slow: SlowNumbers | None,
        came: Came,
        *,
        late: bool,
    ) -> None:
        numbers = books.numbers(book.held.name)
        if isinstance(numbers, str):
            self._tell_none(book, market, numbers, came)
            return
        try:
            metrics = self.writer.write(market, book, numbers, self.positions, slow)
        except gk.GpuKernelsError as refusal:
            self._tell_none(book, market, f"not measured: {refusal}", came)
            return
        if late:
            metrics.provenance.method += f"; told more than {LATE_S:g} s late, after other books of its owner"
        name = book.held.name
        self.last[name] = LastNumber(
            book, numbers.historical_pnl, market.clocks, market.snapshot_id(), metrics
        )
        if slow is not None:
            self._slow_told[name] = slow
        self._publish(metrics, book.held.limits.hysteresis, came)

    def _tell_none(self, book: Book, market: MarketState, why: str, came: Came) -> None:
        self.last.pop(book.held.name, None)
        self._publish(self.writer.unmeasured(market, book, why, self.positions), 0.0, came)

    def _publish(self, number: RiskMetrics, hysteresis: float, came: Came) -> None:
        number.timing.published_time_ns = self.clock_ns()
        self.board.publish(number)
        with self.traces.span("measure", came) as span:
            headers: Headers = []
            span.inject(headers)
            self.producer.send(topics.RISK_METRICS, number.portfolio, number.SerializeToString(), headers)
        self.alert(number, hysteresis)
        self.metrics.told()
        timing = number.timing
        if timing.source_time_ns:
            late_ns = max(0, timing.published_time_ns - timing.source_time_ns)
            self.metrics.tick_to_risk_seconds.observe(late_ns / 1e9)

    def _send(self, alerts: Iterable[RiskAlert]) -> None:
        for alert in alerts:
            self.producer.send(topics.RISK_ALERTS, alert.portfolio, alert.SerializeToString())
            self.metrics.count_alert(alert)
