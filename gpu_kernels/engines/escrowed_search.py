"""Implied vols of American options with cash dividends, row by row of a batch, in as few grids as it takes.

The search of `formulas.american_search` on what is left of the spots: the European value is known there in
closed form, and what early exercise adds is smooth in the vol. Rows that it does not settle are left to
others.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.engines.columns import Columns
from gpu_kernels.engines.reference import ops
from gpu_kernels.formulas.american_search import HIGHEST_TOTAL_VOL, LOWEST_VOL, american_search

Floats = NDArray[np.float64]

MOST_STEPS = 10
# A vol this close to an end of what is searched is none.
NEAR_END = 1e-9

_advance = american_search(ops, ops.function)


def searched(
    left: Columns, targets: Floats, guess: Floats, value: Callable[[NDArray[np.intp], Floats], Floats]
) -> Floats:
    """Vols at which `value` of rows at vols meets the targets, NaN where not found; `left` has the spots
    less their dividends."""
    found = np.full(targets.size, np.nan)
    highest = np.maximum(HIGHEST_TOTAL_VOL / np.sqrt(np.maximum(left.expiry, 1e-300)), 2.0 * LOWEST_VOL)
    rows = np.flatnonzero(np.isfinite(targets) & (left.spot > 0.0) & (left.expiry > 0.0))
    x = np.clip(np.where(guess > 0.0, guess, 0.3), 2.0 * LOWEST_VOL, 0.5 * highest)[rows]
    low, high = np.full(rows.size, LOWEST_VOL), highest[rows]
    seen = np.zeros((2, rows.size))
    x1, p1, x2, p2 = x, np.zeros(rows.size), x, np.zeros(rows.size)
    for turn in range(MOST_STEPS):
        if not rows.size:
            break
        here = value(rows, x)
        spot, strike, expiry, _, rate, yields, is_call = (column[rows] for column in left)
        scale = np.maximum(spot, strike)
        with np.errstate(all="ignore"):
            over, y, p0, low, high, *seen_now = _advance(
                targets[rows], scale, spot, strike, expiry, rate, yields, is_call, x, here, float(turn),
                x1, p1, x2, p2, low, high, seen[0], seen[1], 0.0,
            )  # fmt: skip
        inside = (y > (1.0 + NEAR_END) * LOWEST_VOL) & (y < (1.0 - NEAR_END) * highest[rows])
        done = over & inside & np.isfinite(here)
        found[rows[done]] = y[done]
        on = ~over & np.isfinite(here) & np.isfinite(y)
        rows, seen = rows[on], np.stack(seen_now)[:, on]
        x2, p2, x1, p1, x = x1[on], p1[on], x[on], p0[on], y[on]
        low, high = low[on], high[on]
    return found
