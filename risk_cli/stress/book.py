"""A desk's positions at a market: the columns that gpu_kernels takes, and what each row and group is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.dividend_schedules import CashDividends
from gpu_kernels.linear_positions import futures_price
from protos import osi
from risk_cli.stress.market_file import Market, Quote
from risk_cli.stress.portfolio_file import Desk
from risk_client.positions import OPTION

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cell:
    """Positions of one portfolio, group and underlying: the finest sum that a report is made of."""

    portfolio: str
    group: str
    underlying: str


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions in the order of gpu_kernels (options, then linear) with their underlyings and cells."""

    positions: Desk
    options: int  # how many of them are options
    underlyings: tuple[str, ...]
    underlying: Integers  # (P,) into `underlyings`
    cells: tuple[Cell, ...]
    cell: Integers  # (P,) into `cells`


@dataclass(frozen=True, slots=True)
class Book:
    """A layout at a market; the groups of `portfolio` are the layout's cells."""

    layout: Layout
    portfolio: gk.Portfolio
    options: gk.Options
    spots: Floats  # (U,)


def arrange(desk: Desk) -> Layout:
    """Options first; underlyings and cells in the order in which the file first names them."""
    rows = desk.positions
    owner = rows.underlying.named()
    columns = (rows.portfolio, rows.group, owner)
    key = np.zeros(len(rows), np.int64)
    for column in columns:
        key = key * len(column.distinct) + column.codes
    _, first, cell = np.unique(key, return_index=True, return_inverse=True)
    in_file = np.argsort(first, kind="stable")
    number = np.empty(len(first), np.int64)
    number[in_file] = np.arange(len(first))
    order = np.argsort(rows.kind != OPTION, kind="stable")
    return Layout(
        positions=desk.take(order),
        options=int(np.count_nonzero(rows.kind == OPTION)),
        underlyings=owner.distinct,
        underlying=owner.codes[order].astype(np.int64),
        cells=tuple(Cell(*(column[row] for column in columns)) for row in first[in_file].tolist()),
        cell=number[cell][order],
    )


def at_market(layout: Layout, market: Market) -> Book:
    """The book with today's inputs; a position that the market does not know is refused by its row."""
    quotes = [_quote(layout, market, number) for number in range(len(layout.underlyings))]
    rows, options = layout.positions.positions, slice(layout.options)
    linear = slice(layout.options, None)
    years = _years_left(layout.positions, market)
    spots = _of_each(quotes, "spot")
    paid = [market.dividends_of(symbol) for symbol in layout.underlyings]
    inputs = _options(layout, quotes, paid, years[options])
    portfolio = gk.Portfolio(
        options=inputs,
        quantity=rows.quantity[options],
        multiplier=rows.multiplier[options],
        underlying=layout.underlying[options],
        group=layout.cell[options],
        linear={
            "quantity": rows.quantity[linear],
            "multiplier": rows.multiplier[linear],
            "group": layout.cell[linear],
            **_linear(quotes, paid, layout.underlying[linear], years[linear]),
        },
    )
    return Book(layout, portfolio, inputs, spots)


def _years_left(desk: Desk, market: Market) -> Floats:
    """Years to each expiry, 0 where there is none; what is over is refused by its row."""
    rows = desk.positions
    days, place = np.unique(rows.expiry_day, return_inverse=True)
    left = np.array([0.0 if np.isnat(day) else market.years_to(day.item()) for day in days])
    years: Floats = np.where(np.isnan(rows.expiry_years), left[place], rows.expiry_years)
    over = np.flatnonzero(years < 0.0)
    if over.size:
        row = int(over[np.argmin(rows.source[over])])
        position = desk[row]
        raise desk.fault(
            row,
            rows.expiry_column(row),
            f"{position.label} expired on {position.expiry}, before the market's date "
            f"{market.moment:%Y-%m-%d %H:%M} UTC" + _and_more(over.size),
        )
    return years


def _and_more(wrong: int) -> str:
    return f" (and {wrong - 1:,} more rows)" if wrong > 1 else ""


def _quote(layout: Layout, market: Market, number: int) -> Quote:
    symbol = layout.underlyings[number]
    if symbol not in market.quotes:
        desk = layout.positions
        held = np.flatnonzero(layout.underlying == number)
        row = int(held[np.argmin(desk.positions.source[held])])
        raise desk.fault(
            row,
            desk.positions.name_column(row),
            f"{market.file} has no [underlying.{symbol}] for {desk[row].label}" + _and_more(held.size),
        )
    return market.quotes[symbol]


def _of_each(quotes: Sequence[Quote], name: str) -> Floats:
    return np.array([getattr(quote, name) for quote in quotes], np.float64)


def _linear(
    quotes: Sequence[Quote], paid: Sequence[Sequence[tuple[float, float]]], owner: Integers, years: Floats
) -> dict[str, Any]:
    """Prices and terms of spots (0 years) and futures on these underlyings."""
    spot, rate, dividend_yield = (
        _of_each(quotes, name)[owner] for name in ("spot", "rate", "dividend_yield")
    )
    dividends = CashDividends.shared(paid, owner) if any(paid) and len(owner) else None
    return {
        "underlying": owner,
        "spot": futures_price(spot, rate, dividend_yield, years, dividends),
        "expiry": years,
        "rate": rate,
        "dividend_yield": dividend_yield,
        "dividends": dividends,
    }


def _options(
    layout: Layout,
    quotes: Sequence[Quote],
    paid: Sequence[Sequence[tuple[float, float]]],
    years: Floats,
) -> gk.Options:
    rows, owner = layout.positions.positions, layout.underlying[: layout.options]
    strike = rows.strike[: layout.options]
    vol = np.empty(layout.options)
    for number, quote in enumerate(quotes):
        mine = np.flatnonzero(owner == number)
        vol[mine] = quote.vols(strike[mine], years[mine])
    return gk.Options(
        spot=_of_each(quotes, "spot")[owner],
        strike=strike,
        expiry=years,
        vol=vol,
        rate=_of_each(quotes, "rate")[owner],
        dividend_yield=_of_each(quotes, "dividend_yield")[owner],
        is_call=rows.is_call[: layout.options],
        american=_american(layout, quotes, owner),
        dividends=CashDividends.shared(paid, owner) if any(paid) and len(owner) else None,
    )


def _american(layout: Layout, quotes: Sequence[Quote], owner: Integers) -> NDArray[np.bool_]:
    """What the row says, else the market file, else how options of this root are listed."""
    rows = layout.positions.positions
    said = rows.american[: layout.options]
    of_market = np.array([-1 if one.american is None else one.american for one in quotes], np.int8)[owner]
    listing = rows.root.spread(np.array([osi.is_american(one) for one in rows.root.distinct], np.int8))
    answer: NDArray[np.bool_] = np.where(
        said >= 0, said, np.where(of_market >= 0, of_market, listing[: layout.options])
    ).astype(np.bool_)
    return answer
