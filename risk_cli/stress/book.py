"""A desk's positions at a market: the columns that gpu_kernels takes, and what each row and group is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from risk_cli.refusals import BadInput
from risk_cli.stress import osi
from risk_cli.stress.market_file import Market, Quote
from risk_cli.stress.portfolio_file import Position

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

    positions: tuple[Position, ...]
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


def arrange(positions: Sequence[Position]) -> Layout:
    """Options first; underlyings and cells in the order in which the file first names them."""
    ordered = (
        *(one for one in positions if one.kind == "option"),
        *(one for one in positions if one.kind != "option"),
    )
    underlyings = tuple(dict.fromkeys(one.underlying for one in positions))
    cell_of = [Cell(one.portfolio, one.group, one.underlying) for one in ordered]
    cells = tuple(dict.fromkeys(Cell(one.portfolio, one.group, one.underlying) for one in positions))
    place = {symbol: number for number, symbol in enumerate(underlyings)}
    number_of = {cell: number for number, cell in enumerate(cells)}
    return Layout(
        positions=ordered,
        options=sum(one.kind == "option" for one in ordered),
        underlyings=underlyings,
        underlying=np.array([place[one.underlying] for one in ordered], dtype=np.int64),
        cells=cells,
        cell=np.array([number_of[cell] for cell in cell_of], dtype=np.int64),
    )


def at_market(layout: Layout, market: Market) -> Book:
    """The book with today's inputs; a position that the market does not know is refused by its row."""
    quotes = [_quote(layout, market, number) for number in range(len(layout.underlyings))]
    spots = np.array([quote.spot for quote in quotes])
    options = _options(layout, market, quotes)
    linear = range(layout.options, len(layout.positions))
    portfolio = gk.Portfolio(
        options=options,
        quantity=np.array([one.quantity for one in layout.positions[: layout.options]]),
        multiplier=np.array([one.multiplier for one in layout.positions[: layout.options]]),
        underlying=layout.underlying[: layout.options],
        group=layout.cell[: layout.options],
        linear={
            "underlying": layout.underlying[layout.options :],
            "quantity": np.array([layout.positions[row].quantity for row in linear]),
            "multiplier": np.array([layout.positions[row].multiplier for row in linear]),
            "spot": np.array([_linear_price(layout, market, quotes, row) for row in linear]),
            "group": layout.cell[layout.options :],
        },
    )
    return Book(layout, portfolio, options, spots)


def years_left(position: Position, market: Market) -> float:
    """Years to a position's expiry; one that is over is refused by its row."""
    if position.expiry is None:
        return 0.0
    years = market.years_to(position.expiry)
    if years < 0.0:
        raise BadInput(
            f"{position.place}, column {position.expiry_column}: {position.label} expired on "
            f"{position.expiry}, before the market's date {market.moment:%Y-%m-%d %H:%M} UTC"
        )
    return years


def _quote(layout: Layout, market: Market, number: int) -> Quote:
    symbol = layout.underlyings[number]
    if symbol not in market.quotes:
        first = next(one for one in layout.positions if one.underlying == symbol)
        raise BadInput(
            f"{first.place}, column {first.name_column}: "
            f"{market.file} has no [underlying.{symbol}] for {first.label}"
        )
    return market.quotes[symbol]


def _options(layout: Layout, market: Market, quotes: Sequence[Quote]) -> gk.Options:
    positions = layout.positions[: layout.options]
    owner = layout.underlying[: layout.options]
    strike = np.array([one.strike for one in positions])
    years = np.array([years_left(one, market) for one in positions])
    vol = np.empty(len(positions))
    for number, quote in enumerate(quotes):
        mine = np.flatnonzero(owner == number)
        vol[mine] = quote.vols(strike[mine], years[mine])

    def of_owner(name: str) -> Floats:
        return np.array([getattr(quote, name) for quote in quotes])[owner]

    return gk.Options(
        spot=of_owner("spot"),
        strike=strike,
        expiry=years,
        vol=vol,
        rate=of_owner("rate"),
        dividend_yield=of_owner("dividend_yield"),
        is_call=np.array([one.is_call for one in positions], dtype=bool),
        american=np.array(
            [_american(one, quotes[number]) for one, number in zip(positions, owner, strict=True)],
            dtype=bool,
        ),
    )


def _american(position: Position, quote: Quote) -> bool:
    """What the row says, else the market file, else how options of this root are listed."""
    for said in (position.american, quote.american):
        if said is not None:
            return said
    return osi.is_american(position.root)


def _linear_price(layout: Layout, market: Market, quotes: Sequence[Quote], row: int) -> float:
    position, quote = layout.positions[row], quotes[layout.underlying[row]]
    # A future stands at its forward: spot carried at the rate less the dividend yield.
    carry = (quote.rate - quote.dividend_yield) * years_left(position, market)
    return float(quote.spot * math.exp(carry))
