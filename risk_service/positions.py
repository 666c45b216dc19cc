"""Positions made of fills: what each account holds of each symbol, what it paid, and what it has earned.

A pure function of orders.executed. A symbol has one partition, and its fills are taken in in their order, so
that a restart that reads the log anew comes to the same numbers to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from protos import packing
from protos.market.v1.market_pb2 import SIDE_BUY
from protos.orders.v1.orders_pb2 import REPORT_KIND_TRADE, ExecutionBatch
from protos.risk.v1.risk_pb2 import INSTRUMENT_KIND_SPOT
from risk_service.portfolios import HeldPortfolio
from service_kit.errors import SettingError

_COLUMNS = (
    *("symbol_index", "kind", "account", "maker_account", "side", "price_ticks", "quantity"),
    *("reason", "order_id", "maker_id", "taker_id", "leaves", "maker_leaves", "sequence", "time_ns"),
)


FILLED = "filled"  # the group of positions that a portfolio has through fills alone


@dataclass(frozen=True, slots=True)
class Fill:
    """A signed quantity (bought above 0) at a price, in the currency of the symbol."""

    account: int
    symbol: str
    quantity: float
    price: float


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
class Executions:
    """One record of orders.executed: its fills, and which of its partition's reports it holds."""

    fills: tuple[Fill, ...]
    first_report: int
    reports: int
    numbered: bool  # by a venue, whose reports are counted through a partition


def decode_fills(value: bytes) -> Executions:
    """A record of orders.executed, two fills for each trade; what is no batch raises ValueError."""
    batch = ExecutionBatch.FromString(value)
    rows = packing.row_count(batch, _COLUMNS)
    packing.names(batch, "symbols", "symbol_index", rows)
    if len(batch.tick_size) != len(batch.symbols):
        raise ValueError(f"tick_size has {len(batch.tick_size)} entries for {len(batch.symbols)} symbols")
    columns = {name: packing.column(batch, name, rows) for name in _COLUMNS[:7]}
    fills = []
    for row in np.flatnonzero(columns["kind"] == REPORT_KIND_TRADE).tolist():
        place = int(columns["symbol_index"][row])
        symbol, tick = batch.symbols[place], batch.tick_size[place]
        price = int(columns["price_ticks"][row]) * tick
        bought = float(columns["quantity"][row]) * (1.0 if columns["side"][row] == SIDE_BUY else -1.0)
        fills.append(Fill(int(columns["account"][row]), symbol, bought, price))
        fills.append(Fill(int(columns["maker_account"][row]), symbol, -bought, price))
    return Executions(tuple(fills), batch.first_report, rows, batch.HasField("origin"))


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
            if not account.strip().isdigit() or not portfolio.strip():
                raise SettingError("risk.accounts", f"{entry!r} is not ACCOUNT=PORTFOLIO")
            found[int(account)] = portfolio.strip()
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
        fills = executed.fills if isinstance(executed, Executions) else executed
        if isinstance(executed, Executions) and executed.numbered and executed.reports:
            following = executed.first_report + executed.reports
            if following <= self._next_reports.get(partition, 0):
                return set()
            self._next_reports[partition] = following
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
