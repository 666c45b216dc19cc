"""What a live screen knows: the latest of everything, and how long ticks took. No terminal, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from protos.book.v1.book_pb2 import Book
from protos.orders.v1.orders_pb2 import REPORT_KIND_TRADE, ExecutionBatch
from protos.risk.v1.risk_pb2 import RiskAlert, RiskMetrics

TRAIL = 48  # values kept for a sparkline
TIMINGS = 2_000  # ticks over which the percentiles are taken
FILLS = 8
ALERTS = 6

_SPARKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Fill:
    """One trade on our venue."""

    symbol: str
    side: str  # of the taker
    price: float
    quantity: int


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Milliseconds."""

    p50: float
    p99: float


@dataclass(slots=True)
class TickTimes:
    """How long ticks took from the source to the clean tick, from there to the risk number, and in all."""

    normalise_ms: deque[float] = field(default_factory=lambda: deque(maxlen=TIMINGS))
    measure_ms: deque[float] = field(default_factory=lambda: deque(maxlen=TIMINGS))
    total_ms: deque[float] = field(default_factory=lambda: deque(maxlen=TIMINGS))

    def add(self, metrics: RiskMetrics) -> None:
        """Takes in one published number."""
        timing = metrics.timing
        if timing.source_time_ns and timing.normalized_time_ns:
            self.normalise_ms.append((timing.normalized_time_ns - timing.source_time_ns) / 1e6)
            self.measure_ms.append((timing.published_time_ns - timing.normalized_time_ns) / 1e6)
            self.total_ms.append((timing.published_time_ns - timing.source_time_ns) / 1e6)

    def percentiles(self) -> dict[str, Percentiles]:
        """By stage; empty before the first number."""
        stages = {
            "source → normalised": self.normalise_ms,
            "normalised → risk": self.measure_ms,
            "source → risk": self.total_ms,
        }
        return {
            name: Percentiles(*(float(p) for p in np.percentile(list(values), [50, 99])))
            for name, values in stages.items()
            if values
        }


@dataclass(slots=True)
class DeskView:
    """The state of a live screen."""

    metrics: dict[str, RiskMetrics] = field(default_factory=dict)
    es_trail: dict[str, deque[float]] = field(default_factory=dict)
    spot_trail: dict[str, deque[float]] = field(default_factory=dict)
    alerts: deque[RiskAlert] = field(default_factory=lambda: deque(maxlen=ALERTS))
    fills: deque[Fill] = field(default_factory=lambda: deque(maxlen=FILLS))
    books: dict[str, Book] = field(default_factory=dict)
    times: TickTimes = field(default_factory=TickTimes)
    numbers: int = 0
    trades: int = 0
    alerts_raised: int = 0
    _whole: set[str] = field(default_factory=set)  # portfolios of which every position was valued once
    _waiting: dict[tuple[str, int, str], RiskAlert] = field(default_factory=dict)  # up, of the others
    _news: list[RiskAlert] = field(default_factory=list)

    def take_metrics(self, metrics: RiskMetrics) -> None:
        """A new risk number."""
        self.metrics[metrics.portfolio] = metrics
        self.numbers += 1
        if not metrics.faults and metrics.portfolio not in self._whole:
            self._whole.add(metrics.portfolio)
            for key in [key for key in self._waiting if key[0] == metrics.portfolio]:
                self._tell(self._waiting.pop(key))
        self.times.add(metrics)
        for tail in metrics.historical[:1]:
            self._trail(self.es_trail, metrics.portfolio).append(tail.expected_shortfall)
        for name, spot in zip(metrics.greeks.underlying, metrics.greeks.spot, strict=True):
            trail = self._trail(self.spot_trail, name)
            if not trail or trail[-1] != spot:
                trail.append(spot)

    def take_alert(self, alert: RiskAlert) -> None:
        """Raised or over. A desk waits for its first prices, and its alerts wait with it."""
        if alert.portfolio in self._whole:
            self._tell(alert)
        elif alert.raised:
            self._waiting[alert.portfolio, alert.kind, alert.subject] = alert
        else:
            self._waiting.pop((alert.portfolio, alert.kind, alert.subject), None)

    def take_news(self) -> list[RiskAlert]:
        """The alerts since the last call."""
        news, self._news = self._news, []
        return news

    def _tell(self, alert: RiskAlert) -> None:
        self.alerts.append(alert)
        self.alerts_raised += alert.raised
        self._news.append(alert)

    def take_executions(self, batch: ExecutionBatch) -> None:
        """Reports of our venue; the trades among them are fills."""
        for row, kind in enumerate(batch.kind):
            if kind != REPORT_KIND_TRADE:
                continue
            self.trades += 1
            place = batch.symbol_index[row]
            side = batch.side[row] if batch.side else 0
            self.fills.append(
                Fill(
                    symbol=batch.symbols[place],
                    side="sell" if side else "buy",
                    price=batch.price_ticks[row] * batch.tick_size[place],
                    quantity=batch.quantity[row],
                )
            )

    def take_book(self, book: Book) -> None:
        """Depth of one instrument."""
        self.books[book.symbol] = book

    @property
    def ready(self) -> bool:
        """Whether there is a live number: some portfolio has positions that are valued."""
        return any(len(one.faults) < one.positions for one in self.metrics.values())

    @staticmethod
    def _trail(trails: dict[str, deque[float]], name: str) -> deque[float]:
        return trails.setdefault(name, deque(maxlen=TRAIL))


def sparkline(values: Iterable[float]) -> str:
    """The values as a line of bars."""
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    scale = (len(_SPARKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_SPARKS[round((value - low) * scale)] for value in finite)
