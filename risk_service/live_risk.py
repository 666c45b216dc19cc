"""One portfolio's risk at one snapshot of the market: a pure function, the same numbers at every replay."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from protos import packing
from protos.risk.v1.risk_pb2 import (
    ROW_STATUS_NOT_VALUED_LIVE,
    GreeksByUnderlying,
    LimitUsage,
    RiskMetrics,
    RowFault,
    RowStatus,
    TailRisk,
    TickTiming,
)
from risk_service.market_state import MarketState
from risk_service.price_history import NoHistory, PriceHistory
from risk_service.valuation import Book, Fault, Valuation, value
from risk_service.vol_marks import VolMarks

DEFAULT_VAR_FRACTION = 0.02  # of gross value
DEFAULT_STRESS_FRACTION = 0.05

GREEKS = ("delta", "gamma", "vega", "theta", "rho", "vanna", "volga", "charm")


@dataclass(frozen=True, slots=True)
class Stress:
    """A shock to every underlying at once: simple return of spot, absolute change of vol."""

    name: str
    spot: float
    vol: float = 0.0


STRESSES = (
    Stress("spot -20% vol +20", -0.20, 0.20),
    Stress("spot -10% vol +10", -0.10, 0.10),
    Stress("spot -5%", -0.05),
    Stress("spot +5%", 0.05),
    Stress("spot +10% vol -5", 0.10, -0.05),
    Stress("vol +10", 0.0, 0.10),
)


@dataclass(slots=True)
class ScenarioSource:
    """The scenarios of a portfolio: its history, then the stresses.

    Those of single underlyings are kept: there are as many as the history has. Sets of them are as many as
    portfolios come and go.
    """

    history: PriceHistory | None
    days: int
    _single: dict[str, gk.Scenarios] = field(default_factory=dict)

    def of(self, underlyings: tuple[str, ...]) -> tuple[gk.Scenarios, int, str]:
        """Scenarios, how many of them are historical, and why there are none where there are none."""
        stresses, historical = stress_scenarios(len(underlyings)), self.historical(underlyings)
        if historical is None:
            return stresses, 0, self.why_none(underlyings)
        return gk.Scenarios.stacked([historical, stresses]), len(historical), ""

    def why_none(self, underlyings: tuple[str, ...]) -> str:
        """Why there are no historical scenarios of these together; empty where there are."""
        if self.history is None:
            return "no price history is loaded"
        missing = next((name for name in underlyings if name not in self.history.place), None)
        return "" if missing is None else str(NoHistory(missing))

    def historical(self, underlyings: tuple[str, ...]) -> gk.Scenarios | None:
        """The historical part alone; None where there is none."""
        if self.history is None or self.why_none(underlyings):
            return None
        if len(underlyings) != 1:
            return self._make(self.history, underlyings)
        (name,) = underlyings
        if name not in self._single:
            self._single[name] = self._make(self.history, underlyings)
        return self._single[name]

    def _make(self, history: PriceHistory, underlyings: tuple[str, ...]) -> gk.Scenarios:
        return history.scenarios(underlyings, self.days)


def stress_scenarios(underlyings: int) -> gk.Scenarios:
    """The stresses, each on every one of so many underlyings."""
    spot = np.array([math.log1p(stress.spot) for stress in STRESSES])
    vol = np.array([stress.vol for stress in STRESSES])
    return gk.Scenarios(spot_return=np.tile(spot[:, None], (1, underlyings)), vol_change=vol[:, None])


@dataclass(frozen=True, slots=True)
class Measurement:
    """Metrics, and what they were made of."""

    metrics: RiskMetrics
    valuation: Valuation
    historical_pnl: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RiskCalculator:
    """Turns a book and the market into metrics with one engine."""

    engine: gk.Engine
    scenarios: ScenarioSource
    level: float
    degraded_reason: str = ""

    def measure(self, market: MarketState, book: Book, marks: VolMarks) -> RiskMetrics:
        """Values, Greeks, tail risk and stresses of everything in the book that can be valued."""
        return self.measurement(market, book, marks).metrics

    def measurement(self, market: MarketState, book: Book, marks: VolMarks) -> Measurement:
        """The metrics with the valuation and the scenario vector behind them."""
        valuation = value(self.engine, market, book, marks)
        metrics = RiskMetrics(
            portfolio=book.held.name,
            portfolio_version=book.held.version,
            positions=len(book.held),
            faults=[_fault_message(f) for f in valuation.faults],
            timing=TickTiming(
                source_time_ns=market.clocks.source_time_ns,
                normalized_time_ns=market.clocks.normalized_time_ns,
            ),
        )
        ages = market.ages_ns(book.underlying_slots)
        self._add_greeks(metrics, book, valuation, ages)
        historical_pnl = self._add_scenarios(metrics, book, valuation)
        self._add_provenance(metrics, market, oldest_ns(market, ages, valuation.oldest_quote_ns))
        metrics.limits.extend(limit_usage(book, metrics))
        return Measurement(metrics, valuation, historical_pnl)

    def _no_tail(self, why: str) -> TailRisk:
        return TailRisk(level=self.level, value_at_risk=math.nan, expected_shortfall=math.nan, warnings=[why])

    def _add_greeks(
        self, metrics: RiskMetrics, book: Book, valuation: Valuation, ages: NDArray[np.int64]
    ) -> None:
        portfolio = valuation.portfolio
        result = self.engine.greeks(valuation.options)
        size = portfolio.quantity * portfolio.multiplier
        worth, exposure = size * result.price, valuation.linear_exposure
        metrics.value = float(worth.sum() + valuation.linear_value.sum())
        metrics.gross_value = float(np.abs(worth).sum() + np.abs(exposure).sum())
        count = len(book.held.underlyings)
        greeks = GreeksByUnderlying(underlying=book.held.underlyings)
        packing.write(greeks, "spot", valuation.spots)
        of_linear = {"delta": portfolio.carry, **portfolio.linear.greeks()._asdict()}
        for name in GREEKS:
            by_underlying = _sums(portfolio.underlying, size * getattr(result, name), count)
            if name in of_linear:
                linear = portfolio.linear
                by_underlying += _sums(linear.underlying, linear.size * of_linear[name], count)
            packing.write(greeks, name, by_underlying)
        packing.write(greeks, "age_ns", ages)
        metrics.greeks.CopyFrom(greeks)
        delta = packing.read(greeks, "delta")
        metrics.hedge_symbol.extend(book.held.underlyings)
        packing.write(metrics, "hedge_quantity", -delta)

    def _add_scenarios(self, metrics: RiskMetrics, book: Book, valuation: Valuation) -> NDArray[np.float64]:
        scenarios, historical, why_none = self.scenarios.of(book.held.underlyings)
        pnl = self.engine.revalue(valuation.portfolio, scenarios)
        metrics.scenarios = len(scenarios)
        metrics.stress_name.extend(stress.name for stress in STRESSES)
        packing.write(metrics, "stress_pnl", pnl[historical:])
        if historical:
            metrics.historical.append(tail_message(gk.tail_risk(pnl[:historical], self.level)))
        else:
            metrics.historical.append(self._no_tail(why_none))
        return np.asarray(pnl[:historical])

    def _add_provenance(self, metrics: RiskMetrics, market: MarketState, age_ns: int) -> None:
        provenance = metrics.provenance
        provenance.engine, provenance.device = self.engine.name, self.engine.device
        provenance.method = "full revaluation, historical, exact_tail"
        provenance.market_snapshot_id = market.snapshot_id()
        provenance.data_age_ns = age_ns
        provenance.degraded = bool(self.degraded_reason)
        provenance.degraded_reason = self.degraded_reason


def oldest_ns(market: MarketState, ages: NDArray[np.int64], oldest_quote_ns: int | None) -> int:
    """Age of the oldest input: of the underlyings' prices, and of the quotes that the vols come from."""
    oldest = int(ages.max(initial=0))
    if oldest_quote_ns is None:
        return oldest
    return max(oldest, market.clocks.source_time_ns - oldest_quote_ns)


def _sums(place: NDArray[np.int64], values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    # Of no rows at all NumPy makes integers.
    return np.bincount(place, values, count).astype(np.float64)


def _fault_message(fault: Fault) -> RowFault:
    return RowFault(row=fault.row, symbol=fault.symbol, status=RowStatus.ValueType(fault.status))


def tail_message(tail: gk.TailRisk) -> TailRisk:
    """A tail risk as it goes over the wire."""
    return TailRisk(
        level=tail.level,
        value_at_risk=tail.var,
        expected_shortfall=tail.es,
        expected_shortfall_std_error=tail.es_std_error,
        warnings=tail.warnings,
    )


def limit_usage(book: Book, metrics: RiskMetrics) -> Iterable[LimitUsage]:
    """How much of each limit is used; a limit of the portfolio's own replaces the default of its kind."""
    limits = book.held.limits
    tail, worst = metrics.historical[0], -min(metrics.stress_pnl, default=0.0)
    if any(fault.status == ROW_STATUS_NOT_VALUED_LIVE for fault in metrics.faults):
        # What live numbers leave out of themselves may be all the risk there is: no limit is kept by it.
        tail, worst = TailRisk(value_at_risk=math.nan, expected_shortfall=math.nan), math.nan
    var_limit = (limits.var_fraction or DEFAULT_VAR_FRACTION) * metrics.gross_value
    stress_limit = limits.stress_loss or (
        (limits.stress_fraction or DEFAULT_STRESS_FRACTION) * metrics.gross_value
    )
    yield _usage("value at risk", tail.value_at_risk, var_limit)
    yield _usage("worst stress", worst, stress_limit)
    if limits.expected_shortfall:
        yield _usage("expected shortfall", tail.expected_shortfall, limits.expected_shortfall)


def _usage(name: str, used: float, limit: float) -> LimitUsage:
    return LimitUsage(name=name, used=used, limit=limit, breached=used > limit)
