"""Over gRPC, with the engine in a process of its own: killed at work, every call is answered or refused."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from served import PATIENCE_S, STRIKES, Service, price_history, serving
from worlds import option, portfolio

from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceStub
from risk_service.engines import Engines
from risk_service.settings import RiskSettings
from service_kit.grpc_server import GrpcSettings

ROWS = [option(strike, call, 5.0) for strike in STRIKES for call in (True, False)] * 100
SCENARIOS = 1 << 17  # with so many rows: a second or more
SMALL = 256


@pytest.fixture(scope="module")
def engines():
    engines = Engines.start("cpu", "always")
    engines.warm_up()
    yield engines
    engines.close()


@pytest.fixture(scope="module")
def stub(engines):
    # What is tested here is a process that dies, not one that is refused work.
    risk = RiskSettings(backlog_s_max=600.0)
    with Service(price_history(), engine=engines.live, risk=risk) as service:
        service.engines = engines
        service.open_market()
        with (
            serving(lambda: service.server(GrpcSettings(port=0))) as server,
            grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            stub = RiskServiceStub(channel)
            book = portfolio(rows=ROWS)
            stub.PutPortfolio(wire.PutPortfolioRequest(portfolio=book), timeout=PATIENCE_S)
            yield stub


def es(scenarios=SMALL, **more):
    draws = wire.MonteCarloScenarios(scenarios=scenarios, seed=5)
    return wire.ExpectedShortfallRequest(portfolio="desk", monte_carlo=draws, **more)


def options(rows, **more):
    columns = wire.OptionColumns(spot=[100.0], expiry=[1.0], vol=[0.2])
    packing.write(columns, "strike", np.linspace(50.0, 150.0, rows))
    return wire.GreeksRequest(options=columns, **more)


def supervisor_of(engines):
    return engines.supervisor("cpu")


def kill(engines):
    supervisor = supervisor_of(engines)
    assert supervisor.wait_ready(PATIENCE_S)
    os.kill(supervisor.pid, signal.SIGKILL)


def retry_delay_s(error):
    (packed,) = (value for key, value in error.trailing_metadata() if key == "grpc-status-details-bin")
    for detail in status_pb2.Status.FromString(packed).details:
        info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            return info.retry_delay.seconds + info.retry_delay.nanos / 1e9
    raise AssertionError("no RetryInfo")


def test_every_kind_of_answer_comes_from_the_worker(stub, engines):
    small = stub.Greeks(options(1), timeout=PATIENCE_S)
    large = stub.Greeks(options(30_000), timeout=PATIENCE_S)
    here = engines.cpu
    for response, rows in ((small, 1), (large, 30_000)):
        assert (response.provenance.engine, response.provenance.degraded) == ("cpu", False)
        given = options(rows).options
        expected = here.greeks(_kernel(given))
        np.testing.assert_array_equal(packing.read(response, "charm"), expected.charm)
    tail = stub.ExpectedShortfall(es(with_components=True), timeout=PATIENCE_S)
    assert sum(tail.component_by_position) == pytest.approx(tail.tail[0].expected_shortfall)
    assert stub.StressTest(
        wire.StressTestRequest(portfolio="desk", named=["2020-03"]), timeout=PATIENCE_S
    ).pnl
    trade = portfolio(rows=ROWS[:1]).positions
    assert stub.WhatIf(wire.WhatIfRequest(portfolio="desk", trade=trade), timeout=PATIENCE_S).incremental
    assert stub.Hedge(wire.HedgeRequest(portfolio="desk"), timeout=PATIENCE_S).trade
    listed = {
        one.name: one for one in stub.ListEngines(wire.ListEnginesRequest(), timeout=PATIENCE_S).engines
    }
    assert listed["cpu"].own_process
    assert listed["cpu"].available
    assert not listed["cuda"].own_process
    assert listed["cuda"].device_health


def _kernel(columns):
    import gpu_kernels as gk

    return gk.Options(spot=np.full(len(columns.strike), 100.0), strike=columns.strike, expiry=1.0, vol=0.2)


def test_kill_9_at_work_and_every_call_is_answered_and_the_next_by_the_next_worker(stub, engines):
    expected = stub.ExpectedShortfall(es(SCENARIOS), timeout=PATIENCE_S)
    assert not expected.provenance.degraded
    starts = engines.starts
    with ThreadPoolExecutor(3) as callers:
        calls = [callers.submit(stub.ExpectedShortfall, es(SCENARIOS), timeout=PATIENCE_S) for _ in range(3)]
        threading.Timer(0.3, kill, (engines,)).start()
        answers = [call.result(PATIENCE_S) for call in calls]
    assert any(one.provenance.degraded for one in answers)
    for one in answers:
        assert one.tail == expected.tail  # the CPU's numbers are the CPU's in any process
        if one.provenance.degraded:
            assert "the process of engine 'cpu'" in one.provenance.degraded_reason
    assert supervisor_of(engines).wait_ready(PATIENCE_S)
    after = stub.ExpectedShortfall(es(SCENARIOS), timeout=PATIENCE_S)
    assert not after.provenance.degraded
    assert after.tail == expected.tail
    assert engines.starts == starts + 1


def answered_until_killed(stub):
    for _ in range(1_000):
        stub.ExpectedShortfall(es(SCENARIOS, engine="cpu"), timeout=PATIENCE_S)


def test_an_engine_asked_for_by_name_is_never_another(stub, engines):
    threading.Timer(0.3, kill, (engines,)).start()
    with pytest.raises(grpc.RpcError) as lost:
        answered_until_killed(stub)
    assert lost.value.code() is grpc.StatusCode.UNAVAILABLE
    assert retry_delay_s(lost.value) > 0
    assert supervisor_of(engines).wait_ready(PATIENCE_S)
    assert stub.ExpectedShortfall(es(engine="cpu"), timeout=PATIENCE_S).tail


def test_options_are_answered_while_the_worker_is_away(stub, engines):
    kill(engines)
    seen = set()
    while not seen or not supervisor_of(engines).ready:
        response = stub.Greeks(options(2_000), timeout=PATIENCE_S)
        seen.add(response.provenance.degraded)
        assert len(response.charm) == 2_000
    assert seen
