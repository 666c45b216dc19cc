"""A whole service process: settings, logs, metrics, gRPC and lifecycle put together as a service does it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest

from protos.risk.v1 import risk_pb2, risk_pb2_grpc
from tests.service_kit.rpc_faults import PATIENCE_S

CODE = """
import sys
from dataclasses import dataclass, field
from service_kit.closing import Resources
from service_kit.grpc_server import GrpcSettings
from service_kit.kafka.settings import KafkaSettings
from service_kit.lifecycle import asynchronous, run_process
from service_kit.settings import load
from service_kit.telemetry.logs import LogSettings, start_logs
from service_kit.telemetry.metrics import MetricsExporter, MetricsSettings, process_registry
from service_kit.telemetry.traces import TraceSettings, Traces
from tests.service_kit.echo_service import make_server

@dataclass(frozen=True)
class Settings:
    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    grpc: GrpcSettings = field(default_factory=GrpcSettings)
    log: LogSettings = field(default_factory=LogSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    traces: TraceSettings = field(default_factory=TraceSettings)

async def main(stop):
    settings = load(Settings)
    start_logs(settings.log, "echo")
    registry = process_registry()
    async with Resources() as resources:
        traces = Traces.start(settings.traces, "echo")
        resources.add("traces", traces.close)
        exporter = MetricsExporter(settings.metrics, registry)
        resources.add("metrics", exporter.close)
        server = make_server(settings.grpc, registry=registry, traces=traces)
        await server.start()
        resources.add("gRPC", server.stop, within_s=1.5)
        print(server.port, exporter.port, flush=True)
        await stop.wait_async()

run_process(asynchronous(main), name="echo")
"""


@contextmanager
def process(**settings: str) -> Iterator[subprocess.Popen[str]]:
    """The service above with these settings; killed if the test leaves it running."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GPU_RISK_")}
    child = subprocess.Popen(
        [sys.executable, "-c", CODE],
        env={**clean, **{f"GPU_RISK_{name}": value for name, value in settings.items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_and_a_signal_ends_it_with_a_watch_open(number: signal.Signals) -> None:
    with process(GRPC_PORT="0", METRICS_ENABLED="true", METRICS_PORT="0", LOG_FORM="json") as child:
        assert child.stdout is not None
        port, metrics_port = child.stdout.readline().split()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = risk_pb2_grpc.RiskServiceStub(channel)
            stub.Price(risk_pb2.PriceRequest(), timeout=PATIENCE_S)
            watch = stub.WatchRisk(risk_pb2.WatchRiskRequest(portfolios=["p"]), timeout=PATIENCE_S)
            assert next(watch).portfolio == "p"
            with urllib.request.urlopen(
                f"http://127.0.0.1:{metrics_port}/metrics", timeout=PATIENCE_S
            ) as page:
                text = page.read().decode()
            assert (
                'gpu_risk_grpc_calls_total{code="OK",method="/gpu_risk.risk.v1.RiskService/Price"} 1.0'
                in text
            )
            assert "gpu_risk_grpc_open_calls 1.0" in text
            child.send_signal(number)
            with pytest.raises(grpc.RpcError) as caught:
                next(watch)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        _, err = child.communicate(timeout=PATIENCE_S)
        assert child.returncode == 0, err
        assert [json.loads(line)["event"] for line in err.splitlines() if line[0] == "{"] == ["listening"]


@pytest.mark.parametrize("what", ["GRPC", "METRICS"])
def test_a_taken_port_is_one_line_and_status_1(what: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ports = {"GRPC_PORT": "0", "METRICS_PORT": "0", "METRICS_ENABLED": "true", "LOG_LEVEL": "warning"}
        with process(**{**ports, f"{what}_PORT": port}) as child:
            out, err = child.communicate(timeout=PATIENCE_S)
    assert (child.returncode, out) == (1, "")
    assert err.startswith("echo: ")
    assert f"cannot listen on 127.0.0.1:{port}" in err
    assert err.count("\n") == 1


def test_a_bad_setting_is_one_line_and_status_1() -> None:
    with process(GRPC_PROT="50051") as child:
        out, err = child.communicate(timeout=PATIENCE_S)
    assert (child.returncode, out) == (1, "")
    expected = "echo: setting GPU_RISK_GRPC_PROT: unknown setting; did you mean GPU_RISK_GRPC_PORT?\n"
    assert err == expected
