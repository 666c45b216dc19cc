"""The lines that calls leave in the log, and who is named as refused in the metrics."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import structlog
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from protos.risk.v1 import risk_pb2
from service_kit.grpc_server import GrpcSettings
from service_kit.grpc_server.call_log import LINES_AT_ONCE, LINES_PER_S, CallLog, request_id
from service_kit.telemetry.logs import LogSettings, logger, start_logs
from service_kit.telemetry.metrics import OTHERS, PRINCIPALS_NAMED, GrpcMetrics
from service_kit.telemetry.traces import RecordedTraces, Traces
from tests.service_kit.echo_service import NAME, SERVICE, EchoRisk, make_server
from tests.service_kit.rpc_faults import call

PRICE, WATCH = SERVICE.methods_by_name["Price"], SERVICE.methods_by_name["WatchRisk"]
METHOD = f"/{NAME}/Price"


class Talking(EchoRisk):
    """Logs a line of its own within the call."""

    async def Price(self, request: Any, context: Any) -> Any:
        logger("pricing").info("priced", rows=3)
        return await super().Price(request, context)


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    yield io.StringIO()
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


async def lines(
    out: io.StringIO, orders: list[str], level: Any = "info", **more: Any
) -> list[dict[str, Any]]:
    """What is logged over calls with these orders, the server's own start left out."""
    start_logs(LogSettings(level=level, form="json"), "svc", out)
    settings = GrpcSettings(port=0, **more.pop("settings", {}))
    server = make_server(settings, Talking(), **more)
    async with server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        for order in orders:
            metadata = (("x-request-id", f"desk-7:{order}"),)
            await call(channel, PRICE, request=risk_pb2.PriceRequest(engine=order), metadata=metadata)
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    return [one for one in told if one["event"] != "listening"]


async def test_a_refused_call_leaves_one_line_and_an_answered_one_none(out: io.StringIO) -> None:
    told = await lines(out, ["", "busy"])
    assert [one["event"] for one in told] == ["priced", "priced", "call ended"]
    ended = told[2]
    assert (ended["code"], ended["method"], ended["principal"]) == ("RESOURCE_EXHAUSTED", METHOD, "anonymous")
    assert (ended["request_id"], ended["service"], ended["level"]) == ("desk-7:busy", "svc", "info")
    assert float(ended["latency_ms"]) > 0


async def test_lines_of_the_handler_name_their_call(out: io.StringIO) -> None:
    [told] = await lines(out, ["x"])
    assert {key: told[key] for key in ("event", "rows", "request_id", "method", "principal")} == {
        "event": "priced",
        "rows": 3,
        "request_id": "desk-7:x",
        "method": METHOD,
        "principal": "anonymous",
    }


async def test_a_fault_of_ours_and_its_call_have_one_id(out: io.StringIO) -> None:
    priced, failed, ended = await lines(out, ["crash"])
    assert (failed["event"], ended["code"]) == ("call failed", "INTERNAL")
    assert priced["request_id"] == failed["request_id"] == ended["request_id"] == "desk-7:crash"
    assert failed["error_id"]


async def test_a_slow_call_leaves_a_line(out: io.StringIO) -> None:
    told = await lines(out, ["", ""], settings={"slow_call_s": 0.001})
    assert len(told) >= 2
    assert all(one["code"] == "OK" for one in told if one["event"] == "call ended")
    log = CallLog(slow_s=1.0)
    log._every = False
    assert [log.wants("OK", seconds, False) for seconds in (0.99, 1.0)] == [False, True]
    assert not log.wants("CANCELLED", 900.0, True)  # a watch whose reader has left
    assert log.wants("CANCELLED", 0.1, False)
    assert log.wants("RESOURCE_EXHAUSTED", 0.1, True)


async def test_at_debug_every_call_leaves_one(out: io.StringIO) -> None:
    told = [one for one in await lines(out, ["", ""], level="debug") if one["event"] == "call ended"]
    assert [(one["code"], one["level"]) for one in told] == [("OK", "debug")] * 2


async def test_the_trace_is_on_the_line(out: io.StringIO) -> None:
    spans = InMemorySpanExporter()
    traces: Traces = RecordedTraces(SimpleSpanProcessor(spans), "test")
    [told] = await lines(out, [""], traces=traces)
    [span] = spans.get_finished_spans()
    assert told["trace_id"] == f"{span.context.trace_id:032x}"
    traces.close()


async def test_a_stranger_is_refused_by_no_name(out: io.StringIO) -> None:
    secret = "s" * 40
    token = {"auth": "token", "token_issuer": "i", "token_audience": "a", "token_algorithms": ("HS256",)}
    from service_kit.settings import Secret

    registry = CollectorRegistry()
    told = await lines(out, [""], settings={**token, "token_secret": Secret(secret)}, registry=registry)
    assert [(one["event"], one["code"], one["principal"]) for one in told] == [
        ("call ended", "UNAUTHENTICATED", "anonymous")
    ]
    labels = {"principal": "anonymous", "code": "UNAUTHENTICATED"}
    assert registry.get_sample_value("gpu_risk_grpc_refused_total", labels) == 1


def test_a_flood_of_refusals_is_no_flood_of_lines() -> None:
    now = 0.0
    log = CallLog(1.0, lambda: now)
    with structlog.testing.capture_logs() as told:
        for _ in range(1000):
            log.ended(METHOD, "desk", "UNAVAILABLE", 0.001, "id", endless=False)
        assert len(told) == LINES_AT_ONCE
        now = 1.0
        for _ in range(1000):
            log.ended(METHOD, "desk", "UNAVAILABLE", 0.001, "id", endless=False)
    assert len(told) == LINES_AT_ONCE + LINES_PER_S
    assert told[int(LINES_AT_ONCE)]["lines_left_out"] == 1000 - LINES_AT_ONCE


@pytest.mark.parametrize("bad", ["", "x" * 65, "a b", "a\nb", "ü", '{"a"}', b"bytes"])
def test_an_id_that_is_not_fit_for_a_log_is_replaced(bad: Any) -> None:
    assert request_id([("x-request-id", "Order:7-a.b_c")]) == "Order:7-a.b_c"
    own = request_id([("other", "x"), ("x-request-id", bad)])
    assert own != bad
    assert len(own) == 12


def test_any_number_of_callers_makes_a_bounded_number_of_series() -> None:
    registry = CollectorRegistry()
    metrics = GrpcMetrics(registry)
    for number in range(500):
        metrics.refused(f"desk-{number}", "RESOURCE_EXHAUSTED")
    metrics.refused("desk-3", "CANCELLED")
    names = {
        sample.labels["principal"]
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "gpu_risk_grpc_refused_total"
    }
    assert len(names) == PRINCIPALS_NAMED + 1

    def count(principal: str) -> float | None:
        labels = {"principal": principal, "code": "RESOURCE_EXHAUSTED"}
        return registry.get_sample_value("gpu_risk_grpc_refused_total", labels)

    assert (count("desk-3"), count(OTHERS), count("desk-499")) == (1, 500 - PRINCIPALS_NAMED, None)


async def test_what_alerts_go_by_is_there_before_the_first_fault() -> None:
    registry = CollectorRegistry()
    async with make_server(GrpcSettings(port=0), registry=registry):
        for code in ("INTERNAL", "UNKNOWN", "RESOURCE_EXHAUSTED"):
            labels = {"method": METHOD, "code": code}
            assert registry.get_sample_value("gpu_risk_grpc_calls_total", labels) == 0
