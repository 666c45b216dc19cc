"""What early exercise adds to American options with cash dividends, for any spot and vol within reach.

One grid of `formulas.cash_dividends`, marched back to today, has every spot at one vol, and on its way it
passes the horizons of scenarios. So each option has grids at a few vols, which serve today and every horizon;
between them premiums are read by cubics. The error is measured and kept: that of the vols between by grids
solved there, that of the nodes by leaving out every other one, that of the grids by their two resolutions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpu_kernels.dividend_schedules import chosen_rows, due
from gpu_kernels.dividend_tables import THIN, VOL_STEP, Grids, read_grids, solved_grids, spacing_around
from gpu_kernels.engines.columns import Columns
from gpu_kernels.engines.escrowed import LEAST_TOTAL_VOL, MOST_TOTAL_VOL, POINTS
from gpu_kernels.errors import InvalidInput
from gpu_kernels.portfolio import Portfolio
from gpu_kernels.scenarios import Scenarios

if TYPE_CHECKING:
    from gpu_kernels.engines.engine import Engine

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Vols are not followed below this part of today's: the premium hardly changes any more.
LEAST_VOL = 0.25
# Grids solved at once: some 40 MB.
GRIDS_AT_ONCE = 2_048
# Returns at which vols between those of the grids are checked.
CHECKS = 41
# What the checks find is taken so many times.
SAFETY = 2.0
# Nodes beyond the ends of a window, and the least that it has.
MARGIN = 3
LEAST_WIDTH = 12


class Lattice(NamedTuple):
    """Grids of options (C,) at V vols and one horizon, as the cpu's kernel reads them."""

    premium: NDArray[np.float32]  # option by option and vol by vol, the nodes of a window
    base: Integers  # (C,) where each option's begin
    width: Integers  # (C,) nodes of its windows
    first: Floats  # (C, V) where a window begins, in nodes from the strike
    spacing: Floats  # (C, V) of nodes, in log spot
    log_strike: Floats  # (C,)
    low: Floats  # (C,) log of the second vol
    step: Floats  # (C,) between vols, in their log


@dataclass(frozen=True)
class DividendPremiums:
    """Premiums of American options (C,) with dividends to come; `dividend_premiums` makes one."""

    engine: Engine
    book: Portfolio
    horizons: Floats  # (K,) years from today, ascending, the first is 0
    lattices: tuple[Lattice, ...]  # one for each
    due: Floats  # (K, C) worth at the horizon of dividends to come then
    bounds: Floats  # (C,) of the error of a premium, as a part of the spot

    @property
    def error(self) -> float:
        """Bound of the error of one premium, as a part of the spot."""
        return float(self.bounds.max(initial=0.0))

    def premiums(self, elapsed: float, moves: Floats, changes: Floats) -> Floats:
        """Premiums (C, S) at a horizon, the spot moved by log returns (S,) and each vol by changes (S,)."""
        place = int(np.searchsorted(self.horizons, elapsed))
        if place == len(self.horizons) or self.horizons[place] != elapsed:
            raise InvalidInput("elapsed", f"is {elapsed}; premiums are known at {self.horizons.tolist()}")
        read = self.engine.module("dividend_premiums").read
        found: Floats = read(
            self.lattices[place], self.book.spot, self.book.vol, self.due[place], moves, changes
        )
        return found

    def premium_pnl(self, scenarios: Scenarios) -> Floats:
        """What the right of early exercise adds to the P&L of one of each option, (C, S)."""
        out = np.empty((self.book.options, len(scenarios)))
        for elapsed in np.unique(scenarios.elapsed):
            columns = np.flatnonzero(scenarios.elapsed == elapsed)
            moves, changes = scenarios.spot_return[columns, 0], scenarios.vol_change[columns, 0]
            out[:, columns] = self.premiums(float(elapsed), moves, changes)
        return out - self.premiums(0.0, np.zeros(1), np.zeros(1))

    def moved(self, spots: ArrayLike, vols: ArrayLike) -> DividendPremiums:
        """The same from another spot (1,) and other vols (C,) of today, within reach."""
        return replace(self, book=self.book.with_spots(spots).with_vols(np.asarray(vols, np.float64)))


def lasts(book: Portfolio, scenarios: Scenarios) -> float:
    """Years until an ex-date is passed, today or at a horizon; infinite where there is none to pass."""
    if book.dividends is None:
        return np.inf
    times = book.dividends.within(book.expiry).times
    horizons = np.unique(np.append(scenarios.elapsed, 0.0))
    ahead = (times - horizons[:, None]).ravel()
    return float(ahead[ahead > 0.0].min(initial=np.inf))


def dividend_premiums(
    engine: Engine, book: Portfolio, scenarios: Scenarios, spot_reach: float, vol_reach: float
) -> DividendPremiums:
    """For scenarios (S, 1) of any horizons, from spots (log) and vols (absolute) so far around today's.

    All rows are American, on one underlying, and have dividends to come. Only the cpu engine has this.
    """
    if scenarios.rate_change.any():
        raise InvalidInput("rate_change", "is not zero; premiums are known at today's rate")
    if book.dividends is None or not (book.paying & book.american).all():
        raise InvalidInput("options", "expected American ones with dividends to come")
    horizons = np.unique(np.append(scenarios.elapsed, 0.0))
    owed = np.stack([_owed(book, years) for years in horizons.tolist()])
    returns = _ends(scenarios.spot_return, spot_reach)
    low, step, count = _vols(book, _ends(scenarios.vol_change, vol_reach))
    # Two more for the checks: between the lowest vols, and between those in the middle.
    places = np.concatenate((np.arange(count) - 1.0, (0.5, (count - 3) // 2 + 0.5)))
    lanes = np.exp(low[:, None] + step[:, None] * places)
    lattice = _Making(engine, book, horizons, owed, returns, lanes, low, step)
    premium, bounds = lattice.solved()
    first = (lattice.start[:, :count] - POINTS // 2).astype(np.float64)
    spacing = np.ascontiguousarray(lattice.spacing[:, :count])
    log_strike = np.log(book.strike)
    lattices = [
        Lattice(one, lattice.base, lattice.width, first, spacing, log_strike, low, step) for one in premium
    ]
    # Nothing is left of the spot: the path is certain, and the premium not followed.
    lost = (book.spot * np.exp(returns[0]) <= owed.max(axis=0)).astype(np.float64)
    bounds += lost * np.maximum(1.0, book.strike / book.spot)
    return DividendPremiums(engine, book, horizons, tuple(lattices), owed, bounds)


def _owed(book: Portfolio, years: float) -> Floats:
    """What the dividends to come after so many years are worth then."""
    if book.dividends is None:
        return np.zeros(book.options)
    schedule = book.dividends.after(years).within(np.maximum(book.expiry - years, 0.0))
    return due(schedule, book.rate - book.dividend_yield)


def _ends(moves: Floats, reach: float) -> tuple[float, float]:
    return min(0.0, float(moves.min())) - reach, max(0.0, float(moves.max())) + reach


def _vols(book: Portfolio, changes: tuple[float, float]) -> tuple[Floats, Floats, int]:
    """Log of the least vol of each row, the step between its vols, and their number: one more at each end."""
    root = np.sqrt(book.expiry)
    least, most = THIN * LEAST_TOTAL_VOL / root, MOST_TOTAL_VOL / root
    low = np.log(np.clip(np.maximum(book.vol + changes[0], LEAST_VOL * book.vol), least, most))
    high = np.log(np.clip(book.vol + changes[1], 1.01 * least, most))
    wide = np.maximum(high - low, VOL_STEP)
    count = int(np.ceil(wide.max(initial=VOL_STEP) / VOL_STEP - 1e-9)) + 3
    return low, wide / (count - 3), count


class _Making:
    """The grids of a book on their way into lattices; the last two lanes are for checks."""

    def __init__(
        self,
        engine: Engine,
        book: Portfolio,
        horizons: Floats,
        owed: Floats,
        returns: tuple[float, float],
        lanes: Floats,
        low: Floats,
        step: Floats,
    ) -> None:
        self._engine, self._book, self._horizons, self._owed = engine, book, horizons, owed
        self._lanes, self._low, self._step, self._returns = lanes, low, step, returns
        if book.dividends is None:
            raise InvalidInput("dividends", "are missing")
        self._paid = book.dividends.within(book.expiry)
        row = np.repeat(np.arange(book.options), lanes.shape[1])
        self.spacing = spacing_around(self._columns(row, lanes.ravel()), chosen_rows(self._paid, row))
        self.spacing = self.spacing.reshape(lanes.shape)
        self._first, self._last = self._needed()
        width = (self._last - self._first).max(axis=1) + 1
        self.width = np.clip(width, LEAST_WIDTH, POINTS + 1)
        self.start = np.minimum(self._first, POINTS + 1 - self.width[:, None])
        sizes = self.width * (lanes.shape[1] - 2)
        self.base = np.cumsum(sizes) - sizes
        self._size = int(sizes.sum())

    def solved(self) -> tuple[NDArray[np.float32], Floats]:
        """Premiums (K, all nodes of all windows), and bounds of their errors (C,)."""
        options, lanes = self._lanes.shape
        premium = np.empty((len(self._horizons), self._size), np.float32)
        bounds = np.zeros(options)
        turn = max(1, GRIDS_AT_ONCE // lanes)
        for begin in range(0, options, turn):
            rows = np.arange(begin, min(begin + turn, options))
            row = np.repeat(rows, lanes)
            columns = self._columns(row, self._lanes[rows].ravel())
            paid, spacing = chosen_rows(self._paid, row), self.spacing[rows].ravel()
            for k, grids in enumerate(solved_grids(self._engine, columns, paid, spacing, self._horizons)):
                off = _distance(grids)
                window, distance = self._window(grids.fine + off, rows), self._window(off, rows)
                for place, option in enumerate(rows.tolist()):
                    kept = window[place, :-2, : self.width[option]]
                    premium[k, self.base[option] : self.base[option] + kept.size] = kept.ravel()
                inside = self._inside(rows)
                missed = np.abs(distance * inside)[:, 1:-3].max(axis=(1, 2))
                missed += _between_nodes(window[:, 1:-3], inside[:, 1:-3])
                missed += SAFETY * self._between_vols(k, rows, premium[k], grids)
                bounds[rows] = np.maximum(bounds[rows], missed / self._book.spot[rows])
        return premium, bounds

    def _columns(self, row: Integers, vol: Floats) -> Columns:
        book = self._book
        strike, years = book.strike[row], book.expiry[row]
        return Columns(
            strike, strike, years, vol, book.rate[row], book.dividend_yield[row], book.is_call[row]
        )

    def _needed(self) -> tuple[Integers, Integers]:
        """The first and the last node that is read, of each grid."""
        book, owed = self._book, self._owed
        low, high = (book.spot * np.exp(end) for end in self._returns)
        least = np.maximum(low - owed.max(axis=0), 1e-9 * book.spot)
        at = np.log(np.stack((least, high - owed.min(axis=0))) / book.strike)[:, :, None] / self.spacing
        first = np.floor(at[0]).astype(np.int64) + POINTS // 2 - MARGIN
        last = np.ceil(at[1]).astype(np.int64) + POINTS // 2 + MARGIN
        return np.clip(first, 0, POINTS), np.clip(last, 0, POINTS)

    def _inside(self, rows: Integers) -> NDArray[np.bool_]:
        """Which nodes of the windows are needed, (c, lanes, W)."""
        at = self.start[rows][:, :, None] + np.arange(self.width[rows].max())
        return np.asarray((at >= self._first[rows][:, :, None]) & (at <= self._last[rows][:, :, None]))

    def _window(self, values: Floats, rows: Integers) -> Floats:
        """The nodes that are read (c, lanes, W); those beyond an option's own width count for nothing."""
        width = int(self.width[rows].max())
        at = np.minimum(self.start[rows].reshape(-1, 1) + np.arange(width), POINTS)
        return np.take_along_axis(values, at, axis=1).reshape(len(rows), -1, width)

    def _between_vols(self, k: int, rows: Integers, premium: NDArray[np.float32], grids: Grids) -> Floats:
        """What the lattice misses at the vols of the checks, (c,)."""
        book, lanes = self._book.rows(rows), self._lanes.shape[1]
        count = lanes - 2
        lattice = Lattice(
            premium=premium,
            base=self.base[rows],
            width=self.width[rows],
            first=(self.start[rows, :count] - POINTS // 2).astype(np.float64),
            spacing=np.ascontiguousarray(self.spacing[rows, :count]),
            log_strike=np.log(book.strike),
            low=self._low[rows],
            step=self._step[rows],
        )
        moves = np.linspace(*self._returns, CHECKS)
        read = self._engine.module("dividend_premiums").read
        left = book.spot[:, None] * np.exp(moves) - self._owed[k, rows, None]
        at = np.log(np.maximum(left, 1e-9 * book.spot[:, None]))
        missed = np.zeros(len(rows))
        for lane in (count, count + 1):
            number = np.repeat(np.arange(len(rows)) * lanes + lane, CHECKS)
            exact = np.maximum(read_grids(grids, number, at.ravel()).reshape(at.shape), 0.0)
            vol = np.ascontiguousarray(self._lanes[rows, lane])
            got = read(lattice, book.spot, vol, self._owed[k, rows], moves, np.zeros(CHECKS))
            missed = np.maximum(missed, np.where(left > 0.0, np.abs(got - exact), 0.0).max(axis=1))
        return missed


def _distance(grids: Grids) -> Floats:
    """From the finer grid to the extrapolated values, at every node of the finer one."""
    off = np.zeros_like(grids.fine)
    own = (grids.fine[:, ::2] - grids.coarse) / 3.0
    off[:, ::2] = own
    off[:, 3:-3:2] = 0.5625 * (own[:, 1:-2] + own[:, 2:-1]) - 0.0625 * (own[:, :-3] + own[:, 3:])
    off[:, 1], off[:, -2] = 0.5 * (own[:, 0] + own[:, 1]), 0.5 * (own[:, -2] + own[:, -1])
    return off


def _between_nodes(values: Floats, inside: NDArray[np.bool_]) -> Floats:
    """What cubics miss between nodes, from what they miss at every other node; (c,)."""
    even = values[:, :, ::2]
    read = 0.5625 * (even[:, :, 1:-2] + even[:, :, 2:-1]) - 0.0625 * (even[:, :, :-3] + even[:, :, 3:])
    at = slice(3, 3 + 2 * read.shape[2], 2)
    missed = np.abs(values[:, :, at] - read) * inside[:, :, at]
    # At a kink of the second derivative an error goes with the square of the distance.
    return np.asarray(missed.max(axis=(1, 2), initial=0.0) / 4.0)
