"""A portfolio at a moment of the market: which positions can be valued, and with which inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.linear_positions import futures_price
from protos.risk.v1.risk_pb2 import INSTRUMENT_KIND_FUTURE
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

    def slots(self) -> tuple[NDArray[np.int64], ...]:
        """All places that it is tied to."""
        contracts = self.contracts
        return self.underlying_slots, contracts.underlying, contracts.call, contracts.put

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
    futures: NDArray[np.bool_]  # which of the linear ones are
    spots: NDArray[np.float64]  # per underlying; NaN where the market has said nothing
    faults: tuple[Fault, ...]
    oldest_quote_ns: int | None = None  # of those that the vols come from; None: there are none

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows of the held portfolio in the order of `portfolio`: options, then linear."""
        return np.concatenate((self.option_rows, self.linear_rows))

    @property
    def linear_exposure(self) -> NDArray[np.float64]:
        """Quantity times multiplier times spot or forward, of each linear position, in currency."""
        linear = self.portfolio.linear
        exposure: NDArray[np.float64] = linear.quantity * linear.multiplier * linear.spot
        return exposure

    @property
    def linear_value(self) -> NDArray[np.float64]:
        """What each linear position is worth: a future nothing, because it is settled every day."""
        return np.where(self.futures, 0.0, self.linear_exposure)


def value(engine: gk.Engine, market: MarketState, book: Book, marks: VolMarks) -> Valuation:
    """Today's inputs of every position; what is over or without market data is left out and named."""
    held, now_ns = book.held, market.valuation_time_ns
    spots = market.spots(book.underlying_slots)
    vols, told_by = marks.marked(engine, market, book.contracts)
    priced = np.isfinite(vols) & np.isfinite(spots[held.underlying_index[book.option_rows]])
    why = option_status(book.contracts, priced, now_ns)
    expiry_ns, place = held.expiry_time_ns[book.linear_rows], held.underlying_index[book.linear_rows]
    is_future = held.kind[book.linear_rows] == INSTRUMENT_KIND_FUTURE
    linear_why = linear_status(np.isfinite(spots[place]), is_future & is_over(expiry_ns, now_ns))
    kept, linear_kept = why == gk.Status.OK, linear_why == gk.Status.OK
    rows, linear, place = book.option_rows[kept], book.linear_rows[linear_kept], place[linear_kept]
    options = _options(market, book, spots[held.underlying_index[book.option_rows]], vols, kept)
    is_future, years = is_future[linear_kept], years_between(now_ns, expiry_ns[linear_kept])
    slots = book.underlying_slots[place]
    carry = market.column("rate", slots), market.column("dividend_yield", slots)
    years, paid = np.where(is_future, years, 0.0), held.dividends.of(place, now_ns)
    linear_columns: dict[str, Any] = {
        "underlying": place,
        "quantity": held.quantity[linear],
        "multiplier": held.multiplier[linear],
        "spot": futures_price(spots[place], *carry, years, paid),
        **dict(zip(("expiry", "rate", "dividend_yield", "dividends"), (years, *carry, paid), strict=True)),
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
    faults = left_out_faults(
        book, np.concatenate((book.option_rows, book.linear_rows)), np.concatenate((why, linear_why))
    )
    oldest = int(market.quote_times_ns(told_by[kept]).min()) if kept.any() else None
    return Valuation(portfolio, options, rows, linear, is_future, spots, faults, oldest)


def is_over(expiry_time_ns: NDArray[np.int64], now_ns: int) -> NDArray[np.bool_]:
    """Which have expired: at the moment itself they are worth what they pay."""
    over: NDArray[np.bool_] = expiry_time_ns < now_ns
    return over


def option_status(contracts: Contracts, priced: NDArray[np.bool_], now_ns: int) -> NDArray[np.uint8]:
    """Why each contract is not in the numbers, OK where it is; `priced` says which have their market data."""
    return linear_status(priced, is_over(contracts.expiry_time_ns, now_ns))


def linear_status(priced: NDArray[np.bool_], over: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The same of spot positions and futures."""
    status = np.where(priced, gk.Status.OK, gk.Status.NO_MARKET_DATA).astype(np.uint8)
    status[over] = gk.Status.EXPIRED
    return status


def left_out_faults(book: Book, rows: NDArray[np.int64], status: NDArray[np.uint8]) -> tuple[Fault, ...]:
    """The rows that are left out, in their order."""
    left_out = np.flatnonzero(status != gk.Status.OK)
    left_out = left_out[np.argsort(rows[left_out], kind="stable")]
    return tuple(
        Fault(row, book.held.symbols[row], gk.Status(one))
        for row, one in zip(rows[left_out].tolist(), status[left_out].tolist(), strict=True)
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
