"""RiskMetrics of the books of a desk: what never changes of a book is written once, the rest at each tick."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from protos import packing
from protos.risk.v1.risk_pb2 import (
    ROW_STATUS_INVALID_INPUT,
    GreeksByUnderlying,
    RiskMetrics,
    RowFault,
    RowStatus,
    TailRisk,
)
from risk_service.desk_risk import BookNumbers
from risk_service.filled_rows import FilledRows
from risk_service.historical_tail import HistoricalTail
from risk_service.live_risk import GREEKS, STRESSES, limit_usage, oldest_ns, tail_message
from risk_service.market_state import MarketState
from risk_service.positions import Positions
from risk_service.slow_risk import SlowNumbers
from risk_service.valuation import Book
from risk_service.worker.fallback import degraded_reason

METHOD = "full revaluation, historical, exact_tail"


_COLUMNS = ("spot", *GREEKS, "age_ns")


class _Fixed(NamedTuple):
    """What never changes of a book's message, and what stands before each of its columns."""

    book: Book
    content: bytes
    columns: tuple[bytes, ...]  # per column of the Greeks; the first has the message's own before it
    hedge: bytes
    stress: bytes

    @classmethod
    def of(cls, book: Book, content: bytes) -> _Fixed:
        size = 8 * len(book.held.underlyings)
        if not size:
            return cls(book, content, (), b"", packing.head(RiskMetrics, "stress_pnl", 8 * len(STRESSES)))
        heads = [packing.head(GreeksByUnderlying, name, size) for name in _COLUMNS]
        inside = sum(map(len, heads)) + len(heads) * size
        outer = packing.part(RiskMetrics, "greeks", bytes(inside))[:-inside]
        return cls(
            book,
            content,
            (outer + heads[0], *heads[1:]),
            packing.head(RiskMetrics, "hedge_quantity", size),
            packing.head(RiskMetrics, "stress_pnl", 8 * len(STRESSES)),
        )

    def with_columns(self, numbers: BookNumbers, ages: NDArray[np.int64]) -> bytes:
        """The message's bytes with the book's columns; protobuf joins Greeks that come in two parts."""
        pieces = [self.content]
        if self.columns:
            greeks = np.ascontiguousarray(numbers.greeks.T)
            columns = (numbers.spots, *greeks, ages)
            for before, column in zip(self.columns, columns, strict=True):
                pieces += (before, column.tobytes())
            pieces += (self.hedge, (-greeks[0]).tobytes())
        pieces += (self.stress, numbers.stress_pnl.tobytes())
        return b"".join(pieces)


@dataclass(slots=True)
class MetricsWriter:
    """Writes one book's numbers at one snapshot of the market."""

    engine: gk.Engine
    level: float
    degraded_reason: str = ""
    _fixed: dict[str, _Fixed] = field(default_factory=dict)
    _filled: FilledRows = field(default_factory=FilledRows)
    _tails: HistoricalTail = field(init=False)

    def __post_init__(self) -> None:
        self._tails = HistoricalTail(self.level)

    def forget(self, name: str) -> None:
        """Drops what is kept of a book that is no more."""
        self._fixed.pop(name, None)
        self._filled.forget(name)

    def write(
        self,
        market: MarketState,
        book: Book,
        numbers: BookNumbers,
        positions: Positions | None = None,
        slow: SlowNumbers | None = None,
    ) -> RiskMetrics:
        """The message, but for the time of sending."""
        ages = market.ages_ns(book.underlying_slots)
        metrics = RiskMetrics.FromString(self._fixed_part(book).with_columns(numbers, ages))
        metrics.value, metrics.gross_value = numbers.value, numbers.gross_value
        metrics.scenarios = len(numbers.historical_pnl) + len(STRESSES)
        self._add_tail(metrics, numbers)
        if numbers.faults:
            metrics.faults.extend(
                RowFault(row=one.row, symbol=one.symbol, status=RowStatus.ValueType(one.status))
                for one in numbers.faults
            )
        age_ns = oldest_ns(market, ages, numbers.oldest_quote_ns)
        self._add_provenance(metrics, market, age_ns, _method(market, numbers))
        metrics.limits.extend(limit_usage(book, metrics))
        # What was worked out for another version of the book, or before its last fill, is not this one's.
        if slow is not None and slow.book is book:
            metrics.monte_carlo.append(slow.tail)
            if slow.time_ns:
                metrics.monte_carlo_age_ns = market.clocks.source_time_ns - slow.time_ns
            metrics.component_es_by_underlying.extend(slow.component_es)
            if slow.component_es_by_group:
                metrics.group.extend(book.held.groups)
                metrics.component_es_by_group.extend(slow.component_es_by_group)
        if positions is not None:
            self._filled.add_to(metrics, market, book, positions)
        return metrics

    def unmeasured(
        self, market: MarketState, book: Book, why: str, positions: Positions | None = None
    ) -> RiskMetrics:
        """What is said of a book that the engine refuses: every position is left out, with the reason.

        The P&L of its fills needs no engine.
        """
        metrics = RiskMetrics(
            portfolio=book.held.name,
            portfolio_version=book.held.version,
            positions=len(book.held),
            value=math.nan,
            gross_value=math.nan,
            faults=[
                RowFault(row=row, symbol=symbol, status=ROW_STATUS_INVALID_INPUT)
                for row, symbol in enumerate(book.held.symbols)
            ],
            historical=[
                TailRisk(
                    level=self.level, value_at_risk=math.nan, expected_shortfall=math.nan, warnings=[why]
                )
            ],
        )
        self._add_provenance(metrics, market, 0, METHOD)
        if positions is not None:
            self._filled.add_to(metrics, market, book, positions)
        return metrics

    def _fixed_part(self, book: Book) -> _Fixed:
        known = self._fixed.get(book.held.name)
        if known is None or known.book is not book:
            metrics = RiskMetrics(
                portfolio=book.held.name,
                portfolio_version=book.held.version,
                positions=len(book.held),
                stress_name=[stress.name for stress in STRESSES],
                hedge_symbol=book.held.underlyings,
            )
            metrics.greeks.underlying.extend(book.held.underlyings)
            known = self._fixed[book.held.name] = _Fixed.of(book, metrics.SerializeToString())
        return known

    def _add_tail(self, metrics: RiskMetrics, numbers: BookNumbers) -> None:
        if not numbers.historical_pnl.size:
            nan, warnings = math.nan, [numbers.why_no_history]
            metrics.historical.add(
                level=self.level, value_at_risk=nan, expected_shortfall=nan, warnings=warnings
            )
            return
        tail = self._tails.of(numbers.historical_pnl)
        metrics.historical.append(tail_message(tail.risk))
        parts = tail.parts(numbers.historical_by_underlying)
        packing.write(metrics, "historical_component_es_by_underlying", parts)

    def _add_provenance(self, metrics: RiskMetrics, market: MarketState, age_ns: int, method: str) -> None:
        provenance = metrics.provenance
        # A device's engine may have been replaced by another since the last number.
        provenance.engine, provenance.device = self.engine.name, self.engine.device
        provenance.method = method
        provenance.market_snapshot_id = market.snapshot_id()
        provenance.data_age_ns = age_ns
        why = self.degraded_reason or degraded_reason(self.engine)
        provenance.degraded, provenance.degraded_reason = bool(why), why
        timing = metrics.timing
        timing.source_time_ns = market.clocks.source_time_ns
        timing.normalized_time_ns = market.clocks.normalized_time_ns


def _method(market: MarketState, numbers: BookNumbers) -> str:
    method = f"{METHOD} of {len(numbers.historical_pnl)} days" if numbers.historical_pnl.size else METHOD
    if numbers.premium_time_ns is None:
        return method
    age_s = (market.valuation_time_ns - numbers.premium_time_ns) / 1e9
    return (
        f"{method}; early exercise premiums interpolated with an error of at most "
        f"{numbers.premium_error:.1e} of spot, {age_s:.0f} s old"
    )
