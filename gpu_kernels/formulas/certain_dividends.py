"""Options on a stock that pays cash dividends and does not fluctuate: path and value are certain."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.engines.columns import Columns
from gpu_kernels.formulas.cash_dividends import LIQUIDATOR, Schedule

Floats = NDArray[np.float64]


def certain_values(columns: Columns, american: NDArray[np.bool_], schedule: Schedule, policy: int) -> Floats:
    """Value of each option without volatility: the best of what exercise brings along the path."""
    return np.array(
        [
            max(0.0, *_worth(_Terms(columns, row, american, schedule, policy)))
            for row in range(len(columns.spot))
        ]
    )


class _Terms:
    """One option and its dividends."""

    def __init__(
        self, columns: Columns, row: int, american: NDArray[np.bool_], schedule: Schedule, policy: int
    ) -> None:
        numbers = (columns.spot, columns.strike, columns.expiry, columns.rate, columns.dividend_yield)
        self.spot, self.strike, self.expiry, self.rate, self.carried = (float(one[row]) for one in numbers)
        self.sign = 1.0 if columns.is_call[row] else -1.0
        self.american = bool(american[row])
        mine = slice(int(schedule.offsets[row]), int(schedule.offsets[row + 1]))
        self.dividends = list(
            zip(schedule.times[mine].tolist(), schedule.amounts[mine].tolist(), strict=True)
        )
        self.takes_what_is_left = policy == LIQUIDATOR

    def paid(self, spot: float, amount: float) -> float:
        """The stock after a dividend."""
        if amount <= spot:
            return spot - amount
        return 0.0 if self.takes_what_is_left else spot

    def exercised(self, time: float, spot: float) -> float:
        """Today's worth of exercise at a moment."""
        return math.exp(-self.rate * time) * self.sign * (spot - self.strike)


def _worth(terms: _Terms) -> Iterator[float]:
    """Exercise at every moment that may be the best: where a dividend is paid, and tops in between."""
    start, spot = 0.0, terms.spot
    growth = terms.rate - terms.carried
    for end, amount in (*terms.dividends, (terms.expiry, 0.0)):
        arrived = spot * math.exp(growth * (end - start))
        if terms.american:
            yield terms.exercised(start, spot)
            # A call goes before the dividend, a put after it: the next stretch begins with that.
            yield terms.exercised(end, arrived)
            top = _top(terms, start, spot)
            if start < top < end:
                yield terms.exercised(top, spot * math.exp(growth * (top - start)))
        start, spot = end, terms.paid(arrived, amount)
    yield terms.exercised(terms.expiry, spot)


def _top(terms: _Terms, start: float, spot: float) -> float:
    """Where today's worth of exercise stands still: q·S(t) = r·K; NaN where it never does."""
    growth = terms.rate - terms.carried
    level = terms.carried * spot
    if growth == 0.0 or level == 0.0 or terms.rate * terms.strike / level <= 0.0:
        return math.nan
    return start + math.log(terms.rate * terms.strike / level) / growth
