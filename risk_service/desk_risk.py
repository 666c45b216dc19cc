"""The live desk's numbers, kept per underlying and book: a tick costs what hangs on its own underlying.

Every contract is valued once for all books. European values are worked out in full, under every scenario
(gpu_kernels.shared_book); what the right of early exercise adds is read from tables of measured error
(gpu_kernels.premium_tables).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.shared_book import ScenarioTable, cell_pnl, cell_points
from risk_service.desk import Block, Desk, with_quantities
from risk_service.desk_values import NO_QUOTE, DeskValues, spans
from risk_service.live_risk import ScenarioSource, stress_scenarios
from risk_service.market_state import MarketState
from risk_service.premium_inputs import PremiumInputs, Premiums
from risk_service.valuation import Book, Fault, left_out_faults
from risk_service.vol_marks import VolMarks

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BookNumbers:
    """What the desk knows of one book; arrays have one entry per underlying of the book, or per scenario."""

    value: float
    gross_value: float
    spots: Floats
    greeks: Floats  # (underlyings, 8) in the order of GREEKS
    historical_pnl: Floats  # none without history
    stress_pnl: Floats
    why_no_history: str
    faults: tuple[Fault, ...]
    premium_error: float  # as a part of the spot
    oldest_quote_ns: int | None  # of those that the vols come from; None: no option has one
    premium_time_ns: int | None  # of the oldest table behind the numbers; None: no American positions


@dataclass(slots=True)
class DeskRisk:
    """Numbers of all cells as of their underlying's last change. Used by one thread."""

    engine: gk.Engine
    scenarios: ScenarioSource
    premiums: Premiums
    with_stresses: bool = True  # beside the historical scenarios
    desk: Desk = field(default_factory=lambda: Desk.of(()))
    _spots: Floats = field(default_factory=lambda: np.zeros(0))
    _points: Floats = field(default_factory=lambda: np.zeros((0, 10)))  # value, gross value, Greeks
    _pnl: Floats = field(default_factory=lambda: np.zeros((0, 0)))  # per cell: historical, then stresses
    _priced: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    _days: int = 0  # historical scenarios, before the stresses
    _quoted_ns: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))  # per strike
    _strikes: list[NDArray[np.int64]] = field(default_factory=list)  # per book
    _scenarios: gk.Scenarios | None = None  # a column per block: the historical ones, then the stresses
    _table: ScenarioTable | None = None  # the same, for the kernel
    _place: dict[str, int] = field(default_factory=dict)  # of each block, by its underlying
    _american: list[frozenset[int]] = field(default_factory=list)  # per book, slots with American options
    _faults: dict[int, tuple[Fault, ...]] = field(default_factory=dict)
    _time_ns: int = 0  # of the last measurement

    def hold(self, books: list[Book]) -> None:
        """Takes these books in place of those held; every underlying must then be measured."""
        self.desk = Desk.of(books)
        self.premiums.keep({block.slot for block in self.desk.blocks})
        self._place = {block.name: place for place, block in enumerate(self.desk.blocks)}
        own = [self.scenarios.historical((block.name,)) for block in self.desk.blocks]
        days = max((len(one) for one in own if one is not None), default=0)
        historical = _side_by_side(own, days)
        parts = [] if historical is None else [historical]
        if self.with_stresses or historical is None:
            parts.append(stress_scenarios(max(1, len(own))))
        self._days = days
        self._scenarios = gk.Scenarios.stacked(parts)
        self._table = ScenarioTable.of(self._scenarios)
        self._spots = np.full(self.desk.cells, np.nan)
        self._points = np.zeros((self.desk.cells, 10))
        self._pnl = np.zeros((self.desk.cells, len(self._scenarios)))
        self._priced = np.zeros(len(self.desk.contracts), np.bool_)
        self._american = [
            frozenset(book.contracts.underlying[book.contracts.american].tolist()) for book in books
        ]
        self._quoted_ns = np.full(len(self.desk.strikes), NO_QUOTE)
        self._strikes = [np.unique(self.desk.strike_of[rows]) for rows in self.desk.contract_of_row]
        self._faults.clear()

    def requantify(self, number: int, book: Book) -> set[str] | None:
        """Takes a book that holds other quantities in place of the one held.

        The underlyings of which it holds more or less must then be measured; None: `hold` all books anew.
        """
        changed = with_quantities(self.desk, number, book)
        if changed is None:
            return None
        self.desk, names = changed
        self.premiums.reweigh({self.desk.blocks[self._place[name]].slot for name in names})
        self._faults.pop(number, None)
        return names

    def measure(self, market: MarketState, marks: VolMarks, names: set[str]) -> None:
        """Works out everything that hangs on these underlyings at the market as it is."""
        places = sorted(self._place[name] for name in names if name in self._place)
        if not places or self._table is None:
            return
        values = DeskValues.of(self.engine, market, marks, self.desk, np.array(places, np.int64))
        self._time_ns = market.valuation_time_ns
        self._note_priced(values)
        american = self._premiums_today(values)
        desk = self.desk
        cell_points(self.engine)(desk.shared, values.points(desk), values.fields, self._points)
        cell_pnl(self.engine)(desk.shared, self._table, values.shared, self._pnl)
        for block, now in american:
            self._pnl[block.cells] += self.premiums.in_scenarios(block, now)

    def numbers(self, number: int) -> BookNumbers:
        """Everything known of a book."""
        book, cells = self.desk.books[number], self.desk.cells_of(number)
        points = self._points[cells]
        total = self._pnl[cells].sum(axis=0)
        days = self._days
        _, count, why = self.scenarios.of(book.held.underlyings)
        slots = self._american[number]
        oldest = int(self._quoted_ns[self._strikes[number]].min(initial=NO_QUOTE))
        if number not in self._faults:
            self._faults[number] = self._left_out(number)
        return BookNumbers(
            value=float(points[:, 0].sum()),
            gross_value=float(points[:, 1].sum()),
            spots=self._spots[cells],
            greeks=points[:, 2:],
            historical_pnl=total[:days] if count else np.zeros(0),
            stress_pnl=total[days:],
            why_no_history=why,
            faults=self._faults[number],
            premium_error=self.premiums.error(slots),
            oldest_quote_ns=None if oldest == NO_QUOTE else oldest,
            premium_time_ns=self.premiums.oldest_ns(slots),
        )

    def pnl_by_underlying(self, number: int) -> Floats:
        """P&L of a book per underlying and scenario, historical ones first, then the stresses."""
        return self._pnl[self.desk.cells_of(number)]

    def _premiums_today(self, values: DeskValues) -> list[tuple[Block, PremiumInputs]]:
        """Adds today's premiums to values and Greeks; the blocks that have any."""
        found = []
        for place, number in enumerate(values.chosen.tolist()):
            now = values.american(place)
            if now is None:
                continue
            block = self.desk.blocks[number]
            today = self.premiums.today(block.slot, now, partial(self._own_scenarios, number))
            values.fields[now.rows + values.part(place).start] += today
            found.append((block, now))
        return found

    def _own_scenarios(self, place: int) -> gk.Scenarios:
        if self._scenarios is None:
            return stress_scenarios(1)
        return gk.Scenarios(
            spot_return=self._scenarios.spot_return[:, [place]],
            vol_change=self._scenarios.vol_change[:, [min(place, self._scenarios.vol_change.shape[1] - 1)]],
            elapsed=self._scenarios.elapsed,
        )

    def _note_priced(self, values: DeskValues) -> None:
        """Keeps what is known of the blocks; what is left out of the books may have changed with it."""
        desk = self.desk
        cells = desk.shared
        held = np.diff(cells.first_cell)[values.chosen]
        at = cells.cell[spans(cells.first_cell, values.chosen)]
        spots = np.repeat(values.spots, held)
        known = np.isfinite(self._spots[at])
        if (
            not (known == np.isfinite(spots)).all()
            or not (self._priced[values.contracts] == values.priced).all()
        ):
            self._priced[values.contracts] = values.priced
            self._faults.clear()
        self._spots[at] = spots
        self._quoted_ns[desk.shared.rows(values.chosen)] = values.quoted_ns

    def _left_out(self, number: int) -> tuple[Fault, ...]:
        book = self.desk.books[number]
        options = book.option_rows[~self._priced[self.desk.contract_of_row[number]]]
        spots = self._spots[self.desk.cells_of(number)]
        linear = book.linear_rows[~np.isfinite(spots[book.held.underlying_index[book.linear_rows]])]
        rows = np.sort(np.concatenate((options, linear)))
        return left_out_faults(book, rows, book.option_rows[book.contracts.last_ex_ns > self._time_ns])


def _side_by_side(own: list[gk.Scenarios | None], days: int) -> gk.Scenarios | None:
    """One column per underlying; nothing happens to one without history: its books are told no tail."""
    if not days:
        return None
    nothing = np.zeros((days, 1))
    elapsed = next(one.elapsed for one in own if one is not None)
    return gk.Scenarios(
        spot_return=np.concatenate([nothing if one is None else one.spot_return for one in own], axis=1),
        vol_change=np.concatenate(
            [nothing if one is None else np.broadcast_to(one.vol_change, (days, 1)) for one in own], axis=1
        ),
        elapsed=elapsed,
    )
