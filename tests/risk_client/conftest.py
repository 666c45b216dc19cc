from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The service in this process that risk_service's own tests use.
sys.path.insert(0, str(Path(__file__).parent.parent / "risk_service"))
from served import PATIENCE_S, Service, price_history, serving

from risk_client import RiskClient
from service_kit.grpc_server import GrpcSettings


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    with Service(price_history()) as service:
        service.open_market()
        yield service


@pytest.fixture(scope="session")
def address(service: Service) -> Iterator[str]:
    with serving(lambda: service.server(GrpcSettings(port=0))) as server:
        yield f"127.0.0.1:{server.port}"


@pytest.fixture(scope="session")
def client(address: str) -> Iterator[RiskClient]:
    with RiskClient(address, deadline_s=PATIENCE_S) as client:
        yield client
