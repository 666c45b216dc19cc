"""Expected shortfall over gRPC: the kernels' to the bit, and that of a recomputation written anew."""

from __future__ import annotations

import math

import numpy as np
import pytest
from desk_world import (
    GROUPS,
    HISTORY,
    ROWS,
    WINDOW,
    historical_scenarios,
    live_book,
    plain_es,
    plain_pnl,
    plain_value,
)
from served import PATIENCE_S, UNDERLYINGS, Service, serving
from worlds import RATE, SPOT, option, portfolio, spot_position

import gpu_kernels as gk
import risk_client
from gpu_kernels.es_components import component_es
from risk_client import RiskClient
from service_kit.grpc_server import GrpcSettings


def test_historical_es_is_the_kernels_to_the_bit(client, service, engine):
    answer = client.expected_shortfall(
        "desk", risk_client.historical(WINDOW), levels=[0.975, 0.9], with_components=True, with_pnl=True
    )
    book, scenarios = live_book(service), historical_scenarios()
    pnl = engine.revalue(book, scenarios)
    np.testing.assert_array_equal(answer.pnl, pnl)
    for level, tail in zip((0.975, 0.9), answer.tail, strict=True):
        expected = gk.tail_risk(pnl, level)
        assert (tail.value_at_risk, tail.expected_shortfall) == (expected.var, expected.es)
        assert tail.expected_shortfall_std_error == expected.es_std_error
    parts = component_es(engine, book, scenarios, 0.975, pnl=pnl)
    np.testing.assert_array_equal(answer.component_by_position, parts.by_position)
    np.testing.assert_array_equal(answer.component_by_group[:2], parts.by_group)
    assert answer.component_by_group[2] == 0.0
    assert (answer.scenarios, answer.portfolio_version) == (WINDOW, 1)


def test_historical_es_is_that_of_a_plain_recomputation(client):
    answer = client.expected_shortfall(
        "desk", risk_client.historical(WINDOW), with_pnl=True, with_components=True
    )
    np.testing.assert_allclose(answer.pnl, plain_pnl(), rtol=1e-9, atol=1e-9)
    es = plain_es(plain_pnl())
    assert answer.tail[0].expected_shortfall == pytest.approx(es, rel=1e-9)
    assert answer.component_by_position.sum() == pytest.approx(es, rel=1e-12)
    assert answer.component_by_group.sum() == pytest.approx(es, rel=1e-12)


def test_the_live_vector_gives_the_live_number(client, service):
    live = client.expected_shortfall("desk", risk_client.historical(500), with_pnl=True)
    metrics = service.loop.teller.board.latest("desk")
    assert live.tail[0].expected_shortfall == metrics.historical[0].expected_shortfall
    np.testing.assert_allclose(live.pnl, plain_pnl(500), rtol=1e-9, atol=1e-9)


def test_an_inline_portfolio_is_valued_like_a_stored_one(client):
    inline = portfolio("", rows=ROWS, groups=GROUPS)
    mine = client.expected_shortfall(inline, risk_client.historical(WINDOW), with_pnl=True)
    stored = client.expected_shortfall("desk", risk_client.historical(WINDOW), with_pnl=True)
    np.testing.assert_array_equal(mine.pnl, stored.pnl)
    assert mine.portfolio_version == 0
    assert "inline" not in [one.portfolio for one in client.list_portfolios()]


@pytest.mark.parametrize(
    ("scenarios", "how"),
    [
        ({"horizon_days": 10}, {}),
        ({"weighting": "age"}, {}),
        ({"weighting": "filtered_ewma"}, {}),
        ({}, {"engine": "reference"}),
    ],
)
def test_the_live_vector_is_of_one_day_weighed_alike_by_the_serving_engine(client, scenarios, how):
    """A book sent along has no vector at hand."""
    live = client.expected_shortfall("desk", risk_client.historical(500), with_pnl=True)
    asked, inline = risk_client.historical(500, **scenarios), portfolio("", rows=ROWS, groups=GROUPS)
    stored = client.expected_shortfall("desk", asked, with_pnl=True, **how)
    sent = client.expected_shortfall(inline, asked, with_pnl=True, **how)
    np.testing.assert_allclose(stored.pnl, sent.pnl, rtol=1e-9, atol=1e-9)
    es = stored.tail[0].expected_shortfall
    assert es == pytest.approx(sent.tail[0].expected_shortfall, rel=1e-9)
    assert stored.provenance.engine == how.get("engine", live.provenance.engine)
    assert es != live.tail[0].expected_shortfall


def test_inline_symbols_leave_no_trace_in_the_market(client, service):
    before = dict(service.loop.state.market._slots)
    book = portfolio("", rows=(*ROWS, option(95.0, True)), groups=GROUPS)
    client.expected_shortfall(book, risk_client.historical(WINDOW))
    assert service.loop.state.market._slots == before


def test_an_inline_contract_with_other_terms_marks_nobody_else(client):
    before = client.expected_shortfall("desk", risk_client.historical(WINDOW), with_pnl=True)
    other = portfolio("", rows=(option(90.0, False), option(100.0, True)))
    other.positions.american.append(True)
    for row in range(2):
        other.positions.expiry_time_ns[row] += 12 * 3_600 * 10**9
    client.expected_shortfall(other, risk_client.historical(WINDOW))
    after = client.expected_shortfall("desk", risk_client.historical(WINDOW), with_pnl=True)
    np.testing.assert_array_equal(before.pnl, after.pnl)


@pytest.mark.parametrize("distribution", ["normal", "student_t", "jump"])
@pytest.mark.parametrize("sampler", ["sobol", "philox"])
def test_monte_carlo_es_is_the_kernels_to_the_bit(client, service, engine, distribution, sampler):
    asked = risk_client.monte_carlo(
        2_000, seed=2**63 + 11, horizon=0.02, distribution=distribution, vol_beta=-0.8, sampler=sampler
    )
    answer = client.expected_shortfall("desk", asked, with_pnl=True, levels=[0.99], convention="discrete")
    returns = np.diff(np.log(HISTORY.closes[:, :1]), axis=0)
    scenarios = gk.simulate_scenarios(
        2_000,
        mean=0.0,
        cov=HISTORY.covariance(("IDX",), 500).cov,
        seed=2**63 + 11,
        horizon=0.02,
        distribution=distribution,
        vol_beta=-0.8,
        sampler=sampler,
    )
    pnl = engine.revalue(live_book(service), scenarios)
    np.testing.assert_array_equal(answer.pnl, pnl)
    assert answer.tail[0].expected_shortfall == gk.tail_risk(pnl, 0.99, "discrete").es
    # The draws have the spread of the history: a few per cent of sampling error, no factor.
    assert scenarios.spot_return.std() == pytest.approx(returns.std() * math.sqrt(252 * 0.02), rel=0.2)


@pytest.mark.parametrize("weighting", ["plain", "age", "filtered_ewma", "filtered_garch"])
def test_weightings_and_horizons_reach_the_kernels(client, service, engine, weighting):
    asked = risk_client.historical(250, horizon_days=10, weighting=weighting, decay=0.99)
    answer = client.expected_shortfall("desk", asked, levels=[0.9], with_components=True)
    scenarios = HISTORY.scenarios(("IDX",), 250, horizon_days=10, weighting=weighting, decay=0.99)
    pnl = engine.revalue(live_book(service), scenarios)
    expected = gk.tail_risk(pnl, 0.9, weights=scenarios.weights)
    assert answer.tail[0].expected_shortfall == expected.es
    assert answer.component_by_position.sum() == pytest.approx(expected.es, rel=1e-12)


def test_given_scenarios_are_revalued_in_full(client):
    moves, changes = np.array([-0.2, 0.1, 0.05, -0.01]), np.array([0.3, -0.5, 0.0, 0.01])
    given = risk_client.shocks(moves[:, None], changes[:, None], [0.01, 0.0, -0.01, 0.0], elapsed=0.1)
    answer = client.expected_shortfall("desk", given, levels=[0.5], with_pnl=True)
    rates = RATE + np.array([0.01, 0.0, -0.01, 0.0])
    expected = plain_value(SPOT * np.exp(moves), changes, 0.4, rates) - plain_value(SPOT)
    np.testing.assert_allclose(answer.pnl, expected, rtol=1e-9)
    assert answer.tail[0].expected_shortfall == pytest.approx(plain_es(expected, 0.5), rel=1e-9)


def test_an_answer_says_where_it_comes_from(client, service, engine):
    answer = client.expected_shortfall("desk", risk_client.historical(WINDOW))
    came = answer.provenance
    assert (came.engine, came.device) == (engine.name, engine.device)
    assert came.market_snapshot_id == service.loop.state.market.snapshot_id()
    assert came.method == "full revaluation, 300 historical scenarios of 1 d, plain, exact_tail"
    assert not came.degraded
    reference = client.expected_shortfall("desk", risk_client.historical(WINDOW), engine="reference")
    assert reference.provenance.engine == "reference"
    assert reference.tail[0].expected_shortfall == pytest.approx(answer.tail[0].expected_shortfall, rel=1e-9)


def test_positions_left_out_count_nought_and_are_named(client):
    rows = (option(95.0, True), *ROWS, spot_position(1.0, "ABC", 1))
    book = portfolio("", rows=rows, underlyings=UNDERLYINGS, groups=GROUPS)
    answer = client.expected_shortfall(book, risk_client.historical(WINDOW), with_components=True)
    assert list(answer.tail[0].warnings)[-2:] == [
        f"position 0, {rows[0][0]}, is left out: no market data",
        "position 6, ABC, is left out: no market data",
    ]
    assert answer.component_by_position[[0, 6]].tolist() == [0.0, 0.0]
    assert answer.component_by_position.sum() == pytest.approx(plain_es(plain_pnl()), rel=1e-9)


def test_a_replay_gives_the_same_number_at_the_same_snapshot(client):
    with Service(HISTORY) as again:
        again.open_market()
        with (
            serving(lambda: again.server(GrpcSettings(port=0))) as server,
            RiskClient(f"127.0.0.1:{server.port}", deadline_s=PATIENCE_S) as other,
        ):
            other.put_portfolio(portfolio(rows=ROWS, groups=GROUPS))
            first = client.expected_shortfall("desk", risk_client.historical(WINDOW), with_pnl=True)
            second = other.expected_shortfall("desk", risk_client.historical(WINDOW), with_pnl=True)
    assert first.provenance.market_snapshot_id == second.provenance.market_snapshot_id
    np.testing.assert_array_equal(first.pnl, second.pnl)
