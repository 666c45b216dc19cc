"""Calls about futures: what they gain with spot, rate and time, and what they hedge."""

from __future__ import annotations

import numpy as np
import pytest
from worlds import NOW_NS, RATE, SPOT, YEAR_NS, YIELD, portfolio, spot_position

import risk_client
from protos import packing
from protos.risk.v1 import risk_pb2 as wire

FUTURES = ((10.0, 50.0, 0.5), (-4.0, 20.0, 1.5))  # quantity, multiplier, years
PAID = ((0.25, 1.5), (1.0, 2.0))  # years, amount


def row(quantity, years):
    return ("IDX", wire.INSTRUMENT_KIND_FUTURE, quantity, 0.0, False, years, 0, 0)


def book(dividends=()):
    message = portfolio("", rows=[row(quantity, years) for quantity, _, years in FUTURES])
    packing.write(message.positions, "multiplier", [size for _, size, _ in FUTURES])
    packing.write(message.dividends, "underlying_index", [0] * len(dividends))
    packing.write(message.dividends, "ex_time_ns", [NOW_NS + round(when * YEAR_NS) for when, _ in dividends])
    packing.write(message.dividends, "amount", [amount for _, amount in dividends])
    return message


def price(spot, years, rate=RATE, elapsed=0.0, dividends=()):
    """Bought with borrowed money, carried to the expiry, the dividends set aside as they come."""
    at = elapsed
    for when, amount in dividends:
        if elapsed < when < years:
            spot, at = spot * np.exp((rate - YIELD) * (when - at)) - amount, when
    return spot * np.exp((rate - YIELD) * (years - at))


def gain(spot, rate=RATE, elapsed=0.0, dividends=()):
    return sum(
        quantity
        * size
        * (price(spot, years, rate, elapsed, dividends) - price(SPOT, years, dividends=dividends))
        for quantity, size, years in FUTURES
    )


@pytest.mark.parametrize("dividends", [(), PAID])
def test_stresses_move_futures_by_spot_rate_and_time(client, dividends):
    moves, rates, elapsed = [-0.1, 0.0, 0.0, 0.05], [0.0, 0.01, 0.0, -0.02], [0.0, 0.0, 0.1, 0.4]
    shocks = risk_client.shocks(np.array(moves)[:, None], rate_change=rates, elapsed=elapsed)
    answer = client.stress_test(book(dividends), shocks, by_position=True)
    wanted = [
        gain(SPOT * np.exp(move), RATE + rate, later, dividends)
        for move, rate, later in zip(moves, rates, elapsed, strict=True)
    ]
    np.testing.assert_allclose(answer.pnl, wanted, rtol=1e-11)
    np.testing.assert_allclose(answer.pnl_by_position.sum(axis=0), answer.pnl, rtol=1e-11)
    assert answer.value_today == 0.0


def test_shortfall_and_what_if_know_the_rates_too(client):
    random = np.random.default_rng(5)
    moves, rates = random.normal(0.0, 0.01, 400), random.normal(0.0, 0.004, 400)
    shocks = risk_client.shocks(moves[:, None], rate_change=rates)
    losses = np.sort(-gain(SPOT * np.exp(moves), RATE + rates))[::-1]
    answer = client.expected_shortfall(book(), shocks, with_components=True)
    assert answer.tail[0].expected_shortfall == pytest.approx(losses[:10].mean(), rel=1e-10)
    assert sum(answer.component_by_position) == pytest.approx(losses[:10].mean(), rel=1e-10)
    named = portfolio("futures", rows=[spot_position(0.0)])
    client.put_portfolio(named)
    impact = client.what_if("futures", book().positions, scenarios=shocks)
    assert impact.after.expected_shortfall == pytest.approx(losses[:10].mean(), rel=1e-10)


def test_a_future_hedges_by_what_its_price_gains_with_the_spot(client):
    client.put_portfolio(portfolio("stock", rows=[spot_position(1_000.0)]))
    instruments = portfolio(rows=[row(1e6, 1.5)]).positions
    packing.write(instruments, "multiplier", [20.0])
    answer = client.hedge("stock", "delta", instruments)
    slope = 20.0 * (price(SPOT + 1.0, 1.5) - price(SPOT, 1.5))
    assert answer.trade[0] == round(-1_000.0 / slope)
