"""Options in columns, computed in blocks of rows, so that a deadline is seen within one block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

import gpu_kernels as gk
from gpu_kernels.dividend_schedules import CashDividends
from gpu_kernels.results import Result
from risk_service.on_demand.patience import Patience

What = Literal["price", "greeks", "implied volatility"]
Method = Literal["accurate", "fast"]

# An American option under one scenario costs about as much as this many European ones.
AMERICAN_COST = 200


class RowCost(NamedTuple):
    """What a row costs in European rows, some 25 ns each on two cores with the memory that they take."""

    european: int
    american: int


# By what is asked for, and the method for American rows; as `python -m benchmarks.american` measures them.
ROW_COSTS: dict[tuple[What, Method], RowCost] = {
    ("price", "accurate"): RowCost(1, 200),
    ("price", "fast"): RowCost(1, 40),
    ("greeks", "accurate"): RowCost(1, 900),
    ("greeks", "fast"): RowCost(1, 450),
    ("implied volatility", "accurate"): RowCost(2, 600),
    ("implied volatility", "fast"): RowCost(2, 200),
}
# Rows of a device's call, whose time goes by how many there are more than by what is asked.
BY_NUMBER = RowCost(1, AMERICAN_COST)
# An American option with cash dividends, which is solved on a grid, about this many; a dividend of any
# option, this many.
DIVIDEND_GRID_COST = 50_000
DIVIDEND_COST = 10
# Cost of one block, in European rows: some 25 ms on two cores.
BLOCK_COST = 1_000_000
# Blocks of more rows are whole multiples of it, which every number of threads up to four shares out evenly.
EVEN_ROWS = 1_024

ResultT = TypeVar("ResultT", bound=Result)


def cost_of(options: gk.Options, row: RowCost = BY_NUMBER) -> int:
    """Rows, each counted as the many European ones that take as long."""
    american = american_rows(options)
    cost = row.european * (options.size - american) + row.american * american
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
    call: Callable[[gk.Options, Any], ResultT],
    options: gk.Options,
    price: Any,
    patience: Patience,
    row: RowCost = BY_NUMBER,
) -> ResultT:
    """`call(rows, their prices)` over all rows; every row has its own answer, so the cut changes no bit."""
    patience.check()
    cost = cost_of(options, row)
    if cost <= BLOCK_COST:
        return call(options, price)
    step = max(1, BLOCK_COST * options.size // cost)
    step -= step % EVEN_ROWS if step > EVEN_ROWS else 0
    parts = []
    for start in range(0, options.size, step):
        patience.check()
        rows = slice(start, start + step)
        parts.append(call(options.rows(rows), None if price is None else price[rows]))
    columns = zip(*(part.columns() for part in parts), strict=True)
    return type(parts[0])(*(np.concatenate(column) for column in columns))
