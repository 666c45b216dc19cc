"""A portfolio at a moment of the market: which positions can be valued, and with which inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from risk_service.market_state import MarketState
from risk_service.portfolios import HeldPortfolio
from risk_service.vol_marks import Contracts, VolMarks, pair, years_between


@dataclass(frozen=True, slots=True)
class Book:
    """A held portfolio tied to its places in the market state; made once per version of the portfolio."""

    held: HeldPortfolio
    underlying_slots: NDArray[np.int64]  # one per underlying of the portfolio
    option_rows: NDArray[np.int64]
    linear_rows: NDArray[np.int64]
    contracts: Contracts

    @classmethod
    def of(cls, held: HeldPortfolio, market: MarketState) -> Book:
        """Ties the portfolio to the market, which gets a slot for every symbol."""
        return cls._tied(held, market.slots)

    @classmethod
    def for_once(cls, held: HeldPortfolio, market: MarketState) -> Book:
        """Ties the portfolio to a market that learns nothing from it: a caller's symbols must not pile up."""
        return cls._tied(held, market.find)

    @classmethod
    def _tied(cls, held: HeldPortfolio, slots: Callable[[Iterable[str]], NDArray[np.int64]]) -> Book:
        options = np.flatnonzero(held.is_option)
        pairs = [pair(held.symbols[row], bool(held.is_call[row])) for row in options]
        underlying_slots = slots(held.underlyings)
        contracts = Contracts(
            underlying=underlying_slots[held.underlying_index[options]],
            call=slots(call for call, _ in pairs),
            put=slots(put for _, put in pairs),
            expiry_time_ns=held.expiry_time_ns[options],
            strike=held.strike[options],
            american=held.american[options],
            last_ex_ns=held.dividends.last_before(
                held.underlying_index[options], held.expiry_time_ns[options]
            ),
            dividends=held.dividends if len(held.dividends) else None,
            place=held.underlying_index[options],
        )
        return cls(held, underlying_slots, options, np.flatnonzero(~held.is_option), contracts)


@dataclass(frozen=True, slots=True)
class Fault:
    """A position that could not be valued."""

    row: int
    symbol: str
    status: gk.Status


@dataclass(frozen=True, slots=True)
class Valuation:
    """The positions that can be valued, as gpu_kernels takes them, and the others by name."""

    portfolio: gk.Portfolio
    options: gk.Options
    option_rows: NDArray[np.int64]  # rows of the held portfolio, in the order of `portfolio`
    linear_rows: NDArray[np.int64]
    spots: NDArray[np.float64]  # per underlying; NaN where the market has said nothing
    faults: tuple[Fault, ...]
    oldest_quote_ns: int | None = None  # of those that the vols come from; None: there are none

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows of the held portfolio in the order of `portfolio`: options, then linear."""
        return np.concatenate((self.option_rows, self.linear_rows))


def value(
    engine: gk.Engine, market: MarketState, book: Book, marks: VolMarks, *, live: bool = False
) -> Valuation:
    """Collects today's inputs of every position; one with no market data is left out and named.

    So are, with `live`, options with dividends before their expiry: the live desk does not value them.
    """
    spots = market.spots(book.underlying_slots)
    vols, told_by = marks.marked(engine, market, book.contracts)
    option_spots = spots[book.held.underlying_index[book.option_rows]]
    paying = (book.contracts.last_ex_ns > market.valuation_time_ns) & live
    priced = np.isfinite(option_spots) & np.isfinite(vols) & ~paying
    linear_priced = np.isfinite(spots[book.held.underlying_index[book.linear_rows]])
    options = _options(market, book, option_spots, vols, priced)
    rows, linear = book.option_rows[priced], book.linear_rows[linear_priced]
    held = book.held
    # Futures are carried at their underlying's spot until they have quotes of their own.
    linear_columns = {
        "underlying": held.underlying_index[linear],
        "quantity": held.quantity[linear],
        "multiplier": held.multiplier[linear],
        "spot": spots[held.underlying_index[linear]],
    }
    if held.groups:
        linear_columns["group"] = held.group_index[linear]
    portfolio = gk.Portfolio(
        options=options,
        quantity=held.quantity[rows],
        multiplier=held.multiplier[rows],
        underlying=held.underlying_index[rows],
        group=held.group_index[rows] if held.groups else None,
        linear=linear_columns,
    )
    left_out = np.concatenate((book.option_rows[~priced], book.linear_rows[~linear_priced]))
    faults = left_out_faults(book, np.sort(left_out), book.option_rows[paying])
    oldest = market.quote_times_ns(told_by[priced]).min() if priced.any() else None
    return Valuation(portfolio, options, rows, linear, spots, faults, None if oldest is None else int(oldest))


def left_out_faults(book: Book, rows: NDArray[np.int64], paying: NDArray[np.int64]) -> tuple[Fault, ...]:
    """Each row that is left out and why; those of `paying` for their dividends."""
    unlike = np.isin(rows, paying)
    statuses = [gk.Status.NOT_VALUED_LIVE if one else gk.Status.NO_MARKET_DATA for one in unlike]
    return tuple(
        Fault(row, book.held.symbols[row], status)
        for row, status in zip(rows.tolist(), statuses, strict=True)
    )


def _options(
    market: MarketState,
    book: Book,
    spots: NDArray[np.float64],
    vols: NDArray[np.float64],
    priced: NDArray[np.bool_],
) -> gk.Options:
    contracts = book.contracts
    underlying = contracts.underlying[priced]
    return gk.Options(
        spot=spots[priced],
        strike=contracts.strike[priced],
        expiry=years_between(market.valuation_time_ns, contracts.expiry_time_ns[priced]),
        vol=vols[priced],
        rate=market.column("rate", underlying),
        dividend_yield=market.column("dividend_yield", underlying),
        is_call=book.held.is_call[book.option_rows[priced]],
        american=contracts.american[priced],
        dividends=contracts.paid(np.flatnonzero(priced), market.valuation_time_ns),
    )
