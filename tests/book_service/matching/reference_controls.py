"""The pre-trade controls in plain Python: the second half of the oracle, written from docs/matching.md."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.book_service.matching.reference_book import (
    ACCEPTED,
    BUY,
    CANCELLED,
    LIMIT,
    MARKET,
    MASS_CANCEL,
    REJECTED,
    STOP,
    STOP_LIMIT,
    Message,
    Order,
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


class ReferenceWithControls(ReferenceBook):
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

    # Every message.

    def apply(self, m: Message) -> None:
        self.clock = max(self.clock, m.time)
        self.time = m.time
        self.traded = []
        self.expire()
        if m.action <= MASS_CANCEL and m.symbol < self.symbols:
            self.arrive(m)
        if m.action <= MASS_CANCEL:
            (self.new, self.cancel, self.replace, self.mass_cancel)[m.action](m)
        elif m.action == 4:
            self.command(m)
        else:
            self.say(REJECTED, m.symbol, m.order_id, m.account, reason=1)
        if self.traded:
            self.run_stops(m.symbol)
            self.watch_breaker()
        self.sequence += 1

    def account(self, number: int) -> Account | None:
        if number not in self.accounts and len(self.accounts) < self.most_accounts:
            self.accounts[number] = Account(dict(self.default.limits), reducing=self.default.reducing)
        return self.accounts.get(number)

    def arrive(self, m: Message) -> None:
        account = self.account(m.account)
        state = self.states[m.symbol]
        bucket = self.clock // 30_000_000_000
        if state.bucket != bucket or state.band_is_stale or state.halted == "paused":
            self.roll(state, bucket)
        if account:
            account.holdings.setdefault(m.symbol, Holding())
            second = self.clock // 1_000_000_000
            if account.second != second:
                account.second, account.messages = second, 0
            account.messages += 1

    def roll(self, state: SymbolState, bucket: int) -> None:
        state.bucket = bucket
        state.trades = [(b, p) for b, p in state.trades if b > bucket - 10]
        if state.halted == "paused" and self.clock >= state.halt_end:
            state.halted, state.reopened, state.trades = "", True, []
        ppm = state.limits[5]
        state.band, state.band_is_stale = None, False
        if ppm < 0:
            return
        complete = [p for b, p in state.trades if b < bucket]
        if complete:
            middle = sum(complete) // len(complete)
            state.reopened = False
        elif state.reopened:
            middle = state.halt_price
        elif state.mark is not None:
            middle = state.mark
        else:
            state.band_is_stale = True
            return
        away = abs(middle) * ppm // MILLION
        state.band = (middle - away, middle + away)

    # What orders add up to.

    def open_of(self, account: int, symbol: int, side: int) -> int:
        return sum(
            o.leaves for o in self.orders.values() if (o.account, o.symbol, o.side) == (account, symbol, side)
        )

    def worth(self, order: Order) -> int:
        price = order.stop_price if order.kind == STOP else order.price
        return abs(price) * self.states[order.symbol].multiplier * order.leaves

    def loss_state(self, account: Account, limit: int) -> int:
        total = 0.0
        for symbol, holding in reversed(account.holdings.items()):
            state = self.states[symbol]
            if holding.position and state.mark is None:
                return 2
            total += self.marked(symbol, holding)
        return 1 if total < -float(limit) else 0

    def marked(self, symbol: int, holding: Holding) -> float:
        state = self.states[symbol]
        return holding.cash + float(holding.position) * float(state.last_known_mark) * float(state.multiplier)

    # The checks.

    def new_order_reason(self, m: Message, order: Order) -> int:
        reason = self.check(order, order.kind, m.price, m.stop_price, m.quantity, None)
        if reason:
            return reason
        account = self.accounts[m.account]
        holding = account.holdings[m.symbol]
        same = (m.price, m.stop_price, m.quantity, m.side, m.kind, m.tif, m.flags)
        if holding.last == same and self.clock - holding.last_time < account.limits[13]:
            return 56
        holding.last, holding.last_time = same, self.clock
        return 0

    def check(self, order: Order, kind: int, price: int, stop: int, quantity: int, old: Order | None) -> int:
        account = self.accounts.get(order.account)
        if account is None:
            return 61
        state = self.states[order.symbol]
        return (
            self.check_switches(account, state)
            or self.check_price(state, kind, price, stop)
            or self.check_size(account, state, order, kind, price, stop, quantity, old)
        )

    def check_switches(self, account: Account, state: SymbolState) -> int:
        if self.killed:
            return 40
        if self.tripped:
            return 43
        if account.killed:
            return 41
        if account.throttled:
            return 52
        if 0 <= account.limits[7] < account.messages:
            return 51
        if state.restricted:
            return 44
        return 42 if state.halted else 0

    def check_price(self, state: SymbolState, kind: int, price: int, stop: int) -> int:
        if kind in (LIMIT, STOP_LIMIT) and abs(price) > TOP_PRICE:
            return 60
        if kind in (STOP, STOP_LIMIT) and abs(stop) > TOP_PRICE:
            return 60
        static, moving = state.limits[0], state.limits[1]
        if static >= 0:
            if state.reference is None:
                return 46
            if kind in (LIMIT, STOP_LIMIT) and abs(price - state.reference) > self.away(
                state.reference, static
            ):
                return 47
        if state.mark is not None:
            if moving >= 0 and kind == LIMIT and abs(price - state.mark) > self.away(state.mark, moving):
                return 48
        elif self.strict and (moving >= 0 or state.limits[5] >= 0 or kind == MARKET):
            return 46
        return 0

    def away(self, price: int, ppm: int) -> int:
        return abs(price) * ppm // MILLION

    def check_size(self, account: Account, state: SymbolState, order: Order, kind: int, price: int, stop: int,
                   quantity: int, old: Order | None) -> int:  # fmt: skip
        if quantity > state.limits[2]:
            return 49
        if kind == MARKET:
            price = state.mark or 0
        elif kind == STOP:
            price = stop
        unit = abs(price) * state.multiplier
        if unit * quantity > state.limits[3]:
            return 50
        opened = self.open_of(order.account, order.symbol, order.side) - (old.leaves if old else 0)
        signed = account.holdings[order.symbol].position * (1 if order.side == BUY else -1)
        if signed + opened + quantity > min(state.limits[4], account.limits[9]):
            return 53
        if opened + quantity > -signed:
            if account.reducing:
                return 45
            if account.limits[12] >= 0:
                loss = self.loss_state(account, account.limits[12])
                if loss:
                    return 57 if loss == 1 else 46
            if account.limits[10] >= 0:
                if account.capital < 0:
                    return 46
                allowed = float(account.capital) * float(account.limits[10]) / 1e6
                if float(signed + opened + quantity) * float(unit) > allowed:
                    return 54
        exposure = sum(self.worth(o) for o in self.orders.values() if o.account == order.account)
        if exposure - (self.worth(old) if old else 0) + unit * quantity > account.limits[11]:
            return 55
        return 0

    # Matching under the controls.

    def stopped(self, order: Order) -> int:
        state = self.states[order.symbol]
        if state.halted:
            return 108
        return 109 if state.restricted or self.accounts[order.account].throttled else 0

    def may_trade_at(self, order: Order, price: int) -> bool:
        return self.inside_band(order, price) and all(
            self.no_worse(order, price, edge) for edge in self.collar_edges(order)
        )

    def no_worse(self, order: Order, price: int, edge: int) -> bool:
        return price <= edge if order.side == BUY else price >= edge

    def inside_band(self, order: Order, price: int) -> bool:
        band = self.states[order.symbol].band
        return band is None or self.no_worse(order, price, band[1] if order.side == BUY else band[0])

    def collar_edges(self, order: Order) -> list[int]:
        state, sign = self.states[order.symbol], 1 if order.side == BUY else -1
        edges = []
        if order.kind != LIMIT:
            for middle, ppm in ((state.reference, state.limits[0]), (state.mark, state.limits[1])):
                if middle is not None and ppm >= 0:
                    edges.append(middle + sign * self.away(middle, ppm))
        return edges

    def place(self, order: Order) -> None:
        why = self.stopped(order)
        if why:
            self.say(CANCELLED, order.symbol, order.order_id, order.account, reason=why, side=order.side,
                     price=order.price, quantity=order.leaves)  # fmt: skip
            return
        super().place(order)

    def allowed_prices(self, order: Order) -> list[int]:
        # Collars are taken as they stand before the order's first trade.
        return [price for price in self.crossing(order) if self.may_trade_at(order, price)]

    def match(self, order: Order) -> int:
        before = len(self.traded)
        ended = super().match(order)
        if len(self.traded) > before:
            self.count_execution(self.accounts[order.account])
        if not ended and order.leaves:
            left = self.crossing(order)
            if left:
                if self.inside_band(order, left[0]):
                    return 109
                self.pause(self.states[order.symbol], left[0])
                return 108
        return ended

    def count_execution(self, account: Account) -> None:
        second = self.clock // 1_000_000_000
        if account.trade_second != second:
            account.trade_second, account.trades = second, 0
        account.trades += 1
        if 0 <= account.limits[8] < account.trades:
            account.throttled = True

    def pause(self, state: SymbolState, price: int) -> None:
        state.halted, state.halt_price = "paused", price
        state.halt_end = min(self.clock + state.limits[6], BIGGEST)

    def trade(self, taker: Order, maker: Order) -> None:
        quantity = min(taker.leaves, maker.leaves)
        state = self.states[taker.symbol]
        super().trade(taker, maker)
        self.move_mark(state, maker.price)
        state.trades.append((state.bucket, maker.price))
        signed = quantity if taker.side == BUY else -quantity
        for number, bought in ((taker.account, signed), (maker.account, -signed)):
            account = self.accounts[number]
            holding = account.holdings[taker.symbol]
            holding.position += bought
            holding.cash -= float(bought) * float(maker.price) * float(state.multiplier)
            if account.capital >= 0:
                state.portfolio += bought

    def move_mark(self, state: SymbolState, price: int) -> None:
        if state.portfolio:
            moved = float(price - state.last_known_mark)
            self.result += float(state.portfolio) * moved * float(state.multiplier)
        state.mark = state.last_known_mark = price

    # Commands.

    def watch_breaker(self) -> None:
        watched = self.breaker >= 0 and not self.tripped and self.capital > 0
        if watched and self.result < -(self.capital * float(self.breaker) / 1e6):
            self.trip()

    def trip(self) -> None:
        self.tripped = True
        self.cancel_all(list(self.orders.values()), 107)

    def cancel_all(self, orders: list[Order], reason: int) -> None:
        for order in sorted(orders, key=lambda o: o.age):
            self.close(order, CANCELLED, reason)

    def command(self, m: Message) -> None:
        place = len(self.reports)
        self.say(ACCEPTED, m.symbol, m.order_id, m.account, price=m.price)
        if not self.carry_out(m):
            assert len(self.reports) == place + 1
            self.reports.pop()
            self.say(REJECTED, m.symbol, m.order_id, m.account, price=m.price, reason=58)
        elif m.kind in (3, 11):
            cancelled = len(self.reports) - place - 1
            answer = list(self.reports[place])
            answer[12] = cancelled
            self.reports[place] = tuple(answer)
        self.watch_breaker()

    def carry_out(self, m: Message) -> bool:
        every_symbol, everybody = bool(m.flags & 2), bool(m.flags & 4)
        symbols = range(self.symbols) if every_symbol else range(m.symbol, m.symbol + 1)
        if not every_symbol and m.symbol >= self.symbols:
            symbols = range(0)
        states = [self.states[symbol] for symbol in symbols]
        if m.kind == 1:
            return self.set_reference(m.price, symbols)
        if m.kind == 2:
            for symbol in symbols:
                state = self.states[symbol]
                state.reference, state.band_is_stale, state.band = None, True, None
                if self.last[symbol] is None:
                    state.mark = None
            return bool(states)
        if m.kind in (5, 6, 7, 8):
            for state in states:
                if m.kind in (5, 6):
                    state.restricted = m.kind == 5
                else:
                    state.halted = "by command" if m.kind == 7 else ""
            return bool(states)
        if m.kind == 11:
            self.trip()
            return True
        if m.kind == 12:
            self.tripped = False
            return True
        if m.kind in (16, 17):
            return self.budget(m, everybody)
        if m.kind > 15:
            return False
        if m.kind == 14:
            return not every_symbol and not everybody and bool(states) and self.set_position(m)
        if m.kind == 0 and (m.tif < 7 or m.tif >= 14):
            return self.set_limit(m.tif, m.price, symbols, [])
        return self.account_command(m, everybody)

    def budget(self, m: Message, everybody: bool) -> bool:
        sane = 7 <= m.tif <= 14 and -1 <= m.price <= top(m.tif)
        in_turn = m.stop_price >= max(1, self.turn) if m.kind == 16 else m.stop_price == self.turn >= 1
        tell = m.kind == 16 and m.price == -1 and m.stop_price == 0
        if not (sane and (in_turn or tell)):
            return False
        opened, accounts = 0, [self.default, *self.accounts.values()]
        if not everybody and m.tif != 14:
            one = self.account(m.account)
            if one is None:
                return False
            accounts = [one]
            opened = sum(self.worth(o) for o in self.orders.values() if o.account == m.account)
        self.turn = self.turn if tell else m.stop_price
        for account in accounts:
            before = self.breaker if m.tif == 14 else account.limits[m.tif]
            values = [one for one in ((before, m.price) if m.kind == 16 else (m.price,)) if one >= 0]
            assert self.set_limit(m.tif, min(values, default=-1), range(0), [account])
        self.reports.pop()
        now = self.breaker if m.tif == 14 else accounts[0].limits[m.tif]
        self.say(ACCEPTED, m.symbol, m.order_id, m.account, price=now, maker_leaves=opened)
        return True

    def account_command(self, m: Message, everybody: bool) -> bool:
        if everybody:
            accounts = [self.default, *self.accounts.values()]
        else:
            one = self.account(m.account)
            accounts = [one] if one else []
        if m.kind == 0:
            return self.set_limit(m.tif, m.price, range(0), accounts)
        if m.kind in (3, 4):
            if everybody:
                self.killed = m.kind == 3
            for account in accounts if not everybody else ():
                account.killed = m.kind == 3
            if m.kind == 3 and accounts:
                self.cancel_all([o for o in self.orders.values() if everybody or o.account == m.account], 106)
        elif m.kind in (9, 10):
            for account in accounts:
                account.reducing = m.kind == 9
        elif m.kind == 13:
            return not everybody and bool(accounts) and self.set_capital(accounts[0], m.price)
        elif m.kind == 15:
            for account in accounts:
                account.throttled = False
        return bool(accounts)

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
