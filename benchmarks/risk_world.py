"""A RiskService with one large book, its topics in memory, in a process of its own.

It is made of the parts that the tests serve with: tests/risk_service/served.py.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

READY_WITHIN_S = 300.0
TESTS = Path(__file__).parents[1] / "tests" / "risk_service"


@contextmanager
def serving_book(rows: int, days: int, process: str, **settings: Any) -> Iterator[int]:
    """The port of a service that holds the book "desk" of so many options, with its live numbers made."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    child = spawn.Process(target=_serve, args=(theirs, rows, days, process, settings))
    child.start()
    theirs.close()
    try:
        if not ours.poll(READY_WITHIN_S):
            raise RuntimeError("the service did not come up")
        port: int = ours.recv()
        yield port
    finally:
        ours.close()
        child.join(10.0)
        child.kill()


def _serve(control: Connection, rows: int, days: int, process: str, settings: dict[str, Any]) -> None:
    sys.path.insert(0, str(TESTS))
    from served import Service, price_history, serving

    from risk_service.engines import Engines
    from risk_service.settings import RiskSettings
    from risk_service.wiring import prepare_process
    from service_kit.grpc_server import GrpcSettings
    from service_kit.telemetry.logs import LogSettings, start_logs

    # As `risk serve` does, threads and all: without a level every call would print a line.
    prepare_process()
    start_logs(LogSettings(), "risk")
    wanted: Any = process
    engines = Engines.start("cpu", wanted)
    engines.warm_up()
    risk = RiskSettings(history_days_max=days, **settings)
    grpc_settings = GrpcSettings(
        port=0,
        rate_per_principal=1e9,
        burst_per_principal=10**9,
        max_calls_per_principal=100_000,
        max_calls=100_000,
    )
    with Service(price_history(days), engine=engines.live, risk=risk) as service:
        service.engines = engines
        service.executor = ThreadPoolExecutor(thread_name_prefix="compute")
        service.open_market()
        with serving(lambda: service.server(grpc_settings)) as server:
            _put(server.port, rows)
            control.send(server.port)
            with suppress(EOFError):
                control.recv()
    engines.close()


def _put(port: int, rows: int) -> None:
    """Puts the book and waits until the live loop has measured it."""
    import grpc
    from served import STRIKES
    from worlds import option, portfolio

    from protos.risk.v1 import risk_pb2 as wire
    from protos.risk.v1.risk_pb2_grpc import RiskServiceStub

    random = np.random.default_rng(3)
    strikes, calls = random.choice(STRIKES, rows), random.random(rows) < 0.5
    quantities = random.integers(-50, 50, rows)
    positions = [
        option(float(strike), bool(call), float(quantity))
        for strike, call, quantity in zip(strikes, calls, quantities, strict=True)
    ]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = RiskServiceStub(channel)
        stub.PutPortfolio(wire.PutPortfolioRequest(portfolio=portfolio(rows=positions)), timeout=60)
        watch = stub.WatchRisk(wire.WatchRiskRequest(portfolios=["desk"]), timeout=120)
        next(watch)
        watch.cancel()
