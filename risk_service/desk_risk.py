"""The live desk's numbers, kept per underlying and book: a tick costs what hangs on its own underlying.

Every contract is valued once for all books. European values are worked out in full, under every scenario;
what the right of early exercise adds is read from tables of measured error (gpu_kernels.premium_tables).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.premium_tables import POINT_FIELDS
from gpu_kernels.revaluation import position_pnl
from risk_service.desk import Block, Desk
from risk_service.desk_premiums import DeskPremiums, PremiumInputs
from risk_service.live_risk import STRESSES, ScenarioSource, stress_scenarios
from risk_service.market_state import MarketState
from risk_service.valuation import Book, Fault
from risk_service.vol_marks import Contracts, VolMarks, years_between

Floats = NDArray[np.float64]

# Contract × scenario numbers held at once: 32 MiB.
BLOCK_NUMBERS = 1 << 22
_TERMS = ("underlying", "call", "put", "expiry_time_ns", "strike", "american")


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
    premium_time_ns: int | None  # of the oldest table behind the numbers; None: no American positions


@dataclass(slots=True)
class DeskRisk:
    """Numbers of all cells as of their underlying's last change. Used by one thread."""

    engine: gk.Engine
    scenarios: ScenarioSource
    premiums: DeskPremiums
    desk: Desk = field(default_factory=lambda: Desk.of(()))
    _spots: Floats = field(default_factory=lambda: np.zeros(0))
    _points: Floats = field(default_factory=lambda: np.zeros((0, 10)))  # value, gross value, Greeks
    _pnl: Floats = field(default_factory=lambda: np.zeros((0, 0)))  # per cell: historical, then stresses
    _priced: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    _historical: gk.Scenarios | None = None  # a column per block
    _column: dict[int, int] = field(default_factory=dict)  # of each slot
    _shocks: Floats = field(default_factory=lambda: np.zeros((0, 0)))  # (blocks, scenarios): simple returns
    _american: list[frozenset[int]] = field(default_factory=list)  # per book, slots with American options
    _faults: dict[int, tuple[Fault, ...]] = field(default_factory=dict)

    def hold(self, books: list[Book]) -> None:
        """Takes these books in place of those held; every underlying must then be measured."""
        self.desk = Desk.of(books)
        self.premiums.keep({block.slot for block in self.desk.blocks})
        self._column = {block.slot: place for place, block in enumerate(self.desk.blocks)}
        own = [self.scenarios.historical((block.name,)) for block in self.desk.blocks]
        days = max((len(one) for one in own if one is not None), default=0)
        self._historical = _side_by_side(own, days)
        stresses = np.array([stress.spot for stress in STRESSES])
        self._shocks = np.empty((len(own), days + len(STRESSES)))
        self._shocks[:, days:] = stresses
        if self._historical is not None:
            self._shocks[:, :days] = np.expm1(self._historical.spot_return.T)
        self._spots = np.full(self.desk.cells, np.nan)
        self._points = np.zeros((self.desk.cells, 10))
        self._pnl = np.zeros((self.desk.cells, self._shocks.shape[1]))
        self._priced = np.zeros(len(self.desk.contracts), np.bool_)
        self._american = [
            frozenset(book.contracts.underlying[book.contracts.american].tolist()) for book in books
        ]
        self._faults.clear()

    def measure(self, market: MarketState, marks: VolMarks, names: set[str]) -> None:
        """Works out everything that hangs on these underlyings at the market as it is."""
        blocks = [block for block in self.desk.blocks if block.name in names]
        turn: list[Block] = []
        rows = 0
        for block in blocks:
            turn.append(block)
            rows += block.stop - block.start
            if rows * self._shocks.shape[1] >= BLOCK_NUMBERS:
                self._measure(market, marks, turn)
                turn, rows = [], 0
        if turn:
            self._measure(market, marks, turn)

    def numbers(self, number: int) -> BookNumbers:
        """Everything known of a book."""
        book, cells = self.desk.books[number], self.desk.cells_of(number)
        points = self._points[cells]
        total = self._pnl[cells].sum(axis=0)
        days = self._pnl.shape[1] - len(STRESSES)
        _, count, why = self.scenarios.of(book.held.underlyings)
        slots = self._american[number]
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
            premium_time_ns=self.premiums.oldest_ns(slots),
        )

    def pnl_by_underlying(self, number: int) -> Floats:
        """P&L of a book per underlying and scenario, historical ones first, then the stresses."""
        return self._pnl[self.desk.cells_of(number)]

    def _measure(self, market: MarketState, marks: VolMarks, blocks: list[Block]) -> None:
        values = _BlockValues.of(self.engine, market, marks, self.desk, blocks)
        portfolio = values.portfolio()
        pnl = []
        if self._historical is not None:
            columns = [self._column[block.slot] for block in blocks]
            pnl.append(position_pnl(self.engine, portfolio, _columns(self._historical, columns)))
        pnl.append(position_pnl(self.engine, portfolio, _stresses(len(blocks))))
        for place, block in enumerate(blocks):
            part = values.part(place)
            self._note_priced(block, values.priced[part])
            points, worth = self._with_premiums(values, place, block, market)
            self._spots[block.cells] = values.spots[place]
            self._points[block.cells] = points
            size = np.where(values.priced[part], block.weights, 0.0)
            cells = np.concatenate([size @ one[part] for one in pnl], axis=1)
            spot = values.spots[place]
            if np.isfinite(spot):
                cells += (block.linear * spot)[:, None] * self._shocks[self._column[block.slot]]
            if worth is not None:
                cells += worth
            self._pnl[block.cells] = cells

    def _with_premiums(
        self, values: _BlockValues, place: int, block: Block, market: MarketState
    ) -> tuple[Floats, Floats | None]:
        """Value, gross value and Greeks per cell; P&L of the premiums per cell and scenario, or None."""
        part = values.part(place)
        fields = values.fields[part]
        now = values.american(place, market)
        if now is not None:
            today = self.premiums.today(block.slot, now, partial(self._own_scenarios, block))
            fields = fields.copy()
            fields[now.rows] += today
        priced = values.priced[part]
        size, gross = np.where(priced, block.weights, 0.0), np.where(priced, block.gross_weights, 0.0)
        points = np.empty((len(block.cells), 10))
        points[:, 0], points[:, 2:] = size @ fields[:, 0], size @ fields[:, 1:]
        points[:, 1] = gross @ np.abs(fields[:, 0])
        spot = values.spots[place]
        if np.isfinite(spot):
            points[:, 0] += block.linear * spot
            points[:, 1] += block.gross_linear * spot
            points[:, 2] += block.linear
        if now is None:
            return points, None
        then = self.premiums.in_scenarios(block, now)
        return points, then - (block.weights[:, now.rows] @ today[:, 0])[:, None]

    def _own_scenarios(self, block: Block) -> gk.Scenarios:
        stresses = stress_scenarios(1)
        if self._historical is None:
            return stresses
        own = _columns(self._historical, [self._column[block.slot]])
        return gk.Scenarios.stacked([own, stresses])

    def _note_priced(self, block: Block, priced: NDArray[np.bool_]) -> None:
        here = slice(block.start, block.stop)
        known = bool(np.isfinite(self._spots[block.cells]).all())
        if not known or not np.array_equal(self._priced[here], priced):
            self._priced[here] = priced
            self._faults.clear()

    def _left_out(self, number: int) -> tuple[Fault, ...]:
        book = self.desk.books[number]
        options = book.option_rows[~self._priced[self.desk.contract_of_row[number]]]
        spots = self._spots[self.desk.cells_of(number)]
        linear = book.linear_rows[~np.isfinite(spots[book.held.underlying_index[book.linear_rows]])]
        rows = np.sort(np.concatenate((options, linear))).tolist()
        return tuple(Fault(row, book.held.symbols[row], gk.Status.NO_MARKET_DATA) for row in rows)


@dataclass(frozen=True, slots=True)
class _BlockValues:
    """The contracts of some blocks at a moment of the market: inputs, and European values and Greeks."""

    blocks: list[Block]
    edges: NDArray[np.int64]
    spots: Floats  # per block
    rates: Floats
    yields: Floats
    priced: NDArray[np.bool_]  # per contract, as all below
    options: gk.Options
    american_flags: NDArray[np.bool_]
    fields: Floats  # (contracts, 9) in the order of POINT_FIELDS

    @classmethod
    def of(
        cls, engine: gk.Engine, market: MarketState, marks: VolMarks, desk: Desk, blocks: list[Block]
    ) -> _BlockValues:
        edges = np.cumsum([0, *(block.stop - block.start for block in blocks)])
        slots = np.array([block.slot for block in blocks], np.int64)
        spots, rates, yields = (
            market.spots(slots),
            market.column("rate", slots),
            market.column("dividend_yield", slots),
        )
        contracts, is_call = _contracts_of(desk, blocks)
        vols = marks.marks(engine, market, contracts)
        place = np.repeat(np.arange(len(blocks)), np.diff(edges))
        priced = np.isfinite(spots[place]) & np.isfinite(vols)
        options = gk.Options(
            # A contract of which nothing is known gets harmless inputs, and no weight afterwards.
            spot=np.where(priced, spots[place], 1.0),
            strike=contracts.strike,
            expiry=years_between(market.valuation_time_ns, contracts.expiry_time_ns),
            vol=np.where(priced, vols, 0.2),
            rate=rates[place],
            dividend_yield=yields[place],
            is_call=is_call,
        )
        result = engine.greeks(options)
        fields = np.stack([getattr(result, name) for name in POINT_FIELDS], axis=1)
        fields[~priced] = 0.0
        return cls(blocks, edges, spots, rates, yields, priced, options, contracts.american, fields)

    def part(self, place: int) -> slice:
        """The contracts of a block."""
        return slice(int(self.edges[place]), int(self.edges[place + 1]))

    def portfolio(self) -> gk.Portfolio:
        """One of each contract; the underlying is the block's place."""
        return gk.Portfolio(
            options=self.options,
            quantity=np.ones(len(self.priced)),
            underlying=np.repeat(np.arange(len(self.blocks)), np.diff(self.edges)),
        )

    def american(self, place: int, market: MarketState) -> PremiumInputs | None:
        """The American contracts of a block that have a price; None where there are none."""
        part = self.part(place)
        rows = np.flatnonzero(self.american_flags[part] & self.priced[part])
        if not rows.size:
            return None
        at = rows + part.start
        # The options are kept by reference: a table is seldom made.
        given = self.options

        def options() -> gk.Options:
            columns = {name: np.asarray(given.column(name))[at] for name in _OPTION_COLUMNS}
            return gk.Options(**columns, american=True)

        return PremiumInputs(
            rows=rows,
            options=options,
            spot=float(self.spots[place]),
            vol=np.asarray(given.column("vol"))[at],
            rate=float(self.rates[place]),
            dividend_yield=float(self.yields[place]),
            time_ns=market.valuation_time_ns,
        )


_OPTION_COLUMNS = ("spot", "strike", "expiry", "vol", "rate", "dividend_yield", "is_call")


@cache
def _stresses(underlyings: int) -> gk.Scenarios:
    return stress_scenarios(underlyings)


def _contracts_of(desk: Desk, blocks: list[Block]) -> tuple[Contracts, NDArray[np.bool_]]:
    if len(blocks) == len(desk.blocks):
        return desk.contracts, desk.is_call
    rows = np.concatenate([np.arange(block.start, block.stop) for block in blocks])
    columns = {name: getattr(desk.contracts, name)[rows] for name in _TERMS}
    return Contracts(**columns), desk.is_call[rows]


def _columns(scenarios: gk.Scenarios, chosen: list[int]) -> gk.Scenarios:
    return gk.Scenarios(
        spot_return=scenarios.spot_return[:, chosen],
        vol_change=scenarios.vol_change[:, chosen],
        elapsed=scenarios.elapsed,
    )


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
