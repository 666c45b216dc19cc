"""Alerts: raised once when something goes wrong, taken back once when it is over."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from protos.risk.v1.risk_pb2 import (
    ALERT_KIND_DEGRADED_ENGINE,
    ALERT_KIND_LIMIT_BREACHED,
    ALERT_KIND_POSITIONS_LEFT_OUT,
    ALERT_KIND_STALE_DATA,
    AlertKind,
    LimitUsage,
    RiskAlert,
    RiskMetrics,
)

DEFAULT_HYSTERESIS = 0.05  # a breach is over once usage is this fraction of the limit below it
# A limit whose usage is no number is not kept: what stands stays, and this is raised besides.
UNMEASURED = "not measured: "
# The limit that alerts of the breaker name, which keeps its own account of them.
BREAKER_LIMIT = "breaker_loss"


class What(NamedTuple):
    """What is wrong: a limit or an underlying by its name, or the whole portfolio."""

    kind: AlertKind.ValueType
    name: str = ""


BREAKER_BLIND = What(ALERT_KIND_LIMIT_BREACHED, UNMEASURED + BREAKER_LIMIT)
# Vols that no quote has moved for long, while the underlyings tick: a feed of options that has died.
OLD_QUOTES = What(ALERT_KIND_STALE_DATA, "option quotes")
_DEGRADED, _LEFT_OUT = What(ALERT_KIND_DEGRADED_ENGINE), What(ALERT_KIND_POSITIONS_LEFT_OUT)
_NOTHING: frozenset[What] = frozenset()


@dataclass(slots=True)
class AlertBook:
    """Which alerts stand, per portfolio: a function of what was logged before and of the metrics shown."""

    stale_after_ns: int
    quotes_stale_after_ns: int = 300_000_000_000
    _standing: dict[str, frozenset[What]] = field(default_factory=dict)

    def update(self, metrics: RiskMetrics, hysteresis: float = 0.0) -> list[RiskAlert]:
        """The alerts that these metrics raise or end; what the portfolio no longer has ends too."""
        name = metrics.portfolio
        standing = self._standing.get(name, _NOTHING)
        wrong = self._wrong(metrics, standing, hysteresis or DEFAULT_HYSTERESIS)
        if wrong == standing:
            return []
        self._standing[name] = wrong
        return [_alert(metrics, what, what in wrong) for what in sorted(wrong ^ standing)]

    def standing(self, kind: AlertKind.ValueType) -> int:
        """How many alerts of a kind stand, over all portfolios; any thread may ask."""
        return sum(what.kind == kind for wrong in tuple(self._standing.values()) for what in wrong)

    def clear(self) -> None:
        """Forgets what stands, to be told again by `restore`."""
        self._standing.clear()

    def restore(self, logged: Iterable[RiskAlert]) -> None:
        """Takes in what an earlier life has raised and ended, oldest first."""
        for alert in logged:
            what = _what(alert)
            if what is not None:
                standing = self._standing.get(alert.portfolio, _NOTHING)
                self._standing[alert.portfolio] = standing | {what} if alert.raised else standing - {what}

    def forget(self, portfolio: str, snapshot_id: str = "", time_ns: int = 0) -> list[RiskAlert]:
        """Ends what stands for a portfolio that is no more."""
        return [
            RiskAlert(
                portfolio=portfolio,
                kind=what.kind,
                subject=what.name,
                limit=what.name.removeprefix(UNMEASURED) if what.kind == ALERT_KIND_LIMIT_BREACHED else "",
                text="the portfolio is no more",
                market_snapshot_id=snapshot_id,
                time_ns=time_ns,
            )
            for what in sorted(self._standing.pop(portfolio, _NOTHING))
        ]

    def unknown(self, portfolios: Collection[str]) -> list[str]:
        """Those for which alerts stand and that are not among the given ones."""
        return sorted(name for name, what in self._standing.items() if what and name not in portfolios)

    def _wrong(self, metrics: RiskMetrics, standing: frozenset[What], hysteresis: float) -> frozenset[What]:
        wrong = set()
        for usage in metrics.limits:
            what, over = What(ALERT_KIND_LIMIT_BREACHED, usage.name), usage.breached
            if what in standing:
                # What is no number ends nothing.
                over = not usage.used <= usage.limit * (1.0 - hysteresis)
            if over:
                wrong.add(what)
            if math.isnan(usage.used) or math.isnan(usage.limit):
                wrong.add(What(ALERT_KIND_LIMIT_BREACHED, UNMEASURED + usage.name))
        ages = metrics.greeks.age_ns
        if ages and max(ages) > self.stale_after_ns:
            wrong.update(
                What(ALERT_KIND_STALE_DATA, underlying)
                for underlying, age_ns in zip(metrics.greeks.underlying, ages, strict=True)
                if age_ns > self.stale_after_ns
            )
        if metrics.provenance.data_age_ns > max(self.quotes_stale_after_ns, *ages, 0):
            wrong.add(OLD_QUOTES)
        if metrics.provenance.degraded:
            wrong.add(_DEGRADED)
        if metrics.faults:
            wrong.add(_LEFT_OUT)
        if not metrics.limits:
            # Nothing of the book was measured: that its limits are kept, or its data fresh, nobody has seen.
            wrong.update(standing - {_DEGRADED, _LEFT_OUT})
        return frozenset(wrong)


def _alert(metrics: RiskMetrics, what: What, raised: bool) -> RiskAlert:
    alert = RiskAlert(
        portfolio=metrics.portfolio,
        kind=what.kind,
        subject=what.name,
        raised=raised,
        text=_text(metrics, what, raised),
        market_snapshot_id=metrics.provenance.market_snapshot_id,
        time_ns=metrics.timing.source_time_ns,
    )
    if what == BREAKER_BLIND:
        alert.limit = BREAKER_LIMIT
    usage = _usage(metrics, what)
    if usage is not None:
        alert.limit, alert.used, alert.limit_value = usage.name, usage.used, usage.limit
    return alert


def _what(alert: RiskAlert) -> What | None:
    """What a logged alert is about; None for one that is none of ours, or says it in an older form."""
    if alert.kind == ALERT_KIND_LIMIT_BREACHED:
        name = alert.subject or alert.limit
        breakers = alert.limit == BREAKER_LIMIT and name != BREAKER_BLIND.name
        return What(alert.kind, name) if name and not breakers else None
    if alert.kind == ALERT_KIND_STALE_DATA:
        return What(alert.kind, alert.subject) if alert.subject else None
    return (
        What(alert.kind)
        if alert.kind in (ALERT_KIND_DEGRADED_ENGINE, ALERT_KIND_POSITIONS_LEFT_OUT)
        else None
    )


def unpriced_fills(metrics: RiskMetrics) -> list[str]:
    """Symbols of positions made of fills whose P&L is not known."""
    filled = metrics.filled
    return [
        symbol
        for symbol, realised, unrealised in zip(
            filled.symbol, filled.realised, filled.unrealised, strict=False
        )
        if math.isnan(realised) or math.isnan(unrealised)
    ]


def _usage(metrics: RiskMetrics, what: What) -> LimitUsage | None:
    name = what.name.removeprefix(UNMEASURED)
    return next((usage for usage in metrics.limits if usage.name == name), None)


def _text(metrics: RiskMetrics, what: What, raised: bool) -> str:
    if what == BREAKER_BLIND:
        if not raised:
            return "all fills are in the breaker's loss"
        symbols = unpriced_fills(metrics)
        return f"{len(symbols)} fills without a price are not in the breaker's loss, the first {symbols[0]}"
    if what.kind == ALERT_KIND_LIMIT_BREACHED:
        usage = _usage(metrics, what)
        if usage is None:
            return f"{what.name.removeprefix(UNMEASURED)} is no limit of the portfolio any more"
        if what.name.startswith(UNMEASURED) and (math.isnan(usage.used) or math.isnan(usage.limit)):
            return f"{usage.name} cannot be measured, its limit is {usage.limit:,.0f}"
        return f"{usage.name} {usage.used:,.0f} of {usage.limit:,.0f}"
    if what == OLD_QUOTES:
        if not raised:
            return "the option quotes that vols come from are fresh again"
        return f"vols come from option quotes up to {metrics.provenance.data_age_ns / 1e9:.0f} s old"
    if what.kind == ALERT_KIND_STALE_DATA:
        if what.name not in metrics.greeks.underlying:
            return f"{what.name} is not in the portfolio any more"
        if not raised:
            return f"{what.name} has a good price again"
        age_ns = metrics.greeks.age_ns[list(metrics.greeks.underlying).index(what.name)]
        if age_ns >= metrics.timing.source_time_ns > 0:
            return f"{what.name} has had no good price yet"
        return f"{what.name} has had no good price for {age_ns / 1e9:.1f} s"
    if what == _DEGRADED:
        if not raised:
            return "answers are no longer degraded"
        return (
            f"answers, from {metrics.provenance.engine}, are degraded: {metrics.provenance.degraded_reason}"
        )
    if not metrics.faults:
        return f"all {metrics.positions} positions are in the numbers"
    first = metrics.faults[0].symbol
    return f"{len(metrics.faults)} of {metrics.positions} positions are not in the numbers, the first {first}"
