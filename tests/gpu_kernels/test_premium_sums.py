"""Premiums summed up for their holders, against polynomials fitted anew to every option of the table."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_kernels.premium_sums import Holdings, PremiumSums
from gpu_kernels.premium_tables import POINT_FIELDS, SPOT_NODES, SPOT_RANGE, VOL_RANGE, PremiumTable

OPTIONS, CELLS, SCENARIOS = 17, 5, 23


@pytest.fixture
def table(seed):
    random = np.random.default_rng(seed)
    return PremiumTable(
        spot=90.0,
        vol=random.uniform(0.1, 0.4, OPTIONS),
        rate=0.03,
        dividend_yield=0.01,
        spot_range=SPOT_RANGE,
        vol_range=np.full(OPTIONS, VOL_RANGE),
        nodes=SPOT_RANGE * np.cos(np.pi * (np.arange(SPOT_NODES) + 0.5) / SPOT_NODES),
        in_scenarios=random.random((SPOT_NODES, OPTIONS, SCENARIOS), np.float32),
        by_vol=random.random((3, OPTIONS, SCENARIOS), np.float32),
        today=random.random((SPOT_NODES, 3, OPTIONS, len(POINT_FIELDS))),
        error=0.0,
    )


@pytest.fixture
def weights(seed):
    """Who holds what: with sign and without; nobody holds the third option."""
    random = np.random.default_rng(seed + 1)
    held = np.where(random.random((OPTIONS, CELLS)) < 0.5, random.integers(1, 9, (OPTIONS, CELLS)), 0)
    held[2] = 0
    return held * random.choice((-1.0, 1.0), held.shape), held * 1.5


def sums_of(cpu, table, weights):
    signed, gross = weights
    option, cell = np.nonzero(gross)
    first = np.concatenate(([0], np.cumsum((gross > 0).sum(axis=1))))
    pairs = signed[option, cell], gross[option, cell]
    return PremiumSums(cpu, table, Holdings(first, cell.astype(np.int32), *pairs), CELLS)


def along_spot(table, values, x):
    """The polynomial through values at the nodes, by least squares, at a log spot."""
    flat = values.reshape(len(table.nodes), -1).astype(np.float64)
    fitted = np.polynomial.polynomial.polyfit(table.nodes / SPOT_RANGE, flat, len(table.nodes) - 1)
    return np.polynomial.polynomial.polyval(x / SPOT_RANGE, fitted).reshape(values.shape[1:])


def of_each(table, spot, vol):
    """Today's premiums and derivatives (C, 9), and those in scenarios (C, S), option by option."""
    x, off = np.log(spot / table.spot), np.clip(vol - table.vol, -VOL_RANGE, VOL_RANGE)
    slope, cross, curve = table.by_vol.astype(np.float64)
    moved = off[:, None] * (slope + x * cross + off[:, None] * curve)
    today = np.empty((OPTIONS, len(POINT_FIELDS)))
    for option in range(OPTIONS):
        low, middle, high = along_spot(table, table.today[:, :, option], x)
        fitted = np.polynomial.polynomial.polyfit([-VOL_RANGE, 0.0, VOL_RANGE], [low, middle, high], 2)
        today[option] = np.polynomial.polynomial.polyval(off[option], fitted)
    return today, along_spot(table, table.in_scenarios, x) + moved


def test_sums_are_those_of_each_option_and_follow_spot_and_vols(cpu, table, weights, seed):
    random = np.random.default_rng(seed + 2)
    sums, (signed, gross) = sums_of(cpu, table, weights), weights
    cells = np.array([6, 0, 3, 1, 4])
    # The second time vols have moved, some beyond the range; the third time they are back at the anchor.
    for shift in (0.5, 2.0, 0.0):
        vol = table.vol + shift * VOL_RANGE * random.uniform(-1.0, 1.0, OPTIONS)
        sums.take(vol)
        for spot in (table.spot, 90.4, 89.2):
            before = random.random((8, 1 + len(POINT_FIELDS))), random.random((8, SCENARIOS))
            points, pnl = before[0].copy(), before[1].copy()
            sums.add(spot, cells, points, pnl)
            today, scenarios = of_each(table, spot, vol)
            added, gained = points - before[0], pnl - before[1]
            assert added[cells, 0] == pytest.approx(signed.T @ today[:, 0], rel=1e-9, abs=1e-9)
            assert added[cells, 1] == pytest.approx(gross.T @ today[:, 0], rel=1e-9, abs=1e-9)
            assert added[cells, 2:] == pytest.approx(signed.T @ today[:, 1:], rel=1e-9, abs=1e-9)
            # Kept with seven digits.
            wanted = signed.T @ (scenarios - today[:, :1])
            assert gained[cells] == pytest.approx(wanted, abs=1e-5 * np.abs(signed).sum())
            others = np.setdiff1d(np.arange(8), cells)
            assert not added[others].any()
            assert not gained[others].any()
