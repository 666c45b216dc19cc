"""The pre-trade controls in plain Python: the second half of the oracle, written from docs/matching.md."""

from __future__ import annotations

from tests.book_service.matching.reference_accounts import (
    BIGGEST,
    Account,
    SymbolState,
    top,
)
from tests.book_service.matching.reference_book import (
    ACCEPTED,
    BUY,
    CANCELLED,
    MASS_CANCEL,
    REJECTED,
    Message,
    Order,
)
from tests.book_service.matching.reference_checks import ReferenceChecks


class ReferenceWithControls(ReferenceChecks):
    """The whole: messages and commands as the venue takes them."""

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
