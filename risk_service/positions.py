"""Positions made of fills: what each account holds of each symbol, what it paid, and what it has earned.

A pure function of orders.executed. A symbol has one partition, and its fills are taken in in their order, so
that a restart that reads the log anew comes to the same numbers to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from protos.risk.v1.risk_pb2 import INSTRUMENT_KIND_SPOT
from risk_service.executions import Executions, Fill
from risk_service.portfolios import HeldPortfolio
from service_kit.errors import SettingError

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
    """The portfolio with filled quantities added to its positions; an underlying of it gets a spot position.

    A symbol that is neither a position nor an underlying of the portfolio has no terms by which it could be
    valued and stays out of the risk. Where positions have groups, those of fills alone are one: "filled".
    """
    quantity = held.quantity.copy()
    rows = {symbol: row for row, symbol in reversed(list(enumerate(held.symbols)))}
    extra = []
    for symbol, filled in sorted(quantities.items()):
        if symbol in rows:
            quantity[rows[symbol]] += filled
        elif symbol in held.underlyings and filled:
            extra.append((symbol, held.underlyings.index(symbol), filled))
    if not extra:
        return replace(held, quantity=quantity)
    count = len(extra)
    groups = held.groups
    if groups and FILLED not in groups:
        groups = (*groups, FILLED)

    def more(column: np.ndarray, values: object) -> np.ndarray:
        return np.concatenate((column, np.broadcast_to(np.asarray(values, column.dtype), (count,))))

    return replace(
        held,
        symbols=(*held.symbols, *(symbol for symbol, _, _ in extra)),
        underlying_index=more(held.underlying_index, [place for _, place, _ in extra]),
        kind=more(held.kind, INSTRUMENT_KIND_SPOT),
        quantity=more(quantity, [filled for _, _, filled in extra]),
        multiplier=more(held.multiplier, 1.0),
        expiry_time_ns=more(held.expiry_time_ns, 0),
        strike=more(held.strike, 0.0),
        is_call=more(held.is_call, False),
        american=more(held.american, False),
        groups=groups,
        group_index=more(held.group_index, groups.index(FILLED) if groups else 0),
    )
