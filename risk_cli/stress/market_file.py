"""Where the market is: spot, vol, rate and dividend yield of every underlying, from a TOML file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from risk_cli.stress.history_file import History, read_history
from risk_cli.stress.toml_file import Section, read_toml

DAYS_PER_YEAR = 365.0  # actual/365, as options are quoted
CLOSE_UTC = time(20)  # listed options expire at the close, and so does a valuation date without a time
VOL_MAX = 10.0  # a vol beyond 1,000 % is one in per cent
_KEYS = ("spot", "vol", "rate", "dividend_yield", "exercise", "dividends")
AMOUNT_MAX = 1e12  # of a dividend; a service refuses the same

Floats = NDArray[np.float64]
Dividends = Mapping[str, Sequence[tuple[date, float]]]  # by underlying: ex-date, amount per unit


@dataclass(frozen=True, slots=True)
class VolSurface:
    """Vols on a grid of strike/spot and years, linear between the nodes in ln(strike/spot), flat outside."""

    log_moneyness: Floats
    years: Floats
    vols: Floats  # (years, moneyness)

    def at(self, log_moneyness: ArrayLike, years: ArrayLike) -> Floats:
        """Vols at these points."""
        early, late, towards = _between(self.years, np.asarray(years, np.float64))
        low, high, share = _between(self.log_moneyness, np.asarray(log_moneyness, np.float64))
        one, other = (
            (1.0 - share) * self.vols[row, low] + share * self.vols[row, high] for row in (early, late)
        )
        return np.asarray((1.0 - towards) * one + towards * other)


@dataclass(frozen=True, slots=True)
class Quote:
    """One underlying; rate and yield continuous per year, vol per 1.00. `american` None: as it is listed.

    `dividends` are the cash dividends that come on top of the yield: ex-date and amount per unit.
    """

    spot: float
    vol: float | VolSurface
    rate: float
    dividend_yield: float
    american: bool | None
    dividends: tuple[tuple[date, float], ...] = ()

    def vols(self, strike: Floats, years: Floats) -> Floats:
        """Vol of options with these strikes and times to expiry."""
        if isinstance(self.vol, VolSurface):
            with np.errstate(divide="ignore"):
                return self.vol.at(np.log(strike / self.spot), years)
        return np.full(len(strike), self.vol)


@dataclass(frozen=True, slots=True)
class Market:
    """The market at a moment. `correlation` is one number for every pair, where it was given."""

    file: str
    moment: datetime
    quotes: Mapping[str, Quote]
    history: History | None
    correlation: float | None
    notes: tuple[str, ...] = ()

    def years_to(self, expiry: date | float) -> float:
        """Time to expiry in years; negative for one that is over."""
        if isinstance(expiry, date):
            return self._years(datetime.combine(expiry, CLOSE_UTC, UTC))
        return expiry

    @property
    def dividends(self) -> Dividends:
        """Cash dividends by underlying."""
        return {symbol: quote.dividends for symbol, quote in self.quotes.items()}

    def dividends_of(self, symbol: str) -> list[tuple[float, float]]:
        """Cash dividends of an underlying: years to the beginning of the ex-date (UTC), and amount."""
        paid = self.quotes[symbol].dividends
        return sorted((self._years(datetime.combine(day, time(), UTC)), amount) for day, amount in paid)

    def _years(self, moment: datetime) -> float:
        return (moment - self.moment).total_seconds() / (DAYS_PER_YEAR * 86_400.0)


def read_market(path: Path) -> Market:
    """The market of a file."""
    return market_of(read_toml(path))


def dividends_in(section: Section) -> Dividends:
    """The cash dividends of a market, for who has the rest from elsewhere."""
    table = section.section("underlying")
    return {symbol: _dividends(table.section(symbol)) for symbol in table.values}


def market_of(section: Section) -> Market:
    """The market of a file's top level, or of a [market] table in a scenario file."""
    section.only("date", "rate", "history", "correlation", "underlying")
    rate = section.number("rate", 0.0, low=-1.0, high=1.0)
    table = section.section("underlying")
    if not table.values:
        raise section.fault("underlying", "is missing: give a table [underlying.SYMBOL] for each")
    quotes = {symbol: _quote(table.section(symbol), rate) for symbol in table.values}
    history = None
    if "history" in section:
        history = read_history(section.path.parent / section.text("history"))
    moment, notes = _moment(section, history)
    correlation = None
    if "correlation" in section:
        correlation = section.number("correlation", low=-1.0, high=1.0)
    return Market(section.path.name, moment, quotes, history, correlation, notes)


def _between(nodes: Floats, at: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """The nodes on both sides of each value, and how far it is from the first to the second."""
    inside = np.clip(at, nodes[0], nodes[-1])
    low = np.clip(np.searchsorted(nodes, inside, side="right") - 1, 0, max(0, len(nodes) - 2))
    high = np.minimum(low + 1, len(nodes) - 1)
    width = np.where(high > low, nodes[high] - nodes[low], 1.0)
    return low, high, (inside - nodes[low]) / width


def _moment(section: Section, history: History | None) -> tuple[datetime, tuple[str, ...]]:
    given = section.moment("date")
    notes: tuple[str, ...] = ()
    if given is None and history is not None:
        given = datetime.combine(history.dates[-1], time())
        notes = (
            f"{section.path.name} has no date: the last day of {history.file}, {given.date()}, is taken",
        )
    if given is None:
        raise section.fault("date", "is missing: the day that the spots and vols are of")
    if given.tzinfo is None:
        given = given.replace(tzinfo=UTC)
        if given.time() == time():
            given = datetime.combine(given.date(), CLOSE_UTC, UTC)
    return given, notes


def _quote(section: Section, rate: float) -> Quote:
    section.only(*_KEYS)
    exercise = section.text("exercise", "listed", ("E", "A", "listed"))
    spot, dividends = section.number("spot", above=0.0), _dividends(section)
    for day, amount in dividends:
        if amount >= spot:
            raise section.fault("dividends", f"{amount:g} on {day} is not below the spot, {spot:g}")
    return Quote(
        spot=spot,
        vol=_vol(section),
        rate=section.number("rate", rate, low=-1.0, high=1.0),
        dividend_yield=section.number("dividend_yield", 0.0, low=-1.0, high=1.0),
        american=None if exercise == "listed" else exercise == "A",
        dividends=dividends,
    )


def _dividends(section: Section) -> tuple[tuple[date, float], ...]:
    found = []
    for one in section.sections("dividends"):
        one.only("date", "amount")
        day = one.day("date")
        if day is None:
            raise one.fault("date", "is missing: the first day without the dividend")
        found.append((day, one.number("amount", low=0.0, high=AMOUNT_MAX)))
    return tuple(found)


def _vol(section: Section) -> float | VolSurface:
    if not isinstance(section.values.get("vol"), dict):
        return section.number("vol", low=0.0, high=VOL_MAX)
    surface = section.section("vol")
    surface.only("moneyness", "years", "vols")
    moneyness, years = surface.numbers("moneyness"), surface.numbers("years")
    for key, nodes in (("moneyness", moneyness), ("years", years)):
        if not (nodes[0] > 0.0 and all(a < b for a, b in pairwise(nodes))):
            raise surface.fault(key, "must be above 0 and rise from node to node")
    rows = surface.values.get("vols")
    if not isinstance(rows, list) or len(rows) != len(years):
        raise surface.fault("vols", f"must be {len(years)} lists, one for each of years")
    for row in rows:
        if not isinstance(row, list) or len(row) != len(moneyness):
            raise surface.fault("vols", f"every list must have {len(moneyness)} vols, one for each moneyness")
    vols = [[surface.checked("vols", vol, low=0.0, high=VOL_MAX) for vol in row] for row in rows]
    return VolSurface(np.array([math.log(m) for m in moneyness]), np.array(years), np.array(vols))
