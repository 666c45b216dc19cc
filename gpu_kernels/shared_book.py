"""Many holders of the same options, revalued together: each option once, whoever holds it.

The options lie sorted by underlying, and holders are counted per underlying too, in cells: one cell is one
holder's part in one underlying. A call and a put of the same terms are one row: the put's P&L is the call's
less that of the forward, which is worked out once per cell. So a tick costs the rows of its own underlying.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.dividend_schedules import CashDividends, due
from gpu_kernels.errors import EngineUnavailable, InvalidInput
from gpu_kernels.options import Options
from gpu_kernels.portfolio import Portfolio
from gpu_kernels.revaluation import position_pnl
from gpu_kernels.scenarios import Scenarios

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from gpu_kernels.engines.engine import Engine

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Scenarios are padded to a multiple of this, so that every one goes through the vectorised loop.
LANES = 32
# Row × scenario numbers held at once where an engine has no kernel of its own: 32 MiB.
BLOCK_NUMBERS = 1 << 22


@dataclass(frozen=True)
class SharedRows:
    """Options held by many. Arrays run over underlyings (B), rows (N), cells (C), pairs of row and cell (H).

    Row n's pairs go from `first_holder[n]` to `first_holder[n + 1]`: who holds nothing of it costs nothing.
    """

    first_row: Integers  # (B + 1,)
    first_cell: Integers  # (B + 1,)
    cell: Integers  # (C,) where a cell's numbers go, in the order of underlyings
    strike: Floats  # (N,)
    sign: Floats  # (N,) 1 a call, -1 a put; a pair of both counts as the call
    first_holder: Integers  # (N + 1,)
    holder: NDArray[np.int32]  # (H,) cell, counted from its underlying's first
    weight: Floats  # (H,) how much of the row's option is held, puts of a call's row included
    puts: Floats  # (H,) the puts among them, where the row is a call; none where the row has dividends

    def rows(self, chosen: Integers) -> Integers:
        """Rows of the chosen underlyings, one after the other."""
        spans = [np.arange(self.first_row[b], self.first_row[b + 1]) for b in chosen.tolist()]
        return np.concatenate(spans) if spans else np.zeros(0, np.int64)


@dataclass(frozen=True)
class ScenarioTable:
    """Scenarios laid out for a kernel: a row per underlying; pieces of one horizon, padded to LANES."""

    spot_return: Floats  # (B, W) log returns
    spot_factor: Floats  # (B, W)
    vol_change: Floats  # (B, W)
    piece: Integers  # (pieces, 3): first column in the table, its width there, first scenario
    count: Integers  # (pieces,) scenarios
    elapsed: Floats  # (pieces,) years
    scenarios: tuple[Scenarios, ...]  # the pieces as they were

    @classmethod
    def of(cls, scenarios: Scenarios) -> ScenarioTable:
        """A column per underlying; neither rates nor vol surfaces may move."""
        if scenarios.rate_change.any():
            raise InvalidInput("rate_change", "is not zero; shared books are revalued at today's rates")
        if scenarios.vol_shock_surface is not None:
            raise InvalidInput("vol_shock_surface", "is given; shared books have one vol change a scenario")
        edges = np.flatnonzero(np.diff(scenarios.elapsed, prepend=np.nan, append=np.nan))
        pieces, at = [], 0
        for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            width = -(-(last - first) // LANES) * LANES
            pieces.append((at, width, first, last - first))
            at += width
        wide = np.zeros((2, scenarios.underlyings, at))
        for low, _, first, count in pieces:
            wide[0, :, low : low + count] = scenarios.spot_return[first : first + count].T
            wide[1, :, low : low + count] = scenarios.vol_change[first : first + count].T
        numbers = np.array(pieces, np.int64).reshape(-1, 4)
        return cls(
            spot_return=wide[0],
            spot_factor=np.exp(wide[0]),
            vol_change=wide[1],
            piece=np.ascontiguousarray(numbers[:, :3]),
            count=np.ascontiguousarray(numbers[:, 3]),
            elapsed=scenarios.elapsed[numbers[:, 2]],
            scenarios=tuple(scenarios.select(slice(first, first + count)) for _, _, first, count in pieces),
        )


@dataclass(frozen=True)
class SharedInputs:
    """Today's inputs of the chosen underlyings (k,), and of their rows, one after the other."""

    chosen: Integers
    spot: Floats  # NaN: not known, the underlying's cells get zeros
    rate: Floats
    dividend_yield: Floats
    expiry: Floats  # per row, years
    vol: Floats  # per row; NaN: not known, the row counts for nothing
    linear: Floats  # (C,) what each cell gains with its underlying, in units of it
    dividends: CashDividends | None = None  # of the rows; under scenarios the shocks hit the spot with them

    def owed(self, rows: SharedRows, elapsed: Floats) -> Floats:
        """Worth of each row's dividends today and after these times, (1 + times, rows or 0)."""
        if self.dividends is None:
            return np.zeros((1 + len(elapsed), 0))
        carry = np.repeat(self.rate - self.dividend_yield, np.diff(rows.first_row)[self.chosen])
        return np.stack(
            [
                due(self.dividends.after(years).within(np.maximum(self.expiry - years, 0.0)), carry)
                for years in (0.0, *elapsed.tolist())
            ]
        )


class SharedPoints(NamedTuple):
    """Today's holdings for sums over single options: calls and puts apart, unlike the rows.

    Arrays run over chosen underlyings (k), underlyings (B), options (N), cells (C) or pairs of
    option and cell (H).
    """

    chosen: Integers  # (k,)
    spot: Floats  # (k,) NaN: not known
    first: Integers  # (B + 1,) options of each underlying
    first_holder: Integers  # (N + 1,)
    holder: NDArray[np.int32]  # (H,)
    weight: Floats  # (H,)
    gross: Floats  # (H,) sizes added up without sign
    owned: Floats  # (C,) units of the underlying whose worth counts
    linear: Floats  # (C,) units it gains with its underlying: those, and futures
    gross_linear: Floats  # (C,) the same, sizes added up without sign


# Writes the P&L of the chosen underlyings' cells in every scenario into `out` (cells, scenarios).
CellPnl = Callable[[SharedRows, ScenarioTable, SharedInputs, Floats], None]
# Writes value, gross value and Greeks of their cells into `out` (cells, 2 + Greeks), from the value and
# Greeks of each of their options, one underlying after the other; zeros count for nothing.
CellPoints = Callable[[SharedRows, SharedPoints, Floats, Floats], None]


def cell_pnl(engine: Engine) -> CellPnl:
    """The engine's own kernel, or sums of its P&L per option where it has none."""
    try:
        own: CellPnl = engine.module("shared_book").cell_pnl
    except EngineUnavailable:
        return lambda rows, table, now, out: _by_position(engine, rows, table, now, out)
    return own


def cell_points(engine: Engine) -> CellPoints:
    """The engine's own kernel, or the host's sums where it has none."""
    try:
        own: CellPoints = engine.module("shared_book").cell_points
    except EngineUnavailable:
        return _points
    return own


def _points(rows: SharedRows, now: SharedPoints, fields: Floats, out: Floats) -> None:
    start = 0
    for place, b in enumerate(now.chosen.tolist()):
        cells = slice(int(rows.first_cell[b]), int(rows.first_cell[b + 1]))
        options = range(int(now.first[b]), int(now.first[b + 1]))
        weight, gross = (
            _held(now.first_holder, now.holder, column, options, cells) for column in (now.weight, now.gross)
        )
        mine = fields[start : start + len(options)]
        start += len(options)
        answer = np.empty((cells.stop - cells.start, 1 + fields.shape[1]))
        answer[:, 0], answer[:, 2:] = weight @ mine[:, 0], weight @ mine[:, 1:]
        answer[:, 1] = gross @ np.abs(mine[:, 0])
        if np.isfinite(now.spot[place]):
            answer[:, 0] += now.owned[cells] * now.spot[place]
            answer[:, 1] += now.gross_linear[cells] * now.spot[place]
            answer[:, 2] += now.linear[cells]
        out[rows.cell[cells]] = answer


def _held(first: Integers, holder: NDArray[np.int32], column: Floats, rows: range, cells: slice) -> csr_array:
    """What each cell of an underlying holds of each of its rows."""
    from scipy.sparse import csr_array  # with engines that have no kernel of their own only

    pairs = slice(int(first[rows.start]), int(first[rows.stop]))
    edges = first[rows.start : rows.stop + 1] - pairs.start
    by_row = csr_array((column[pairs], holder[pairs], edges), shape=(len(rows), cells.stop - cells.start))
    return by_row.T.tocsr()


def _by_position(
    engine: Engine, rows: SharedRows, table: ScenarioTable, now: SharedInputs, out: Floats
) -> None:
    """Options of a few underlyings at a time, so that their P&L fits in memory."""
    sizes = np.diff(rows.first_row)[now.chosen] * sum(len(one) for one in table.scenarios)
    turns = np.cumsum(sizes) // BLOCK_NUMBERS
    start = np.concatenate(([0], np.cumsum(np.diff(rows.first_row)[now.chosen])))
    for turn in np.unique(turns):
        places = np.flatnonzero(turns == turn)
        part = slice(int(start[places[0]]), int(start[places[-1] + 1]))
        few = SharedInputs(
            now.chosen[places],
            now.spot[places],
            now.rate[places],
            now.dividend_yield[places],
            expiry=now.expiry[part],
            vol=now.vol[part],
            linear=now.linear,
            dividends=None if now.dividends is None else now.dividends.rows(part, len(now.vol)),
        )
        for scenarios, first in zip(table.scenarios, table.piece[:, 2].tolist(), strict=True):
            columns = slice(first, first + len(scenarios))
            for at, pnl in _piece(engine, rows, scenarios, few):
                out[at, columns] = pnl


def _piece(
    engine: Engine, rows: SharedRows, scenarios: Scenarios, now: SharedInputs
) -> list[tuple[Integers, Floats]]:
    """Cells, and their P&L in scenarios of one horizon."""
    at = rows.rows(now.chosen)
    sizes = np.diff(rows.first_row)[now.chosen]
    spot, rate, dividend = (np.repeat(c, sizes) for c in (now.spot, now.rate, now.dividend_yield))
    known = np.isfinite(spot) & np.isfinite(now.vol)
    options = Options(
        # A row of which nothing is known gets harmless inputs, and no weight afterwards.
        spot=np.where(known, spot, 1.0),
        strike=rows.strike[at],
        expiry=now.expiry,
        vol=np.where(known, now.vol, 0.2),
        rate=rate,
        dividend_yield=dividend,
        is_call=rows.sign[at] > 0.0,
        dividends=now.dividends,
    )
    book = Portfolio(options=options, quantity=np.ones(len(at)), underlying=np.repeat(now.chosen, sizes))
    pnl = position_pnl(engine, book, scenarios) * known[:, None]
    elapsed = float(scenarios.elapsed[0])
    left = np.maximum(now.expiry - elapsed, 0.0)
    forward, forward_then = spot * np.exp(-dividend * now.expiry), spot * np.exp(-dividend * left)
    fixed = forward + rows.strike[at] * (np.exp(-rate * left) - np.exp(-rate * now.expiry))
    found, start = [], 0
    for place, b in enumerate(now.chosen.tolist()):
        count = int(sizes[place])
        mine = slice(start, start + count)
        start += count
        cells = slice(int(rows.first_cell[b]), int(rows.first_cell[b + 1]))
        own = range(int(rows.first_row[b]), int(rows.first_row[b + 1]))
        weight, puts = (
            _held(rows.first_holder, rows.holder, column, own, cells) for column in (rows.weight, rows.puts)
        )
        sums = weight @ pnl[mine]
        ok = known[mine]
        move = np.expm1(scenarios.spot_return[:, b])
        if ok.any():
            by_factor = puts[:, ok] @ forward_then[mine][ok]
            sums += (puts[:, ok] @ fixed[mine][ok] - by_factor)[:, None] - by_factor[:, None] * move
        if np.isfinite(now.spot[place]):
            sums += (now.linear[cells] * now.spot[place])[:, None] * move
        found.append((rows.cell[cells], sums))
    return found
