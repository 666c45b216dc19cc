"""Contracts of some underlyings of a desk at a moment of the market: inputs, European values and Greeks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.premium_tables import POINT_FIELDS
from gpu_kernels.shared_book import SharedInputs, SharedPoints
from risk_service.desk import Desk
from risk_service.desk_futures import LiveFutures
from risk_service.market_state import MarketState
from risk_service.premium_inputs import PremiumInputs
from risk_service.valuation import option_status
from risk_service.vol_marks import Contracts, VolMarks, years_between

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

NO_QUOTE = np.iinfo(np.int64).max
_TERMS = ("underlying", "call", "put", "expiry_time_ns", "strike", "american", "last_ex_ns")
_OPTION_COLUMNS = ("spot", "strike", "expiry", "vol", "rate", "dividend_yield", "is_call")


@dataclass(frozen=True, slots=True)
class DeskValues:
    """Arrays have one entry per chosen block, or per contract or future, one block's after the other's."""

    chosen: Integers  # places of the blocks
    first: Integers  # of each block's contracts, and their number
    first_strike: Integers
    first_future: Integers
    spots: Floats  # per block
    status: NDArray[np.uint8]  # per contract: why it is not in the numbers
    options: gk.Options
    fields: Floats  # (contracts, 9) in the order of POINT_FIELDS
    shared: SharedInputs
    points: SharedPoints
    strike_of: Integers  # of each contract, among the strikes of the chosen blocks
    paying: NDArray[np.bool_]  # which contracts have dividends to come
    futures: LiveFutures
    quoted_ns: Integers  # per strike: moment of the quote that tells its vol; NO_QUOTE where none does
    time_ns: int

    @classmethod
    def of(
        cls, engine: gk.Engine, market: MarketState, marks: VolMarks, desk: Desk, chosen: Integers
    ) -> DeskValues:
        """Everything that the market tells of these blocks."""
        slots, time_ns = desk.slots[chosen], market.valuation_time_ns
        spots, rates, yields = (
            market.spots(slots),
            market.column("rate", slots),
            market.column("dividend_yield", slots),
        )
        every = len(chosen) == len(desk.blocks)
        strikes = desk.strikes if every else _some(desk.strikes, desk.shared.rows(chosen))
        counts = np.diff(desk.shared.first_row)[chosen]
        vols, told_by = marks.marked(engine, market, strikes)
        known = np.isfinite(np.repeat(spots, counts)) & np.isfinite(vols)
        status = option_status(strikes, known, time_ns)
        vols = np.where(status == gk.Status.OK, vols, np.nan)
        quoted_ns = np.where(np.isfinite(vols), market.quote_times_ns(told_by), NO_QUOTE)
        years = years_between(time_ns, strikes.expiry_time_ns)
        paying = strikes.last_ex_ns > time_ns
        dividends = strikes.paid(slice(None), time_ns) if paying.any() else None
        contracts = slice(None) if every else spans(desk.points.first, chosen)
        sizes = np.diff(desk.points.first)[chosen]
        place = np.repeat(np.arange(len(chosen)), sizes)
        # A strike's place among the chosen ones.
        first_strike = _edges(counts)
        moved = first_strike[:-1] - desk.shared.first_row[chosen]
        strike_of = desk.strike_of[contracts] + moved[place]
        status, contract_vols = status[strike_of], vols[strike_of]
        priced = status == gk.Status.OK
        options = gk.Options(
            # A contract that is left out gets harmless inputs, and no weight afterwards.
            spot=np.where(priced, spots[place], 1.0),
            strike=strikes.strike[strike_of],
            expiry=years[strike_of],
            vol=np.where(priced, contract_vols, 0.2),
            rate=rates[place],
            dividend_yield=yields[place],
            is_call=desk.is_call[contracts],
            dividends=None if dividends is None else dividends.rows(strike_of, len(years)),
        )
        result = engine.greeks(options)
        fields = np.empty((len(priced), len(POINT_FIELDS)))
        for number, name in enumerate(POINT_FIELDS):
            fields[:, number] = getattr(result, name)
        if not priced.all():
            fields[~priced] = 0.0
        points = desk.points._replace(chosen=chosen, spot=spots)
        futures = LiveFutures.of(desk, chosen, spots, rates, yields, time_ns)
        return cls(
            *(chosen, _edges(sizes), first_strike, _edges(np.diff(desk.futures.first)[chosen]), spots),
            *(status, options, fields),
            SharedInputs(chosen, spots, rates, yields, years, vols, points.linear, dividends),
            futures.joined(points),
            strike_of,
            paying[strike_of],
            futures,
            *(quoted_ns, time_ns),
        )

    def part(self, place: int) -> slice:
        """The contracts of a block."""
        return slice(int(self.first[place]), int(self.first[place + 1]))

    def american(self, place: int, rows: Integers) -> PremiumInputs | None:
        """The American contracts of a block, `rows` of it, that have a price; None where none has."""
        part = self.part(place)
        priced = self.status[part][rows] == gk.Status.OK
        if not priced.all():
            rows = rows[priced]
        if not rows.size:
            return None
        at = rows + part.start
        # The options are kept by reference: a table is seldom made.
        given, paying = self.options, self.paying[at]
        any_pays = bool(paying.any())

        def options() -> gk.Options:
            columns = {name: np.asarray(given.column(name))[at] for name in _OPTION_COLUMNS}
            paid = given.dividends.rows(at, given.size) if given.dividends is not None and any_pays else None
            return gk.Options(**columns, american=True, dividends=paid)

        return PremiumInputs(
            rows=rows,
            options=options,
            paying=paying,
            spot=float(self.spots[place]),
            vol=np.asarray(given.column("vol"))[at],
            rate=float(self.shared.rate[place]),
            dividend_yield=float(self.shared.dividend_yield[place]),
            time_ns=self.time_ns,
        )

    def leave_out(self, place: int, rows: Integers) -> None:
        """Takes contracts with dividends to come, `rows` of a block, out of the numbers: each is a strike."""
        at = rows + self.part(place).start
        self.status[at] = gk.Status.NOT_VALUED_LIVE
        self.fields[at] = 0.0
        strikes = self.strike_of[at]
        self.shared.vol[strikes], self.quoted_ns[strikes] = np.nan, NO_QUOTE


def _some(contracts: Contracts, rows: Integers) -> Contracts:
    columns = {name: getattr(contracts, name)[rows] for name in _TERMS}
    place = None if contracts.place is None else contracts.place[rows]
    return Contracts(**columns, dividends=contracts.dividends, place=place)


def spans(first: Integers, chosen: Integers) -> Integers:
    """The ranges that begin at `first` of the chosen places, one after the other."""
    return np.concatenate([np.arange(first[b], first[b + 1]) for b in chosen.tolist()])


def _edges(sizes: Integers) -> Integers:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))
