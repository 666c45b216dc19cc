"""What the oracle of the controls knows of accounts and symbols, written from docs/matching.md."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.book_service.matching.reference_book import (
    Message,
    ReferenceBook,
)

BIGGEST = 2**63 - 1
TOP_PRICE, TOP_POSITION, TOP_VALUE, TOP_PPM = 2**32, 2**60, 2**60, 10**9
MILLION = 10**6
PPM_LIMITS, POSITION_LIMITS, VALUE_LIMITS = (0, 1, 5, 10, 14), (4, 9), (3, 11, 12)
ALWAYS_ON = (2, 3, 4, 9, 11)


def top(limit: int) -> int:
    if limit in PPM_LIMITS:
        return TOP_PPM
    if limit in POSITION_LIMITS:
        return TOP_POSITION
    return TOP_VALUE if limit in VALUE_LIMITS else BIGGEST


@dataclass
class SymbolState:
    multiplier: int = 1
    limits: dict[int, int] = field(default_factory=dict)
    reference: int | None = None
    mark: int | None = None
    last_known_mark: int = 0
    restricted: bool = False
    halted: str = ""
    halt_end: int = 0
    halt_price: int = 0
    reopened: bool = False
    trades: list[tuple[int, int]] = field(default_factory=list)  # (bucket, price)
    bucket: int = 0
    band: tuple[int, int] | None = None
    band_is_stale: bool = True
    portfolio: int = 0


@dataclass
class Holding:
    position: int = 0
    cash: float = 0.0
    last: tuple[int, ...] | None = None
    last_time: int = -1


@dataclass
class Account:
    limits: dict[int, int]
    killed: bool = False
    reducing: bool = False
    throttled: bool = False
    second: int = 0
    messages: int = 0
    trade_second: int = 0
    trades: int = 0
    capital: int = -1
    holdings: dict[int, Holding] = field(default_factory=dict)


class ReferenceAccounts(ReferenceBook):
    """Accounts and symbols, and what may be set of them."""

    def __init__(self, multipliers: list[int], references: list[int | None], limits: dict[int, int], *,
                 strict: bool, most_accounts: int = 65536) -> None:  # fmt: skip
        super().__init__(len(multipliers))
        self.states = [SymbolState(multiplier) for multiplier in multipliers]
        self.accounts: dict[int, Account] = {}
        self.default = Account({})
        self.strict, self.most_accounts = strict, most_accounts
        self.clock = 0
        self.killed = self.tripped = False
        self.breaker = -1
        self.turn = 0
        self.capital = 0.0
        self.result = 0.0
        for limit, value in limits.items():
            assert self.set_limit(limit, value, range(self.symbols), [self.default])
        for symbol, reference in enumerate(references):
            if reference is not None:
                assert self.set_reference(reference, range(symbol, symbol + 1))

    def account(self, number: int) -> Account | None:
        if number not in self.accounts and len(self.accounts) < self.most_accounts:
            self.accounts[number] = Account(dict(self.default.limits), reducing=self.default.reducing)
        return self.accounts.get(number)

    def marked(self, symbol: int, holding: Holding) -> float:
        state = self.states[symbol]
        return holding.cash + float(holding.position) * float(state.last_known_mark) * float(state.multiplier)

    def move_mark(self, state: SymbolState, price: int) -> None:
        if state.portfolio:
            moved = float(price - state.last_known_mark)
            self.result += float(state.portfolio) * moved * float(state.multiplier)
        state.mark = state.last_known_mark = price

    def set_limit(self, limit: int, value: int, symbols: range, accounts: list[Account]) -> bool:
        if limit > 14 or not -1 <= value <= top(limit):
            return False
        if value < 0 and limit in ALWAYS_ON:
            value = top(limit)
        if limit == 6:
            value = max(value, 0)
        if limit == 14:
            self.breaker = value
            return True
        if limit < 7:
            for symbol in symbols:
                self.states[symbol].limits[limit] = value
                self.states[symbol].band_is_stale, self.states[symbol].band = True, None
            return bool(symbols)
        for account in accounts:
            account.limits[limit] = value
        return bool(accounts)

    def set_reference(self, price: int, symbols: range) -> bool:
        if abs(price) > TOP_PRICE:
            return False
        for symbol in symbols:
            state = self.states[symbol]
            state.reference, state.band_is_stale, state.band = price, True, None
            if self.last[symbol] is None:
                self.move_mark(state, price)
        return bool(symbols)

    def weigh(self, account: Account, sign: int) -> None:
        self.capital += sign * float(account.capital)
        for symbol, holding in reversed(account.holdings.items()):
            self.states[symbol].portfolio += sign * holding.position
            self.result += sign * self.marked(symbol, holding)

    def set_capital(self, account: Account, capital: int) -> bool:
        if not -1 <= capital <= TOP_VALUE:
            return False
        if account.capital >= 0:
            self.weigh(account, -1)
        account.capital = capital
        if capital >= 0:
            self.weigh(account, 1)
        return True

    def set_position(self, m: Message) -> bool:
        state = self.states[m.symbol]
        if abs(m.price) > TOP_POSITION or abs(m.stop_price) > TOP_PRICE or state.mark is None:
            return False
        account = self.account(m.account)
        if account is None:
            return False
        holding = account.holdings.setdefault(m.symbol, Holding())
        if account.capital >= 0:
            self.weigh(account, -1)
        holding.position = m.price
        holding.cash = -(float(m.price) * float(m.stop_price) * float(state.multiplier))
        if account.capital >= 0:
            self.weigh(account, 1)
        return True
