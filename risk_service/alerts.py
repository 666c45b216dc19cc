"""Alerts: raised once when something goes wrong, taken back once when it is over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from protos.risk.v1.risk_pb2 import (
    ALERT_KIND_DEGRADED_ENGINE,
    ALERT_KIND_LIMIT_BREACHED,
    ALERT_KIND_POSITIONS_LEFT_OUT,
    ALERT_KIND_STALE_DATA,
    AlertKind,
    RiskAlert,
    RiskMetrics,
)

DEFAULT_HYSTERESIS = 0.05  # a breach is over once usage is this fraction of the limit below it


@dataclass(slots=True)
class AlertBook:
    """Which alerts stand, per portfolio. A function of the metrics it was shown, in order."""

    stale_after_ns: int
    _standing: set[tuple[str, int, str]] = field(default_factory=set)

    def update(self, metrics: RiskMetrics, hysteresis: float = 0.0) -> list[RiskAlert]:
        """The alerts that these metrics raise or end."""
        changes = [
            *self._limits(metrics, hysteresis or DEFAULT_HYSTERESIS),
            *self._stale(metrics),
            *self._degraded(metrics),
            *self._left_out(metrics),
        ]
        return [alert for alert in changes if alert is not None]

    def forget(self, portfolio: str) -> None:
        """Drops what stands for a portfolio that is no more."""
        self._standing = {key for key in self._standing if key[0] != portfolio}

    def _limits(self, metrics: RiskMetrics, hysteresis: float) -> Iterator[RiskAlert | None]:
        for usage in metrics.limits:
            key = (metrics.portfolio, ALERT_KIND_LIMIT_BREACHED, usage.name)
            over = usage.breached
            if key in self._standing:
                over = usage.used > usage.limit * (1.0 - hysteresis)
            text = f"{usage.name} {usage.used:,.0f} of {usage.limit:,.0f}"
            alert = self._change(metrics, ALERT_KIND_LIMIT_BREACHED, usage.name, over, text)
            if alert is not None:
                alert.limit, alert.used, alert.limit_value = usage.name, usage.used, usage.limit
            yield alert

    def _stale(self, metrics: RiskMetrics) -> Iterator[RiskAlert | None]:
        greeks = metrics.greeks
        for underlying, age_ns in zip(greeks.underlying, greeks.age_ns, strict=True):
            stale = age_ns > self.stale_after_ns
            if stale == ((metrics.portfolio, ALERT_KIND_STALE_DATA, underlying) in self._standing):
                continue
            text = f"{underlying} has had no good price for {age_ns / 1e9:.1f} s"
            yield self._change(metrics, ALERT_KIND_STALE_DATA, underlying, stale, text)

    def _degraded(self, metrics: RiskMetrics) -> Iterator[RiskAlert | None]:
        provenance = metrics.provenance
        text = f"answers come from {provenance.engine}: {provenance.degraded_reason}"
        yield self._change(metrics, ALERT_KIND_DEGRADED_ENGINE, "", provenance.degraded, text)

    def _left_out(self, metrics: RiskMetrics) -> Iterator[RiskAlert | None]:
        count = len(metrics.faults)
        text = f"all {metrics.positions} positions are in the numbers"
        if count:
            first = metrics.faults[0].symbol
            text = f"{count} of {metrics.positions} positions are not in the numbers, the first {first}"
        yield self._change(metrics, ALERT_KIND_POSITIONS_LEFT_OUT, "", bool(count), text)

    def _change(
        self, metrics: RiskMetrics, kind: AlertKind.ValueType, what: str, wrong: bool, text: str
    ) -> RiskAlert | None:
        key = (metrics.portfolio, kind, what)
        if wrong == (key in self._standing):
            return None
        if wrong:
            self._standing.add(key)
        else:
            self._standing.discard(key)
        return RiskAlert(
            portfolio=metrics.portfolio,
            kind=kind,
            raised=wrong,
            text=text,
            market_snapshot_id=metrics.provenance.market_snapshot_id,
            time_ns=metrics.timing.source_time_ns,
        )
