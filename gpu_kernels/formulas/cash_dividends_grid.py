"""The grid of `formulas.cash_dividends`, node by node, for engines that march all rows at the same time.

Every row has its own step in time and its own ex-dates. `stepped` writes them down as one list of steps per
row, all of one length: a row that has arrived waits, with steps of no time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.formulas.cash_dividends import ESCROWED, EULER_STEPS, LEAST_STEPS, Schedule

Floats = NDArray[np.float64]

NO_EVENT = -1.0


class Steps(NamedTuple):
    """What each row does in each step, arrays (steps, rows)."""

    time: Floats  # length of the step in years; 0 for a row that has arrived
    implicit: Floats  # 1 for implicit Euler, 1/2 for Crank and Nicolson
    fresh: Floats  # 1 where what early exercise adds is forgotten first: at expiry and at ex-dates
    amount: Floats  # paid after the step, seen backwards; NO_EVENT if it is no ex-date
    left: Floats  # years from then to expiry
    # In the escrowed model: what the dividends to come are worth at the end of the step, without `amount`.
    ahead: Floats


def stepped(columns: Any, schedule: Schedule, steps: int, policy: int) -> Steps:
    """The steps of every row, from its expiry back to today."""
    expiry = columns.expiry
    lists = [_steps_of(expiry[i], *_events(schedule, i), steps) for i in range(expiry.size)]
    if policy == ESCROWED:
        carry = columns.rate - columns.dividend_yield
        lists = [_with_ahead(one, carry[i]) for i, one in enumerate(lists)]
    length = max((len(one) for one in lists), default=1)
    table = np.zeros((len(Steps._fields), length, expiry.size))
    table[1], table[3] = 1.0, NO_EVENT
    for i, one in enumerate(lists):
        rows = np.array(one).T
        table[: len(rows), : len(one), i] = rows
    return Steps(*table)


def _with_ahead(steps: list[tuple[float, ...]], carry: float) -> list[tuple[float, ...]]:
    """The same steps, each with what the dividends to come are worth at its end."""
    ahead, found = 0.0, []
    for one in steps:
        ahead *= np.exp(-carry * one[0])
        found.append((*one, ahead))
        ahead += max(one[3], 0.0)
    return found


def _events(schedule: Schedule, row: int) -> tuple[Floats, Floats]:
    span = slice(schedule.offsets[row], schedule.offsets[row + 1])
    return schedule.times[span], schedule.amounts[span]


def _steps_of(expiry: float, times: Floats, amounts: Floats, steps: int) -> list[tuple[float, ...]]:
    found: list[tuple[float, ...]] = []
    later = expiry
    for when, amount in [*zip(times[::-1], amounts[::-1], strict=True), (0.0, NO_EVENT)]:
        count = max(LEAST_STEPS, int(np.ceil(steps * (later - when) / expiry)))
        step = (later - when) / count
        early = min(EULER_STEPS, 2 * count)
        here = [(0.5 * step, 1.0)] * early + [(step, 0.5)] * (count - early // 2)
        for place, one in enumerate(here):
            last = place == len(here) - 1
            found.append((*one, float(place == 0), amount if last else NO_EVENT, expiry - when))
        later = when
    return found


def grid_nodes(ops: Any) -> Any:
    """The functions of one node: payoff, generator, gone and cubic."""
    exp, log, maximum, where = ops.exp, ops.log, ops.maximum, ops.where

    def payoff(spot: Any, strike: Any, is_call: Any) -> Any:
        """What exercise pays."""
        return maximum(where(is_call, spot - strike, strike - spot), 0.0)

    payoff = ops.function(payoff)

    def at_expiry(spot: Any, strike: Any, is_call: Any, spacing: Any) -> Any:
        """The payoff, averaged over the cell that holds the strike."""
        low = spot * exp(-0.5 * spacing)
        high = spot * exp(0.5 * spacing)
        call = (high - strike) - strike * log(high / strike)
        put = strike * log(strike / low) - (strike - low)
        mean = where(is_call, call, put) / spacing
        return where((low < strike) & (strike < high), mean, payoff(spot, strike, is_call))

    def generator(vol: Any, rate: Any, dividend_yield: Any, spacing: Any) -> Any:
        """Weights of the neighbour below, of the node and of the neighbour above in the change per year."""
        spread = 0.5 * vol * vol / (spacing * spacing)
        drift = (rate - dividend_yield - 0.5 * vol * vol) / (2.0 * spacing)
        return spread - drift, -2.0 * spread - rate, spread + drift

    def gone(strike: Any, rate: Any, left: Any, is_call: Any, american: Any) -> Any:
        """Value when the stock is worth nothing, so long before expiry."""
        later = strike * exp(-rate * left)
        return where(is_call, 0.0, where(american, maximum(later, strike), later))

    def cubic(at: Any, s0: Any, s1: Any, s2: Any, s3: Any, v0: Any, v1: Any, v2: Any, v3: Any) -> Any:
        """The cubic through four nodes, at one place."""
        a, b, c, d = at - s0, at - s1, at - s2, at - s3
        return (
            v0 * (b * c * d) / ((s0 - s1) * (s0 - s2) * (s0 - s3))
            + v1 * (a * c * d) / ((s1 - s0) * (s1 - s2) * (s1 - s3))
            + v2 * (a * b * d) / ((s2 - s0) * (s2 - s1) * (s2 - s3))
            + v3 * (a * b * c) / ((s3 - s0) * (s3 - s1) * (s3 - s2))
        )

    return payoff, *[ops.function(one) for one in (at_expiry, generator, gone, cubic)]
