"""What risk_service tells Prometheus about itself.

No label takes a portfolio's name: whoever may put portfolios could make as many series as there are names.
"""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from protos.risk.v1.risk_pb2 import AlertKind, RiskAlert

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_UNKNOWN = "unspecified"
# As the labels name them: "limit_breached", "stale_data", ...
ALERT_KINDS = {
    number: name.removeprefix("ALERT_KIND_").lower() for name, number in AlertKind.items() if number
}


@dataclass(frozen=True, slots=True)
class ServiceMetrics:
    """The live loop's counters."""

    ticks: Counter
    from_the_future: Counter
    published: Counter
    alerts: Counter
    last_tick: Gauge
    last_risk: Gauge
    measure_seconds: Histogram
    tick_to_risk_seconds: Histogram

    @classmethod
    def on(cls, registry: CollectorRegistry) -> ServiceMetrics:
        """Makes them on a registry."""
        made = cls(
            ticks=Counter("gpu_risk_ticks_total", "Clean market events taken in.", registry=registry),
            from_the_future=Counter(
                "gpu_risk_records_from_the_future_total",
                "Market records passed over, since their time is after that of the log.",
                registry=registry,
            ),
            published=Counter(
                "gpu_risk_metrics_published_total", "Risk metrics sent out.", registry=registry
            ),
            alerts=Counter(
                "gpu_risk_alerts_total",
                "Alerts raised or ended, by what they are about.",
                ["kind", "change"],
                registry=registry,
            ),
            last_tick=Gauge(
                "gpu_risk_last_tick_time_seconds",
                "When a clean market event came last, since 1970; 0: none yet.",
                registry=registry,
            ),
            last_risk=Gauge(
                "gpu_risk_last_risk_time_seconds",
                "When risk was sent out last, since 1970; 0: not yet.",
                registry=registry,
            ),
            measure_seconds=Histogram(
                "gpu_risk_measure_seconds",
                "Time to measure the portfolios that a round of ticks has touched.",
                registry=registry,
                buckets=_SECONDS,
            ),
            tick_to_risk_seconds=Histogram(
                "gpu_risk_tick_to_risk_seconds",
                "From a tick's source time to its risk number.",
                registry=registry,
                buckets=_SECONDS,
            ),
        )
        for kind in ALERT_KINDS.values():
            for change in ("raised", "ended"):
                made.alerts.labels(kind, change)
        return made

    def took(self, events: int) -> None:
        """Count clean market events taken in."""
        if events:
            self.ticks.inc(events)
            self.last_tick.set_to_current_time()

    def told(self) -> None:
        """Count risk metrics sent out."""
        self.published.inc()
        self.last_risk.set_to_current_time()

    def count_alert(self, alert: RiskAlert) -> None:
        """Count an alert raised or ended."""
        kind = ALERT_KINDS.get(alert.kind, _UNKNOWN)
        self.alerts.labels(kind, "raised" if alert.raised else "ended").inc()
