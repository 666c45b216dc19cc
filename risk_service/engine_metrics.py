"""What Prometheus is told of the engine's process, and of the work that is let in."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge

from risk_service.admission import Admission
from risk_service.api.gathering import Gathering
from risk_service.engines import Engines


def export(registry: CollectorRegistry, engines: Engines, admission: Admission, gathering: Gathering) -> None:
    """Exports from now on; each value is asked for at the scrape."""
    ready = Gauge("gpu_risk_engine_ready", "1 while the serving engine answers itself.", registry=registry)
    ready.set_function(lambda: float(engines.ready))
    starts = Gauge(
        "gpu_risk_engine_starts",
        "Starts of the serving engine's process; more than 1: it has died.",
        registry=registry,
    )
    starts.set_function(lambda: float(engines.starts))
    backlog = Gauge("gpu_risk_backlog_seconds", "Time that the work now in will take.", registry=registry)
    backlog.set_function(lambda: admission.backlog_s)
    rate = Gauge("gpu_risk_revaluations_per_second", "Measured on the work that was done.", registry=registry)
    rate.set_function(lambda: admission.rate)
    refused = Gauge("gpu_risk_refused_for_cost", "Requests refused for their cost.", registry=registry)
    refused.set_function(lambda: float(admission.refused))
    gathered = Gauge(
        "gpu_risk_gathered_requests",
        "Small requests sent to the engine's process, several in one call.",
        registry=registry,
    )
    gathered.set_function(lambda: float(gathering.gathered))
    batches = Gauge("gpu_risk_gathered_batches", "Calls that these went in.", registry=registry)
    batches.set_function(lambda: float(gathering.batches))
