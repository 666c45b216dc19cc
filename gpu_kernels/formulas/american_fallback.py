"""Rows that the collocation does not take: two exercise boundaries, or none found. They go to the grid.

A put with yield < rate < 0 (a call with rate < yield < 0) is exercised between two boundaries, which may meet
before today. The grid of `formulas.cash_dividends` makes nothing of that; on it these rows are right to about
1e-4 of the strike.
"""

from __future__ import annotations

from math import erfc
from typing import Any

import numpy as np

from gpu_kernels.formulas import american_greeks
from gpu_kernels.formulas.cash_dividends import (
    LIQUIDATOR,
    Grid,
    Solver,
    extrapolated,
    grid_spacing,
    nine_values,
    no_dividends,
)
from gpu_kernels.results import GreeksResult, PriceResult
from gpu_kernels.status import Status

POINTS = 800
STEPS = 200
# The grid needs some spread; below, and above, a row stays without a value.
LEAST_TOTAL_VOL = 1e-4
MOST_TOTAL_VOL = 20.0
LOST = np.uint8(Status.NOT_CONVERGED)


def price(columns: Any, out: PriceResult, solve: Solver) -> None:
    """Price the rows whose status is NOT_CONVERGED; columns are full length."""
    rows = _lost(columns, out)
    if rows.size == 0:
        return
    rows = _certain(columns, rows, out)
    if rows.size == 0:
        return
    part, american = _part(columns, rows)
    grid = Grid(solve, no_dividends(rows.size), LIQUIDATOR, POINTS, STEPS)
    here, _ = extrapolated(grid, part, american, grid_spacing(part, grid.schedule, POINTS))
    out.price[rows] = here.price
    out.status[rows] = np.where(np.isfinite(here.price), Status.OK, Status.NOT_CONVERGED)


def greeks(columns: Any, out: GreeksResult, solve: Solver) -> None:
    """Price and Greeks of the rows whose status is NOT_CONVERGED; columns are full length."""
    rows = _lost(columns, out)
    if rows.size == 0:
        return
    rows = _certain(columns, rows, out)
    if rows.size == 0:
        return
    part, american = _part(columns, rows)
    grid = Grid(solve, no_dividends(rows.size), LIQUIDATOR, POINTS, STEPS)
    nine, _ = nine_values(grid, part, american)
    for target, source in zip(out.columns(), nine, strict=False):
        target[rows] = source
    out.status[rows] = np.where(np.isfinite(out.price[rows]), Status.OK, Status.NOT_CONVERGED)


def _lost(columns: Any, out: Any) -> Any:
    # One row a call is common: this is all that it costs.
    (rows,) = (out.status == LOST).nonzero()
    if rows.size == 0:
        return rows
    spread = columns.vol[rows] * np.sqrt(columns.expiry[rows])
    size = np.log(np.maximum(columns.spot[rows], 1e-300) / np.maximum(columns.strike[rows], 1e-300))
    certain = spread <= LEAST_TOTAL_VOL
    return rows[certain | ((spread < MOST_TOTAL_VOL) & (np.abs(size) < 50.0))]


def _certain(columns: Any, rows: Any, out: Any) -> Any:
    """Write the rows of hardly any volatility, whose path is all but certain, and give the others."""
    sure = columns.vol[rows] * np.sqrt(columns.expiry[rows]) <= LEAST_TOTAL_VOL
    if not sure.any():
        return rows
    part = type(columns)(*(c[rows[sure]] for c in columns))
    numbers = {name: np.empty(part.spot.size) for name in GreeksResult.COLUMNS[:-1]}
    found = GreeksResult(**numbers, status=out.status[rows[sure]])
    american_greeks.certain(part, np.arange(part.spot.size), found)
    for name in out.COLUMNS[:-1]:
        getattr(out, name)[rows[sure]] = getattr(found, name)
    spread = part.vol * np.sqrt(part.expiry)
    out.price[rows[sure]] = np.maximum(found.price, _bachelier(part, spread))
    out.status[rows[sure]] = Status.OK
    return rows[~sure]


def _bachelier(part: Any, spread: Any) -> Any:
    """The European value where so little spread is left that the spot is as good as normal."""
    forward = part.spot * np.exp(-part.dividend_yield * part.expiry)
    strike = part.strike * np.exp(-part.rate * part.expiry)
    gap = np.where(part.is_call, forward - strike, strike - forward)
    deviation = np.maximum(spread * forward, 1e-300)
    z = np.clip(gap / deviation, -1e3, 1e3)
    below = np.array([0.5 * erfc(-0.7071067811865476 * one) for one in z])
    return gap * below + deviation * 0.3989422804014327 * np.exp(-0.5 * z * z)


def _part(columns: Any, rows: Any) -> tuple[Any, Any]:
    return type(columns)(*(c[rows] for c in columns)), np.ones(rows.size, dtype=np.bool_)
