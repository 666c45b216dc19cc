"""A desk's positions as columns, from any table: OSI symbols, plain underlyings, or terms in columns.

A file of the command line and a table of the client are the same table: these are its columns, and one fault
of it is told in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos import osi
from risk_client.columns import Column, Flags, Floats, Texts, numbers, texts
from risk_client.faults import Fault, Faults, TableFaults, needs

COLUMNS = (
    *("portfolio", "symbol", "quantity", "group", "underlying", "kind"),
    *("expiry", "strike", "right", "exercise", "multiplier"),
)
KINDS = ("option", "future", "spot")
OPTION, FUTURE, SPOT = range(3)
UNNAMED = "portfolio"  # where the table has no column of that name, or the cell is empty
YEARS_MAX = 200.0
# Beyond these it is a mistake of units; a service refuses the same.
QUANTITY_MAX = 1e12
STRIKE_MAX = 1e12
MULTIPLIER_MAX = 1e9
NO_DAY = np.datetime64("NaT", "D")

Days = NDArray[np.datetime64]


@dataclass(frozen=True, slots=True)
class Position:
    """One row. `expiry` is a day or a number of years; None where there is none."""

    label: str
    portfolio: str
    group: str
    underlying: str
    kind: str
    quantity: float
    multiplier: float
    expiry: date | float | None
    strike: float
    is_call: bool


@dataclass(frozen=True, slots=True)
class Positions:
    """Positions by row. `source` numbers the rows as the table has them, for complaints and answers."""

    source: NDArray[np.int64]
    symbol: Texts
    portfolio: Texts
    group: Texts
    underlying: Texts
    root: Texts  # whose listing says how the option is exercised
    kind: NDArray[np.int8]  # into KINDS
    quantity: Floats
    multiplier: Floats
    strike: Floats
    expiry_day: Days  # NaT where the expiry is none or in years
    expiry_years: Floats  # NaN where it is none or a day
    is_call: Flags
    american: NDArray[np.int8]  # 1 American, 0 European, -1 nobody says
    listed: Flags  # told by an OSI symbol
    named_apart: Flags  # the underlying has a cell of its own

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: int) -> Position:
        """One row as a record."""
        day, years = self.expiry_day[row], float(self.expiry_years[row])
        expiry = None if np.isnat(day) and np.isnan(years) else years if np.isnat(day) else day.item()
        kind, is_call, strike = KINDS[self.kind[row]], bool(self.is_call[row]), float(self.strike[row])
        underlying = self.underlying[row]
        label = self.symbol[row]
        if kind == "option":
            label = label or f"{underlying} {expiry} {strike:g} {'C' if is_call else 'P'}"
        else:
            label = underlying if kind == "spot" else f"{underlying} future {expiry}"
        return Position(
            label=" ".join(label.split()),
            portfolio=self.portfolio[row],
            group=self.group[row],
            underlying=underlying,
            kind=kind,
            quantity=float(self.quantity[row]),
            multiplier=float(self.multiplier[row]),
            expiry=expiry,
            strike=strike,
            is_call=is_call,
        )

    def take(self, rows: NDArray[Any]) -> Positions:
        """The same with these rows alone, given by place or by flag."""
        taken: dict[str, Any] = {}
        for name in self.__dataclass_fields__:
            column = getattr(self, name)
            taken[name] = column.take(rows) if isinstance(column, Texts) else column[rows]
        return Positions(**taken)

    def name_column(self, row: int) -> str:
        """The column in which the underlying of a row is named."""
        return "underlying" if self.named_apart[row] else "symbol"

    def expiry_column(self, row: int) -> str:
        """The column in which the expiry of a row stands."""
        return "symbol" if self.listed[row] else "expiry"


def spots(names: Sequence[str], quantity: float) -> Positions:
    """Plain positions in underlyings, one each."""
    given: dict[str, Column] = {
        "underlying": Texts.of(names),
        "kind": Texts.of(["spot"] * len(names)),
        "quantity": np.full(len(names), quantity),
    }
    return read_positions(given, len(names), unbounded=True)


def joined(first: Positions, second: Positions) -> Positions:
    """The rows of both, one after the other."""
    merged: dict[str, Any] = {}
    for name in Positions.__dataclass_fields__:
        one, other = getattr(first, name), getattr(second, name)
        if isinstance(one, Texts):
            codes = np.concatenate([one.codes, other.codes + np.int32(len(one.distinct))])
            merged[name] = Texts(codes, (*one.distinct, *other.distinct)).named()
        else:
            merged[name] = np.concatenate([one, other])
    return Positions(**merged)


def read_positions(columns: Mapping[str, Column], rows: int, *, unbounded: bool = False) -> Positions:
    """All positions, in their order; raises TableFaults naming rows and columns.

    `unbounded` lets a quantity be infinite.
    """
    if "symbol" not in columns and "underlying" not in columns:
        why = "is missing, and so is underlying: one of the two is needed"
        raise TableFaults((Fault(0, "symbol", why),), 1)
    if "quantity" not in columns:
        raise TableFaults((Fault(0, "quantity", "is missing: the table has no such column"),), 1)
    return _Reading(columns, rows).positions(unbounded)


@dataclass(frozen=True, slots=True)
class _Listed:
    """What OSI symbols say, by row of the table."""

    root: Texts
    expiry: Days
    is_call: Flags
    strike: Floats


class _Reading:
    """One table being read: every column as a whole, faults gathered."""

    def __init__(self, columns: Mapping[str, Column], rows: int) -> None:
        self._columns = columns
        self._rows = rows
        self._nothing = Texts(np.zeros(rows, np.int32), ("",))
        self.faults = Faults(rows)

    def positions(self, unbounded: bool) -> Positions:
        symbol, underlying = self.texts("symbol"), self.texts("underlying")
        said = self.choice("kind", KINDS)
        many = osi.parse_many(symbol.distinct)
        like = [
            found or osi.looks_like_option(one)
            for found, one in zip(many.found.tolist(), symbol.distinct, strict=True)
        ]
        listed = np.isin(said, (-1, OPTION)) & symbol.spread(np.array(like, np.bool_))
        contracts = self._contracts(symbol, many, listed)
        kind: NDArray[np.int8] = np.where(listed, OPTION, np.where(said < 0, SPOT, said)).astype(np.int8)
        by_terms = (kind == OPTION) & ~listed
        quantity = self.number("quantity", unbounded=unbounded)
        if not unbounded:
            self.faults.add(
                needs(quantity, np.abs(quantity) <= QUANTITY_MAX),
                "quantity",
                lambda row: f"must be at most {QUANTITY_MAX:g} either way, got {quantity[row]:g}",
            )
        strike, right = self.number("strike", by_terms), self.choice("right", ("C", "P"))
        self.faults.add(by_terms & (right < 0), "right", lambda _: "is missing: C or P")
        self.faults.add(
            by_terms & needs(strike, (strike > 0.0) & (strike <= STRIKE_MAX)),
            "strike",
            lambda row: f"must be above 0 and at most {STRIKE_MAX:g}, got {strike[row]:g}",
        )
        day, years = self._expiry()
        has_expiry = ~np.isnat(day) | ~np.isnan(years)
        self.faults.add(by_terms & ~has_expiry, "expiry", lambda _: "is missing")
        self.faults.add((kind == FUTURE) & ~has_expiry, "expiry", lambda _: "is missing: a future has one")
        self._agree(listed, contracts, strike, right, day, years)
        named_apart = underlying.where(bool)
        names = self._underlying(symbol, underlying, listed, contracts)
        american = self.choice("exercise", ("E", "A"))
        multiplier = self._multiplier(listed, kind)
        self.faults.settle()
        expires = kind != SPOT
        return Positions(
            source=np.arange(self._rows),
            symbol=symbol,
            portfolio=_or(self.texts("portfolio"), UNNAMED).named(),
            group=self.texts("group").named(),
            underlying=names,
            root=_either(listed, contracts.root, names),
            kind=kind,
            quantity=quantity,
            multiplier=multiplier,
            strike=np.where(listed, contracts.strike, np.where(by_terms, strike, 0.0)),
            expiry_day=np.where(listed, contracts.expiry, np.where(expires, day, NO_DAY)),
            expiry_years=np.where(~listed & expires, years, np.nan),
            is_call=np.where(listed, contracts.is_call, by_terms & (right == 0)),
            american=american.astype(np.int8),
            listed=listed,
            named_apart=named_apart,
        )

    def texts(self, name: str) -> Texts:
        """A column as texts; empty ones where it is not there."""
        return texts(self._columns[name]) if name in self._columns else self._nothing

    def number(
        self, name: str, needed: Flags | bool = True, default: Floats | None = None, unbounded: bool = False
    ) -> Floats:
        """A column of finite numbers; NaN where it is empty and may be."""
        values, wrong = numbers(self._columns.get(name, self._nothing))
        if wrong.any():
            said = self.texts(name)
            self.faults.add(wrong, name, lambda row: f"{said[row]!r} is not a number")
        if not unbounded:
            self.faults.add(np.isinf(values), name, lambda row: f"{values[row]} is not a finite number")
        missing = np.isnan(values) & ~wrong
        if default is not None:
            values = np.where(missing, default, values)
            missing = np.isnan(values) & ~wrong
        self.faults.add(missing & needed, name, lambda _: "is missing")
        return values

    def choice(self, name: str, choices: Sequence[str]) -> NDArray[np.int64]:
        """The number of the choice, whatever its case; -1 where the cell is empty."""
        said = self.texts(name)
        place = {one.lower(): number for number, one in enumerate(choices)} | {"": -1}
        found = said.spread(np.array([place.get(one.lower(), -2) for one in said.distinct], np.int64))
        self.faults.add(found == -2, name, lambda row: f"{said[row]!r} is none of {', '.join(choices)}")
        return found

    def _contracts(self, symbol: Texts, many: osi.Contracts, listed: Flags) -> _Listed:
        """What the symbols of listed options say, by row."""
        root = many.root.tolist()
        wanted = np.zeros(len(symbol.distinct), np.bool_)
        wanted[symbol.codes[listed]] = True
        why: dict[int, str] = {}
        for place in np.flatnonzero(wanted & ~many.found).tolist():
            try:
                one = osi.parse(symbol.distinct[place])
            except ValueError as error:
                why[place] = str(error)
                continue
            root[place], many.expiry[place] = one.root, np.datetime64(one.expiry, "D")
            many.is_call[place], many.strike[place] = one.is_call, one.strike
        bad = np.zeros(len(symbol.distinct), np.bool_)
        bad[list(why)] = True
        self.faults.add(listed & symbol.spread(bad), "symbol", lambda row: why[int(symbol.codes[row])])
        roots = Texts.of(root)
        return _Listed(
            Texts(symbol.spread(roots.codes), roots.distinct),
            *(symbol.spread(one) for one in (many.expiry, many.is_call, many.strike)),
        )

    def _underlying(self, symbol: Texts, given: Texts, listed: Flags, contracts: _Listed) -> Texts:
        """The cell of its own, else the index of the listed root, else the symbol."""
        root = contracts.root
        index = tuple(osi.underlying_of(one) for one in root.distinct)
        of_symbol = _either(listed, replace(root, distinct=index), symbol)
        names = _either(given.where(bool), given, of_symbol)
        nameless = names.where(lambda one: not one)
        self.faults.add(nameless, "underlying", lambda _: "is missing, and so is symbol")
        pair = root.codes.astype(np.int64) * len(names.distinct) + names.codes
        pairs, place = np.unique(pair, return_inverse=True)
        one, other = np.divmod(pairs, max(1, len(names.distinct)))
        others = frozenset(names.distinct)
        belied = [
            osi.belies(root.distinct[first], names.distinct[second], others)
            for first, second in zip(one.tolist(), other.tolist(), strict=True)
        ]
        self.faults.add(
            listed & np.array(belied, np.bool_)[place],
            "underlying",
            lambda row: f"is not the symbol's, {of_symbol[row]}",
        )
        return names

    def _expiry(self) -> tuple[Days, Floats]:
        """Days and years of the column, each where it says so."""
        said = self.texts("expiry")
        days, years = np.full(len(said.distinct), NO_DAY), np.full(len(said.distinct), np.nan)
        why: dict[int, str] = {}
        for place, text in enumerate(said.distinct):
            found = _day_or_years(text)
            if isinstance(found, str):
                why[place] = found
            elif isinstance(found, date):
                days[place] = found
            elif found is not None:
                years[place] = found
        bad = np.zeros(len(said.distinct), np.bool_)
        bad[list(why)] = True
        self.faults.add(said.spread(bad), "expiry", lambda row: why[int(said.codes[row])])
        return said.spread(days), said.spread(years)

    def _agree(
        self,
        listed: Flags,
        contracts: _Listed,
        strike: Floats,
        right: NDArray[np.int64],
        day: Days,
        years: Floats,
    ) -> None:
        """Columns that repeat what the symbol says must say the same."""
        self.faults.add(
            listed & needs(strike, strike == contracts.strike),
            "strike",
            lambda row: f"is not the symbol's, {contracts.strike[row]:g}",
        )
        said = ~np.isnat(day) | ~np.isnan(years)
        self.faults.add(
            listed & said & (day != contracts.expiry),
            "expiry",
            lambda row: f"is not the symbol's, {contracts.expiry[row]}",
        )
        self.faults.add(
            listed & (right >= 0) & ((right == 0) != contracts.is_call),
            "right",
            lambda row: f"is not the symbol's, {'C' if contracts.is_call[row] else 'P'}",
        )

    def _multiplier(self, listed: Flags, kind: NDArray[np.int8]) -> Floats:
        default = np.where(listed, osi.CONTRACT_SIZE, np.where(kind == SPOT, 1.0, np.nan))
        values = self.number("multiplier", default=default)
        self.faults.add(
            needs(values, (values > 0.0) & (values <= MULTIPLIER_MAX)),
            "multiplier",
            lambda row: f"must be above 0 and at most {MULTIPLIER_MAX:g}, got {values[row]:g}",
        )
        return values


def _day_or_years(text: str) -> date | float | str | None:
    """What an expiry says; a text says what is wrong with it."""
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        pass
    try:
        years = float(text)
    except ValueError:
        return f"{text!r} is neither a date (YYYY-MM-DD) nor years"
    if not 0.0 <= years < YEARS_MAX:
        return f"must lie between 0 and {YEARS_MAX:g} years, got {text}"
    return years


def _or(column: Texts, instead: str) -> Texts:
    return replace(column, distinct=tuple(one or instead for one in column.distinct))


def _either(rows: Flags, one: Texts, other: Texts) -> Texts:
    """One column in these rows, another in the rest."""
    codes = np.where(rows, one.codes, other.codes + np.int32(len(one.distinct)))
    return Texts(codes, (*one.distinct, *other.distinct)).named()
