"""Options in columns, computed in blocks of rows, so that a deadline is seen within one block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

import gpu_kernels as gk
from gpu_kernels.dividend_schedules import CashDividends
from gpu_kernels.results import Result
from risk_service.on_demand.patience import Patience

# An American option costs about as much as this many European ones.
AMERICAN_COST = 200
# An American option with cash dividends, which is solved on a grid, about this many; a dividend of any
# option, this many.
DIVIDEND_GRID_COST = 50_000
DIVIDEND_COST = 10
# Cost of one block, in European rows: some 20 ms on two cores.
BLOCK_COST = 1_000_000

ResultT = TypeVar("ResultT", bound=Result)


def cost_of(options: gk.Options) -> int:
    """Rows, an American one counted as the many European ones that take as long."""
    cost = int(options.size + AMERICAN_COST * american_rows(options))
    return cost if options.dividends is None else cost + dividend_cost(options, options.dividends)


def dividend_cost(options: gk.Options, dividends: CashDividends) -> int:
    """What dividends add to the cost of the options."""
    held = np.diff(dividends.offsets)[dividends.schedule_of(options.size)]
    grids = np.count_nonzero((held > 0) & options.column("american"))
    return int(DIVIDEND_COST * held.sum() + DIVIDEND_GRID_COST * grids)


def american_rows(options: gk.Options) -> int:
    """How many rows are American."""
    flags = options.american
    return int(np.count_nonzero(flags)) if flags.size == options.size else options.size * bool(flags.any())


def in_blocks(
    call: Callable[[gk.Options, Any], ResultT], options: gk.Options, price: Any, patience: Patience
) -> ResultT:
    """`call(rows, their prices)` over all rows; every row has its own answer, so the cut changes no bit."""
    patience.check()
    cost = cost_of(options)
    if cost <= BLOCK_COST:
        return call(options, price)
    step = max(1, BLOCK_COST * options.size // cost)
    parts = []
    for start in range(0, options.size, step):
        patience.check()
        rows = slice(start, start + step)
        parts.append(call(options.rows(rows), None if price is None else price[rows]))
    columns = zip(*(part.columns() for part in parts), strict=True)
    return type(parts[0])(*(np.concatenate(column) for column in columns))
