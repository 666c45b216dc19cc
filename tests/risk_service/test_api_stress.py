"""Stresses and what-ifs over gRPC: the kernels' to the bit, and those of a recomputation written anew."""

from __future__ import annotations

import math

import numpy as np
import pytest
from desk_world import (
    GROUPS,
    ROWS,
    historical_scenarios,
    live_book,
    plain_es,
    plain_pnl,
    plain_value,
    trade_of,
)
from worlds import SPOT, option, portfolio, spot_position

import gpu_kernels as gk
import risk_client
from gpu_kernels.es_components import trade_impact
from gpu_kernels.stress_library import stress_scenarios


def test_stresses_by_group_and_position_add_up(client, service, engine):
    given = risk_client.shocks([[-0.1], [0.0]], [[0.2], [0.1]], names=["crash", "vol"])
    answer = client.stress_test(
        "desk", given, named=["1987-10-19", "2020-03"], by_group=True, by_position=True
    )
    assert answer.names == ("crash", "vol", "1987-10-19", "2020-03")
    scenarios = gk.Scenarios.stacked(
        [
            gk.Scenarios([[-0.1], [0.0]], [[0.2], [0.1]], names=["a", "b"]),
            stress_scenarios(["1987-10-19", "2020-03"], 1),
        ]
    )
    np.testing.assert_array_equal(answer.pnl, engine.revalue(live_book(service), scenarios))
    np.testing.assert_allclose(answer.pnl_by_position.sum(axis=0), answer.pnl, rtol=1e-12)
    np.testing.assert_allclose(answer.pnl_by_group.sum(axis=0), answer.pnl, rtol=1e-12)
    assert answer.pnl_by_group.shape == (3, 4)
    assert answer.pnl[0] == pytest.approx(
        plain_value(SPOT * math.exp(-0.1), 0.2) - plain_value(SPOT), rel=1e-9
    )
    # The S&P 500 fell by 20.47 % that day.
    assert answer.pnl_by_position[4, 2] == pytest.approx(150.0 * SPOT * -0.2047, rel=1e-9)
    assert answer.value_today == pytest.approx(plain_value(SPOT), rel=1e-9)
    assert "vol change is illustrative" in answer.provenance.method


def test_a_what_if_is_the_book_with_the_trade_in_it(client):
    trade = trade_of(option(90.0, False, 30.0))
    answer = client.what_if("desk", trade)
    before, after = plain_es(plain_pnl(500)), plain_es(plain_pnl(500, (*ROWS, option(90.0, False, 30.0))))
    assert answer.before.expected_shortfall == pytest.approx(before, rel=1e-9)
    assert answer.after.expected_shortfall == pytest.approx(after, rel=1e-9)
    assert answer.incremental == pytest.approx(after - before, rel=1e-7)
    small = client.what_if("desk", trade_of(option(90.0, False, 30.0e-6)))
    assert answer.marginal == pytest.approx(small.incremental * 1e6, rel=1e-3)


def test_a_what_if_from_the_cached_vector_is_the_kernels_to_the_bit(client, service, engine):
    trade = (option(110.0, False, 4.0), spot_position(-20.0))
    answer = client.what_if("desk", trade_of(*trade), level=0.95)
    client.put_portfolio(portfolio("trade", rows=trade, groups=GROUPS))
    client.expected_shortfall("trade", risk_client.historical(500))
    book, trade_book = live_book(service), live_book(service, "trade")
    # The live loop's kernel sums a whole desk at once; what is made of its vector is the same bits again.
    vector = service.loop.desk.ask().result(10).measured["desk"].pnl
    np.testing.assert_allclose(vector, engine.revalue(book, historical_scenarios(500)), rtol=1e-10, atol=1e-9)
    impact = trade_impact(engine, book, trade_book, historical_scenarios(500), 0.95, pnl=vector)
    client.delete_portfolio("trade")
    assert answer.incremental == impact.incremental
    assert answer.marginal == impact.marginal
    assert answer.before.expected_shortfall == impact.before.es
    assert (
        answer.provenance.market_snapshot_id
        == service.loop.teller.board.latest("desk").provenance.market_snapshot_id
    )


def test_a_what_if_on_another_engine_is_computed_there(client):
    trade = trade_of(option(90.0, False, 30.0))
    assert client.what_if("desk", trade, engine="reference").provenance.engine == "reference"
    assert client.what_if("desk", trade, engine="reference").incremental == pytest.approx(
        client.what_if("desk", trade).incremental, rel=1e-8
    )
