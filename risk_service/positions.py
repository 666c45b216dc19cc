"""Positions made of fills: what each account holds of each symbol, what it paid, and what it has earned.

A pure function of orders.executed. A symbol has one partition, and its fills are taken in in their order, so
that a restart that reads the log anew comes to the same numbers to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from protos import osi
from protos.risk.v1.risk_pb2 import INSTRUMENT_KIND_OPTION, INSTRUMENT_KIND_SPOT
from risk_service.executions import Executions, Fill
from risk_service.portfolios import HeldPortfolio
from service_kit.errors import SettingError

ROOT_AND_DAY = 12  # characters of an OSI symbol: padded root and yymmdd
FILLED = "filled"  # the group of positions that a portfolio has through fills alone


@dataclass(frozen=True, slots=True)
class Position:
    """What is held, at which average price, and what closing has earned, for a multiplier of 1."""

    quantity: float = 0.0
    average_price: float = 0.0
    realised: float = 0.0

    def after(self, quantity: float, price: float) -> Position:
        """The position after a fill: more of it moves the average, less of it earns, a turn starts anew."""
        held = self.quantity + quantity
        if self.quantity * quantity >= 0.0:
            average = (self.quantity * self.average_price + quantity * price) / held if held else 0.0
            return Position(held, average, self.realised)
        closed = min(abs(quantity), abs(self.quantity))
        earned = closed * (price - self.average_price) * (1.0 if self.quantity > 0.0 else -1.0)
        turned = held * self.quantity < 0.0
        average = price if turned else (self.average_price if held else 0.0)
        return Position(held, average, self.realised + earned)


@dataclass(frozen=True, slots=True)
class AccountRule:
    """Whose an account's fills are: as listed, or those of the portfolio named `prefix` and its number."""

    listed: Mapping[int, str]
    prefix: str = ""  # empty: fills of accounts that are not listed belong to no portfolio

    @classmethod
    def of(cls, listed: Iterable[str], prefix: str = "") -> AccountRule:
        """From settings, each "ACCOUNT=PORTFOLIO"."""
        found: dict[int, str] = {}
        for entry in listed:
            account, _, portfolio = entry.partition("=")
            number = account.strip()
            if not (number.isascii() and number.isdigit() and portfolio.strip()):
                raise SettingError("risk.accounts", f"{entry!r} is not ACCOUNT=PORTFOLIO")
            found[int(number)] = portfolio.strip()
        return cls(found, prefix)

    def portfolio(self, account: int) -> str:
        """Its name, empty where there is none."""
        return self.listed.get(account, f"{self.prefix}{account}" if self.prefix else "")


@dataclass(slots=True)
class Positions:
    """All positions, by portfolio. Used by one thread."""

    rule: AccountRule
    _by_portfolio: dict[str, dict[tuple[int, str], Position]] = field(default_factory=dict)
    _next_offsets: dict[int, int] = field(default_factory=dict)
    _quantities: dict[str, dict[str, float]] = field(default_factory=dict)  # worked out so far
    _next_reports: dict[int, int] = field(default_factory=dict)

    def apply(self, executed: Executions | Iterable[Fill], partition: int, offset: int) -> set[str]:
        """Takes in one record; the portfolios that it changed.

        What was seen before changes nothing: not the same record, nor the same reports in another record, as
        a venue writes that has lost its partition and does not know it yet.
        """
        if offset < self._next_offsets.get(partition, 0):
            return set()
        self._next_offsets[partition] = offset + 1
        fills = self._new(executed, partition) if isinstance(executed, Executions) else executed
        changed = set()
        for fill in fills:
            name = self.rule.portfolio(fill.account)
            if name:
                book, key = self._by_portfolio.setdefault(name, {}), (fill.account, fill.symbol)
                book[key] = book.get(key, Position()).after(fill.quantity, fill.price)
                changed.add(name)
        for name in changed:
            self._quantities.pop(name, None)
        return changed

    def _new(self, executed: Executions, partition: int) -> Iterable[Fill]:
        """Without the fills of reports that are in already."""
        if not executed.numbered:
            return executed.fills
        known = self._next_reports.get(partition, 0)
        self._next_reports[partition] = max(known, executed.first_report + executed.reports)
        return executed.fills_from(known)

    def of(self, portfolio: str) -> list[tuple[int, str, Position]]:
        """Account, symbol and position, sorted; those that are closed too, for what they have earned."""
        book = self._by_portfolio.get(portfolio, {})
        return [(account, symbol, book[account, symbol]) for account, symbol in sorted(book)]

    def quantities(self, portfolio: str) -> dict[str, float]:
        """What the portfolio holds of each symbol through all its accounts."""
        total: dict[str, float] = {}
        for _, symbol, position in self.of(portfolio):
            total[symbol] = total.get(symbol, 0.0) + position.quantity
        return total

    def all_quantities(self) -> dict[str, dict[str, float]]:
        """`quantities` of every portfolio that has fills; what it holds is not changed any more."""
        for name in self._by_portfolio.keys() - self._quantities.keys():
            self._quantities[name] = self.quantities(name)
        return dict(self._quantities)

    def snapshot_id(self) -> str:
        """Names the prefix of orders.executed behind the positions: partition and next offset of each."""
        return ",".join(f"{partition}:{at}" for partition, at in sorted(self._next_offsets.items()))


def with_fills(held: HeldPortfolio, quantities: Mapping[str, float]) -> HeldPortfolio:
    """The portfolio with filled quantities added to its positions.

    An underlying of it gets a spot position; an option on one of them gets a position by the terms that its
    OSI symbol says. Anything else has no terms by which it could be valued and stays out of the risk. Where
    positions have groups, those of fills alone are one: "filled".
    """
    quantity = held.quantity.copy()
    rows = held.rows_of_fills()
    extra = []
    for symbol, filled in sorted(quantities.items()):
        if symbol in rows:
            quantity[rows[symbol]] += filled
        elif filled and (terms := _terms(held, symbol)) is not None:
            extra.append((symbol, filled, terms))
    if not extra:
        return replace(held, quantity=quantity)
    groups = held.groups
    if groups and FILLED not in groups:
        groups = (*groups, FILLED)

    def more(column: np.ndarray, values: list[object]) -> np.ndarray:
        return np.concatenate((column, np.array(values, column.dtype)))

    columns: dict[str, Any] = {
        name: more(getattr(held, name), [getattr(terms, name) for _, _, terms in extra])
        for name in _Terms._fields
    }
    return replace(
        held,
        symbols=(*held.symbols, *(symbol for symbol, _, _ in extra)),
        quantity=more(quantity, [filled for _, filled, _ in extra]),
        groups=groups,
        group_index=more(held.group_index, [groups.index(FILLED) if groups else 0] * len(extra)),
        **columns,
    )


class _Terms(NamedTuple):
    """Columns of a position that follow from its symbol."""

    underlying_index: int
    kind: int = INSTRUMENT_KIND_SPOT
    multiplier: float = 1.0
    expiry_time_ns: int = 0
    strike: float = 0.0
    is_call: bool = False
    american: bool = False


def _terms(held: HeldPortfolio, symbol: str) -> _Terms | None:
    if symbol in held.underlyings:
        return _Terms(held.underlyings.index(symbol))
    try:
        contract = osi.parse(symbol)
    except ValueError:
        return None
    underlying = osi.underlying_of(contract.root)
    if underlying not in held.underlyings:
        return None
    place = held.underlyings.index(underlying)
    terms = _Terms(
        place,
        INSTRUMENT_KIND_OPTION,
        osi.CONTRACT_SIZE,
        osi.expiry_time_ns(contract.expiry),
        contract.strike,
        contract.is_call,
        osi.is_american(contract.root),
    )
    for row in np.flatnonzero(held.is_option & (held.underlying_index == place)).tolist():
        # What a desk says otherwise of an option of the same root and day counts for this one too.
        if held.symbols[row][:ROOT_AND_DAY] == symbol[:ROOT_AND_DAY]:
            return terms._replace(
                multiplier=float(held.multiplier[row]),
                expiry_time_ns=int(held.expiry_time_ns[row]),
                american=bool(held.american[row]),
            )
    return terms
