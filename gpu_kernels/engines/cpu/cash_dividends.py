"""The grid of `formulas.cash_dividends` on the CPU engine.

One option after another, rows shared out over threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.engines.cpu.american_solver import compiled
from gpu_kernels.engines.cpu.compile import kernel
from gpu_kernels.engines.cpu.threads import workers
from gpu_kernels.formulas.cash_dividends import (
    ESCROWED,
    EULER_STEPS,
    LEAST_STEPS,
    LIQUIDATOR,
    MIDDLE,
    Schedule,
)

BLOCK_ROWS = 8


def solve(
    columns: Any,
    american: Any,
    schedule: Schedule,
    policy: int,
    spacing: Any,
    points: int,
    steps: int,
    keep: int = MIDDLE,
) -> NDArray[np.float64]:
    """Values at the middle nodes of each row's grid, (n, keep); columns are full length."""
    out = np.empty((spacing.size, keep))

    def work(start: int, stop: int) -> None:
        part = tuple(column[start:stop] for column in columns)
        offsets = schedule.offsets[start : stop + 1]
        solve_rows(
            part, american[start:stop], schedule.times, schedule.amounts, offsets, policy,
            spacing[start:stop], points, steps, out[start:stop],
        )  # fmt: skip

    workers().run(spacing.size, work, BLOCK_ROWS)
    return out


@kernel
def solve_rows(columns, american, times, amounts, offsets, policy, spacing, points, steps, out):  # type: ignore[no-untyped-def]
    """Each row's grid from expiry back to today."""
    spots, strikes, expiries, vols, rates, yields, calls = columns
    nodes = points + 1
    spot = np.empty(nodes)
    payoff = np.empty(nodes)
    value = np.empty(nodes)
    push = np.empty(nodes)
    work = np.empty((3, nodes))
    for i in range(out.shape[0]):
        dy = spacing[i]
        middle = points // 2
        expiry, rate = expiries[i], rates[i]
        sign = 1.0 if calls[i] else -1.0
        for j in range(nodes):
            spot[j] = spots[i] * np.exp((j - middle) * dy)
            payoff[j] = max(sign * (spot[j] - strikes[i]), 0.0)
            value[j] = payoff[j]
        smooth_kink(spot, strikes[i], sign, dy, value)
        later = expiry
        # In the escrowed model: what the dividends to come are worth, at `later`.
        ahead = 0.0
        first, last = offsets[i], offsets[i + 1]
        for event in range(last, first - 1, -1):
            if event == last:
                # The interval from the last ex-date to expiry; ex-dates at or after expiry do not matter.
                earlier = 0.0
                for e in range(first, last):
                    if times[e] < expiry:
                        earlier = times[e]
            else:
                if times[event] >= expiry or times[event] <= 0.0:
                    continue
                if policy == ESCROWED:
                    ahead += amounts[event]
                    exercise(spot, ahead, strikes[i], sign, payoff)
                else:
                    pay_dividend(
                        spot, amounts[event], rate, later, expiry, strikes[i], sign, american[i],
                        policy == LIQUIDATOR, value, work,
                    )  # fmt: skip
                if american[i]:
                    for j in range(nodes):
                        value[j] = max(value[j], payoff[j])
                earlier = times[event - 1] if event > first else 0.0
                earlier = max(earlier, 0.0)
            count = max(LEAST_STEPS, int(np.ceil(steps * (later - earlier) / expiry)))
            ahead = march(
                value, payoff, push, work, spot, vols[i], rate, yields[i], dy, (later - earlier) / count,
                count, american[i], ahead, strikes[i], sign,
            )  # fmt: skip
            later = earlier
        low = middle - out.shape[1] // 2
        for j in range(out.shape[1]):
            out[i, j] = value[low + j]


@compiled
def exercise(spot, ahead, strike, sign, payoff):  # type: ignore[no-untyped-def]
    """What exercise pays when the holder gets so much besides the spot of the grid."""
    for j in range(spot.shape[0]):
        payoff[j] = max(sign * (spot[j] + ahead - strike), 0.0)


@compiled
def smooth_kink(spot, strike, sign, dy, value):  # type: ignore[no-untyped-def]
    """Replace the payoff by its average over each cell.

    Second order wherever the strike lies between nodes.
    """
    for j in range(1, spot.shape[0] - 1):
        low, high = spot[j] * np.exp(-0.5 * dy), spot[j] * np.exp(0.5 * dy)
        if low < strike < high:
            if sign > 0.0:
                value[j] = ((high - strike) - strike * np.log(high / strike)) / dy
            else:
                value[j] = (strike * np.log(strike / low) - (strike - low)) / dy


@compiled
def march(  # type: ignore[no-untyped-def]
    value, payoff, push, work, spot, vol, rate, dividend_yield, dy, dt, count, american, ahead, strike, sign
):
    """`count` steps of dt back in time; the first two are taken as four half steps of implicit Euler.

    Gives what the dividends to come, worth `ahead` at the later end, are worth at the earlier.
    """
    a = 0.5 * vol * vol / (dy * dy)
    b = (rate - dividend_yield - 0.5 * vol * vol) / (2.0 * dy)
    push[:] = 0.0
    early = min(EULER_STEPS, 2 * count)
    half = np.exp(-(rate - dividend_yield) * 0.5 * dt)
    whole = np.exp(-(rate - dividend_yield) * dt)
    factor(a, b, rate, 0.5 * dt, 1.0, spot, work)
    for _ in range(early):
        if ahead > 0.0:
            ahead *= half
            exercise(spot, ahead, strike, sign, payoff)
        step(value, payoff, push, work, a, b, rate, 0.5 * dt, 1.0, spot, american)
    if 2 * count > early:
        factor(a, b, rate, dt, 0.5, spot, work)
        for _ in range(count - early // 2):
            if ahead > 0.0:
                ahead *= whole
                exercise(spot, ahead, strike, sign, payoff)
            step(value, payoff, push, work, a, b, rate, dt, 0.5, spot, american)
    return ahead


@compiled
def factor(a, b, rate, dt, theta, spot, work):  # type: ignore[no-untyped-def]
    """LU factors of I - theta dt L; the value is linear in spot beyond both ends."""
    n = spot.shape[0]
    low, mid, high = -theta * dt * (a - b), 1.0 + theta * dt * (2.0 * a + rate), -theta * dt * (a + b)
    left = (spot[1] - spot[0]) / (spot[2] - spot[1])
    right = (spot[n - 1] - spot[n - 2]) / (spot[n - 2] - spot[n - 3])
    upper = 0.0
    for j in range(1, n - 1):
        m, h, lo = mid, high, low
        if j == 1:
            m += low * (1.0 + left)
            h -= low * left
            lo = 0.0
        if j == n - 2:
            m += high * (1.0 + right)
            lo -= high * right
        inv = 1.0 / (m - lo * upper)
        upper = h * inv
        work[0, j] = lo
        work[1, j] = inv
        work[2, j] = upper


@compiled
def step(value, payoff, push, work, a, b, rate, dt, theta, spot, american):  # type: ignore[no-untyped-def]
    """One step back in time: solve, then split off what early exercise adds."""
    n = value.shape[0]
    rest = (1.0 - theta) * dt
    before = 0.0
    under = value[0]
    for j in range(1, n - 1):
        here = value[j]
        change = (a - b) * under - (2.0 * a + rate) * here + (a + b) * value[j + 1]
        right = here + rest * change + dt * push[j]
        under = here
        before = (right - work[0, j] * before) * work[1, j]
        value[j] = before
    for j in range(n - 3, 0, -1):
        value[j] -= work[2, j] * value[j + 1]
    if american:
        for j in range(1, n - 1):
            free = value[j] - dt * push[j]
            kept = max(free, payoff[j])
            push[j] = (kept - free) / dt
            value[j] = kept
    left = (spot[1] - spot[0]) / (spot[2] - spot[1])
    right_end = (spot[n - 1] - spot[n - 2]) / (spot[n - 2] - spot[n - 3])
    value[0] = value[1] - left * (value[2] - value[1])
    value[n - 1] = value[n - 2] + right_end * (value[n - 2] - value[n - 3])


@compiled
def pay_dividend(spot, amount, rate, now, expiry, strike, sign, american, liquidator, value, work):  # type: ignore[no-untyped-def]
    """value(S) becomes value(S - D), by cubic interpolation in S; at S = 0 the stock stays there."""
    n = spot.shape[0]
    gone = 0.0
    if sign < 0.0:
        gone = strike * np.exp(-rate * (expiry - now))
        if american:
            gone = max(gone, strike)
    k = 0
    for j in range(n):
        work[0, j] = value[j]
    for j in range(n):
        target = spot[j] - amount
        if target <= 0.0 and not liquidator:
            continue
        if target <= spot[0]:
            share = max(target, 0.0) / spot[0]
            value[j] = gone + share * (work[0, 0] - gone)
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
            total += weight * work[0, p]
        value[j] = total
