"""What Prometheus is told of the engine's process, and of the work that is let in."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from risk_service.admission import Admission
from risk_service.api.gathering import Gathering
from risk_service.engines import Engines


class _Count(Collector):
    """A counter that somebody else keeps, asked for at the scrape; its name there ends in _total."""

    def __init__(self, name: str, text: str, value: Callable[[], int]) -> None:
        self._name, self._text, self._value = name, text, value

    def describe(self) -> Iterable[Metric]:
        """Its name, without asking for the value."""
        yield CounterMetricFamily(self._name, self._text)

    def collect(self) -> Iterable[Metric]:
        """The value now."""
        yield CounterMetricFamily(self._name, self._text, value=float(self._value()))


def export(registry: CollectorRegistry, engines: Engines, admission: Admission, gathering: Gathering) -> None:
    """Exports from now on; each value is asked for at the scrape."""
    ready = Gauge("gpu_risk_engine_ready", "1 while the serving engine answers itself.", registry=registry)
    ready.set_function(lambda: float(engines.ready))
    backlog = Gauge("gpu_risk_backlog_seconds", "Time that the work now in will take.", registry=registry)
    backlog.set_function(lambda: admission.backlog_s)
    rate = Gauge("gpu_risk_revaluations_per_second", "Measured on the work that was done.", registry=registry)
    rate.set_function(lambda: admission.rate)
    starts = "Starts of the serving engine's process; more than 1: it has died."
    registry.register(_Count("gpu_risk_engine_starts", starts, lambda: engines.starts))
    refused = "Requests refused for their cost."
    registry.register(_Count("gpu_risk_refused_for_cost", refused, lambda: admission.refused))
    gathered = Gauge(
        "gpu_risk_gathered_requests",
        "Small requests sent to the engine's process, several in one call.",
        registry=registry,
    )
    gathered.set_function(lambda: float(gathering.gathered))
    batches = Gauge("gpu_risk_gathered_batches", "Calls that these went in.", registry=registry)
    batches.set_function(lambda: float(gathering.batches))
