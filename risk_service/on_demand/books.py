"""A book at one snapshot of the market, ready to be revalued: stored, sent with the request, or a trade."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from risk_service.live_snapshot import LiveSnapshot, Measured
from risk_service.market_state import MarketState
from risk_service.portfolios import HeldPortfolio
from risk_service.valuation import Book, Valuation, value
from risk_service.vol_marks import VolMarks

# Positions that an answer names as left out; the rest are counted.
LEFT_OUT_NAMED_MAX = 20


@dataclass(frozen=True, slots=True)
class ValuedBook:
    """Positions with today's inputs, and which moment of the market these are of."""

    held: HeldPortfolio
    valuation: Valuation
    market: MarketState
    snapshot_id: str
    data_age_ns: int  # of the oldest underlying price that was used

    @property
    def portfolio(self) -> gk.Portfolio:
        """The positions that can be valued."""
        return self.valuation.portfolio

    def left_out(self) -> list[str]:
        """One sentence for each position that is not in the numbers."""
        faults = self.valuation.faults
        lines = [f"position {f.row}, {f.symbol}, is left out: no market data" for f in faults]
        if len(lines) > LEFT_OUT_NAMED_MAX:
            rest = len(lines) - LEFT_OUT_NAMED_MAX
            return [*lines[:LEFT_OUT_NAMED_MAX], f"{rest} more positions are left out: no market data"]
        return lines

    def by_position(self, valued: NDArray[np.float64]) -> NDArray[np.float64]:
        """Numbers of the valued positions at the places that these have in the book; 0 for those left out."""
        spread = np.zeros((len(self.held), *valued.shape[1:]))
        spread[self.valuation.rows] = valued
        return spread

    def by_group(self, valued: NDArray[np.float64]) -> NDArray[np.float64]:
        """Numbers by group with a place for every group that the book names."""
        missing = len(self.held.groups) - len(valued)
        return np.concatenate((valued, np.zeros((missing, *valued.shape[1:]))))


def stored_book(engine: gk.Engine, snapshot: LiveSnapshot, held: HeldPortfolio) -> ValuedBook:
    """A portfolio that the service holds, at the snapshot."""
    book = snapshot.books.get(held.name)
    if book is None or book.held is not held:
        book = Book.for_once(held, snapshot.market)
    return _valued(engine, snapshot.market, book, snapshot.marks.copy(), snapshot.market.snapshot_id())


def measured_book(measured: Measured) -> ValuedBook:
    """A portfolio as the live loop valued it last."""
    market = measured.market
    age = _age_ns(market, measured.book, measured.valuation)
    return ValuedBook(measured.book.held, measured.valuation, market, measured.snapshot_id, age)


def book_at(engine: gk.Engine, market: MarketState, snapshot_id: str, held: HeldPortfolio) -> ValuedBook:
    """Positions sent with a request, at a market of the live loop's.

    Their vols are implied afresh: what a caller says of a contract must not mark anybody else's.
    """
    return _valued(engine, market, Book.for_once(held, market), VolMarks(), snapshot_id)


def _valued(
    engine: gk.Engine, market: MarketState, book: Book, marks: VolMarks, snapshot_id: str
) -> ValuedBook:
    valuation = value(engine, market, book, marks)
    return ValuedBook(book.held, valuation, market, snapshot_id, _age_ns(market, book, valuation))


def _age_ns(market: MarketState, book: Book, valuation: Valuation) -> int:
    ages = market.clocks.source_time_ns - market.times_ns(book.underlying_slots)
    return int(ages[np.isfinite(valuation.spots)].max(initial=0))
