"""gRPC health follows the truth: the live loop, the engine and the devices, each under its own name."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from protos.risk.v1.risk_pb2 import DESCRIPTOR as RISK
from risk_service import live_health
from risk_service.lateness import Lateness
from risk_service.live_health import DEVICE, ENGINE, STUCK_AFTER_S
from risk_service.service_metrics import ALERT_KINDS
from service_kit.grpc_server.server import GrpcServer
from service_kit.grpc_server.settings import GrpcSettings

STATES = health_pb2.HealthCheckResponse
SERVING, NOT_SERVING = STATES.SERVING, STATES.NOT_SERVING
SERVICE = RISK.services_by_name["RiskService"].full_name


@dataclass
class Loop:
    """What is looked at of a live loop, as the test says."""

    caught_up: bool = True
    turned_at: float = 100.0
    failure: Exception | None = None
    without_brokers: str = ""
    lateness: Lateness = field(default_factory=Lateness)
    portfolios: int = 3
    unmeasured: int = 1
    standing_by: str = ""
    teller: Any = field(
        default_factory=lambda: SimpleNamespace(alerts=SimpleNamespace(standing=lambda kind: 10 * kind))
    )


@asynccontextmanager
async def told(monkeypatch, loop, ready=True, well=None):
    """A server whose health is kept true; the engine and the devices are what is yielded besides."""
    monkeypatch.setattr(live_health, "HEALTH_EVERY_S", 0.001)
    engines, devices = SimpleNamespace(ready=ready), SimpleNamespace(well=well)
    server = GrpcServer(GrpcSettings(port=0), [], registry=CollectorRegistry(), serving=False)
    async with server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        telling = asyncio.create_task(
            live_health.tell(server, SERVICE, loop, engines, devices, clock=lambda: 100.0)
        )
        yield health_pb2_grpc.HealthStub(channel), engines, devices
        telling.cancel()


async def seen(watch, wanted):
    while (await watch.read()).status != wanted:
        pass


@pytest.mark.timeout(60)
async def test_health_follows_the_engine_while_the_service_goes_on(monkeypatch):
    async with told(monkeypatch, Loop()) as (stub, engines, _):
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=ENGINE))
        for ready, wanted in ((True, SERVING), (False, NOT_SERVING), (True, SERVING)):
            engines.ready = ready
            await seen(watch, wanted)
        engines.ready = False
        await seen(watch, NOT_SERVING)
        watch.cancel()
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=SERVICE))
        assert answer.status == SERVING  # degraded answers are answers


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["", SERVICE])
async def test_health_follows_the_live_loop(monkeypatch, name):
    loop = Loop(caught_up=False)
    async with told(monkeypatch, loop) as (stub, _, _):
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=name))
        assert (await watch.read()).status != SERVING
        loop.caught_up = True
        await seen(watch, SERVING)
        loop.turned_at = 100.0 - STUCK_AFTER_S - 1.0
        await seen(watch, NOT_SERVING)
        loop.turned_at = 100.0
        await seen(watch, SERVING)
        loop.failure = RuntimeError("no brokers")
        await seen(watch, NOT_SERVING)
        watch.cancel()


@pytest.mark.timeout(60)
async def test_health_of_the_devices_where_there_are_any(monkeypatch):
    async with told(monkeypatch, Loop()) as (stub, _, devices):
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=DEVICE))
        assert (await watch.read()).status == STATES.SERVICE_UNKNOWN
        devices.well = True
        await seen(watch, SERVING)
        devices.well = False
        await seen(watch, NOT_SERVING)
        watch.cancel()


def test_why_a_service_does_not_serve():
    assert live_health.why_not(Loop(), 100.0) == ""
    assert live_health.why_not(Loop(caught_up=False), 100.0) == "the logs are still being taken in"
    assert live_health.why_not(Loop(), 116.0) == "the live loop has not come round for more than 15 s"
    failed = Loop(caught_up=False, failure=RuntimeError("no brokers"))
    assert live_health.why_not(failed, 100.0) == "the live loop failed: no brokers"


def test_what_prometheus_is_told():
    registry = CollectorRegistry()
    live_health.export(registry, Loop(caught_up=False))
    assert registry.get_sample_value("gpu_risk_serving") == 0
    assert registry.get_sample_value("gpu_risk_portfolios") == 3
    assert registry.get_sample_value("gpu_risk_portfolios_unmeasured") == 1
    for kind, name in ALERT_KINDS.items():
        assert registry.get_sample_value("gpu_risk_alerts_standing", {"kind": name}) == 10 * kind
    assert set(ALERT_KINDS.values()) == {
        "limit_breached",
        "stale_data",
        "degraded_engine",
        "positions_left_out",
    }
