"""American options with cash dividends in many markets: a grid serves all spots, a few all vols and rates.

What early exercise adds to the European value depends on what is left of the spot, the vol and the rate. The
grid of `formulas.cash_dividends` gives it for every spot at one vol and rate. Grids are solved on a lattice
of vols and rates around the row's own, only those that some cell needs, and read between them by cubics in
log vol and parabolas in the rate. The European value itself is worked out in every cell. Where neither vol
nor rate moves, one grid does and nothing is interpolated but the spot. A cell's value depends on its own
market alone, so a cut of the scenarios changes nothing.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.dividend_cells import Cells
from gpu_kernels.dividend_schedules import chosen_rows, due
from gpu_kernels.engines.columns import Columns
from gpu_kernels.engines.escrowed import (
    LEAST_LEFT,
    LEAST_TOTAL_VOL,
    MOST_TOTAL_VOL,
    POINTS,
    STEPS,
    Terms,
    american_prices,
)
from gpu_kernels.formulas.cash_dividends import DEVIATIONS, ESCROWED, Schedule
from gpu_kernels.options import Options
from gpu_kernels.portfolio import Portfolio

if TYPE_CHECKING:
    from gpu_kernels.engines.engine import Engine

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Distance of lattice points in log vol and in the rate.
VOL_STEP = 0.15
RATE_STEP = 0.005
# A place so close to a lattice point is on it.
SNAP = 1e-9
# Grids held at once: some 20 MB.
GRIDS_AT_ONCE = 4096
# Grids kept between calls: some 40 MB.
GRIDS_KEPT = 8192
# Cells whose total vol is below so many times the least are priced one by one: the lattice would be crude.
THIN = 10.0


class _Place(NamedTuple):
    """Where cells are on the lattice of one direction."""

    base: Integers
    off: Floats  # beyond the base, in steps; 0 on a lattice point


class Grids(NamedTuple):
    """Premiums at the nodes of solved grids, fine and coarse, and where the nodes are."""

    fine: Floats  # (G, POINTS + 1)
    coarse: Floats  # (G, POINTS // 2 + 1)
    middle: Floats  # (G,) log of the middle node
    spacing: Floats  # of the fine grid


@dataclass(frozen=True, slots=True)
class _Stencils:
    """Kinds of cells: those of one row that need the same lattice points."""

    kind: Integers  # of each cell
    row: Integers  # of each kind
    vol: Integers  # lattice point of each kind
    rate: Integers
    vol_between: NDArray[np.bool_]  # whether the kind needs the neighbours
    rate_between: NDArray[np.bool_]


VOL_OFFSETS = (-1, 0, 1, 2)
RATE_OFFSETS = (-1, 0, 1)


def american_values(
    engine: Engine, book: Portfolio, cells: Cells, time: Floats, schedule: Schedule
) -> Floats:
    """Value of each row (P, C) in each of its cells; all rows are American and have dividends to come."""
    value = cells.european(engine, book)
    sign = np.where(book.is_call, 1.0, -1.0)[:, None]
    spread = cells.vol * np.sqrt(time)[:, None]
    left_ratio = cells.left > LEAST_LEFT * cells.spot
    good = left_ratio & (spread > THIN * LEAST_TOTAL_VOL) & (spread < MOST_TOTAL_VOL)
    good &= (book.strike[:, None] > LEAST_LEFT * cells.left) & (time > 0.0)[:, None]
    rows, columns = np.nonzero(good)
    if rows.size:
        value[rows, columns] += _premiums(engine, book, cells, time, schedule, rows, columns)
    value = np.maximum(value, sign * (cells.spot - book.strike[:, None]))
    if not good.all():
        rows, columns = np.nonzero(~good)
        value[rows, columns] = _one_by_one(engine, book, cells, time, schedule, rows, columns)
    return value


def _one_by_one(
    engine: Engine,
    book: Portfolio,
    cells: Cells,
    time: Floats,
    schedule: Schedule,
    rows: Integers,
    columns: Integers,
) -> Floats:
    terms = Terms(
        spot=cells.spot[rows, columns],
        strike=book.strike[rows],
        expiry=time[rows],
        vol=cells.vol[rows, columns],
        rate=book.rate[rows] + cells.rate_change[columns],
        dividend_yield=book.dividend_yield[rows],
        is_call=book.is_call[rows],
        place=np.arange(rows.size),
    )
    value, status = np.empty(rows.size), np.empty(rows.size, np.uint8)
    american_prices(engine, terms, chosen_rows(schedule, rows), value, status)
    return value


def _premiums(
    engine: Engine,
    book: Portfolio,
    cells: Cells,
    time: Floats,
    schedule: Schedule,
    rows: Integers,
    columns: Integers,
) -> Floats:
    """What early exercise adds in these cells."""
    vol = _place(np.log(cells.vol[rows, columns] / book.vol[rows]) / VOL_STEP, np.floor)
    rate = _place(cells.rate_change[columns] / RATE_STEP, np.round)
    kinds = _stencils(rows, vol, rate)
    at = np.log(cells.left[rows, columns])
    premium = np.zeros(rows.size)
    points = _points(kinds)
    every, number = np.unique(np.concatenate([codes for *_, codes in points]), axis=0, return_inverse=True)
    number = number.reshape(-1)
    edges = np.cumsum([0, *(len(codes) for *_, codes in points)])
    read = [np.full(len(kinds.row), -1) for _ in points]
    for place, (wanted, *_) in enumerate(points):
        read[place][wanted] = number[edges[place] : edges[place + 1]]
    for start in range(0, len(every), GRIDS_AT_ONCE):
        stop = min(start + GRIDS_AT_ONCE, len(every))
        grids = _solved(engine, book, time, schedule, every[start:stop])
        for (_, a, b, _), ids in zip(points, read, strict=True):
            own = ids[kinds.kind]
            chosen = np.flatnonzero((own >= start) & (own < stop))
            if chosen.size:
                share = _cubic_weight(a, vol.off[chosen]) * _parabola_weight(b, rate.off[chosen])
                premium[chosen] += share * read_grids(grids, own[chosen] - start, at[chosen])
    return np.maximum(premium, 0.0)


def _place(where: Floats, nearest: Callable[[Floats], Floats]) -> _Place:
    on = np.abs(where - np.round(where)) <= SNAP
    base = np.where(on, np.round(where), nearest(where))
    return _Place(base.astype(np.int64), np.where(on, 0.0, where - base))


def _stencils(rows: Integers, vol: _Place, rate: _Place) -> _Stencils:
    table = np.stack((rows, vol.base, rate.base, vol.off != 0.0, rate.off != 0.0))
    low = table.min(axis=1, keepdims=True)
    sizes = (table.max(axis=1, keepdims=True) - low + 1).ravel()
    code = np.ravel_multi_index(tuple(table - low), tuple(int(size) for size in sizes))
    _, first, kind = np.unique(code, return_index=True, return_inverse=True)
    row, vols, rates, between, rate_between = table[:, first]
    return _Stencils(kind.reshape(-1), row, vols, rates, between.astype(bool), rate_between.astype(bool))


def _points(kinds: _Stencils) -> list[tuple[Integers, int, int, Integers]]:
    """For each offset in vol and rate: the kinds that need it, the offsets, and row and lattice point."""
    found = []
    for a in VOL_OFFSETS:
        for b in RATE_OFFSETS:
            needed = (kinds.vol_between | (a == 0)) & (kinds.rate_between | (b == 0))
            wanted = np.flatnonzero(needed)
            codes = np.stack((kinds.row[wanted], kinds.vol[wanted] + a, kinds.rate[wanted] + b), axis=1)
            found.append((wanted, a, b, codes))
    return found


class _Kept:
    """The grids solved last, by their inputs: blocks of scenarios, and calls in turn, need the same ones."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[Any, ...], tuple[Floats, Floats]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[Any, ...]) -> tuple[Floats, Floats] | None:
        """Fine and coarse premiums, or None."""
        with self._lock:
            found = self._held.get(key)
            if found is not None:
                self._held.move_to_end(key)
            return found

    def put(self, key: tuple[Any, ...], grids: tuple[Floats, Floats]) -> None:
        """Keeps them while there is room."""
        with self._lock:
            self._held[key] = grids
            while len(self._held) > GRIDS_KEPT:
                self._held.popitem(last=False)


_kept = _Kept()


def _solved(engine: Engine, book: Portfolio, time: Floats, schedule: Schedule, points: Integers) -> Grids:
    """Grids at these lattice points: (G, 3) of row, place in log vol and place in rate."""
    row = points[:, 0]
    vol = book.vol[row] * np.exp(VOL_STEP * points[:, 1])
    rate = book.rate[row] + RATE_STEP * points[:, 2]
    strike, years, yields = book.strike[row], time[row], book.dividend_yield[row]
    paid = chosen_rows(schedule, row)
    columns = Columns(strike, strike, years, vol, rate, yields, book.is_call[row])
    spacing = spacing_around(columns, paid)
    keys = _keys(engine, columns, paid)
    held = [_kept.get(key) for key in keys]
    missing = np.array([place for place, one in enumerate(held) if one is None], np.int64)
    if missing.size:
        some = Columns(*(column[missing] for column in columns))
        (found,) = solved_grids(engine, some, chosen_rows(paid, missing), spacing[missing], np.zeros(1))
        for place, one, other in zip(missing.tolist(), found.fine, found.coarse, strict=True):
            held[place] = (one, other)
            _kept.put(keys[place], (one, other))
    pairs = [one for one in held if one is not None]
    return Grids(
        np.stack([one for one, _ in pairs]), np.stack([other for _, other in pairs]), np.log(strike), spacing
    )


def _keys(engine: Engine, columns: Columns, paid: Schedule) -> list[tuple[Any, ...]]:
    edges = paid.offsets.tolist()
    lines = np.stack(columns[1:]).T
    return [
        (
            engine.name,
            line.tobytes(),
            paid.times[edges[place] : edges[place + 1]].tobytes(),
            paid.amounts[edges[place] : edges[place + 1]].tobytes(),
        )
        for place, line in enumerate(lines)
    ]


def spacing_around(columns: Columns, paid: Schedule) -> Floats:
    """Step in log spot of a grid around each strike, whatever the spot.

    Wide enough that the value is straight beyond both ends.
    """
    _, strike, years, vol, rate, yields, _ = columns
    drift = np.abs(rate - yields - 0.5 * vol * vol) * years
    share = np.minimum(due(paid, rate - yields) / strike, 0.8)
    half = DEVIATIONS * vol * np.sqrt(years) + drift - np.log1p(-share)
    return np.asarray(2.0 * half / POINTS)


def solved_grids(
    engine: Engine, columns: Columns, paid: Schedule, spacing: Floats, moments: Floats
) -> list[Grids]:
    """Premiums around each strike, at moments (M,) in years from today, ascending.

    Other moments than today need the cpu engine.
    """
    module, american = engine.module("cash_dividends"), np.ones(spacing.size, np.bool_)
    both = []
    for points, steps, gap in ((POINTS, STEPS, spacing), (POINTS // 2, STEPS // 2, 2.0 * spacing)):
        given = (columns, american, paid, ESCROWED, gap, points, steps, points + 1)
        both.append([module.solve(*given)] if not moments.any() else module.solve_at(*given, moments))
    nodes = columns.strike[:, None] * np.exp((np.arange(POINTS + 1) - POINTS // 2) * spacing[:, None])
    found = []
    for moment, fine, coarse in zip(moments.tolist(), *both, strict=True):
        plain = _at_nodes(engine, columns._replace(expiry=np.maximum(columns.expiry - moment, 0.0)), nodes)
        # What is over at the moment pays what it pays.
        still = (columns.expiry > moment)[:, None]
        early, crude = np.where(still, fine - plain, 0.0), np.where(still, coarse - plain[:, ::2], 0.0)
        found.append(Grids(early, crude, np.log(columns.strike), spacing))
    return found


def _at_nodes(engine: Engine, columns: Columns, nodes: Floats) -> Floats:
    def spread(column: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(np.broadcast_to(column[:, None], nodes.shape))

    fields: dict[str, Any] = {name: spread(getattr(columns, name)) for name in Columns._fields[1:]}
    value: Floats = engine.price(Options(spot=nodes, **fields)).price
    return value


def read_grids(grids: Grids, number: Integers, at: Floats) -> Floats:
    """Premiums of grids at logs of what is left, extrapolated from the two resolutions."""
    place = (at - grids.middle[number]) / grids.spacing[number] + POINTS // 2
    fine = _cubic(grids.fine, number, place, grids.spacing[number])
    coarse = _cubic(grids.coarse, number, 0.5 * place, 2.0 * grids.spacing[number])
    return fine + (fine - coarse) / 3.0


def _cubic(values: Floats, number: Integers, place: Floats, spacing: Floats) -> Floats:
    """Values between nodes by cubics; beyond the ends straight lines in what is left of the spot."""
    last = values.shape[1] - 1
    inside = np.clip(place, 0.0, last)
    first = np.clip(inside.astype(np.int64) - 1, 0, last - 3)
    t = inside - first
    a, b, c, d = t, t - 1.0, t - 2.0, t - 3.0
    weights = (-b * c * d / 6.0, a * c * d / 2.0, -a * b * d / 2.0, a * b * c / 6.0)
    found = np.zeros(place.size)
    for k, weight in enumerate(weights):
        found += weight * values[number, first + k]
    above, below = place > last, place < 0.0
    for mask, end, step in ((above, last, -1), (below, 0, 1)):
        if mask.any():
            n = number[mask]
            rise = (values[n, end + step] - values[n, end]) / np.expm1(step * spacing[mask])
            found[mask] = values[n, end] + rise * np.expm1((place[mask] - end) * spacing[mask])
    return found


def _cubic_weight(offset: int, u: Floats) -> Floats:
    """Weight of the lattice point at an offset for places u in [0, 1)."""
    weight = np.ones_like(u)
    for other in VOL_OFFSETS:
        if other != offset:
            weight *= (u - other) / (offset - other)
    return weight


def _parabola_weight(offset: int, u: Floats) -> Floats:
    weight = np.ones_like(u)
    for other in RATE_OFFSETS:
        if other != offset:
            weight *= (u - other) / (offset - other)
    return weight
