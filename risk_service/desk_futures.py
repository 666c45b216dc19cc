"""The futures of some underlyings of a desk at a moment of the market: which count, and what they add."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.linear_positions import futures_price
from gpu_kernels.shared_book import SharedPoints
from risk_service.desk import Desk
from risk_service.live_risk import GREEKS
from risk_service.valuation import is_over, linear_status
from risk_service.vol_marks import years_between

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_FIRST_GREEK = 2  # in a cell's numbers, after value and gross value


@dataclass(frozen=True, slots=True)
class LiveFutures:
    """Arrays have one entry per future, one underlying's after the other's."""

    status: NDArray[np.uint8]  # why it is not in the numbers
    priced: gk.LinearPositions  # those that are; `underlying` is the place of the block
    home: Integers  # of these: the cell's place in the order of blocks
    cell: Integers  # and its number on the desk
    spot: Floats

    @classmethod
    def of(
        cls, desk: Desk, chosen: Integers, spots: Floats, rates: Floats, yields: Floats, time_ns: int
    ) -> LiveFutures:
        """Those of the chosen blocks, at the spot, rate and dividend yield of each block."""
        futures = desk.futures
        counts = np.diff(futures.first)[chosen]
        if not counts.any():
            return _NONE
        at = np.concatenate([np.arange(futures.first[b], futures.first[b + 1]) for b in chosen.tolist()])
        place = np.repeat(np.arange(len(chosen)), counts)
        status = linear_status(np.isfinite(spots[place]), is_over(futures.expiry_time_ns[at], time_ns))
        known = status == gk.Status.OK
        at, place = at[known], place[known]
        years = years_between(time_ns, futures.expiry_time_ns[at])
        stated = desk.strikes.dividends
        dividends = None if stated is None else stated.of(futures.schedule[at], time_ns)
        spot, rate, dividend_yield = spots[place], rates[place], yields[place]
        # Made unchecked: a price beyond all numbers is seen where it is told, and stops nobody else's.
        priced = gk.LinearPositions(
            underlying=chosen[place],
            quantity=futures.size[at],
            multiplier=np.ones(len(at)),
            spot=futures_price(spot, rate, dividend_yield, years, dividends),
            group=None,
            expiry=years,
            rate=rate,
            dividend_yield=dividend_yield,
            dividends=dividends,
        )
        home = futures.cell[at]
        return cls(status, priced, home, desk.shared.cell[home], spot)

    def joined(self, points: SharedPoints) -> SharedPoints:
        """The cells' holdings with the deltas and the worth of their futures."""
        if not len(self.priced):
            return points
        linear, gross = points.linear.copy(), points.gross_linear.copy()
        np.add.at(linear, self.home, self.priced.size * self.priced.growth)
        np.add.at(gross, self.home, np.abs(self.priced.size) * self.priced.spot / self.spot)
        return points._replace(linear=linear, gross_linear=gross)

    def add(self, scenarios: gk.Scenarios, points: Floats, pnl: Floats) -> None:
        """Adds their other Greeks to the cells' numbers, and what they gain to the cells' P&L."""
        if not len(self.priced):
            return
        greeks = self.priced.greeks()
        for name in greeks._fields:
            column = points[:, _FIRST_GREEK + GREEKS.index(name)]
            np.add.at(column, self.cell, self.priced.size * getattr(greeks, name))
        np.add.at(pnl, self.cell, self.priced.pnl(scenarios))


_EMPTY = np.zeros(0)
_NO_ROWS = np.zeros(0, np.int64)
_NONE = LiveFutures(
    np.zeros(0, np.uint8),
    gk.LinearPositions.of(underlying=_NO_ROWS, quantity=_EMPTY, spot=_EMPTY),
    _NO_ROWS,
    _NO_ROWS,
    _EMPTY,
)
