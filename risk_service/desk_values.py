"""Contracts of some underlyings of a desk at a moment of the market: inputs, European values and Greeks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.premium_tables import POINT_FIELDS
from gpu_kernels.shared_book import SharedInputs, SharedPoints
from risk_service.desk import Desk
from risk_service.market_state import MarketState
from risk_service.premium_inputs import PremiumInputs
from risk_service.vol_marks import Contracts, VolMarks, years_between

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

NO_QUOTE = np.iinfo(np.int64).max
_TERMS = ("underlying", "call", "put", "expiry_time_ns", "strike", "american", "last_ex_ns")
_OPTION_COLUMNS = ("spot", "strike", "expiry", "vol", "rate", "dividend_yield", "is_call")


@dataclass(frozen=True, slots=True)
class DeskValues:
    """Arrays have one entry per chosen block, or per contract, one block's after the other's."""

    chosen: Integers  # places of the blocks
    first: Integers  # of each block's contracts, and their number
    contracts: Integers | slice  # which of the desk's
    spots: Floats  # per block
    rates: Floats
    yields: Floats
    priced: NDArray[np.bool_]  # per contract
    options: gk.Options
    american_flags: NDArray[np.bool_]
    fields: Floats  # (contracts, 9) in the order of POINT_FIELDS
    shared: SharedInputs
    quoted_ns: Integers  # per strike: moment of the quote that tells its vol; NO_QUOTE where none does
    time_ns: int

    @classmethod
    def of(
        cls, engine: gk.Engine, market: MarketState, marks: VolMarks, desk: Desk, chosen: Integers
    ) -> DeskValues:
        """Everything that the market tells of these blocks."""
        slots = desk.slots[chosen]
        spots, rates, yields = (
            market.spots(slots),
            market.column("rate", slots),
            market.column("dividend_yield", slots),
        )
        every = len(chosen) == len(desk.blocks)
        strikes = desk.strikes if every else _some(desk.strikes, desk.shared.rows(chosen))
        vols, told_by = marks.marked(engine, market, strikes)
        # Options with dividends to come are left out of live numbers, and named.
        vols = np.where(strikes.last_ex_ns > market.valuation_time_ns, np.nan, vols)
        quoted_ns = np.where(np.isfinite(vols), market.quote_times_ns(told_by), NO_QUOTE)
        time_ns = market.valuation_time_ns
        years = years_between(time_ns, strikes.expiry_time_ns)
        contracts = slice(None) if every else spans(desk.points.first, chosen)
        sizes = np.diff(desk.points.first)[chosen]
        first = np.concatenate(([0], np.cumsum(sizes)))
        place = np.repeat(np.arange(len(chosen)), sizes)
        # A strike's place among the chosen ones.
        counts = np.diff(desk.shared.first_row)[chosen]
        moved = np.concatenate(([0], np.cumsum(counts)))[:-1] - desk.shared.first_row[chosen]
        strike_of = desk.strike_of[contracts] + moved[place]
        contract_spots, contract_vols = spots[place], vols[strike_of]
        priced = np.isfinite(contract_spots) & np.isfinite(contract_vols)
        options = gk.Options(
            # A contract of which nothing is known gets harmless inputs, and no weight afterwards.
            spot=np.where(priced, contract_spots, 1.0),
            strike=strikes.strike[strike_of],
            expiry=years[strike_of],
            vol=np.where(priced, contract_vols, 0.2),
            rate=rates[place],
            dividend_yield=yields[place],
            is_call=desk.is_call[contracts],
        )
        result = engine.greeks(options)
        fields = np.empty((len(priced), len(POINT_FIELDS)))
        for number, name in enumerate(POINT_FIELDS):
            fields[:, number] = getattr(result, name)
        if not priced.all():
            fields[~priced] = 0.0
        shared = SharedInputs(chosen, spots, rates, yields, years, vols)
        american = desk.contracts.american[contracts]
        return cls(
            *(chosen, first, contracts, spots, rates, yields, priced, options, american, fields, shared),
            *(quoted_ns, time_ns),
        )

    def part(self, place: int) -> slice:
        """The contracts of a block."""
        return slice(int(self.first[place]), int(self.first[place + 1]))

    def points(self, desk: Desk) -> SharedPoints:
        """The blocks' holdings, at their spots."""
        return desk.points._replace(chosen=self.chosen, spot=self.spots)

    def american(self, place: int) -> PremiumInputs | None:
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
            time_ns=self.time_ns,
        )


def _some(contracts: Contracts, rows: Integers) -> Contracts:
    return Contracts(**{name: getattr(contracts, name)[rows] for name in _TERMS})


def spans(first: Integers, chosen: Integers) -> Integers:
    """The ranges that begin at `first` of the chosen places, one after the other."""
    return np.concatenate([np.arange(first[b], first[b + 1]) for b in chosen.tolist()])
