"""Work is let in by its cost: what does not fit is refused at once, with the time to come again."""

from __future__ import annotations

import threading
import time

import grpc
import numpy as np
import pytest
from served import PATIENCE_S, Service, price_history, serving
from test_api_worker import retry_delay_s
from worlds import option, portfolio

import gpu_kernels as gk
from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceStub
from risk_service.admission import RATE_AT_FIRST, Admission
from risk_service.api import costs
from risk_service.api.monte_carlo_requests import DRAWN_COST
from risk_service.api.scenario_requests import ScenarioReader
from risk_service.api.tail_requests import read_tail
from risk_service.on_demand.option_blocks import (
    AMERICAN_COST,
    BLOCK_COST,
    EVEN_ROWS,
    ROW_COSTS,
    cost_of,
    in_blocks,
)
from risk_service.on_demand.patience import Patience
from risk_service.on_demand.sizing import PLAN_STEPS
from risk_service.portfolios import check
from risk_service.settings import RiskSettings
from service_kit.errors import DeadlinePassed, QuotaExceeded
from service_kit.grpc_server import GrpcSettings


class Clock:
    """Seconds as the test says."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_one_request_is_let_in_whatever_it_costs_the_next_when_it_fits():
    admission = Admission(backlog_s_max=1.0, clock=Clock())
    whole = RATE_AT_FIRST  # one second of it
    with admission.admitted("a", 10.0 * whole):
        with pytest.raises(QuotaExceeded) as full, admission.admitted("b", 1.0):
            pass
        assert full.value.retry_after_s == pytest.approx(9.5)
    with admission.admitted("a", 0.6 * whole), admission.admitted("b", 0.3 * whole):
        assert admission.backlog_s == pytest.approx(0.9)
        with pytest.raises(QuotaExceeded), admission.admitted("a", 0.6 * whole):
            pass
        with admission.admitted("c", 0.1):
            pass
    assert admission.backlog_s == 0.0
    assert admission.refused == 2


def test_the_backlog_is_full_at_its_limit_and_not_before():
    admission = Admission(backlog_s_max=1.0, clock=Clock())
    whole = RATE_AT_FIRST  # one second of it
    with admission.admitted("a", 0.999 * whole), admission.admitted("b", 1.0):
        pass
    with (
        admission.admitted("a", whole),
        pytest.raises(QuotaExceeded, match="wait already"),
        admission.admitted("b", 1.0),
    ):
        pass


def test_nobody_takes_more_than_his_share():
    admission = Admission(backlog_s_max=1.0, share_max=0.5, clock=Clock())
    with admission.admitted("heavy", 0.4 * RATE_AT_FIRST):
        with pytest.raises(QuotaExceeded) as mine, admission.admitted("heavy", 0.2 * RATE_AT_FIRST):
            pass
        assert "of this principal" in str(mine.value)
        with admission.admitted("other", 0.5 * RATE_AT_FIRST):
            pass


def test_one_heavy_request_is_in_the_way_of_its_own_principal_alone():
    admission = Admission(backlog_s_max=1.0, share_max=0.5, clock=Clock())
    with admission.admitted("heavy", 100.0 * RATE_AT_FIRST):
        with pytest.raises(QuotaExceeded, match="of this principal"), admission.admitted("heavy", 1.0):
            pass
        with admission.admitted("small", 1e6), admission.admitted("small", 1e6):
            pass
        with (
            admission.admitted("another", 100.0 * RATE_AT_FIRST),
            pytest.raises(QuotaExceeded, match="s of work wait already"),
            admission.admitted("small", 1e6),
        ):
            pass


def test_the_rate_is_measured_on_work_that_was_done():
    clock = Clock()
    admission = Admission(backlog_s_max=1.0, clock=clock)
    for _ in range(60):
        with admission.admitted("a", 1_000_000.0), admission.admitted("b", 1_000_000.0):
            clock.now += 0.2  # two side by side: ten million a second
    assert admission.rate == pytest.approx(10e6, rel=0.01)
    with pytest.raises(ValueError, match="broken"), admission.admitted("a", 1e12):
        raise ValueError("broken")
    assert admission.rate == pytest.approx(10e6, rel=0.01)  # nothing was done


def test_what_a_request_will_cost():
    history = price_history()
    reader = ScenarioReader(history, 500, 16_000_000)

    def cost(request, held, *, at_hand):
        return costs.expected_shortfall(request, held, reader, read_tail(request, 1), vector_at_hand=at_hand)

    rows = [option(100.0, True), option(90.0, False)]
    message = portfolio(rows=rows)
    held = check(message)
    inline = wire.ExpectedShortfallRequest(
        inline_portfolio=message, historical=wire.HistoricalScenarios(window_days=300)
    )
    drawn = wire.ExpectedShortfallRequest(
        portfolio="p", monte_carlo=wire.MonteCarloScenarios(scenarios=1_000)
    )
    sent, stored = 2 * costs.COST_PER_INLINE_POSITION, 2 * costs.COST_PER_POSITION
    assert cost(inline, None, at_hand=False) == 2 * 300 + sent
    assert cost(drawn, held, at_hand=False) == 2 * 1_000 + stored + 1_000 * DRAWN_COST
    assert cost(inline, held, at_hand=True) == 300
    message.positions.american.extend([True, False])
    assert cost(inline, None, at_hand=False) == 2 * 300 + sent
    marked = wire.ExpectedShortfallRequest(inline_portfolio=message, historical=inline.historical)
    assert cost(marked, None, at_hand=False) == (2 + AMERICAN_COST) * 300 + sent + costs.COST_PER_AMERICAN
    named = wire.StressTestRequest(portfolio="p", named=["2020-03"], by_group=True)
    assert costs.stress_test(named, held, reader) == 2 * 2 + stored
    words = wire.StressTestRequest(
        portfolio="p",
        shocks=[wire.Shock()] * 2,
        ladders=[wire.Ladder(spot=[0.0] * 3, vol=[0.0] * 4), wire.Ladder(spot=[0.0] * 5)],
        events=[wire.NamedEvent(name="2020-03")],
        historical=wire.HistoricalScenarios(window_days=300),
    )
    assert costs.stress_test(words, held, reader) == 2 * (2 + 12 + 5 + 1 + 300) + stored
    trade = wire.WhatIfRequest(trade=portfolio(rows=rows[:1]).positions, monte_carlo=drawn.monte_carlo)
    made = costs.COST_PER_INLINE_POSITION + stored + 1_000 * DRAWN_COST
    assert costs.what_if(trade, held, reader, vector_at_hand=False) == (1 + 2) * 1_000 + made
    plain = wire.HedgeRequest(portfolio="p")
    planned = wire.HedgeRequest(portfolio="p", plan_reach=0.2)
    beside = costs.hedge(planned, held, reader, False) - costs.hedge(plain, held, reader, False)
    assert beside == 2 * 2 * PLAN_STEPS


def test_long_columns_are_cut_and_no_bit_changes(seed):
    random, engine = np.random.default_rng(seed), gk.engine("cpu")
    rows = 2 * BLOCK_COST + 17
    options = gk.Options(spot=100.0, strike=random.uniform(50.0, 150.0, rows), expiry=1.0, vol=0.2)
    sizes = []

    def call(part, _):
        sizes.append(part.size)
        return engine.price(part)

    got = in_blocks(call, options, None, Patience(PATIENCE_S))
    np.testing.assert_array_equal(got.price, engine.price(options).price)
    assert len(sizes) == 3
    with pytest.raises(DeadlinePassed):
        in_blocks(call, options, None, Patience(0.0))
    american = gk.Options(spot=100.0, strike=options.strike[:2_500], expiry=1.0, vol=0.2, american=True)
    assert cost_of(american) == 2_500 * AMERICAN_COST
    sizes.clear()
    got = in_blocks(call, american, None, Patience(PATIENCE_S), ROW_COSTS["greeks", "accurate"])
    np.testing.assert_array_equal(got.price, engine.price(american).price)
    assert sizes == [EVEN_ROWS, EVEN_ROWS, 2_500 - 2 * EVEN_ROWS]


def test_over_grpc_a_refusal_is_quick_and_says_when(seed):
    risk = RiskSettings(backlog_s_max=0.01, poll_wait_s=0.05)
    random = np.random.default_rng(seed)
    columns = wire.OptionColumns(spot=[100.0], expiry=[1.0], vol=[0.2])
    packing.write(columns, "strike", random.uniform(50.0, 150.0, 400_000))
    heavy = wire.PriceRequest(options=columns)
    light = wire.PriceRequest(options=wire.OptionColumns(spot=[1], strike=[1], expiry=[1], vol=[0.2]))
    with Service(price_history(), risk=risk) as service:
        settings = GrpcSettings(port=0)
        with (
            serving(lambda: service.server(settings)) as server,
            grpc.insecure_channel(
                f"127.0.0.1:{server.port}", [("grpc.max_receive_message_length", 1 << 28)]
            ) as channel,
        ):
            stub = RiskServiceStub(channel)
            refused, ends = [], time.monotonic() + PATIENCE_S
            while not refused:
                calls = [stub.Price.future(heavy, timeout=PATIENCE_S) for _ in range(8)]
                assert stub.Price(light, timeout=PATIENCE_S).price  # never waits behind them
                refused = [call for call in calls if call.exception() is not None]
                assert len(refused) < len(calls)
                assert time.monotonic() < ends
            for call in refused:
                assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert 0 < retry_delay_s(call) <= 30


async def test_large_requests_are_refused_before_their_columns_are_read():
    settings = GrpcSettings(port=0)
    with Service() as service:
        servicer = service.servicer(settings)
        async with (
            service.server(settings, servicer) as server,
            grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            stub = RiskServiceStub(channel)
            # What is wrong with it is found by reading it.
            columns = wire.OptionColumns(
                spot=[100.0] * 9_999, strike=[100.0] * 10_000, expiry=[1.0], vol=[0.2]
            )
            requests = (
                (stub.Price, wire.PriceRequest(options=columns)),
                (stub.Greeks, wire.GreeksRequest(options=columns)),
                (stub.ImpliedVolatility, wire.ImpliedVolatilityRequest(options=columns, price=[8.0])),
            )
            with servicer.options.work.admission.admitted("somebody", 1e18):
                for method, request in requests:
                    with pytest.raises(grpc.aio.AioRpcError) as full:
                        await method(request, timeout=PATIENCE_S)
                    assert full.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            for method, request in requests:
                with pytest.raises(grpc.aio.AioRpcError) as read:
                    await method(request, timeout=PATIENCE_S)
                assert read.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_only_a_few_rows_of_the_cpus_kernels_are_computed_in_the_event_loop(monkeypatch):
    calls: list[tuple[str, int, bool]] = []

    compute = gk.engine("cpu").__class__.greeks

    def greeks(engine, options, **how):
        here = threading.current_thread() is threading.main_thread()
        calls.append((engine.name, options.size, here))
        return compute(engine, options, **how)

    monkeypatch.setattr(gk.engine("cpu").__class__, "greeks", greeks)

    def american(rows):
        given = {"spot": [100.0], "expiry": [1.0], "vol": [0.2], "rate": [0.05], "american": [True]}
        return wire.OptionColumns(**given, strike=np.linspace(80.0, 120.0, rows))

    settings = GrpcSettings(port=0)
    with Service() as service:
        async with (
            service.server(settings) as server,
            grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            stub = RiskServiceStub(channel)
            for engine, rows, here in (("cpu", 2, True), ("cpu", 64, False), ("reference", 2, False)):
                calls.clear()
                request = wire.GreeksRequest(options=american(rows), engine=engine)
                await stub.Greeks(request, timeout=PATIENCE_S)
                assert calls[0] == (engine, rows, here)
