"""American options on the CPU engine.

Prices, Greeks, implied vol, and boundaries that are kept and used again.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.engines.cpu import cash_dividends, european
from gpu_kernels.engines.cpu import implied_vol as european_vol
from gpu_kernels.engines.cpu.american_implied_vol import BLOCK_ROWS as VOL_BLOCK_ROWS
from gpu_kernels.engines.cpu.american_implied_vol import LEFT, accurate_vols, fast_vols
from gpu_kernels.engines.cpu.american_rows import (
    STATE,
    accurate_boundaries,
    fast_boundaries,
    move_spots,
    price_rows,
    slopes_rows,
)
from gpu_kernels.engines.cpu.american_solver import LANES
from gpu_kernels.engines.cpu.columns import full as full_columns
from gpu_kernels.engines.cpu.columns import plain
from gpu_kernels.engines.cpu.threads import workers
from gpu_kernels.engines.engine import Columns
from gpu_kernels.formulas import american_fallback, american_greeks, american_implied_vol
from gpu_kernels.formulas.american_tables import (
    GREEK_RULE,
    SCHEMES,
    Scheme,
    angles,
    boundary_tables,
    interpolation,
    place_table,
)
from gpu_kernels.results import GreeksResult, ImpliedVolResult, PriceResult

# Rows that one thread takes at a time: their boundaries stay in the second-level cache.
BLOCK_ROWS = 256
CHUNK_ROWS = 1 << 18


@cache
def tables(scheme: Scheme, premium: tuple[int, int]) -> Any:
    """The arrays that the boundary kernels take for this scheme.

    With h wanted at the angles of the premium.
    """
    rule = angles(*premium)
    made = boundary_tables(scheme.nodes, scheme.angles)
    inner = made.angles
    at, places, sines = place_table(made.xi), place_table(made.places), place_table(rule.sine)
    to_premium = interpolation(scheme.nodes, rule.sine)
    # The same with the nodes of one angle side by side, for `american_one_row`.
    by_angle = np.arange(places.shape[0]).reshape(scheme.nodes, -1).T.reshape(-1)
    across = (at.T, places[by_angle].T, made.matrix[by_angle].T, sines.T, to_premium.T)
    return (
        at, places, inner.cosine, inner.inv_cosine, inner.weight, made.matrix, sines, to_premium,
        tuple(map(np.ascontiguousarray, across)),
    )  # fmt: skip


def block_state(part: tuple[Any, ...], method: str, premium: tuple[int, int]) -> NDArray[np.float64]:
    """The state of the blocks that hold these full-length columns, with their boundaries."""
    scheme = SCHEMES[method]
    blocks = (part[0].size + LANES - 1) // LANES
    state = np.empty((blocks, STATE + premium[0], LANES))
    solve = fast_boundaries if method == "fast" else accurate_boundaries
    solve(part, tables(scheme, premium), scheme.steps, state)
    return state


def price(columns: Columns, method: str, out: PriceResult) -> None:
    """Write value and status of each row."""
    size = out.status.size
    full = full_columns(columns, size)
    rule = (SCHEMES[method].premium, 1)
    legs = _premium(rule)

    def work(start: int, stop: int) -> None:
        part = tuple(full.slice(start, stop)) if stop - start < size else tuple(full)
        state = block_state(part, method, rule)
        price_rows(part, state, legs, out.price[start:stop], out.status[start:stop])

    workers().run(size, work, BLOCK_ROWS)
    american_fallback.price(full, out, cash_dividends.solve)


def slopes(columns: Columns, method: str) -> NDArray[np.float64]:
    """What Greeks are made of, (9, n), see slopes_rows; columns are full length."""
    rule = GREEK_RULE
    out = np.empty((9, columns.spot.size))

    def work(start: int, stop: int) -> None:
        part = tuple(columns.slice(start, stop))
        # Of its own: a cut-out with a stride would be another kind of argument, and another compilation.
        block = np.empty((9, stop - start))
        slopes_rows(part, block_state(part, method, rule), _premium(rule), block)
        out[:, start:stop] = block

    workers().run(columns.spot.size, work, BLOCK_ROWS)
    return out


class Boundaries(NamedTuple):
    """Solved boundaries of n rows, for prices at other spots and strikes; see `solve_boundaries`."""

    columns: Columns  # full length
    method: str
    states: tuple[NDArray[np.float64], ...]  # one per BLOCK_ROWS rows


def solve_boundaries(columns: Columns, method: str, rows: int) -> Boundaries:
    """Boundaries of each row: functions of its expiry, vol, rate, yield and side, in units of its strike.

    `price_from_boundaries` needs about a tenth of the time of `price`, since the boundary is what costs.
    """
    full = full_columns(columns, rows)
    states: list[Any] = [None] * ((rows + BLOCK_ROWS - 1) // BLOCK_ROWS)
    premium = (SCHEMES[method].premium, 1)

    def work(start: int, stop: int) -> None:
        for first in range(start, stop, BLOCK_ROWS):
            part = tuple(full.slice(first, min(first + BLOCK_ROWS, stop)))
            states[first // BLOCK_ROWS] = block_state(part, method, premium)

    workers().run(rows, work, BLOCK_ROWS)
    return Boundaries(full, method, tuple(states))


def price_from_boundaries(boundaries: Boundaries, spot: Any, strike: Any, out: PriceResult) -> None:
    """Write value and status of each row at another spot and strike (n,), all else as it was solved for."""
    columns, method, states = boundaries
    rows = columns.spot.size
    moved = columns._replace(
        spot=np.broadcast_to(spot, (rows,)).astype(np.float64),
        strike=np.broadcast_to(strike, (rows,)).astype(np.float64),
    )
    premium = _premium((SCHEMES[method].premium, 1))

    def work(start: int, stop: int) -> None:
        for first in range(start, stop, BLOCK_ROWS):
            last = min(first + BLOCK_ROWS, stop)
            state = states[first // BLOCK_ROWS].copy()
            part = tuple(moved.slice(first, last))
            move_spots(part, state)
            price_rows(part, state, premium, out.price[first:last], out.status[first:last])

    workers().run(rows, work, BLOCK_ROWS)
    american_fallback.price(moved, out, cash_dividends.solve)


def greeks(columns: Columns, method: str, out: GreeksResult) -> None:
    """Write value, eight derivatives and status of each row."""
    full = full_columns(columns, out.status.size)
    american_greeks.greeks(full, method, out, slopes, european.greeks)
    american_fallback.greeks(full, out, cash_dividends.solve)


def implied_vol(columns: Columns, prices: Any, method: str, out: ImpliedVolResult) -> None:
    """Write the volatility at which each row is worth its price, and its status."""
    size = out.status.size
    full = full_columns(columns, size)
    wanted = plain(np.ascontiguousarray(np.broadcast_to(prices, (size,))))
    # What the price would imply were the option European.
    guess = ImpliedVolResult(np.empty(size), np.empty(size, np.uint8))
    european_vol.implied_vol(full, wanted, guess)
    scheme = SCHEMES[method]
    rule = (scheme.premium, 1)
    rows_of = fast_vols if method == "fast" else accurate_vols

    def work(start: int, stop: int) -> None:
        part = tuple(full.slice(start, stop)) if stop - start < size else tuple(full)
        rows = slice(start, stop)
        given = (wanted[rows], guess.vol[rows], tables(scheme, rule), _premium(rule), scheme.steps)
        rows_of(part, *given, out.vol[rows], out.status[rows])

    workers().run(size, work, VOL_BLOCK_ROWS)
    left = np.flatnonzero(out.status == LEFT)
    if left.size:
        # Two boundaries: by the grid.
        part = ImpliedVolResult(np.empty(left.size), np.empty(left.size, np.uint8))
        rows = Columns(*(column[left] for column in full))
        american_implied_vol.implied_vol(rows, wanted[left], method, part, price)
        out.vol[left], out.status[left] = part.vol, part.status


@cache
def _premium(premium: tuple[int, int]) -> Any:
    rule = angles(*premium)
    return (rule.cosine, rule.inv_cosine, rule.weight)
