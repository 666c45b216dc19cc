"""What book_service tells Prometheus about itself."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter


@dataclass(frozen=True, slots=True)
class BookMetrics:
    """Counters of the two loops."""

    events: Counter
    dropped: Counter
    orders: Counter
    reports: Counter

    @classmethod
    def on(cls, registry: CollectorRegistry) -> BookMetrics:
        """Makes them on a registry."""
        return cls(
            events=Counter("gpu_risk_raw_events_total", "Raw market events read.", registry=registry),
            dropped=Counter(
                "gpu_risk_raw_events_dropped_total",
                "Raw events not passed on.",
                ["reason"],
                registry=registry,
            ),
            orders=Counter("gpu_risk_orders_total", "Order messages matched.", registry=registry),
            reports=Counter("gpu_risk_reports_total", "Reports published.", registry=registry),
        )
