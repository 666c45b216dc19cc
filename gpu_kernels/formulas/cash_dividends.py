"""Options on a stock that pays cash dividends: the grid of the pricing equation, and what is read off it.

Between ex-dates the value solves V_t + vol^2 V_yy / 2 + (r - q - vol^2/2) V_y - r V = 0 in y = log S; at an
ex-date it is carried over by V(t-, S) = V(t+, S - D), and just before it the holder may exercise (the spot
model; dividends are paid by the spot itself). A grid is `points` steps in y, centred on today's spot, and
`steps` steps in time: Crank-Nicolson after four half steps of implicit Euler (Rannacher 1984) from expiry and
from each ex-date, early exercise by operator splitting (Ikonen and Toivanen 2004), cubic interpolation at
ex-dates. The error falls with the square of both steps, so two grids, one twice as fine, give an extrapolated
value and an estimate of its error.

The grid serves the escrowed model too: S is then what is left of the spot without the dividends to come. The
value does not jump at ex-dates; what exercise pays does, for the holder gets S and what these dividends are
worth at that moment (`still_to_come`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# What becomes of a dividend larger than the spot; or the escrowed model, in which that does not happen.
LIQUIDATOR, SURVIVOR, ESCROWED = 0, 1, 2
# Nodes in the middle of a grid from which value, delta, gamma and their changes are read.
MIDDLE = 5

# Half the width of the grid in standard deviations of log S.
DEVIATIONS = 6.0
EULER_STEPS = 4  # half steps after every kink in time
LEAST_STEPS = 6  # in any interval between ex-dates


class Schedule(NamedTuple):
    """Ex-dates of every row: row i has times[offsets[i]:offsets[i + 1]], ascending, in years from today."""

    times: Floats
    amounts: Floats
    offsets: NDArray[np.int64]


class GridGreeks(NamedTuple):
    """What one grid gives, before extrapolation."""

    price: Floats
    delta: Floats
    gamma: Floats
    theta: Floats
    charm: Floats


# Values at the `keep` middle nodes of each row's grid, (n, keep); keep is MIDDLE where it is not given:
# solve(columns, american, schedule, policy, spacing, points, steps, keep)
Solver = Callable[..., Floats]


def no_dividends(rows: int) -> Schedule:
    """A schedule without a single ex-date."""
    return Schedule(np.empty(0), np.empty(0), np.zeros(rows + 1, dtype=np.int64))


def grid_spacing(columns: Any, schedule: Schedule, points: int) -> Floats:
    """Step in log S of each row's grid.

    Wide enough for the spread, the drift, the strike and the dividends.
    """
    spot, strike, expiry, vol, rate, dividend_yield, _ = columns
    spread = vol * np.sqrt(expiry)
    drift = np.abs(rate - dividend_yield - 0.5 * vol * vol) * expiry
    paid = np.add.reduceat(np.append(schedule.amounts, 0.0), schedule.offsets[:-1]) if spot.size else spot
    paid = np.where(np.diff(schedule.offsets) > 0, paid, 0.0)
    lost = -np.log(np.maximum(1.0 - paid / spot, 0.2))
    half = np.maximum(DEVIATIONS * spread + drift + lost, np.abs(np.log(strike / spot)) + 2.0 * spread + lost)
    return np.asarray(2.0 * half / points)


def still_to_come(columns: Any, schedule: Schedule) -> Floats:
    """What each row's dividends are worth today, discounted at rate less yield."""
    sizes = np.diff(schedule.offsets)
    owner = np.repeat(np.arange(sizes.size), sizes)
    carry = (columns.rate - columns.dividend_yield)[owner]
    worth = schedule.amounts * np.exp(-carry * schedule.times)
    return np.asarray(np.bincount(owner, weights=worth, minlength=sizes.size), np.float64)


def read_grid(columns: Any, spacing: Floats, values: Floats, american: Any, ahead: Any = 0.0) -> GridGreeks:
    """Derivatives at the middle of the grid; exercise gets `ahead` besides the spot of the grid.

    Theta and charm by the pricing equation, 0 where exercise is best.
    """
    spot, strike, _, vol, rate, dividend_yield, is_call = columns
    far_down, down, mid, up, far_up = values.T
    first = (up - down) / (2.0 * spacing)
    second = (up - 2.0 * mid + down) / spacing**2
    third = (far_up - 2.0 * up + 2.0 * down - far_down) / (2.0 * spacing**3)
    delta = first / spot
    gamma = (second - first) / spot**2
    speed = (third - 3.0 * second + 2.0 * first) / spot**3
    carry, half = rate - dividend_yield, 0.5 * vol * vol
    theta = rate * mid - carry * spot * delta - half * spot**2 * gamma
    charm = rate * delta - carry * (delta + spot * gamma) - half * spot * (2.0 * gamma + spot * speed)
    payoff = np.where(is_call, spot + ahead - strike, strike - spot - ahead)
    stopped = american & (mid <= payoff + 1e-12 * (payoff + 1e3 * ahead)) & (payoff > 0.0)
    return GridGreeks(mid, delta, gamma, np.where(stopped, 0.0, theta), np.where(stopped, 0.0, charm))


class Grid(NamedTuple):
    """A solver, and how finely and by which rules it is used."""

    solve: Solver
    schedule: Schedule
    policy: int
    points: int
    steps: int


def extrapolated(grid: Grid, columns: Any, american: Any, spacing: Floats) -> tuple[GridGreeks, Floats]:
    """Values of two grids, one of half the points and steps, extrapolated; and the price's estimated error.

    The estimate is the whole distance from the finer grid to the extrapolated value: an upper estimate.
    """
    solve, schedule, policy, points, steps = grid
    ahead = still_to_come(columns, schedule) if policy == ESCROWED else 0.0
    narrow = solve(columns, american, schedule, policy, spacing, points, steps)
    fine = read_grid(columns, spacing, narrow, american, ahead)
    wide = solve(columns, american, schedule, policy, 2.0 * spacing, points // 2, steps // 2)
    coarse = read_grid(columns, 2.0 * spacing, wide, american, ahead)
    better = [f + (f - c) / 3.0 for f, c in zip(fine, coarse, strict=True)]
    sign = np.where(columns.is_call, 1.0, -1.0)
    payoff = np.maximum(sign * (columns.spot + ahead - columns.strike), 0.0)
    better[0] = np.maximum(better[0], np.where(american, payoff, 0.0))
    return GridGreeks(*better), np.abs(fine.price - coarse.price) / 3.0


VOL_STEP = 0.02  # of the volatility, for the differences below
RATE_STEP = 2e-3


def nine_values(grid: Grid, columns: Any, american: Any) -> tuple[tuple[Floats, ...], Floats]:
    """Price and eight Greeks in the order of GreeksResult, and the estimated error of the price.

    Vega, rho, vanna and volga are central differences of whole solutions on the same grid.
    """
    paid = grid.schedule if grid.policy != ESCROWED else no_dividends(columns.spot.size)
    spacing = grid_spacing(columns, paid, grid.points)
    here, error = extrapolated(grid, columns, american, spacing)
    step = VOL_STEP * columns.vol
    up, _ = extrapolated(grid, columns._replace(vol=columns.vol + step), american, spacing)
    down, _ = extrapolated(grid, columns._replace(vol=columns.vol - step), american, spacing)
    high, _ = extrapolated(grid, columns._replace(rate=columns.rate + RATE_STEP), american, spacing)
    low, _ = extrapolated(grid, columns._replace(rate=columns.rate - RATE_STEP), american, spacing)
    vega = (up.price - down.price) / (2.0 * step)
    volga = (up.price - 2.0 * here.price + down.price) / (step * step)
    vanna = (up.delta - down.delta) / (2.0 * step)
    rho = (high.price - low.price) / (2.0 * RATE_STEP)
    nine = (here.price, here.delta, here.gamma, vega, here.theta, rho, vanna, volga, here.charm)
    return nine, error
