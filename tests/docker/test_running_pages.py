"""Every panel and rule finds its series, with the labels it asks for, on the pages of running services."""

from __future__ import annotations

import re
import socket
import time
import urllib.request
from typing import ClassVar

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from test_dashboards import EXPRESSIONS, OF_PROMETHEUS, SUFFIXES

from protos.risk.v1 import risk_pb2, risk_pb2_grpc
from risk_cli import local_system
from risk_cli.processes import Children

PATIENCE_S = 120.0
# What is there only with a GPU, and what comes with trouble that a good run does not have.
NEEDS_A_GPU = re.compile(r"gpu_risk_device_(?!driver|reading)")
NEEDS_TROUBLE = {
    "gpu_risk_kafka_client_errors_total",
    "gpu_risk_kafka_backpressure_seconds_total",
    "gpu_risk_kafka_queue_full_total",
    "gpu_risk_raw_events_dropped_total",
}
SELECTOR = re.compile(r"\b([a-z_][a-z0-9_]*)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
JOBS = {"book": "book_service", "serve": "risk_service"}


class Metered(Children):
    """Starts the services with their metrics on ports that are free."""

    ports: ClassVar[dict[str, int]] = {}

    def start(self, name, command, env):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        if command in JOBS:
            self.ports[JOBS[command]] = port
            env = {**env, "GPU_RISK_METRICS_ENABLED": "true", "GPU_RISK_METRICS_PORT": str(port)}
        return super().start(name, command, env)


def scrape():
    """Series by name: (labels, value), with the job that Prometheus adds."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for job, port in Metered.ports.items():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as page:
            text = page.read().decode()
        for family in text_string_to_metric_families(text):
            for one in family.samples:
                found.setdefault(one.name, []).append(({**one.labels, "job": job}, one.value))
    return found


def selectors(expression):
    """(name, matchers) of every series that an expression asks for."""
    for name, inside in SELECTOR.findall(expression):
        if name.startswith(("gpu_risk_", "process_")):
            yield name, MATCHER.findall(inside or "")


def holds(labels, matchers):
    """Whether a series has the labels that are asked for, by PromQL's rules."""
    for key, kind, wanted in matchers:
        value = labels.get(key, "")
        same = bool(re.fullmatch(wanted, value)) if "~" in kind else value == wanted
        if same != (not kind.startswith("!")):
            return False
    return True


@pytest.fixture(scope="module")
def pages():
    """The pages once ticks have become risk and a call was refused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_system, "Children", Metered)
        with local_system.LocalSystem(say=lambda line: None) as system:
            addresses = system.start()
            with grpc.insecure_channel(addresses.risk) as channel:
                stub = risk_pb2_grpc.RiskServiceStub(channel)
                for _ in range(2):
                    with pytest.raises(grpc.RpcError):
                        stub.Price(risk_pb2.PriceRequest(), timeout=PATIENCE_S)
            with grpc.insecure_channel(addresses.book) as channel, pytest.raises(grpc.RpcError):
                channel.unary_unary("/gpu_risk.book.v1.BookService/GetBook")(b"", timeout=PATIENCE_S)
            ends = time.monotonic() + PATIENCE_S
            while not full(found := scrape()):
                assert time.monotonic() < ends, "no risk was published"
                system.check()
                time.sleep(0.1)
            yield found


def full(found):
    """Whether every stage of a tick has been gone through."""
    wanted = (
        "gpu_risk_metrics_published_total",
        "gpu_risk_orders_total",
        "gpu_risk_tick_to_risk_seconds_count",
    )
    lags = {labels["topic"] for labels, _ in found.get("gpu_risk_kafka_consumer_lag_records", ())}
    return (
        {"market.data.raw", "market.data.normalized", "orders.incoming"} <= lags
        and all(sum(value for _, value in found.get(name, ())) > 0 for name in wanted)
        and found["gpu_risk_portfolios_unmeasured"][0][1] == 0
    )


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_it_finds_its_series(pages, where, expression):
    asked = list(selectors(expression))
    assert asked or any(name in expression for name in OF_PROMETHEUS)
    for name, matchers in asked:
        if NEEDS_A_GPU.match(name) or name in NEEDS_TROUBLE:
            continue
        assert name in pages, f"{where}: nobody exports {name}"
        assert any(holds(labels, matchers) for labels, _ in pages[name]), (
            f"{where}: no {name} with {matchers}"
        )


def test_the_numbers_of_a_good_run_are_good(pages):
    def of(name, **labels):
        return [value for have, value in pages[name] if labels.items() <= have.items()]

    assert of("gpu_risk_serving") == [1]
    assert of("gpu_risk_portfolios") == [local_system.PORTFOLIOS]
    assert of("gpu_risk_engine_ready") == [1]
    assert sum(of("gpu_risk_kafka_dead_letters_total") + of("gpu_risk_kafka_delivery_errors_total")) == 0
    assert (
        sum(
            of("gpu_risk_grpc_calls_total", code="INTERNAL") + of("gpu_risk_grpc_calls_total", code="UNKNOWN")
        )
        == 0
    )
    refused = of(
        "gpu_risk_grpc_refused_total", principal="anonymous", code="INVALID_ARGUMENT", job="risk_service"
    )
    assert refused == [2]
    for name in ("gpu_risk_last_tick_time_seconds", "gpu_risk_last_risk_time_seconds"):
        assert time.time() - of(name)[0] < PATIENCE_S
    assert {len(labels) for labels, _ in pages["gpu_risk_grpc_calls_total"]} == {3}


def test_no_label_is_a_name_that_somebody_chose(pages):
    allowed = {
        "principal",
        "method",
        "code",
        "topic",
        "group",
        "partition",
        "reason",
        "kind",
        "change",
        "state",
        "le",
    }
    allowed |= {
        "job",
        "device",
        "name",
        "generation",
        "implementation",
        "major",
        "minor",
        "patchlevel",
        "version",
    }
    for name, series in pages.items():
        for labels, _ in series:
            assert labels.keys() <= allowed, name
    # Of one service: what Prometheus keeps, and reads every five seconds.
    assert sum(len(series) for series in pages.values()) < 2_000


def test_the_matching_is_promql():
    assert list(selectors('sum by (code) (rate(gpu_risk_x_total{job="a",code=~"B|C"}[1m]))')) == [
        ("gpu_risk_x_total", [("job", "=", "a"), ("code", "=~", "B|C")])
    ]
    assert holds({"code": "B"}, [("code", "=~", "B|C"), ("job", "!=", "x")])
    assert not holds({"code": "BB"}, [("code", "=~", "B|C")])
    assert not holds({"code": "B"}, [("code", "!~", "B|C")])
    assert SUFFIXES["counter"] == ("_total",)
