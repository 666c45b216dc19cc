"""A book at one snapshot of the market, ready to be revalued: stored, sent with the request, or a trade."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from risk_service.live_snapshot import LiveSnapshot, Measured
from risk_service.market_state import MarketState
from risk_service.portfolios import HeldPortfolio
from risk_service.positions import with_fills
from risk_service.valuation import Book, Valuation, value
from risk_service.vol_marks import VolMarks

# Positions that an answer names as left out; the rest are counted.
LEFT_OUT_NAMED_MAX = 20
_WHY = {
    gk.Status.NO_MARKET_DATA: "no market data",
    gk.Status.EXPIRED: "it has expired",
}


@dataclass(frozen=True, slots=True)
class ValuedBook:
    """Positions with today's inputs, and which moment of the market these are of."""

    held: HeldPortfolio
    valuation: Valuation
    market: MarketState
    snapshot_id: str
    data_age_ns: int  # of the oldest price or quote that was used
    executions_snapshot_id: str = ""  # the fills that were looked at; empty: none
    filled: tuple[str, ...] = ()  # symbols held through fills alone: the last positions
    without_terms: tuple[str, ...] = ()  # symbols with fills of which the portfolio says no terms

    @property
    def portfolio(self) -> gk.Portfolio:
        """The positions that can be valued."""
        return self.valuation.portfolio

    def left_out(self) -> list[str]:
        """One sentence for each position that is not in the numbers."""
        faults = self.valuation.faults
        lines = _named([f"position {f.row}, {f.symbol}, is left out: {_WHY[f.status]}" for f in faults])
        return lines + _named(
            [
                f"fills of {symbol} are left out: the portfolio has no terms of it"
                for symbol in self.without_terms
            ]
        )

    def without_fills(self) -> ValuedBook:
        """The same book where no fills were asked for, and none are in it."""
        return replace(self, executions_snapshot_id="", without_terms=())

    def by_position(self, valued: NDArray[np.float64]) -> NDArray[np.float64]:
        """Numbers of the valued positions at the places that these have in the book; 0 for those left out."""
        spread = np.zeros((len(self.held), *valued.shape[1:]))
        spread[self.valuation.rows] = valued
        return spread

    def by_group(self, valued: NDArray[np.float64]) -> NDArray[np.float64]:
        """Numbers by group with a place for every group that the book names."""
        missing = len(self.held.groups) - len(valued)
        return np.concatenate((valued, np.zeros((missing, *valued.shape[1:]))))


def stored_book(engine: gk.Engine, snapshot: LiveSnapshot, held: HeldPortfolio, *, fills: bool) -> ValuedBook:
    """A portfolio that the service holds, at the snapshot; with `fills` as the live risk sees it."""
    filled = snapshot.fills.get(held.name, {})
    book = snapshot.books.get(held.name)
    if book is None or not same_portfolio(book.held, held) or (filled and not fills):
        whole = with_fills(held, filled) if fills and filled else held
        book = Book.for_once(whole, snapshot.market)
    valued = _valued(engine, snapshot.market, book, snapshot.marks.copy(), snapshot.market.snapshot_id())
    return _with_fills(valued, held, filled, snapshot.executions_snapshot_id) if fills else valued


def measured_book(measured: Measured, snapshot: LiveSnapshot, held: HeldPortfolio) -> ValuedBook:
    """A portfolio as the live loop valued it last, fills and all."""
    market = measured.market
    age = _age_ns(market, measured.book, measured.valuation)
    valued = ValuedBook(measured.book.held, measured.valuation, market, measured.snapshot_id, age)
    return _with_fills(valued, held, snapshot.fills.get(held.name, {}), snapshot.executions_snapshot_id)


def same_portfolio(live: HeldPortfolio, put: HeldPortfolio) -> bool:
    """Whether a live book's positions are those of this very portfolio, whatever fills have added to them."""
    # Fills change columns, never the limits: these stay the object that came with the portfolio.
    return live.limits is put.limits


def book_at(engine: gk.Engine, market: MarketState, snapshot_id: str, held: HeldPortfolio) -> ValuedBook:
    """Positions sent with a request, at a market of the live loop's.

    Their vols are implied afresh: what a caller says of a contract must not mark anybody else's.
    """
    return _valued(engine, market, Book.for_once(held, market), VolMarks(), snapshot_id)


def _with_fills(
    valued: ValuedBook, put: HeldPortfolio, filled: Mapping[str, float], executions_snapshot_id: str
) -> ValuedBook:
    known = {*valued.held.symbols, *valued.held.underlyings}
    return replace(
        valued,
        executions_snapshot_id=executions_snapshot_id,
        filled=valued.held.symbols[len(put) :],
        without_terms=tuple(sorted(one for one, quantity in filled.items() if quantity and one not in known)),
    )


def _named(lines: list[str]) -> list[str]:
    if len(lines) <= LEFT_OUT_NAMED_MAX:
        return lines
    what = lines[0].partition(": ")[2]
    rest = len(lines) - LEFT_OUT_NAMED_MAX
    return [*lines[:LEFT_OUT_NAMED_MAX], f"{rest} more are left out: {what}"]


def _valued(
    engine: gk.Engine, market: MarketState, book: Book, marks: VolMarks, snapshot_id: str
) -> ValuedBook:
    valuation = value(engine, market, book, marks)
    return ValuedBook(book.held, valuation, market, snapshot_id, _age_ns(market, book, valuation))


def _age_ns(market: MarketState, book: Book, valuation: Valuation) -> int:
    oldest = int(market.ages_ns(book.underlying_slots)[np.isfinite(valuation.spots)].max(initial=0))
    if valuation.oldest_quote_ns is None:
        return oldest
    return max(oldest, market.clocks.source_time_ns - valuation.oldest_quote_ns + market.silent_ns)
