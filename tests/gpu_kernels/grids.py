"""Random and adversarial options over the whole range that the accuracy targets hold on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

HOUR_YEARS = 1.0 / 8766.0
LONGEST_YEARS = 32.0
LEAST_VOL, MOST_VOL = 0.01, 3.2
LEAST_RATE, MOST_RATE = -0.05, 0.20


class Grid(NamedTuple):
    """Columns of one set of options."""

    spot: NDArray[np.float64]
    strike: NDArray[np.float64]
    expiry: NDArray[np.float64]
    vol: NDArray[np.float64]
    rate: NDArray[np.float64]
    dividend_yield: NDArray[np.float64]
    is_call: NDArray[np.bool_]


def wide(rng: np.random.Generator, size: int) -> Grid:
    """Spot and strike anywhere in four decades, everything else anywhere in its range."""
    expiry, vol, rate, dividend_yield = _market(rng, size)
    spot, strike = 10.0 ** rng.uniform(-2, 2, (2, size))
    return Grid(spot, strike, expiry, vol, rate, dividend_yield, rng.random(size) < 0.5)


def within_reach(rng: np.random.Generator, size: int) -> Grid:
    """Strikes up to 13 standard deviations from the forward: from the deepest tail to the money."""
    expiry, vol, rate, dividend_yield = _market(rng, size)
    spot = 10.0 ** rng.uniform(-2, 2, size)
    drift = (rate - dividend_yield) * expiry
    moneyness = drift + rng.uniform(-13, 13, size) * vol * np.sqrt(expiry)
    strike = np.clip(spot * np.exp(moneyness), 1e-2, 1e2)
    return Grid(spot, strike, expiry, vol, rate, dividend_yield, rng.random(size) < 0.5)


def near_money(rng: np.random.Generator, size: int) -> Grid:
    """Strikes at the money, a few last digits or a millionth away from it."""
    grid = within_reach(rng, size)
    steps = rng.choice([0.0, 2.2e-16, -2.2e-16, 1e-12, -1e-9, 1e-6, -1e-4], size)
    on_forward = rng.random(size) < 0.5
    drift = np.where(on_forward, (grid.rate - grid.dividend_yield) * grid.expiry, 0.0)
    return grid._replace(strike=grid.spot * np.exp(drift) * (1.0 + steps))


def corners(rng: np.random.Generator, size: int) -> Grid:
    """Every parameter at one end of its range or the other, strikes spread over the reachable ones."""
    grid = within_reach(rng, size)
    expiry = rng.choice([HOUR_YEARS, 1.0 / 365.0, 1.0, LONGEST_YEARS], size)
    vol = rng.choice([LEAST_VOL, MOST_VOL], size)
    rate, dividend_yield = rng.choice([LEAST_RATE, 0.0, MOST_RATE], (2, size))
    reach = (rate - dividend_yield) * expiry + rng.uniform(-12, 12, size) * vol * np.sqrt(expiry)
    strike = np.clip(grid.spot * np.exp(reach), 1e-2, 1e2)
    return Grid(grid.spot, strike, expiry, vol, rate, dividend_yield, grid.is_call)


def at_the_switch(rng: np.random.Generator, size: int) -> Grid:
    """Options within rounding of z1 = 1/2, where formulas change sides, and of carry 1/2."""
    grid = within_reach(rng, size)
    total = np.minimum(grid.vol * np.sqrt(grid.expiry), 0.95)
    vol = total / np.sqrt(grid.expiry)
    # -|x|/s + s/2 = 1/2 has no solution for s < 1 but x = 0 at s = 1: above it, |x| = s (s - 1) / 2.
    vol = np.where(rng.random(size) < 0.5, vol + 1.0 / np.sqrt(grid.expiry), vol)
    total = vol * np.sqrt(grid.expiry)
    near = rng.choice([0.0, 1.0, -1.0, 2.0, -3.0, 1e3, -1e6], size) * 2.2e-16
    moneyness = np.maximum(total * (total - 1.0) / 2.0, 0.0) * (1.0 + near) * rng.choice([-1.0, 1.0], size)
    carried = grid.dividend_yield + (0.5 * (1.0 + near)) / grid.expiry
    rate = np.where(carried < MOST_RATE, carried, grid.rate)
    drift = (rate - grid.dividend_yield) * grid.expiry
    return grid._replace(strike=grid.spot * np.exp(drift + moneyness), vol=vol, rate=rate)


def deep_with_a_carry(rng: np.random.Generator, size: int) -> Grid:
    """Options in the money with a little time value, with intrinsic value that a carry of 0.1 to 3 leaves."""
    expiry = rng.uniform(2.0, 30.0, size)
    carry = rng.choice([-1.0, 1.0], size) * rng.uniform(0.1, np.minimum(0.1 * expiry, 3.0))
    dividend_yield = np.where(carry < 0.0, -carry / expiry + 0.01, 0.01)
    rate = dividend_yield + carry / expiry
    vol = rng.uniform(0.01, 0.03, size)
    spot = 10.0 ** rng.uniform(-1, 1, size)
    is_call = rng.random(size) < 0.5
    depth = np.where(is_call, -1.0, 1.0) * rng.uniform(2.0, 5.0, size)
    strike = spot * np.exp(carry + depth * vol * np.sqrt(expiry))
    return Grid(spot, strike, expiry, vol, rate, dividend_yield, is_call)


def joined(*grids: Grid) -> Grid:
    """One grid after another."""
    return Grid(*(np.concatenate(columns) for columns in zip(*grids, strict=True)))


def everything(rng: np.random.Generator, size: int) -> Grid:
    """A quarter of each kind."""
    part = size // 4
    return joined(wide(rng, part), within_reach(rng, part), near_money(rng, part), corners(rng, part))


def _market(rng: np.random.Generator, size: int) -> tuple[NDArray[np.float64], ...]:
    expiry = np.exp(rng.uniform(np.log(HOUR_YEARS), np.log(LONGEST_YEARS), size))
    vol = np.exp(rng.uniform(np.log(LEAST_VOL), np.log(MOST_VOL), size))
    rate, dividend_yield = rng.uniform(LEAST_RATE, MOST_RATE, (2, size))
    return expiry, vol, rate, dividend_yield


def carried_to_the_money(rng: np.random.Generator, size: int) -> Grid:
    """A carry of 8 over 32 years that log(spot/strike) all but cancels: what is left must keep its digits."""
    total = LEAST_VOL * np.sqrt(LONGEST_YEARS)
    strike = np.exp((MOST_RATE - LEAST_RATE) * LONGEST_YEARS + rng.uniform(-11, 11, size) * total)
    full = np.full(size, LONGEST_YEARS)
    return Grid(
        np.ones(size), strike, full, np.full(size, LEAST_VOL), np.full(size, MOST_RATE),
        np.full(size, LEAST_RATE), rng.random(size) < 0.5,
    )  # fmt: skip
