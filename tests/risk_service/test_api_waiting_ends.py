"""Calls that wait without computing: their deadline and their cancellation leave nothing behind."""

from __future__ import annotations

import threading

import grpc
import pytest
from served import PATIENCE_S, LogInMemory, Service, serving
from worlds import option, portfolio

import gpu_kernels as gk
from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceStub
from risk_service import engines as engines_module
from risk_service.api import portfolio_rpcs
from risk_service.engines import Engines
from service_kit.grpc_server import GrpcSettings

SETTINGS = GrpcSettings(port=0)
BOOK = portfolio(rows=(option(100.0, True),))
PUT = wire.PutPortfolioRequest(portfolio=BOOK)
SHORT_S = 0.3


class HeldLog:
    """A log whose writes wait until they are let go; what it wrote, in order."""

    def __init__(self, inner: LogInMemory) -> None:
        self.inner, self.written = inner, []
        self.reached, self.go = threading.Event(), threading.Event()

    def _wait(self, what):
        self.reached.set()
        assert self.go.wait(PATIENCE_S)
        self.written.append(what)

    def put(self, message):
        self._wait(("put", message.portfolio, message.version))
        return self.inner.put(message)

    def delete(self, name):
        self._wait(("delete", name))
        return self.inner.delete(name)


@pytest.fixture
def world(monkeypatch):
    """A service whose log is held, and a stub of it."""
    monkeypatch.setattr(portfolio_rpcs, "LOG_SLOW_S", 3_600.0)
    with Service() as service:
        log = HeldLog(LogInMemory(service.portfolios))

        def make():
            servicer = service.servicer(SETTINGS)
            servicer.portfolios.log = log
            return service.server(SETTINGS, servicer)

        with serving(make) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield service, log, RiskServiceStub(channel)
            log.go.set()


def all_but_this_ended(service, stub, open_calls=0):
    """Waits until no more than so many other calls are open."""
    while len(service.last_server.guard.open) > open_calls:
        stub.ListPortfolios(wire.ListPortfoliosRequest(), timeout=PATIENCE_S)


def test_a_change_that_waits_for_its_turn_ends_with_its_call(world):
    service, log, stub = world
    first = stub.PutPortfolio.future(PUT, timeout=PATIENCE_S)
    assert log.reached.wait(PATIENCE_S)
    late = stub.PutPortfolio.future(PUT, timeout=SHORT_S)
    assert late.exception(PATIENCE_S).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    left = stub.DeletePortfolio.future(wire.DeletePortfolioRequest(portfolio="desk"), timeout=PATIENCE_S)
    while len(service.last_server.guard.open) < 2:
        stub.ListPortfolios(wire.ListPortfoliosRequest(), timeout=PATIENCE_S)
    left.cancel()
    all_but_this_ended(service, stub, open_calls=1)
    log.go.set()
    assert first.result(PATIENCE_S).version == 1
    assert stub.PutPortfolio(PUT, timeout=PATIENCE_S).version == 2
    assert log.written == [("put", "desk", 1), ("put", "desk", 2)]


@pytest.mark.parametrize("how", ["deadline", "cancel"])
def test_a_change_under_way_goes_on_to_its_end(world, how):
    """What the log may have is held, whether or not somebody still waits to hear of it."""
    service, log, stub = world
    call = stub.PutPortfolio.future(PUT, timeout=SHORT_S if how == "deadline" else PATIENCE_S)
    assert log.reached.wait(PATIENCE_S)
    if how == "cancel":
        call.cancel()
    else:
        assert call.exception(PATIENCE_S).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    all_but_this_ended(service, stub)
    log.go.set()
    assert stub.PutPortfolio(PUT, timeout=PATIENCE_S).version == 2
    assert log.written == [("put", "desk", 1), ("put", "desk", 2)]


@pytest.mark.parametrize("how", ["deadline", "cancel"])
def test_a_watch_that_ends_gives_its_place_back(world, how):
    service, log, stub = world
    log.go.set()
    stub.PutPortfolio(PUT, timeout=PATIENCE_S)
    watch = stub.WatchRisk(
        wire.WatchRiskRequest(portfolios=["desk"]), timeout=1.0 if how == "deadline" else PATIENCE_S
    )
    while not service.loop.teller.board.watchers():
        stub.ListPortfolios(wire.ListPortfoliosRequest(), timeout=PATIENCE_S)
    if how == "cancel":
        watch.cancel()
    expected = grpc.StatusCode.CANCELLED if how == "cancel" else grpc.StatusCode.DEADLINE_EXCEEDED
    with pytest.raises(grpc.RpcError):
        list(watch)
    assert watch.code() is expected
    all_but_this_ended(service, stub)
    assert service.loop.teller.board.watchers() == 0


def test_a_list_of_engines_answers_before_its_deadline_and_can_be_left(world, monkeypatch):
    service, _, stub = world
    go = threading.Event()

    def surveyed():
        assert go.wait(PATIENCE_S)
        return ()

    monkeypatch.setattr(engines_module, "surveyed", surveyed)
    fresh = Engines(gk.engine("cpu"), "for the test")
    monkeypatch.setattr(service.engines, "_survey", fresh.survey())
    left = stub.ListEngines.future(wire.ListEnginesRequest(), timeout=PATIENCE_S)
    while not service.last_server.guard.open:
        stub.ListPortfolios(wire.ListPortfoliosRequest(), timeout=PATIENCE_S)
    left.cancel()
    all_but_this_ended(service, stub)
    soon = stub.ListEngines(wire.ListEnginesRequest(), timeout=2.0)
    assert {one.reason for one in soon.engines if not one.available} == {"is still being looked for"}
    go.set()
    assert fresh.survey().result(PATIENCE_S) == ()
