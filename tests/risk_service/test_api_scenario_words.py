"""Stresses in few words and what-ifs under any scenarios: as if every number had been spelled out."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
from served import PATIENCE_S, UNDERLYINGS, Service, market_records, price_history, serving
from worlds import option, portfolio, spot_position

from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceStub
from service_kit.grpc_server import GrpcSettings

ROWS = (
    option(90.0, False, 10.0),
    option(100.0, True, -20.0),
    spot_position(15.0),
    option(110.0, True, 12.0, underlying="ABC", place=1),
    spot_position(-9.0, "ABC", 1),
)
TRADE = (option(90.0, False, 30.0), spot_position(25.0, "ABC", 1))
HISTORY = price_history()
INVALID, LARGE = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture(scope="module")
def stub():
    with Service(HISTORY) as service:
        for underlying in UNDERLYINGS:
            for record in market_records(underlying):
                service.market.send(underlying, record)
        with (
            serving(lambda: service.server(GrpcSettings(port=0))) as server,
            grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            stub = RiskServiceStub(channel)
            for name, rows in (("desk", ROWS), ("with", (*ROWS, *TRADE))):
                book = portfolio(name, rows=rows, underlyings=UNDERLYINGS)
                stub.PutPortfolio(wire.PutPortfolioRequest(portfolio=book), timeout=PATIENCE_S)
            for one in ("desk", "with"):
                next(stub.WatchRisk(wire.WatchRiskRequest(portfolios=[one]), timeout=PATIENCE_S))
            yield stub


def by(values, other=0.0):
    return wire.ByUnderlying(other=other, underlying=list(values), value=list(values.values()))


def stress(stub, **asked):
    request = wire.StressTestRequest(portfolio="desk", **asked)
    return stub.StressTest(request, timeout=PATIENCE_S)


def spelled(stub, simple, vol, rate=0.0, elapsed=0.0):
    """P&L with simple returns and vol changes (S, U), every number of them sent."""
    simple, vol = np.atleast_2d(simple), np.atleast_2d(vol)
    given = wire.ScenarioColumns(
        spot_return=wire.Matrix(rows=len(simple), columns=2, values=np.log(1.0 + simple).ravel()),
        vol_change=wire.Matrix(rows=len(vol), columns=2, values=vol.ravel()),
        rate_change=[rate],
        elapsed=[elapsed],
    )
    return packing.read(stress(stub, scenarios=given), "pnl")


def pnl_of(answer):
    return packing.read(answer, "pnl")


def test_a_ladder_is_every_move_with_every_change(stub):
    spot, vol, beta = [-0.3, 0.0, 0.2], [-0.05, 0.1], np.array([1.0, 1.5])
    grid = wire.Ladder(name="grid", spot=spot, vol=vol, beta=by({"ABC": 1.5}, 1.0), rate=0.01, elapsed=0.02)
    answer = stress(stub, ladders=[grid])
    moves = np.array([[move * one for one in beta] for move in spot for _ in vol])
    changes = np.array([[change, change] for _ in spot for change in vol])
    np.testing.assert_allclose(pnl_of(answer), spelled(stub, moves, changes, 0.01, 0.02), rtol=1e-12)
    assert answer.name[1] == "grid: spot -30.0%, vol +10.0%"
    alone = stress(stub, ladders=[wire.Ladder(spot=spot)])
    flat = np.repeat(np.array(spot)[:, None], 2, axis=1)
    np.testing.assert_allclose(pnl_of(alone), spelled(stub, flat, np.zeros((3, 2))), rtol=1e-12)
    assert answer.provenance.market_snapshot_id


def test_a_shock_has_a_number_for_each_underlying_or_one_for_the_others(stub):
    shock = wire.Shock(name="crash", spot=by({"ABC": -0.25}, -0.1), vol=by({"IDX": 0.2}), rate=-0.005)
    answer = stress(stub, shocks=[shock, wire.Shock()])
    assert list(answer.name) == ["crash", "shock 1"]
    np.testing.assert_allclose(
        pnl_of(answer)[:1], spelled(stub, [-0.1, -0.25], [0.2, 0.0], -0.005), rtol=1e-12
    )
    assert abs(pnl_of(answer)[1]) < 1e-9


def test_an_event_moves_each_underlying_by_its_beta(stub):
    answer = stress(
        stub, named=["1987-10-19"], events=[wire.NamedEvent(name="1987-10-19", beta=by({"ABC": 2.0}, 1.0))]
    )
    plain, geared = pnl_of(answer)
    # The S&P 500 fell by 20.47 % that day; the vol change is the same for both.
    vol = by_vol_of(stub)
    np.testing.assert_allclose(plain, spelled(stub, [-0.2047, -0.2047], [vol, vol])[0], rtol=1e-12)
    np.testing.assert_allclose(geared, spelled(stub, [-0.2047, -0.4094], [vol, vol])[0], rtol=1e-12)


def by_vol_of(stub):
    from gpu_kernels.stress_library import stress_event

    return stress_event("1987-10-19").vol.value


def test_history_is_every_day_of_the_window_again(stub):
    asked = wire.HistoricalScenarios(window_days=40, horizon_days=5)
    answer = stress(stub, historical=asked)
    closes, vols = HISTORY.closes[-41:], HISTORY.vols[-41:]
    moves = closes[5:] / closes[:-5] - 1.0
    expected = spelled(stub, moves, vols[5:] - vols[:-5], elapsed=5 / 252)
    np.testing.assert_allclose(pnl_of(answer), expected, rtol=1e-9, atol=1e-9)
    assert (answer.name[0], answer.name[-1]) == ("history: 40 d ago, over 5 d", "history: 5 d ago, over 5 d")


def test_all_kinds_come_in_the_order_of_the_fields(stub):
    given = wire.ScenarioColumns(spot_return=wire.Matrix(rows=1, columns=2, values=[0.0, 0.0]), name=["mine"])
    answer = stress(
        stub,
        scenarios=given,
        named=["2020-03"],
        shocks=[wire.Shock(name="shock")],
        ladders=[wire.Ladder(name="ladder", spot=[0.1])],
        events=[wire.NamedEvent(name="1987-10-19")],
        historical=wire.HistoricalScenarios(window_days=1),
    )
    assert list(answer.name) == [
        "mine",
        "2020-03",
        "shock",
        "ladder: spot +10.0%, vol +0.0%",
        "1987-10-19",
        "history: 1 d ago, over 1 d",
    ]
    assert len(answer.pnl) == 6


WRONG = {
    "move below all of it": ({"ladders": [wire.Ladder(spot=[-1.1])]}, INVALID, r"ladders.spot\[0\]: -1.1"),
    "no move": (
        {"ladders": [wire.Ladder(spot=[0.1]), wire.Ladder()]},
        INVALID,
        r"ladders.spot\[1\]: is",
    ),
    "NaN move": ({"ladders": [wire.Ladder(spot=[float("nan")])]}, INVALID, r"ladders.spot\[0\]"),
    "NaN vol": ({"ladders": [wire.Ladder(spot=[0.1], vol=[float("nan")])]}, INVALID, r"ladders.vol\[0\]"),
    "stranger": (
        {"shocks": [wire.Shock(), wire.Shock(spot=by({"XYZ": 0.1}))]},
        INVALID,
        r"shocks.spot.underlying\[1\]: names 'XYZ', which is no underlying",
    ),
    "twice": (
        {"shocks": [wire.Shock(vol=wire.ByUnderlying(underlying=["IDX", "IDX"], value=[0.1, 0.2]))]},
        INVALID,
        r"shocks.vol.underlying\[0\]: names 'IDX', twice",
    ),
    "lengths": (
        {"shocks": [wire.Shock(spot=wire.ByUnderlying(underlying=["IDX"]))]},
        INVALID,
        r"shocks.spot.value\[0\]: has 0 entries for 1",
    ),
    "infinite": (
        {"shocks": [wire.Shock(vol=by({}, float("inf")))]},
        INVALID,
        r"shocks.vol\[0\]: must be",
    ),
    "falls": ({"shocks": [wire.Shock(spot=by({}, -1.5))]}, INVALID, r"shocks.spot\[0\]: -1.5"),
    "back in time": ({"shocks": [wire.Shock(elapsed=-1.0)]}, INVALID, r"shocks.elapsed\[0\]"),
    "event": ({"events": [wire.NamedEvent(name="1066")]}, INVALID, r"events\[0\]: '1066' is unknown"),
    "beta": (
        {"events": [wire.NamedEvent(name="2020-03", beta=by({"XYZ": 1.0}))]},
        INVALID,
        r"events.beta.underlying\[0\]",
    ),
    "weighting": (
        {"historical": wire.HistoricalScenarios(weighting=wire.HistoricalScenarios.WEIGHTING_AGE)},
        INVALID,
        "historical.weighting: has no meaning",
    ),
    "decay": ({"historical": wire.HistoricalScenarios(decay=0.9)}, INVALID, "historical.decay"),
    "horizon": (
        {"historical": wire.HistoricalScenarios(window_days=5, horizon_days=6)},
        INVALID,
        "historical.horizon_days",
    ),
    "points of vol": (
        {"shocks": [wire.Shock(vol=by({}, 15.0))]},
        INVALID,
        r"shocks.vol\[0\]: 15 is beyond 10",
    ),
    "much vol": ({"ladders": [wire.Ladder(spot=[0.0], vol=[1e300])]}, INVALID, r"ladders.vol\[0\]: 1e\+300"),
    "large beta": (
        {"events": [wire.NamedEvent(name="2020-03", beta=by({}, 1e9))]},
        INVALID,
        r"events.beta\[0\]: 1e\+09 is beyond 100",
    ),
    "long name": ({"shocks": [wire.Shock(name="x" * 201)]}, INVALID, r"shocks.name\[0\]: has 201"),
    "long ladder": ({"ladders": [wire.Ladder(name="x" * 201, spot=[0.0])]}, INVALID, r"ladders.name\[0\]"),
    "long names": (
        {
            "scenarios": wire.ScenarioColumns(
                spot_return=wire.Matrix(rows=1, columns=2, values=[0.0, 0.0]), name=["x" * 201]
            )
        },
        INVALID,
        r"scenarios.name\[0\]: has 201",
    ),
    "too many": (
        {"ladders": [wire.Ladder(spot=[0.0] * 1_000, vol=[0.0] * 1_000)]},
        LARGE,
        "1000000 scenarios by name, shock, ladder and history are more than 100000",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(stub, case):
    asked, code, why = WRONG[case]
    with pytest.raises(grpc.RpcError, match=why) as fault:
        stress(stub, **asked)
    assert fault.value.code() is code


# ---- what-ifs -------------------------------------------------------------------------------------------

MONTE_CARLO = wire.MonteCarloScenarios(scenarios=2_000, seed=11, vol_beta=[-0.5])
AGE = wire.HistoricalScenarios(window_days=300, weighting=wire.HistoricalScenarios.WEIGHTING_AGE, decay=0.99)
GIVEN = wire.ScenarioColumns(
    spot_return=wire.Matrix(rows=400, columns=2, values=0.02 * np.random.default_rng(5).standard_normal(800)),
    weight=np.random.default_rng(6).uniform(0.5, 1.5, 400),
)
DISCRETE = wire.TAIL_CONVENTION_DISCRETE


@pytest.mark.parametrize("convention", [wire.TAIL_CONVENTION_EXACT, DISCRETE])
@pytest.mark.parametrize(
    "scenarios",
    [
        {"historical": wire.HistoricalScenarios(window_days=250)},
        {"historical": AGE},
        {"monte_carlo": MONTE_CARLO},
        {"custom": GIVEN},
        {"historical": wire.HistoricalScenarios(window_days=500)},
    ],
    ids=["window", "age", "monte carlo", "given", "live"],
)
def test_a_what_if_is_one_shortfall_less_the_other(stub, scenarios, convention):
    trade = portfolio(rows=TRADE, underlyings=UNDERLYINGS).positions
    impact = stub.WhatIf(
        wire.WhatIfRequest(portfolio="desk", trade=trade, level=0.95, convention=convention, **scenarios),
        timeout=PATIENCE_S,
    )
    tails = [
        stub.ExpectedShortfall(
            wire.ExpectedShortfallRequest(portfolio=name, levels=[0.95], convention=convention, **scenarios),
            timeout=PATIENCE_S,
        ).tail[0]
        for name in ("desk", "with")
    ]
    for found, wanted in zip((impact.before, impact.after), tails, strict=True):
        assert found.expected_shortfall == pytest.approx(wanted.expected_shortfall, rel=1e-10)
        assert found.value_at_risk == pytest.approx(wanted.value_at_risk, rel=1e-10)
    difference = tails[1].expected_shortfall - tails[0].expected_shortfall
    assert impact.incremental == pytest.approx(difference, rel=1e-8)
    assert ("discrete" in impact.provenance.method) == (convention == DISCRETE)


def test_a_what_if_without_a_word_is_that_of_the_live_numbers(stub):
    trade = portfolio(rows=TRADE, underlyings=UNDERLYINGS).positions
    silent = wire.WhatIfRequest(portfolio="desk", trade=trade)
    asked = wire.WhatIfRequest(portfolio="desk", trade=trade, historical=wire.HistoricalScenarios())
    one, other = (stub.WhatIf(request, timeout=PATIENCE_S) for request in (silent, asked))
    assert (one.incremental, one.marginal) == (other.incremental, other.marginal)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"convention": 7}, "convention: 7 is no convention"),
        ({"level": 1.5}, "level"),
        ({"monte_carlo": wire.MonteCarloScenarios(vol_beta=[1.0, 2.0, 3.0])}, "monte_carlo.vol_beta"),
        ({"custom": wire.ScenarioColumns()}, "custom.spot_return"),
        ({"historical": wire.HistoricalScenarios(weighting=9)}, "historical.weighting"),
    ],
)
def test_what_is_wrong_with_a_what_if_is_named(stub, asked, why):
    trade = portfolio(rows=TRADE, underlyings=UNDERLYINGS).positions
    with pytest.raises(grpc.RpcError, match=why) as fault:
        stub.WhatIf(wire.WhatIfRequest(portfolio="desk", trade=trade, **asked), timeout=PATIENCE_S)
    assert fault.value.code() is INVALID
