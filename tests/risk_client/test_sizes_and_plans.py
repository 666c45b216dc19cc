"""Kelly's sizes and rebalancing plans of the client, against Merton's formula and the book's own signs."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from served import PATIENCE_S
from worlds import SPOT, option, portfolio, spot_position

import risk_client
from risk_client import AsyncRiskClient, InvalidRequest

COV, MEAN = [[0.04]], [0.03]
CAPITAL = 1e6


@pytest.fixture(scope="module")
def traded(client):
    book = portfolio("sized", rows=(option(100.0, True, -20.0),))
    client.put_portfolio(book)
    return portfolio(rows=(spot_position(1e9),)).positions


def test_kelly_sizes_are_the_inverse_covariance_times_the_returns(client, address, traded):
    """Full Kelly of a log-normal world: capital × fraction × Σ⁻¹ μ, in currency (Merton 1969)."""
    size = risk_client.kelly(MEAN, CAPITAL, covariance=COV, fraction=0.25)
    came = client.hedge("sized", "kelly", traded, kelly=size, lot_size=1e-6)
    half = client.hedge(
        "sized", "kelly", traded, kelly=risk_client.kelly(MEAN, CAPITAL, covariance=COV), lot_size=1e-6
    )
    wanted = CAPITAL * np.linalg.solve(COV, MEAN)
    # What both hold of the option's delta is the same: their difference is a quarter of Kelly's.
    assert (half.trade - came.trade) * SPOT == pytest.approx(0.25 * wanted, rel=1e-4)

    async def asked():
        async with AsyncRiskClient(address, deadline_s=PATIENCE_S) as desk:
            return await desk.hedge("sized", "kelly", traded, kelly=size, lot_size=1e-6)

    assert asyncio.run(asked()).trade.tolist() == came.trade.tolist()


def test_a_plan_says_where_the_next_trades_are(client, traded):
    came = client.hedge("sized", "delta", cost_rate=0.002, risk_aversion=0.05, plan_reach=0.3, lot_size=0.01)
    assert len(came.plan) == len(came.symbols)
    (plan,) = (one for one, symbol in zip(came.plan, came.symbols, strict=True) if symbol == "IDX")
    assert list(plan.spot_up) == sorted(plan.spot_up)
    assert min(plan.spot_up) > SPOT > max(plan.spot_down)
    assert max(plan.spot_up) <= 1.3 * SPOT + 1e-9
    # Short calls: the higher the spot, the more is bought.
    assert min(plan.trade_up) > 0.0 > max(plan.trade_down)
    assert client.hedge("sized", "delta").plan == ()


def test_sizes_without_what_they_need_are_refused(client, traded):
    with pytest.raises(InvalidRequest) as refused:
        client.hedge("sized", "kelly", traded, kelly=risk_client.kelly(MEAN, 0.0, covariance=COV))
    assert refused.value.violations[0].field == "kelly.capital"
