"""The live desk's numbers, kept per underlying and book: a tick costs what hangs on its own underlying.

Every contract is valued once for all books. European values are worked out in full, under every scenario
(gpu_kernels.shared_book); what the right of early exercise adds is read from tables of measured error
(gpu_kernels.premium_tables).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.shared_book import ScenarioTable, cell_pnl, cell_points
from risk_service.desk import Desk
from risk_service.desk_block import Block
from risk_service.desk_values import NO_QUOTE, DeskValues
from risk_service.live_risk import ScenarioSource, stress_scenarios
from risk_service.market_state import MarketState
from risk_service.premium_inputs import PremiumInputs, Premiums
from risk_service.valuation import Book, Fault, left_out_faults
from risk_service.vol_marks import VolMarks

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class BookNumbers:
    """What the desk knows of one book; arrays have one entry per underlying of the book, or per scenario."""

    value: float
    gross_value: float
    spots: Floats
    greeks: Floats  # (underlyings, 8) in the order of GREEKS
    historical_pnl: Floats  # none without history
    historical_by_underlying: Floats  # (underlyings, scenarios), no copy: as long as the desk looks no more
    stress_pnl: Floats
    why_no_history: str
    faults: tuple[Fault, ...]
    premium_error: float  # as a part of the spot
    oldest_quote_ns: int | None  # of those that the vols come from; None: no option has one
    premium_time_ns: int | None  # of the oldest table behind the numbers; None: no American positions


class _Seen(NamedTuple):
    """What the market told of a block the last time."""

    spot: bool  # whether it has one
    all_in: bool  # whether nothing of it is left out
    status: NDArray[np.uint8]  # per contract: why it is not in the numbers
    future_status: NDArray[np.uint8]
    # The bytes of both, and of the moments of quotes: ten times faster to compare than arrays.
    told: tuple[bytes, bytes] | None  # None: what is held has changed since
    quoted: bytes | None


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
    _oldest_ns: Integers = field(default_factory=lambda: np.zeros(0, np.int64))  # quote, per cell
    _days: int = 0  # historical scenarios, before the stresses
    _scenarios: gk.Scenarios | None = None  # a column per block: the historical ones, then the stresses
    _table: ScenarioTable | None = None  # the same, for the kernel
    _place: dict[str, int] = field(default_factory=dict)  # of each block, by its underlying
    _waiting: set[int] = field(default_factory=set)  # slots with contracts for which premiums are not there
    _american: list[frozenset[int]] = field(default_factory=list)  # per book, slots with American options
    _seen: dict[int, _Seen] = field(default_factory=dict)  # by slot
    _faults: dict[int, tuple[Fault, ...]] = field(default_factory=dict)
    _why: list[str] = field(default_factory=list)  # per book: why there is no history; empty where there is

    def hold(self, books: list[Book]) -> set[str]:
        """Takes these books in place of those held; the underlyings that must then be measured."""
        before, self.desk = self.desk, Desk.of(books, self.desk)
        blocks, old = self.desk.blocks, {block.slot: block for block in before.blocks}
        kept = [
            (block, old[block.slot])
            for block in blocks
            if block.slot in old and block.contents == old[block.slot].contents
        ]
        names = [block.name for block in blocks]
        if list(self._place) != names or self._table is None:
            self._place = {name: place for place, name in enumerate(names)}
            if self._take_scenarios(names):
                kept = []
        fresh = {block.name for block in blocks} - {block.name for block, _ in kept}
        unlike = {
            block.slot
            for block in blocks
            if block.name in fresh
            and (block.slot not in old or not np.array_equal(block.contracts, old[block.slot].contracts))
        }
        slots = {block.slot for block in blocks}
        self.premiums.keep(slots - unlike)
        self._waiting &= slots
        self.premiums.reweigh({block.slot for block in blocks if block.name in fresh} - unlike)
        self._move_cells(before, kept)
        as_before = {block.slot for block, _ in kept}
        self._seen = {
            slot: seen if slot in as_before else seen._replace(told=None, quoted=None)
            for slot, seen in self._seen.items()
            if slot in slots
        }
        self._american = [
            frozenset(book.contracts.underlying[book.contracts.american].tolist()) for book in books
        ]
        self._why = [self.scenarios.why_none(book.held.underlyings) for book in books]
        known = {id(before.holders[number].book): faults for number, faults in self._faults.items()}
        self._faults = {number: known[id(book)] for number, book in enumerate(books) if id(book) in known}
        return fresh

    def _take_scenarios(self, names: list[str]) -> bool:
        """Lays out the scenarios of these underlyings; whether they are others than before for all."""
        own = [self.scenarios.historical((name,)) for name in names]
        before, self._days = (
            (self._days, self._table),
            max((len(one) for one in own if one is not None), default=0),
        )
        historical = _side_by_side(own, self._days)
        parts = [] if historical is None else [historical]
        if self.with_stresses or historical is None:
            parts.append(stress_scenarios(max(1, len(own))))
        self._scenarios = gk.Scenarios.stacked(parts)
        self._table = ScenarioTable.of(self._scenarios)
        return before[0] != self._days or before[1] is None

    def _move_cells(self, before: Desk, kept: list[tuple[Block, Block]]) -> None:
        """Numbers of what is held as before go where the cell is now."""
        came_from = np.full(self.desk.cells, -1)
        for now, then in kept:
            came_from[now.cells] = then.cells
        at = np.flatnonzero(came_from >= 0)
        width = 0 if self._scenarios is None else len(self._scenarios)
        if self._pnl.shape == (self.desk.cells, width) and np.array_equal(came_from[at], at):
            return
        for name, shape, kind in (
            ("_spots", (), np.float64),
            ("_oldest_ns", (), np.int64),
            ("_points", (10,), np.float64),
            ("_pnl", (width,), np.float64),
        ):
            moved = np.zeros((self.desk.cells, *shape), kind)
            if at.size:
                moved[at] = getattr(self, name)[came_from[at]]
            setattr(self, name, moved)

    def measure(self, market: MarketState, marks: VolMarks, names: set[str]) -> None:
        """Works out everything that hangs on these underlyings at the market as it is."""
        places = sorted(self._place[name] for name in names if name in self._place)
        if not places or self._table is None or self._scenarios is None:
            return
        values = DeskValues.of(self.engine, market, marks, self.desk, np.array(places, np.int64))
        american = self._prepared(values)
        self._note(values)
        desk = self.desk
        cell_points(self.engine)(desk.shared, values.points, values.fields, self._points)
        cell_pnl(self.engine)(desk.shared, self._table, values.shared, self._pnl)
        for block, now in american:
            self.premiums.add(block, now, self._points, self._pnl)
        values.futures.add(self._scenarios, self._points, self._pnl)

    def numbers(self, number: int) -> BookNumbers:
        """Everything known of a book."""
        cells = self.desk.cells_of(number)
        points = self._points[cells]
        total = self._pnl[cells].sum(axis=0)
        days, why = self._days, self._why[number]
        stated = self.premiums.stated(self._american[number])
        oldest = int(self._oldest_ns[cells].min(initial=NO_QUOTE))
        if number not in self._faults:
            self._faults[number] = self._left_out(number)
        return BookNumbers(
            value=float(points[:, 0].sum()),
            gross_value=float(points[:, 1].sum()),
            spots=self._spots[cells],
            greeks=points[:, 2:],
            historical_pnl=np.zeros(0) if why else total[:days],
            historical_by_underlying=self.historical_by_cell(number, number + 1),
            stress_pnl=total[days:],
            why_no_history=why,
            faults=self._faults[number],
            premium_error=stated.error,
            oldest_quote_ns=None if oldest == NO_QUOTE else oldest,
            premium_time_ns=stated.oldest_ns,
        )

    def historical_by_cell(self, first: int, stop: int) -> Floats:
        """P&L of books by number, per underlying of each and historical scenario; no copy."""
        cells = self.desk.first_cell
        return self._pnl[cells[first] : cells[stop], : self._days]

    def _prepared(self, values: DeskValues) -> list[tuple[Block, PremiumInputs]]:
        """The blocks that have premiums, and what these are read at."""
        found = []
        for place, number in enumerate(values.chosen.tolist()):
            block = self.desk.blocks[number]
            now = values.american(place, block.american) if len(block.american) else None
            if now is None:
                continue
            self._waiting.discard(block.slot)
            if not self.premiums.prepare(block.slot, now, partial(self._own_scenarios, number)):
                self._waiting.add(block.slot)
                values.leave_out(place, now.rows[now.paying])
                now = now.those(~now.paying)
            if now.rows.size:
                found.append((block, now))
        return found

    def awaited(self) -> set[str]:
        """Underlyings of which contracts were left out that can be valued now."""
        if not self._waiting:
            return set()
        come = self.premiums.awaited(self._waiting)
        return {block.name for block in self.desk.blocks if block.slot in come}

    def _own_scenarios(self, place: int) -> gk.Scenarios:
        if self._scenarios is None:
            return stress_scenarios(1)
        return gk.Scenarios(
            spot_return=self._scenarios.spot_return[:, [place]],
            vol_change=self._scenarios.vol_change[:, [min(place, self._scenarios.vol_change.shape[1] - 1)]],
            elapsed=self._scenarios.elapsed,
        )

    def _note(self, values: DeskValues) -> None:
        """Keeps what is known of the blocks; what is left out of the books may have changed with it."""
        desk = self.desk
        for k, place in enumerate(values.chosen.tolist()):
            block, spot = desk.blocks[place], values.spots[k]
            own, strikes = values.part(k), slice(*values.first_strike[k : k + 2].tolist())
            status = values.status[own]
            future_status = values.futures.status[slice(*values.first_future[k : k + 2].tolist())]
            has_spot = bool(np.isfinite(spot))
            told, quoted_ns = (status.tobytes(), future_status.tobytes()), values.quoted_ns[strikes]
            before, quoted = self._seen.get(block.slot), quoted_ns.tobytes()
            self._spots[block.cells] = spot
            if before is None or before.quoted != quoted:
                moments = np.repeat(quoted_ns, np.diff(block.by_strike.first))
                oldest = np.full(len(block.cells), NO_QUOTE)
                np.minimum.at(oldest, block.by_strike.cell, moments)
                self._oldest_ns[block.cells] = oldest
            same = before is not None and before.spot == has_spot and before.told == told
            if before is not None and same and before.quoted == quoted:
                continue
            all_in = has_spot and not status.any() and not future_status.any()
            if not same and not (before is not None and before.all_in and all_in):
                self._faults.clear()
            self._seen[block.slot] = _Seen(has_spot, all_in, status, future_status, told, quoted)

    def _left_out(self, number: int) -> tuple[Fault, ...]:
        holder, first = self.desk.holders[number], int(self.desk.first_cell[number])
        book, rows, status = holder.book, [np.zeros(0, np.int64)], [np.zeros(0, np.uint8)]
        for place, slot in enumerate(book.underlying_slots.tolist()):
            seen = self._seen[slot]
            if seen.all_in:
                continue
            block, at = self.desk.where(first + place)
            own = block.contract_of[block.first_position[at] : block.first_position[at + 1]]
            futures = slice(*block.first_future[at : at + 2].tolist())
            spots = np.zeros(0, np.int64) if seen.spot else holder.spot_rows(place)
            rows += [
                *(
                    holder.option_rows[holder.option_span(place)],
                    holder.future_rows[holder.future_span(place)],
                ),
                spots,
            ]
            status += [
                *(seen.status[own], seen.future_status[futures]),
                np.full(len(spots), gk.Status.NO_MARKET_DATA, np.uint8),
            ]
        return left_out_faults(book, np.concatenate(rows), np.concatenate(status))


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
