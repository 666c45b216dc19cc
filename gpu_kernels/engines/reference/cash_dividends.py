"""The grid of `formulas.cash_dividends` on the reference engine.

SciPy's banded solver and splines, row by row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.linalg import solve_banded

from gpu_kernels.formulas.cash_dividends import (
    ESCROWED,
    EULER_STEPS,
    LEAST_STEPS,
    LIQUIDATOR,
    MIDDLE,
    Schedule,
)

Floats = NDArray[np.float64]


def solve(
    columns: Any,
    american: Any,
    schedule: Schedule,
    policy: int,
    spacing: Any,
    points: int,
    steps: int,
    keep: int = MIDDLE,
) -> Floats:
    """Values at the middle nodes of each row's grid, (n, keep); columns are full length."""
    out = np.empty((spacing.size, keep))
    for i in range(spacing.size):
        row = [column[i] for column in columns]
        span = slice(schedule.offsets[i], schedule.offsets[i + 1])
        events = [
            (t, d)
            for t, d in zip(schedule.times[span], schedule.amounts[span], strict=True)
            if 0.0 < t < row[2]
        ]
        whole = _one(row, bool(american[i]), events, policy, spacing[i], points, steps)
        first = points // 2 - keep // 2
        out[i] = whole[first : first + keep]
    return out


def _one(
    row: list[Any],
    american: bool,
    events: list[tuple[float, float]],
    policy: int,
    dy: float,
    points: int,
    steps: int,
) -> Floats:
    """All values of one grid, today."""
    spot0, strike, expiry, vol, rate, dividend_yield, is_call = row
    sign = 1.0 if is_call else -1.0
    spot = spot0 * np.exp((np.arange(points + 1) - points // 2) * dy)
    payoff = np.maximum(sign * (spot - strike), 0.0)
    value = _averaged(spot, payoff, strike, sign, dy)
    generator = _generator(spot, vol, rate, dividend_yield, dy)
    later, ahead, carry = expiry, 0.0, rate - dividend_yield
    for when, amount in [*reversed(events), (0.0, 0.0)]:
        count = max(LEAST_STEPS, int(np.ceil(steps * (later - when) / expiry)))

        def exercised(years: float, ahead: float = ahead) -> Floats:
            """What exercise pays so many years before the later end of this stretch."""
            return np.asarray(np.maximum(sign * (spot + ahead * np.exp(-carry * years) - strike), 0.0))

        pays = exercised if american else None
        value = _march(value, pays, generator, (later - when) / count, count)
        if policy == ESCROWED:
            ahead = ahead * np.exp(-carry * (later - when)) + amount
            if american:
                value = np.maximum(value, np.maximum(sign * (spot + ahead - strike), 0.0))
        elif amount > 0.0:
            gone = (
                0.0
                if is_call
                else strike * (1.0 if american and rate > 0.0 else np.exp(-rate * (expiry - when)))
            )
            value = _after_dividend(spot, value, amount, gone, policy == LIQUIDATOR)
            if american:
                value = np.maximum(value, payoff)
        later = when
    return np.asarray(value)


def _averaged(spot: Floats, payoff: Floats, strike: float, sign: float, dy: float) -> Floats:
    """The payoff averaged over the cell that holds the strike."""
    low, high = spot * np.exp(-0.5 * dy), spot * np.exp(0.5 * dy)
    if sign > 0.0:
        mean = ((high - strike) - strike * np.log(high / strike)) / dy
    else:
        mean = (strike * np.log(strike / low) - (strike - low)) / dy
    inside = (low < strike) & (strike < high)
    inside[[0, -1]] = False
    return np.where(inside, mean, payoff)


def _generator(spot: Floats, vol: float, rate: float, dividend_yield: float, dy: float) -> Floats:
    """Bands (upper, diagonal, lower) of the pricing operator at inner nodes.

    Values are linear in spot beyond.
    """
    a = 0.5 * vol * vol / dy**2
    b = (rate - dividend_yield - 0.5 * vol * vol) / (2.0 * dy)
    n = spot.size - 2
    bands = np.array([np.full(n, a + b), np.full(n, -2.0 * a - rate), np.full(n, a - b)])
    left = (spot[1] - spot[0]) / (spot[2] - spot[1])
    right = (spot[-1] - spot[-2]) / (spot[-2] - spot[-3])
    bands[1, 0] += (a - b) * (1.0 + left)
    bands[0, 0] -= (a - b) * left
    bands[1, -1] += (a + b) * (1.0 + right)
    bands[2, -1] -= (a + b) * right
    return bands


def _march(
    value: Floats, pays: Callable[[float], Floats] | None, bands: Floats, dt: float, count: int
) -> Floats:
    early = min(EULER_STEPS, 2 * count)
    plan = [(0.5 * dt, 1.0)] * early + [(dt, 0.5)] * (count - early // 2)
    inner, push = value[1:-1].copy(), np.zeros(value.size - 2)
    gone = 0.0
    for h, theta in plan:
        gone += h
        upper, middle, lower = bands
        change = middle * inner
        change[:-1] += upper[:-1] * inner[1:]
        change[1:] += lower[1:] * inner[:-1]
        right = inner + (1.0 - theta) * h * change + h * push
        matrix = np.zeros((3, inner.size))
        matrix[0, 1:] = -theta * h * upper[:-1]
        matrix[1] = 1.0 - theta * h * middle
        matrix[2, :-1] = -theta * h * lower[1:]
        inner = solve_banded((1, 1), matrix, right)
        if pays is not None:
            free = inner - h * push
            inner = np.maximum(free, pays(gone)[1:-1])
            push = (inner - free) / h
    # The ends are only read at ex-dates, far from today's spot: as good as linear in log spot there.
    return np.concatenate(([2.0 * inner[0] - inner[1]], inner, [2.0 * inner[-1] - inner[-2]]))


def _after_dividend(spot: Floats, value: Floats, amount: float, gone: float, liquidator: bool) -> Floats:
    target = spot - amount
    inside = CubicSpline(spot, value)(np.maximum(target, spot[0]))
    share = np.maximum(target, 0.0) / spot[0]
    low = gone + share * (value[0] - gone)
    moved = np.where(target <= spot[0], low, inside)
    return np.asarray(moved if liquidator else np.where(target <= 0.0, value, moved))
