"""Traces: off unless an OTLP endpoint is set; W3C trace context through gRPC metadata and Kafka headers.

Off costs one attribute look-up per call, and OpenTelemetry is not even imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from service_kit.settings import limited

Headers = list[tuple[str, bytes]]
TRACE_KEYS = ("traceparent", "tracestate")


@dataclass(frozen=True)
class TraceSettings:
    """Where spans go (`GPU_RISK_TRACES_…`)."""

    otlp_endpoint: str | None = None  # e.g. http://collector:4317; nothing = traces off
    sample_ratio: float = limited(
        1.0, at_least=0, at_most=1
    )  # of the traces that start here; a caller's decision is followed


class Span(Protocol):
    """The part of a span that services use."""

    def set(self, name: str, value: str | int | float | bool) -> None:
        """Set an attribute."""

    def inject(self, headers: Headers) -> None:
        """Append the W3C trace context to headers, so that the reader's span becomes a child."""


class _NoSpan:
    def set(self, name: str, value: str | int | float | bool) -> None:
        return None

    def inject(self, headers: Headers) -> None:
        return None


NO_SPAN: Span = _NoSpan()


class Traces:
    """Makes spans; `Traces.off()` makes none."""

    enabled = False

    @staticmethod
    def off() -> Traces:
        """Traces that record nothing."""
        return Traces()

    @staticmethod
    def start(settings: TraceSettings, service: str) -> Traces:
        """Traces sent to the OTLP endpoint, or off where none is set."""
        if not settings.otlp_endpoint:
            return Traces()
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = OTLPSpanExporter(
            endpoint=settings.otlp_endpoint, insecure=settings.otlp_endpoint.startswith("http://")
        )
        return RecordedTraces(BatchSpanProcessor(exporter), service, settings.sample_ratio)

    @contextmanager
    def span(self, name: str, headers: Iterable[tuple[str, str | bytes]] = ()) -> Iterator[Span]:
        """A span around a piece of work, child of the context in `headers` or of the current span."""
        yield NO_SPAN

    def close(self) -> None:
        """Send what is left."""


class RecordedTraces(Traces):
    """Traces through an OpenTelemetry span processor of their own; no global provider is set."""

    enabled = True

    def __init__(self, processor: Any, service: str, sample_ratio: float = 1.0) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(sample_ratio)),
            resource=Resource.create({"service.name": service}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("gpu_risk")

    @contextmanager
    def span(self, name: str, headers: Iterable[tuple[str, str | bytes]] = ()) -> Iterator[Span]:
        """A span around a piece of work, child of the context in `headers` or of the current span."""
        with self._tracer.start_as_current_span(name, context=extract(headers)) as recorded:
            yield _RecordedSpan(recorded)

    def close(self) -> None:
        """Send what is left; gives up after a second."""
        self._provider.force_flush(1000)
        self._provider.shutdown()


class _RecordedSpan:
    def __init__(self, span: Any) -> None:
        self._span = span

    def set(self, name: str, value: str | int | float | bool) -> None:
        self._span.set_attribute(name, value)

    def inject(self, headers: Headers) -> None:
        from opentelemetry.trace import set_span_in_context

        _inject(headers, set_span_in_context(self._span))


def inject(headers: Headers) -> None:
    """Append the current W3C trace context to (name, bytes) headers; nothing where there is no span."""
    _inject(headers, None)


def _inject(headers: Headers, context: Any) -> None:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, context)
    headers.extend((name, value.encode()) for name, value in carrier.items())


def extract(headers: Iterable[tuple[str, str | bytes]]) -> Any:
    """The OpenTelemetry context in (name, value) headers; None where there is none."""
    carrier: dict[str, str] = {}
    for name, value in headers:
        if name in TRACE_KEYS:
            carrier[name] = value if isinstance(value, str) else value.decode("ascii", "replace")
    if "traceparent" not in carrier:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract(carrier)
