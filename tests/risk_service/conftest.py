"""A served desk with its client, for the tests that ask for answers about it."""

from __future__ import annotations

import pytest
from desk_world import GROUPS, HISTORY, ROWS
from served import PATIENCE_S, Service, serving
from worlds import portfolio

import gpu_kernels as gk
from risk_client import RiskClient
from service_kit.grpc_server import GrpcSettings


@pytest.fixture(scope="module")
def service():
    with Service(HISTORY) as service:
        service.open_market()
        yield service


@pytest.fixture(scope="module")
def client(service):
    with (
        serving(lambda: service.server(GrpcSettings(port=0))) as server,
        RiskClient(f"127.0.0.1:{server.port}", deadline_s=PATIENCE_S) as client,
    ):
        client.put_portfolio(portfolio(rows=ROWS, groups=GROUPS))
        yield client


@pytest.fixture(scope="module")
def engine():
    return gk.engine("auto")
