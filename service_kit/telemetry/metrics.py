"""Metrics: one Prometheus registry per process, served over HTTP on a port of its own."""

from __future__ import annotations

import gc
import threading
from dataclasses import dataclass
from typing import Self
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)

from service_kit.errors import PortTaken
from service_kit.settings import limited

# From a small call over loopback (0.2 ms) to a large batch (30 s).
LATENCY_BUCKETS_S = (
    0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
)  # fmt: skip


# A counter that is not there yet has no increase when it comes: an alert misses the first fault of a kind.
# So what alerts go by is there from the beginning.
ALERTED_CODES = ("INTERNAL", "UNKNOWN", "RESOURCE_EXHAUSTED")
# Ends of a call that are no refusal: answered, left by its caller, or a fault of ours.
NOT_REFUSED = frozenset({"OK", "CANCELLED", "INTERNAL", "UNKNOWN", "DATA_LOSS"})
# Callers that are named in the metrics; more would make Prometheus keep a series for each.
PRINCIPALS_NAMED = 50
OTHERS = "(others)"


@dataclass(frozen=True)
class MetricsSettings:
    """Where the metrics are served (`GPU_RISK_METRICS_…`)."""

    enabled: bool = False
    host: str = "127.0.0.1"
    port: int = limited(9464, at_least=0, at_most=65535)  # 0 = a free one


def process_registry() -> CollectorRegistry:
    """A new registry with the figures of this process: CPU, memory, file descriptors, garbage collection."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    # Only where the collector runs at all: matching loops may switch it off.
    if gc.isenabled():
        GCCollector(registry=registry)
    return registry


class MetricsExporter:
    """The HTTP page that Prometheus reads; close it, or use `with`."""

    def __init__(self, settings: MetricsSettings, registry: CollectorRegistry) -> None:
        self._server: WSGIServer | None = None
        self._thread: threading.Thread | None = None
        if settings.enabled:
            try:
                self._server, self._thread = start_http_server(settings.port, settings.host, registry)
            except OSError as error:
                why = error.strerror or str(error)
                raise PortTaken("metrics", settings.host, settings.port, why) from error

    @property
    def port(self) -> int | None:
        """The port it listens on; None when it is off."""
        return None if self._server is None else int(self._server.server_port)

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
        self._server = self._thread = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class GrpcMetrics:
    """Calls by method and code, their latency, how many are open."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("method", "code")
        self._calls = Counter("gpu_risk_grpc_calls", "Calls that ended.", labels, registry=registry)
        self._seconds = Histogram(
            "gpu_risk_grpc_seconds",
            "Time from a call's admission to its end, in seconds.",
            ("method",),
            registry=registry,
            buckets=LATENCY_BUCKETS_S,
        )
        self._refused = Counter(
            "gpu_risk_grpc_refused",
            "Calls refused, by caller and reason.",
            ("principal", "code"),
            registry=registry,
        )
        self._principals: set[str] = set()
        self.open = Gauge("gpu_risk_grpc_open_calls", "Calls open now.", registry=registry)
        self.certificate_expiry = Gauge(
            "gpu_risk_grpc_certificate_expiry_time_seconds",
            "When the server's certificate expires, since 1970; 0: it talks in plain text.",
            registry=registry,
        )
        self._counters: dict[tuple[str, str], Counter] = {}
        self._timers: dict[str, Histogram] = {}

    def serve(self, method: str) -> None:
        """Show from now on that no call of this method has failed yet."""
        for code in ALERTED_CODES:
            self._calls.labels(method, code)

    def refused(self, principal: str, code: str) -> None:
        """Count a call that ended badly, if by that it was refused; only the first principals have a name."""
        if code in NOT_REFUSED:
            return
        if principal not in self._principals:
            if len(self._principals) >= PRINCIPALS_NAMED:
                principal = OTHERS
            else:
                self._principals.add(principal)
        self._refused.labels(principal, code).inc()

    def ended(self, method: str, code: str, seconds: float) -> None:
        """Count one call that ended; `method` is one that the server serves, so the label set is bounded."""
        counter = self._counters.get((method, code))
        if counter is None:
            counter = self._counters[method, code] = self._calls.labels(method, code)
        timer = self._timers.get(method)
        if timer is None:
            timer = self._timers[method] = self._seconds.labels(method)
        counter.inc()
        timer.observe(seconds)
