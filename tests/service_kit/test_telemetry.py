"""Logs, metrics and traces: what they show, what they hide, what they cost when off."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
import structlog
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import Counter

from protos.risk.v1 import risk_pb2
from service_kit.errors import PortTaken
from service_kit.grpc_server import GrpcSettings, current_call
from service_kit.telemetry.logs import LogSettings, logger, start_logs
from service_kit.telemetry.metrics import MetricsExporter, MetricsSettings, process_registry
from service_kit.telemetry.traces import (
    NO_SPAN,
    Headers,
    RecordedTraces,
    Traces,
    TraceSettings,
    extract,
    inject,
)
from tests.service_kit.echo_service import SERVICE, EchoRisk, make_server
from tests.service_kit.rpc_faults import call


@pytest.fixture
def _logs_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("_logs_restored")
def test_json_logs_hide_secrets_and_obey_the_level() -> None:
    out = io.StringIO()
    start_logs(LogSettings(level="info", form="json"), "risk_service", out)
    log = logger("grpc")
    log.debug("not shown")
    log.info("started", port=50051, bearer_token="abc.def", sasl_password="hunter2")
    logging.getLogger("a.library").warning("from %s", "elsewhere")
    try:
        raise ValueError("boom")
    except ValueError as error:
        log.error("failed", exc_info=error)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [one["event"] for one in lines] == ["started", "from elsewhere", "failed"]
    assert lines[0]["port"] == 50051
    assert lines[0]["service"] == lines[1]["service"] == "risk_service"
    assert lines[0]["bearer_token"] == lines[0]["sasl_password"] == "***"
    assert "ValueError: boom" in lines[2]["exception"]
    assert "hunter2" not in out.getvalue()
    assert "abc.def" not in out.getvalue()


@pytest.mark.usefixtures("_logs_restored")
def test_lines_of_threads_name_the_service_too() -> None:
    out = io.StringIO()
    start_logs(LogSettings(form="json"), "book_service", out)
    thread = threading.Thread(target=lambda: logger("venue").info("partition taken"))
    thread.start()
    thread.join()
    assert json.loads(out.getvalue())["service"] == "book_service"


@pytest.mark.usefixtures("_logs_restored")
def test_console_logs() -> None:
    out = io.StringIO()
    start_logs(LogSettings(form="console", level="warning"), "svc", out)
    logger("x").info("quiet")
    logger("x").warning("loud", secret="s")
    assert "loud" in out.getvalue()
    assert "secret=***" in out.getvalue()
    assert "quiet" not in out.getvalue()


@pytest.mark.usefixtures("_logs_restored")
def test_a_caller_that_left_is_no_error_of_the_service() -> None:
    out = io.StringIO()
    start_logs(LogSettings(form="json"), "svc", out)
    library = logging.getLogger("grpc._cython.cygrpc")
    library.error("ExecuteBatchError raised in core by servicer method [%s]", "/x/Y")
    library.error("Unexpected [%s] raised by servicer method [%s]", "ValueError", "/x/Y")
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == [
        "Unexpected [ValueError] raised by servicer method [/x/Y]"
    ]


def test_the_exporter_serves_the_registry_and_gives_the_port_back() -> None:
    registry = process_registry()
    Counter("gpu_risk_test", "A test.", registry=registry).inc(3)
    with MetricsExporter(MetricsSettings(enabled=True, port=0), registry) as exporter:
        url = f"http://127.0.0.1:{exporter.port}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            page = answer.read().decode()
        assert "gpu_risk_test_total 3.0" in page
        assert exporter.port is not None
        taken = MetricsSettings(enabled=True, port=exporter.port)
        with pytest.raises(PortTaken, match=f"metrics: cannot listen on 127.0.0.1:{exporter.port}"):
            MetricsExporter(taken, registry)
    MetricsExporter(taken, registry).close()
    with MetricsExporter(MetricsSettings(), registry) as off:
        assert off.port is None


class Traced(EchoRisk):
    """Notes the headers that a handler would put on a Kafka record."""

    def __init__(self) -> None:
        super().__init__()
        self.headers: Headers = []

    async def Price(self, request: Any, context: Any) -> Any:
        current_call().span.inject(self.headers)
        return risk_pb2.PriceResponse()


def recorded() -> tuple[RecordedTraces, InMemorySpanExporter]:
    spans = InMemorySpanExporter()
    return RecordedTraces(SimpleSpanProcessor(spans), "test"), spans


async def test_one_trace_goes_through_grpc_and_kafka() -> None:
    traces, spans = recorded()
    servicer = Traced()
    server = make_server(GrpcSettings(port=0), servicer, traces=traces)
    async with server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        headers: Headers = [("other", b"x")]
        with traces.span("client") as span:
            span.set("rows", 3)
            inject(headers)
        await call(
            channel,
            SERVICE.methods_by_name["Price"],
            metadata=[(name, value.decode()) for name, value in headers[1:]],
        )
    with traces.span("consumer", servicer.headers):
        pass
    consumer, rpc, client = (
        next(one for one in spans.get_finished_spans() if one.name.endswith(name))
        for name in ("consumer", "/Price", "client")
    )
    assert consumer.context.trace_id == rpc.context.trace_id == client.context.trace_id
    assert consumer.parent is not None
    assert consumer.parent.span_id == rpc.context.span_id
    assert rpc.parent is not None
    assert rpc.parent.span_id == client.context.span_id
    assert client.attributes is not None
    assert client.attributes["rows"] == 3
    traces.close()


@pytest.mark.parametrize(
    "bad", [b"", b"junk", b"00-0-0-01", b"\xff\xfe", b"00-" + b"0" * 32 + b"-" + b"0" * 16]
)
def test_a_malformed_context_starts_a_new_trace(bad: bytes) -> None:
    traces, spans = recorded()
    with traces.span("work", [("traceparent", bad)]):
        pass
    assert spans.get_finished_spans()[0].parent is None


def test_off_makes_nothing_and_does_not_import_opentelemetry() -> None:
    traces = Traces.start(TraceSettings(), "svc")
    headers: Headers = []
    with traces.span("work") as span:
        span.inject(headers)
        span.set("a", 1)
    assert span is NO_SPAN
    assert headers == []
    assert extract([("other", b"x")]) is None
    code = (
        "import sys, service_kit.grpc_server, service_kit.lifecycle\n"
        "from service_kit.telemetry.traces import Traces, TraceSettings\n"
        "Traces.start(TraceSettings(), 'x')\n"
        "sys.exit(any(name.startswith('opentelemetry.sdk') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """A real OTLP endpoint that keeps the names of what it is sent."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.names += [span.name for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


def test_spans_reach_an_otlp_endpoint() -> None:
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    traces = Traces.start(TraceSettings(otlp_endpoint=f"http://127.0.0.1:{port}"), "svc")
    with traces.span("sent"):
        pass
    traces.close()
    server.stop(None).wait()
    assert collector.names == ["sent"]
