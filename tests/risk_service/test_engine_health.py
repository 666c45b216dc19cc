"""gRPC health under the engine's own name: SERVING while the serving engine answers itself."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from risk_service import wiring
from service_kit.grpc_server.server import GrpcServer
from service_kit.grpc_server.settings import GrpcSettings

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass
class Engines:
    """An engine that comes and goes."""

    ready: bool


@pytest.mark.timeout(60)
async def test_health_follows_the_engine(monkeypatch):
    monkeypatch.setattr(wiring, "HEALTH_EVERY_S", 0.001)
    engines, server = Engines(True), GrpcServer(GrpcSettings(port=0), [], registry=CollectorRegistry())
    async with server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        telling = asyncio.create_task(wiring._tell_health(server, engines))
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=wiring.ENGINE_HEALTH))
        for ready, wanted in ((True, SERVING), (False, NOT_SERVING), (True, SERVING)):
            engines.ready = ready
            while (await watch.read()).status != wanted:
                pass
        telling.cancel()
        watch.cancel()
