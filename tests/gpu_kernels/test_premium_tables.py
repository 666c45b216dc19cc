"""Tabulated early exercise premiums against exact American values, inside and at the edges of the tables."""

from __future__ import annotations

import numpy as np
import pytest

import gpu_kernels as gk
from gpu_kernels.premium_tables import POINT_FIELDS, SPOT_RANGE, VOL_RANGE, build_premium_table
from gpu_kernels.revaluation import position_pnl

SPOT, RATE, YIELD, COUNT = 100.0, 0.04, 0.01, 24


def terms():
    place = np.arange(COUNT)
    return {
        "strike": np.linspace(80.0, 120.0, COUNT),
        "expiry": np.array([0.1, 0.5, 1.0])[place % 3],
        "rate": RATE,
        "dividend_yield": YIELD,
        "is_call": place % 2 == 0,
    }


@pytest.fixture(scope="module")
def scenarios():
    random = np.random.default_rng(11)
    history = gk.Scenarios(
        0.015 * random.standard_t(4, (40, 1)), 0.01 * random.standard_normal((40, 1)), elapsed=1 / 252
    )
    stress = gk.Scenarios(np.log1p([[-0.2], [0.1]]), np.array([[0.2], [-0.05]]))
    return gk.Scenarios.stacked([history, stress])


@pytest.fixture(scope="module")
def vol():
    return np.linspace(0.2, 0.35, COUNT)


@pytest.fixture(scope="module")
def table(cpu, scenarios, vol):
    options = gk.Options(spot=SPOT, vol=vol, american=True, **terms())
    return build_premium_table(cpu, options, scenarios)


def today_of_each(table, spot, vol):
    return np.tensordot(table.spot_weights(spot), table.today_at_nodes(vol), axes=1)


def in_scenarios_of_each(table, spot, vol):
    """Option by option, from the sums that the desk takes."""
    each = np.eye(COUNT)
    level, slope = table.vol_sums(each, vol)
    return (
        np.tensordot(table.spot_weights(spot), table.sums(each), axes=1) + level + np.log(spot / SPOT) * slope
    )


@pytest.mark.parametrize("part", [0.0, 0.4, 0.95])
def test_values_and_scenarios_are_within_the_stated_error(cpu, scenarios, vol, table, part, seed):
    random = np.random.default_rng(seed)
    spot = SPOT * np.exp(part * SPOT_RANGE * random.choice((-1.0, 1.0)))
    vols = vol + part * VOL_RANGE * random.uniform(-1.0, 1.0, COUNT)
    assert table.strain(spot, vols, RATE, YIELD) <= 1.0
    american = gk.Options(spot=spot, vol=vols, american=True, **terms())
    european = gk.Options(spot=spot, vol=vols, american=False, **terms())
    premium = today_of_each(table, spot, vols)[:, 0]
    exact = cpu.price(american).price - cpu.price(european).price
    assert np.abs(premium - exact).max() <= table.error * spot
    ones = np.ones(COUNT)
    moved = position_pnl(cpu, gk.Portfolio(options=european, quantity=ones), scenarios)
    read = moved + in_scenarios_of_each(table, spot, vols) - premium[:, None]
    wanted = position_pnl(cpu, gk.Portfolio(options=american, quantity=ones), scenarios)
    # Two premiums, today's and the scenario's.
    assert np.abs(read - wanted).max() <= 2.0 * table.error * spot
    assert table.error < 1e-3


def test_sums_over_options_are_the_sums_of_the_options(table, vol, seed):
    random = np.random.default_rng(seed)
    weight = random.normal(size=(3, COUNT))
    spot, vols = SPOT * 1.004, vol + 0.01 * random.uniform(-1.0, 1.0, COUNT)
    level, slope = table.vol_sums(weight, vols)
    got = np.tensordot(table.spot_weights(spot), table.sums(weight), axes=1)
    got += level + np.log(spot / SPOT) * slope
    assert got == pytest.approx(weight @ in_scenarios_of_each(table, spot, vols), rel=1e-5, abs=1e-5)


def test_greeks_at_the_anchor_are_exact(cpu, table, vol):
    american = cpu.greeks(gk.Options(spot=SPOT, vol=vol, american=True, **terms()))
    european = cpu.greeks(gk.Options(spot=SPOT, vol=vol, american=False, **terms()))
    read = today_of_each(table, SPOT, vol)
    for place, name in enumerate(POINT_FIELDS):
        wanted = getattr(american, name) - getattr(european, name)
        assert read[:, place] == pytest.approx(wanted, rel=1e-9, abs=1e-9), name


def test_what_lies_outside_is_told(table, vol):
    assert table.strain(SPOT, vol, RATE, YIELD) == 0.0
    assert table.strain(SPOT * 1.02, vol, RATE, YIELD) > 1.0
    assert table.strain(SPOT, vol + 0.3, RATE, YIELD) > 1.0
    assert table.strain(SPOT, vol, RATE + 0.001, YIELD) == np.inf
    assert table.strain(np.nan, vol, RATE, YIELD) == np.inf
