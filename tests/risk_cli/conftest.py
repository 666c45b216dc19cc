from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

# The service in this process that risk_service's own tests use.
sys.path.insert(0, str(Path(__file__).parent.parent / "risk_service"))
from served import PATIENCE_S, Service, price_history, serving
from served_desk import market

from service_kit.grpc_server import GrpcSettings


@pytest.fixture(scope="session")
def desk_service() -> Iterator[Service]:
    """A service with a history, whose market quotes the options of BOOK and what stands opposite to them."""
    # The service logs its calls to stdout, in the midst of what a command prints there.
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with Service(price_history()) as service:
        for record in market():
            last = service.market.send("IDX", record)
        while service.loop.desk.ask().result(PATIENCE_S).market.snapshot_id() != f"0:{last + 1}":
            assert service.thread.is_alive()
        yield service
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def address(desk_service: Service) -> Iterator[str]:
    """Where that service answers in the open."""
    with serving(lambda: desk_service.server(GrpcSettings(port=0))) as server:
        yield f"127.0.0.1:{server.port}"
