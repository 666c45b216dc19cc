"""What risk_service tells Prometheus about itself."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


@dataclass(frozen=True, slots=True)
class ServiceMetrics:
    """The live loop's counters."""

    ticks: Counter
    from_the_future: Counter
    published: Counter
    alerts: Counter
    measure_seconds: Histogram
    tick_to_risk_seconds: Histogram

    @classmethod
    def on(cls, registry: CollectorRegistry) -> ServiceMetrics:
        """Makes them on a registry."""
        return cls(
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
                "gpu_risk_alerts_total", "Alerts raised or ended.", ["portfolio"], registry=registry
            ),
            measure_seconds=Histogram(
                "gpu_risk_measure_seconds",
                "Time to measure one portfolio.",
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
