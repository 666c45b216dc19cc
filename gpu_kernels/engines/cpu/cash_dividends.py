"""The grid of `formulas.cash_dividends` on the CPU engine.

Options are marched side by side, LANES at a time, each by its own steps; blocks are shared out over threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.engines.cpu import grid_lanes
from gpu_kernels.engines.cpu.american_solver import compiled
from gpu_kernels.engines.cpu.compile import kernel
from gpu_kernels.engines.cpu.grid_lanes import LANES
from gpu_kernels.engines.cpu.threads import workers
from gpu_kernels.formulas.cash_dividends import (
    ESCROWED,
    EULER_STEPS,
    LEAST_STEPS,
    LIQUIDATOR,
    MIDDLE,
    Schedule,
)

Floats = NDArray[np.float64]

# Stands for what exercise pays where it counts for nothing.
NOTHING = -1e300
TODAY = np.zeros(1)


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
    found: Floats = solve_at(columns, american, schedule, policy, spacing, points, steps, keep, TODAY)[0]
    return found


def solve_at(
    columns: Any,
    american: Any,
    schedule: Schedule,
    policy: int,
    spacing: Any,
    points: int,
    steps: int,
    keep: int,
    moments: Floats,
) -> Floats:
    """The same at moments (M,), years from today, ascending: (M, n, keep). Ex-dates at a moment are over."""
    out = np.empty((len(moments), spacing.size, keep))

    def work(start: int, stop: int) -> None:
        part = tuple(column[start:stop] for column in columns)
        offsets = schedule.offsets[start : stop + 1]
        march(
            part, american[start:stop], schedule.times, schedule.amounts, offsets, policy,
            spacing[start:stop], points, steps, moments, grid_lanes.room(points + 1), out[:, start:stop],
        )  # fmt: skip

    workers().run(spacing.size, work, LANES)
    return out


@kernel
def march(  # type: ignore[no-untyped-def]
    columns, american, times, amounts, offsets, policy, spacing, points, steps, moments, room, out
):
    """Up to LANES rows' grids from expiry back to the first of the moments."""
    value, push, upper, coefficients = room
    nodes, rows = points + 1, out.shape[1]
    spot = np.empty((LANES, nodes))
    # What dividends to come are worth; where the lane is, years; half a step; and what a step takes off them.
    ahead, later, half, decay = np.zeros(LANES), np.empty(LANES), np.empty(LANES), np.empty(LANES)
    # Steps left of this length, and of the next one; the next ex-date and moment, going back.
    left, then = np.zeros(LANES, np.int64), np.zeros(LANES, np.int64)
    event, moment = np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    for lane in range(LANES):
        i = min(lane, rows - 1)  # lanes beyond the last row do what that does
        at_expiry(columns, american, i, lane, spacing[i], spot[lane], value, coefficients)
        later[lane], event[lane], moment[lane] = columns[2][i], offsets[i + 1] - 1, len(moments) - 1
    going, begun = rows, False
    while True:
        changed = False
        for lane in range(LANES):
            if left[lane] > 0:
                continue
            i = min(lane, rows - 1)
            if then[lane] > 0:
                left[lane], then[lane], half[lane] = then[lane], 0, 2.0 * half[lane]
                decay[lane] = set_step(coefficients, lane, columns, i, spacing[i], half[lane], 0.5)
                changed = True
            elif moment[lane] >= 0:
                if begun:
                    later[lane] = next_stop(lane, i, event, moment, times, moments, offsets)
                stop(
                    lane, i, rows, columns, american, times, amounts, offsets, policy, moments, later[lane],
                    event, moment, ahead, spot, value, out,
                )  # fmt: skip
                if moment[lane] >= 0:
                    years = later[lane] - next_stop(lane, i, event, moment, times, moments, offsets)
                    count = max(LEAST_STEPS, int(np.ceil(steps * years / columns[2][i])))
                    left[lane] = min(EULER_STEPS, 2 * count)
                    then[lane], half[lane] = count - left[lane] // 2, 0.5 * years / count
                    decay[lane] = set_step(coefficients, lane, columns, i, spacing[i], half[lane], 1.0)
                    push[:, lane] = 0.0
                    changed = True
                elif lane < rows:
                    going -= 1
            # A lane that has arrived goes on with the others, to no effect.
            left[lane] = max(left[lane], 1)
        begun = True
        if going == 0:
            return
        if changed:
            factored(upper, coefficients, nodes)
        for lane in range(LANES):
            i = min(lane, rows - 1)
            ahead[lane] *= decay[lane]
            left[lane] -= 1
            shift = coefficients[grid_lanes.SIGN, lane] * (ahead[lane] - columns[1][i])
            coefficients[grid_lanes.SHIFT, lane] = shift if american[i] else NOTHING
        grid_lanes.step(value, push, upper, coefficients, nodes)
        for lane in range(LANES):
            ratio = coefficients[grid_lanes.RATIO, lane]
            value[0, lane] = value[1, lane] - ratio * (value[2, lane] - value[1, lane])
            rise = value[nodes - 2, lane] - value[nodes - 3, lane]
            value[nodes - 1, lane] = value[nodes - 2, lane] + rise / ratio


@compiled
def at_expiry(columns, american, row, lane, dy, spot, value, coefficients):  # type: ignore[no-untyped-def]
    """A lane's spots, its payoff, and what of its coefficients stays."""
    spots, strikes, _, _, _, _, calls = columns
    nodes, strike = spot.shape[0], strikes[row]
    middle, sign, ratio = (nodes - 1) // 2, 1.0 if calls[row] else -1.0, np.exp(dy)
    spot[middle] = spots[row]
    for j in range(middle):
        spot[middle + j + 1] = spot[middle + j] * ratio
        spot[middle - j - 1] = spot[middle - j] / ratio
    for j in range(nodes):
        value[j, lane] = max(sign * (spot[j] - strike), 0.0)
    smooth_kink(spot, strike, sign, dy, value[:, lane])
    coefficients[grid_lanes.SIGN, lane] = sign if american[row] else 0.0
    coefficients[grid_lanes.FLOOR, lane] = 0.0 if american[row] else NOTHING
    coefficients[grid_lanes.RATIO, lane] = 1.0 / ratio
    coefficients[grid_lanes.TOP, lane] = spot[nodes - 2]


@compiled
def stop(  # type: ignore[no-untyped-def]
    lane, row, rows, columns, american, times, amounts, offsets, policy, moments, now, event, moment, ahead,
    spot, value, out,
):  # fmt: skip
    """What a lane tells and what is paid at this time, going back: first what is told."""
    while True:
        if moment[lane] >= 0 and moments[moment[lane]] >= now:
            if lane < rows:
                low = (value.shape[0] - 1) // 2 - out.shape[2] // 2
                for j in range(out.shape[2]):
                    out[moment[lane], lane, j] = value[low + j, lane]
            moment[lane] -= 1
        elif event[lane] >= offsets[row] and times[event[lane]] >= now:
            # Ex-dates at or after expiry do not matter.
            if times[event[lane]] < columns[2][row]:
                pay(
                    columns, american[row], row, policy, amounts[event[lane]], now, lane, ahead, spot[lane],
                    value[:, lane],
                )  # fmt: skip
            event[lane] -= 1
        else:
            return


@compiled
def pay(columns, american, row, policy, amount, now, lane, ahead, spot, value):  # type: ignore[no-untyped-def]
    """The values before an ex-date, from those after it."""
    _, strikes, expiries, _, rates, _, calls = columns
    sign = 1.0 if calls[row] else -1.0
    if policy == ESCROWED:
        ahead[lane] += amount
    else:
        pay_dividend(
            spot, amount, rates[row], now, expiries[row], strikes[row], sign, american, policy == LIQUIDATOR,
            value,
        )  # fmt: skip
    if american:
        for j in range(spot.shape[0]):
            value[j] = max(value[j], max(sign * (spot[j] + ahead[lane] - strikes[row]), 0.0))


@compiled
def next_stop(lane, row, event, moment, times, moments, offsets):  # type: ignore[no-untyped-def]
    """The next ex-date or moment of a lane, going back."""
    when = moments[moment[lane]]
    if event[lane] >= offsets[row]:
        when = max(when, times[event[lane]])
    return when


@compiled
def set_step(coefficients, lane, columns, row, dy, dt, theta):  # type: ignore[no-untyped-def]
    """A lane's step of length dt, implicit by the part theta; gives what it takes off dividends to come."""
    vol, rate, dividend_yield = columns[3][row], columns[4][row], columns[5][row]
    a = 0.5 * vol * vol / (dy * dy)
    b = (rate - dividend_yield - 0.5 * vol * vol) / (2.0 * dy)
    rest = (1.0 - theta) * dt
    low, middle, high = -theta * dt * (a - b), 1.0 + theta * dt * (2.0 * a + rate), -theta * dt * (a + b)
    if high == 0.0:
        high = -1e-300
    coefficients[grid_lanes.FROM_BELOW, lane] = rest * (a - b) / high
    coefficients[grid_lanes.FROM_HERE, lane] = (1.0 - rest * (2.0 * a + rate)) / high
    coefficients[grid_lanes.FROM_ABOVE, lane] = rest * (a + b) / high
    coefficients[grid_lanes.FROM_PUSH, lane] = dt / high
    coefficients[grid_lanes.LOW, lane] = low / high
    coefficients[grid_lanes.TIME, lane] = dt
    coefficients[grid_lanes.PER_TIME, lane] = 1.0 / dt
    coefficients[grid_lanes.MIDDLE, lane] = middle
    coefficients[grid_lanes.HIGH, lane] = high
    return np.exp(-(rate - dividend_yield) * dt)


@compiled
def factored(upper, coefficients, nodes):  # type: ignore[no-untyped-def]
    """LU factors of I - theta dt L in all lanes; the value is linear in spot beyond both ends."""
    for lane in range(LANES):
        ratio, high = coefficients[grid_lanes.RATIO, lane], coefficients[grid_lanes.HIGH, lane]
        low = coefficients[grid_lanes.LOW, lane] * high
        pivot = 1.0 / (coefficients[grid_lanes.MIDDLE, lane] + low * (1.0 + ratio))
        upper[1, lane] = (high - low * ratio) * pivot
        coefficients[grid_lanes.FIRST, lane] = high * pivot
    grid_lanes.factor(upper, coefficients, nodes)
    for lane in range(LANES):
        ratio, high = coefficients[grid_lanes.RATIO, lane], coefficients[grid_lanes.HIGH, lane]
        end_low = coefficients[grid_lanes.LOW, lane] * high - high / ratio
        middle = coefficients[grid_lanes.MIDDLE, lane] + high * (1.0 + 1.0 / ratio)
        coefficients[grid_lanes.END_LOW, lane] = end_low / high
        coefficients[grid_lanes.END, lane] = high / (middle - end_low * upper[nodes - 3, lane])


@compiled
def smooth_kink(spot, strike, sign, dy, value):  # type: ignore[no-untyped-def]
    """Replace the payoff by its average over each cell.

    Second order wherever the strike lies between nodes.
    """
    half = np.exp(0.5 * dy)
    for j in range(1, spot.shape[0] - 1):
        low, high = spot[j] / half, spot[j] * half
        if low < strike < high:
            if sign > 0.0:
                value[j] = ((high - strike) - strike * np.log(high / strike)) / dy
            else:
                value[j] = (strike * np.log(strike / low) - (strike - low)) / dy


@compiled
def pay_dividend(spot, amount, rate, now, expiry, strike, sign, american, liquidator, value):  # type: ignore[no-untyped-def]
    """value(S) becomes value(S - D), by cubic interpolation in S; at S = 0 the stock stays there."""
    n = spot.shape[0]
    was = value.copy()
    gone = 0.0
    if sign < 0.0:
        gone = strike * np.exp(-rate * (expiry - now))
        if american:
            gone = max(gone, strike)
    k = 0
    for j in range(n):
        target = spot[j] - amount
        if target <= 0.0 and not liquidator:
            continue
        if target <= spot[0]:
            share = max(target, 0.0) / spot[0]
            value[j] = gone + share * (was[0] - gone)
            continue
        while k < n - 2 and spot[k + 1] < target:
            k += 1
        m = min(max(k - 1, 0), n - 4)
        total = 0.0
        for p in range(m, m + 4):
            weight = 1.0
            for o in range(m, m + 4):
                if o != p:
                    weight *= (target - spot[o]) / (spot[p] - spot[o])
            total += weight * was[p]
        value[j] = total
