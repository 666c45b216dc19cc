"""A slow, obvious order book in plain Python: the oracle for the compiled one.

Written from the rules in docs/matching.md alone; it shares no code, no data structure and no constant with
book_service.matching beyond the field names of its records.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass
from typing import Any

NEW, CANCEL, REPLACE, MASS_CANCEL, CONTROL = range(5)
BUY, SELL = 0, 1
LIMIT, MARKET, STOP, STOP_LIMIT = range(4)
DAY, IOC, FOK, POST_ONLY, GTD = range(5)
(ACCEPTED, TRADE, CANCELLED, REPLACED, CANCEL_REJECTED, REPLACE_REJECTED, REJECTED, TRIGGERED, EXPIRED,
 DECREMENTED) = range(10)  # fmt: skip
FIELDS = (
    "kind", "reason", "symbol", "order_id", "maker_id", "taker_id", "account", "maker_account", "side",
    "price",
    "quantity", "leaves", "maker_leaves", "sequence", "time",
)  # fmt: skip
BIGGEST = 2**63 - 1


@dataclass
class Message:
    action: int = NEW
    symbol: int = 0
    order_id: int = 0
    account: int = 0
    side: int = BUY
    kind: int = LIMIT
    tif: int = DAY
    flags: int = 0
    price: int = 0
    stop_price: int = 0
    quantity: int = 0
    time: int = 0
    expire_time: int = 0
    stp: int = 0


@dataclass
class Order:
    symbol: int
    order_id: int
    account: int
    side: int
    kind: int
    tif: int
    post_only: bool
    stp: int
    price: int
    stop_price: int
    leaves: int
    expire_time: int
    age: int = 0
    waiting: bool = False


class Side:
    """The resting orders of one side: a sorted list of prices and a list of orders at each."""

    def __init__(self) -> None:
        self.prices: list[int] = []
        self.queues: dict[int, list[Order]] = {}

    def add(self, order: Order) -> None:
        if order.price not in self.queues:
            self.queues[order.price] = []
            insort(self.prices, order.price)
        self.queues[order.price].append(order)

    def remove(self, order: Order) -> None:
        queue = self.queues[order.price]
        queue[:] = [other for other in queue if other is not order]
        if not queue:
            del self.queues[order.price]
            self.prices.remove(order.price)


class ReferenceBook:
    def __init__(self, symbols: int) -> None:
        self.symbols = symbols
        self.sides = [(Side(), Side()) for _ in range(symbols)]
        self.orders: dict[tuple[int, int], Order] = {}
        self.last: list[int | None] = [None] * symbols
        self.traded: list[int] = []
        self.ages = 0
        self.sequence = 0
        self.time = 0
        self.reports: list[tuple[int, ...]] = []

    # What the outside sees.

    def process(self, messages: Any) -> list[tuple[int, ...]]:
        self.reports = []
        names = messages.dtype.names
        for row in messages.tolist():
            self.apply(Message(**dict(zip(names, row))))
        return self.reports

    def best(self, symbol: int) -> tuple[int | None, int | None]:
        bids, asks = self.sides[symbol]
        return (bids.prices[-1] if bids.prices else None, asks.prices[0] if asks.prices else None)

    def depth(
        self, symbol: int, levels: int
    ) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
        out = []
        for side in (BUY, SELL):
            queues = self.sides[symbol][side].queues
            prices = sorted(queues, reverse=side == BUY)[:levels]
            out.append([(p, sum(o.leaves for o in queues[p]), len(queues[p])) for p in prices])
        return out[0], out[1]

    # One message.

    def apply(self, m: Message) -> None:
        self.time = m.time
        self.traded = []
        self.expire()
        if m.action == NEW:
            self.new(m)
        elif m.action == CANCEL:
            self.cancel(m)
        elif m.action == REPLACE:
            self.replace(m)
        elif m.action == MASS_CANCEL:
            self.mass_cancel(m)
        elif m.action == CONTROL:
            self.control(m)
        else:
            self.say(REJECTED, m.symbol, m.order_id, m.account, reason=1)
        if self.traded:
            self.run_stops(m.symbol)
        self.sequence += 1

    def say(
        self, kind: int, symbol: int, order_id: int, account: int, *, reason: int = 0, side: int = 0,
        price: int = 0,
        quantity: int = 0, leaves: int = 0, maker: Order | None = None, maker_leaves: int = 0,
        taker_id: int = 0,
    ) -> None:  # fmt: skip
        maker_id, maker_account = (maker.order_id, maker.account) if maker else (0, 0)
        self.reports.append(
            (kind, reason, symbol, order_id, maker_id, taker_id, account, maker_account, side, price,
            quantity,
             leaves, maker_leaves, self.sequence, self.time)
        )  # fmt: skip

    def expire(self) -> None:
        due = [o for o in self.orders.values() if o.tif == GTD and o.expire_time <= self.time]
        for order in sorted(due, key=lambda o: (o.expire_time, o.age)):
            self.close(order, EXPIRED, 0)

    def open_quantity(self, symbol: int) -> int:
        return sum(o.leaves for o in self.orders.values() if o.symbol == symbol)

    def fault(self, m: Message) -> int:
        if m.symbol >= self.symbols:
            return 7
        if m.side > 1:
            return 2
        if m.kind > 3:
            return 3
        if m.tif > 4:
            return 4
        if m.flags > 1:
            return 5
        if m.stp > 4:
            return 6
        if m.quantity == 0:
            return 8
        if m.quantity > BIGGEST:
            return 9
        if m.kind in (STOP, STOP_LIMIT) and m.stop_price == 0:
            return 10
        if m.tif == GTD and m.kind != MARKET and m.expire_time <= m.time:
            return 11
        if (m.symbol, m.order_id) in self.orders:
            return 20
        if self.open_quantity(m.symbol) + m.quantity > BIGGEST:
            return 9
        return 0

    def new(self, m: Message) -> None:
        reason = self.fault(m)
        post_only = m.tif == POST_ONLY or bool(m.flags & 1)
        if not reason:
            order = Order(
                m.symbol, m.order_id, m.account, m.side, m.kind, m.tif, post_only, m.stp, m.price,
                m.stop_price,
                m.quantity, m.expire_time,
            )  # fmt: skip
            if post_only and m.kind in (LIMIT, MARKET) and self.would_match(order):
                reason = 23
            else:
                reason = self.new_order_reason(m, order)
        if reason:
            self.say(REJECTED, m.symbol, m.order_id, m.account, reason=reason, side=m.side, price=m.price,
                     quantity=m.quantity)  # fmt: skip
            return
        self.say(ACCEPTED, m.symbol, m.order_id, m.account, side=m.side, price=m.price, quantity=m.quantity,
                 leaves=m.quantity)  # fmt: skip
        if m.kind in (STOP, STOP_LIMIT):
            self.wait(order)
        else:
            self.place(order)

    def wait(self, order: Order) -> None:
        order.waiting = True
        self.register(order)
        last = self.last[order.symbol]
        if last is not None:
            self.traded.append(last)

    def register(self, order: Order) -> None:
        order.age = self.ages
        self.ages += 1
        self.orders[order.symbol, order.order_id] = order

    def unregister(self, order: Order) -> None:
        del self.orders[order.symbol, order.order_id]
        if not order.waiting:
            self.sides[order.symbol][order.side].remove(order)

    def close(self, order: Order, kind: int, reason: int) -> None:
        self.unregister(order)
        self.say(kind, order.symbol, order.order_id, order.account, reason=reason, side=order.side,
                 price=order.price, quantity=order.leaves)  # fmt: skip

    # Matching.

    def crossing(self, order: Order) -> list[int]:
        """Prices of the other side that the order takes, best first."""
        other = self.sides[order.symbol][1 - order.side]
        prices = other.prices if order.side == BUY else other.prices[::-1]
        if order.kind in (MARKET, STOP):
            return list(prices)
        good = []
        for price in prices:
            if (price > order.price) if order.side == BUY else (price < order.price):
                break
            good.append(price)
        return good

    def allowed_prices(self, order: Order) -> list[int]:
        """Prices that the order may trade at: all it takes, unless controls forbid some."""
        return self.crossing(order)

    def new_order_reason(self, m: Message, order: Order) -> int:
        """What a control has against a new order."""
        return 0

    def check(self, order: Order, kind: int, price: int, stop: int, quantity: int, old: Order | None) -> int:
        """What a control has against an order of a quantity in place of an old one."""
        return 0

    def would_match(self, order: Order) -> bool:
        return bool(self.crossing(order))

    def can_fill(self, order: Order) -> bool:
        """Plays the match through on paper."""
        need = order.leaves
        queues = self.sides[order.symbol][1 - order.side].queues
        for price in self.allowed_prices(order):
            for maker in queues[price]:
                if need <= 0:
                    return True
                if order.stp and maker.account == order.account:
                    if order.stp != 2:
                        return False
                    continue
                need -= maker.leaves
        return need <= 0

    def place(self, order: Order) -> None:
        if order.post_only and self.would_match(order):
            why = 104
        elif order.tif == FOK and not self.can_fill(order):
            why = 102
        else:
            why = self.match(order)
            if not why and order.leaves == 0:
                return
        if not why:
            if order.kind in (MARKET, STOP):
                why = 101
            elif order.tif == IOC:
                why = 100
        if why:
            self.say(CANCELLED, order.symbol, order.order_id, order.account, reason=why, side=order.side,
                     price=order.price, quantity=order.leaves)  # fmt: skip
            return
        order.waiting = False
        self.register(order)
        self.sides[order.symbol][order.side].add(order)

    def match(self, order: Order) -> int:
        """Trades what can be traded; the reason if the order ends by it, else 0."""
        other = self.sides[order.symbol][1 - order.side]
        for price in self.allowed_prices(order):
            while order.leaves and price in other.queues:
                maker = other.queues[price][0]
                if order.stp and maker.account == order.account:
                    if order.stp == 1:
                        return 103
                    if order.stp == 4:
                        self.decrement(order, maker)
                        if order.leaves == 0:
                            return 103
                        continue
                    self.close(maker, CANCELLED, 103)
                    if order.stp == 3:
                        return 103
                    continue
                self.trade(order, maker)
            if not order.leaves:
                break
        return 0

    def trade(self, taker: Order, maker: Order) -> None:
        quantity = min(taker.leaves, maker.leaves)
        taker.leaves -= quantity
        maker.leaves -= quantity
        self.traded.append(maker.price)
        self.last[maker.symbol] = maker.price
        if maker.leaves == 0:
            self.unregister(maker)
        self.say(TRADE, taker.symbol, taker.order_id, taker.account, side=taker.side, price=maker.price,
                 quantity=quantity, leaves=taker.leaves, maker=maker, maker_leaves=maker.leaves,
                 taker_id=taker.order_id)  # fmt: skip

    def decrement(self, taker: Order, maker: Order) -> None:
        quantity = min(taker.leaves, maker.leaves)
        taker.leaves -= quantity
        maker.leaves -= quantity
        for one in (maker, taker):
            self.say(DECREMENTED, one.symbol, one.order_id, one.account, reason=103, side=one.side,
                     price=maker.price, quantity=quantity, leaves=one.leaves, maker=maker,
                     maker_leaves=maker.leaves, taker_id=taker.order_id)  # fmt: skip
        if maker.leaves == 0:
            self.close(maker, CANCELLED, 103)

    def run_stops(self, symbol: int) -> None:
        while True:
            ready = [
                o for o in self.orders.values() if o.symbol == symbol and o.waiting and self.is_reached(o)
            ]
            if not ready:
                return
            order = min(ready, key=lambda o: o.age)
            self.unregister(order)
            self.say(TRIGGERED, symbol, order.order_id, order.account, side=order.side,
            price=order.stop_price,
                     quantity=order.leaves, leaves=order.leaves)  # fmt: skip
            self.place(order)

    def is_reached(self, order: Order) -> bool:
        if order.side == BUY:
            return any(price >= order.stop_price for price in self.traded)
        return any(price <= order.stop_price for price in self.traded)

    # The other actions.

    def owned(self, m: Message) -> tuple[Order | None, int]:
        if m.symbol >= self.symbols:
            return None, 7
        if m.action == REPLACE and m.stp > 4:
            return None, 6
        order = self.orders.get((m.symbol, m.order_id))
        if order is None:
            return None, 21
        if order.account != m.account:
            return None, 22
        return order, 0

    def cancel(self, m: Message) -> None:
        order, reason = self.owned(m)
        if order is None:
            self.say(CANCEL_REJECTED, m.symbol, m.order_id, m.account, reason=reason)
        else:
            self.close(order, CANCELLED, 0)

    def replace(self, m: Message) -> None:
        order, reason = self.owned(m)
        stop_price, stays = 0, False
        if order is not None:
            stop_price = (m.stop_price or order.stop_price) if order.waiting else order.stop_price
            stays = m.price == order.price and stop_price == order.stop_price and m.quantity <= order.leaves
            if m.quantity == 0:
                reason = 8
            elif m.quantity > BIGGEST or self.open_quantity(m.symbol) - order.leaves + m.quantity > BIGGEST:
                reason = 9
            elif not stays:
                kind = order.kind if order.waiting else LIMIT
                reason = self.check(order, kind, m.price, stop_price, m.quantity, order)
        if order is None or reason:
            self.say(REPLACE_REJECTED, m.symbol, m.order_id, m.account, reason=reason, price=m.price,
                     quantity=m.quantity)  # fmt: skip
            return
        self.say(REPLACED, m.symbol, m.order_id, m.account, side=order.side, price=m.price,
        quantity=m.quantity,
                 leaves=m.quantity)  # fmt: skip
        order.stp = m.stp
        if stays:
            order.leaves = m.quantity
            return
        self.unregister(order)
        order.price, order.stop_price, order.leaves = m.price, stop_price, m.quantity
        if order.waiting:
            self.wait(order)
        else:
            order.post_only = False
            self.place(order)

    def mass_cancel(self, m: Message) -> None:
        everywhere = bool(m.flags & 2)
        if not everywhere and m.symbol >= self.symbols:
            self.say(CANCEL_REJECTED, m.symbol, m.order_id, m.account, reason=7)
            return
        mine = [
            o for o in self.orders.values() if o.account == m.account and (everywhere or o.symbol == m.symbol)
        ]
        for order in sorted(mine, key=lambda o: o.age):
            self.close(order, CANCELLED, 105)

    def control(self, m: Message) -> None:
        self.say(REJECTED, m.symbol, m.order_id, m.account, reason=59)
