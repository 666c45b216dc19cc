"""Every RPC that can take long: its deadline and its cancellation end the work within one block."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from served import PATIENCE_S, Service, price_history, serving
from worlds import option, portfolio, spot_position

import gpu_kernels as gk
from gpu_kernels import simulated_scenarios
from gpu_kernels.optimise import min_es_hedge
from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceStub
from risk_client import RiskClient
from risk_service.on_demand import option_blocks
from risk_service.on_demand.patient_engine import Limits
from service_kit.grpc_server import GrpcSettings

ROWS = (option(90.0, False, 10.0), option(100.0, True, -20.0), spot_position(150.0))
OPTIONS = 20_000  # more than is computed in the event loop


class Gated(gk.Engine):
    """A real engine that stops at its n-th call until it is let go."""

    def __init__(self, engine: gk.Engine) -> None:
        super().__init__(engine.name, engine.device, engine._backend)
        self.let_go()

    def let_go(self):
        self.calls, self.stop_at = 0, math.inf
        self.reached, self.go = threading.Event(), threading.Event()

    def _count(self):
        self.calls += 1
        if self.calls == self.stop_at:
            self.reached.set()
            assert self.go.wait(PATIENCE_S)

    def price(self, *args, **keywords):
        self._count()
        return super().price(*args, **keywords)

    def greeks(self, *args, **keywords):
        self._count()
        return super().greeks(*args, **keywords)

    def implied_vol(self, *args, **keywords):
        self._count()
        return super().implied_vol(*args, **keywords)

    def revalue(self, portfolio, scenarios, *, by=None, out=None):
        self._count()
        return super().revalue(portfolio, scenarios, by=by, out=out)

    def module(self, name):
        if name != "revaluation":
            return super().module(name)
        inner = super().module(name)

        def counted(engine, portfolio, scenarios):
            self._count()
            return inner.position_pnl(engine, portfolio, scenarios)

        return SimpleNamespace(revalue=inner.revalue, position_pnl=counted)


@pytest.fixture(scope="module")
def world():
    """A service whose calls use a gated engine, one block at a time; its live loop uses another."""
    with Service(price_history()) as service:
        service.open_market()
        gated = Gated(service.engines.serving)
        service.engines.serving = gated
        # One thread: what is asked of it next begins when the last computation has ended.
        service.executor = ThreadPoolExecutor(1)
        settings = GrpcSettings(port=0)

        def make():
            servicer = service.servicer(settings)
            service.admission = servicer.on_demand.work.admission
            servicer.on_demand = replace(servicer.on_demand, limits=Limits(block_revaluations=1))
            return service.server(settings, servicer)

        with (
            serving(make) as server,
            RiskClient(f"127.0.0.1:{server.port}", deadline_s=PATIENCE_S) as client,
        ):
            client.put_portfolio(portfolio(rows=ROWS))
            next(iter(client.watch_risk(["desk"], deadline_s=PATIENCE_S)))
            yield service, gated, f"127.0.0.1:{server.port}"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(option_blocks, "BLOCK_COST", 1_000)


def columns():
    given = wire.OptionColumns(spot=[100.0], expiry=[1.0], vol=[0.2])
    packing.write(given, "strike", np.linspace(50.0, 150.0, OPTIONS))
    return given


SHOCKS = wire.ScenarioColumns(spot_return=wire.Matrix(rows=1_000, columns=1, values=np.zeros(1_000)))
INLINE = portfolio("p", rows=ROWS)
TRADE = portfolio(rows=(option(90.0, False, 5.0),)).positions
ES = wire.ExpectedShortfallRequest(inline_portfolio=INLINE, custom=SHOCKS, with_components=True)
STRESS = wire.StressTestRequest(inline_portfolio=INLINE, scenarios=SHOCKS)
HEDGE = wire.HedgeRequest(
    portfolio="desk",
    objective=wire.HedgeRequest.OBJECTIVE_MIN_EXPECTED_SHORTFALL,
    instruments=TRADE,
)
LONG = {
    "Price": wire.PriceRequest(options=columns()),
    "Greeks": wire.GreeksRequest(options=columns()),
    "ImpliedVolatility": wire.ImpliedVolatilityRequest(options=columns(), price=[55.0]),
    "PriceStream": wire.PriceRequest(options=columns()),
    "GreeksStream": wire.GreeksRequest(options=columns()),
    "ImpliedVolatilityStream": wire.ImpliedVolatilityRequest(options=columns(), price=[55.0]),
    "ExpectedShortfall": ES,
    "StressTest": STRESS,
    "Hedge": HEDGE,
    "WhatIf": wire.WhatIfRequest(portfolio="desk", trade=TRADE),
    "ExpectedShortfallWithProgress": ES,
    "StressTestWithProgress": STRESS,
    "HedgeWithProgress": HEDGE,
}


RPCS_OF_STREAMS = {name for name in LONG if name.endswith(("Stream", "WithProgress"))}


def begun(channel, name, seconds):
    """The call under way."""
    method = getattr(RiskServiceStub(channel), name)
    if name.endswith("Stream"):
        return method(iter([LONG[name]]), timeout=seconds)
    if name.endswith("WithProgress"):
        return method(LONG[name], timeout=seconds)
    return method.future(LONG[name], timeout=seconds)


def code_of(call, name):
    """How it ended; what a stream says before is read."""
    try:
        if name in RPCS_OF_STREAMS:
            list(call)
        else:
            call.result(PATIENCE_S)
    except (grpc.RpcError, grpc.FutureCancelledError):
        return call.code()
    return grpc.StatusCode.OK


def ended(service, address):
    """Waits until the server has no other call open, and the thread that computed has nothing left to do."""
    with grpc.insecure_channel(address) as channel:
        while len(service.last_server.guard.open) > 0:
            RiskServiceStub(channel).ListPortfolios(wire.ListPortfoliosRequest(), timeout=PATIENCE_S)


def let_end(service, go):
    """Lets the thread go whose caller has left; until it has ended it counts as work that is in."""
    assert service.admission.backlog_s > 0.0
    go.set()
    service.executor.submit(int).result(PATIENCE_S)
    assert service.admission.backlog_s == 0.0


def test_every_rpc_that_computes_is_here():
    methods = {one.name for one in wire.DESCRIPTOR.services_by_name["RiskService"].methods}
    quick = {"PutPortfolio", "GetPortfolio", "ListPortfolios", "DeletePortfolio", "WatchRisk", "ListEngines"}
    assert LONG.keys() == methods - quick


@pytest.mark.parametrize("name", LONG)
def test_a_cancelled_call_stops_costing(world, name):
    service, engine, address = world
    engine.let_go()
    engine.stop_at = 3
    with grpc.insecure_channel(address) as channel:
        call = begun(channel, name, PATIENCE_S)
        assert engine.reached.wait(PATIENCE_S)
        call.cancel()
        assert code_of(call, name) is grpc.StatusCode.CANCELLED
        ended(service, address)
    let_end(service, engine.go)
    assert engine.calls == 3


@pytest.mark.parametrize("name", LONG)
def test_a_call_past_its_deadline_stops_costing(world, name):
    service, engine, address = world
    engine.let_go()
    engine.stop_at = 3
    with grpc.insecure_channel(address) as channel:
        # A slow machine may take all of a short deadline before the work begins; then the next is longer.
        for seconds in (0.1, 0.4, 2.0, 8.0, 32.0):
            call = begun(channel, name, seconds)
            assert code_of(call, name) is grpc.StatusCode.DEADLINE_EXCEEDED
            ended(service, address)
            if engine.reached.is_set():
                break
            engine.calls = 0
    let_end(service, engine.go)
    assert engine.calls == 3


@pytest.mark.parametrize("name", ["ExpectedShortfall", "StressTest", "Hedge"])
def test_progress_comes_before_the_result_and_never_falls(world, name):
    _, engine, address = world
    engine.let_go()
    engine.stop_at = 20
    with grpc.insecure_channel(address) as channel:
        updates = begun(channel, f"{name}WithProgress", PATIENCE_S)
        seen = [next(updates)]
        assert engine.reached.wait(PATIENCE_S)
        # The first progress may have been told before the work began; one of the held work comes too.
        while not seen[-1].progress.revaluations_done:
            seen.append(next(updates))
        engine.go.set()
        seen.extend(updates)
        alone = getattr(RiskServiceStub(channel), name)(LONG[name], timeout=PATIENCE_S)
    assert [one.WhichOneof("update") for one in seen] == ["progress"] * (len(seen) - 1) + ["result"]
    fractions = [one.progress.fraction for one in seen[:-1]]
    assert fractions == sorted(fractions)
    assert 0.0 <= fractions[0] <= fractions[-1] <= 1.0
    assert 0 < seen[-2].progress.revaluations_done <= seen[-2].progress.revaluations_total
    result = seen[-1].result
    for one in (result, alone):
        one.provenance.Clear()
    assert result == alone


def test_what_is_refused_at_once_is_refused_before_any_progress(world):
    _, engine, address = world
    engine.let_go()
    bad = wire.ExpectedShortfallRequest(inline_portfolio=INLINE, custom=SHOCKS, levels=[2.0])
    with grpc.insecure_channel(address) as channel:
        updates = RiskServiceStub(channel).ExpectedShortfallWithProgress(bad, timeout=PATIENCE_S)
        with pytest.raises(grpc.RpcError) as refused:
            next(updates)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "levels[0]" in refused.value.details()


def test_a_search_for_lots_ends_with_its_call(world, monkeypatch):
    """After the last revaluation a hedge computes long without the engine."""
    service, engine, address = world
    engine.let_go()
    gate = gated_function(monkeypatch, min_es_hedge, "tail_risk")
    with grpc.insecure_channel(address) as channel:
        call = begun(channel, "Hedge", PATIENCE_S)
        assert gate.reached.wait(PATIENCE_S)
        call.cancel()
        assert code_of(call, "Hedge") is grpc.StatusCode.CANCELLED
        ended(service, address)
    let_end(service, gate.go)
    assert gate.calls == 4


def test_a_draw_of_scenarios_ends_with_its_call(world, monkeypatch):
    """Before the first revaluation an expected shortfall draws long without the engine."""
    service, engine, address = world
    engine.let_go()
    monkeypatch.setattr(simulated_scenarios, "BLOCK_UNIFORMS", 64)
    gate = gated_function(monkeypatch, simulated_scenarios, "philox_uniforms")
    drawn = wire.MonteCarloScenarios(scenarios=10_000, sampler=wire.MonteCarloScenarios.SAMPLER_PHILOX)
    request = wire.ExpectedShortfallRequest(portfolio="desk", monte_carlo=drawn)
    with grpc.insecure_channel(address) as channel:
        updates = RiskServiceStub(channel).ExpectedShortfallWithProgress(request, timeout=PATIENCE_S)
        assert gate.reached.wait(PATIENCE_S)
        told = next(one for one in updates if one.progress.revaluations_done)
        assert 0.0 < told.progress.fraction < 0.1
        updates.cancel()
        assert code_of(updates, "ExpectedShortfallWithProgress") is grpc.StatusCode.CANCELLED
        ended(service, address)
    let_end(service, gate.go)
    assert (gate.calls, engine.calls) == (4, 0)


def gated_function(monkeypatch, module, name):
    """The module's function stops at its fourth call until it is let go."""
    gate, inner = (
        SimpleNamespace(calls=0, reached=threading.Event(), go=threading.Event()),
        getattr(module, name),
    )

    def gated(*args, **keywords):
        gate.calls += 1
        if gate.calls == 4:
            gate.reached.set()
            assert gate.go.wait(PATIENCE_S)
        return inner(*args, **keywords)

    monkeypatch.setattr(module, name, gated)
    return gate


def test_ticks_go_on_while_a_long_call_computes(world):
    service, engine, address = world
    engine.let_go()
    engine.stop_at = 2
    with grpc.insecure_channel(address) as channel, RiskClient(address, deadline_s=PATIENCE_S) as client:
        call = begun(channel, "ExpectedShortfall", PATIENCE_S)
        assert engine.reached.wait(PATIENCE_S)
        service.open_market(spot=90.0)
        spots = (one.greeks.spot[0] for one in client.watch_risk(["desk"], deadline_s=PATIENCE_S))
        assert 90.0 in spots
        engine.go.set()
        assert abs(call.result(PATIENCE_S).tail[0].expected_shortfall) < 1e-9
