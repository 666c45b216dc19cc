"""The checks of the oracle: what an order must pass, written from docs/matching.md."""

from __future__ import annotations

from tests.book_service.matching.reference_accounts import (
    MILLION,
    TOP_PRICE,
    Account,
    Holding,
    ReferenceAccounts,
    SymbolState,
)
from tests.book_service.matching.reference_book import (
    BUY,
    LIMIT,
    MARKET,
    STOP,
    STOP_LIMIT,
    Message,
    Order,
)


class ReferenceChecks(ReferenceAccounts):
    """Whether an order may come in, rest and trade."""

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
