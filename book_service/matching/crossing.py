"""Reports, and an incoming order against the other side of its book."""

from __future__ import annotations

from book_service.matching.accounts import (
    book_fill,
    move_mark,
    note_in_mean,
)
from book_service.matching.codes import (
    BY_SELF_TRADE,
    CANCELLED,
    DECREMENTED,
    STP_BOTH,
    STP_DECREMENT,
    STP_NEWEST,
    STP_OLDEST,
    TRADE,
)
from book_service.matching.layout import (
    B_FIRST,
    BLOCK_SHIFT,
    BLOCK_WIDTH,
    K_KEY,
    K_MASK,
    K_NEXT,
    NONE,
    O_ACCOUNT,
    O_BITS,
    O_ID,
    O_LEAVES,
    O_NEXT,
    O_PRICE,
    O_RECORD,
    O_SYMBOL,
    P_REPORTS,
    R_ID,
    R_LEAVES,
    R_MAKER,
    R_MAKER_ACCOUNT_CODES,
    R_MAKER_LEAVES,
    R_PRICE,
    R_QUANTITY,
    R_SEQUENCE,
    R_SYMBOL_ACCOUNT,
    R_TAKER,
    R_TIME,
    REPORT_SIZE,
    REPORTS,
    SEQUENCE,
    TIME,
    TRADE_HIGH,
    TRADE_LOW,
    TRADED,
    V_HEAD,
    V_TOTAL,
    Y_HAS_LAST,
    Y_LAST,
)
from book_service.matching.levels import (
    best_level,
    block_at,
    book_at,
    level_at,
    order_at,
    reaches,
    unlink,
)
from book_service.matching.memory import (
    compiled,
    fixed64,
    inlined,
    load32,
    load64,
    load_u32,
    lowest_bit,
    store64,
)
from book_service.matching.orders import (
    forget_order,
    remove_order,
    shrink,
    symbol_at,
)

LOW32 = 0xFFFFFFFF


@inlined
def report(
    s: int, kind: int, reason: int, symbol: int, order_id: int, account: int, side: int, price: int,
    quantity: int, leaves: int,
) -> int:  # fmt: skip
    """Writes a report without a counterparty; gives its address."""
    count = load64(s + REPORTS)
    store64(s + REPORTS, count + 1)
    at = fixed64(s + P_REPORTS) + count * REPORT_SIZE
    store64(at + R_ID, order_id)
    store64(at + R_MAKER, 0)
    store64(at + R_TAKER, 0)
    store64(at + R_PRICE, price)
    store64(at + R_QUANTITY, quantity)
    store64(at + R_LEAVES, leaves)
    store64(at + R_MAKER_LEAVES, 0)
    store64(at + R_SEQUENCE, load64(s + SEQUENCE))
    store64(at + R_TIME, load64(s + TIME))
    store64(at + R_SYMBOL_ACCOUNT, symbol | (account << 32))
    store64(at + R_MAKER_ACCOUNT_CODES, (reason << 32) | (kind << 48) | (side << 56))
    return at


@compiled
def cancel(s: int, slot: int, kind: int, reason: int) -> None:
    """Reports an open order as cancelled or expired, and removes it."""
    order = order_at(s, slot)
    side = load32(order + O_BITS) & 1
    report(
        s, kind, reason, load_u32(order + O_SYMBOL), load64(order + O_ID), load_u32(order + O_ACCOUNT), side,
        load64(order + O_PRICE), load64(order + O_LEAVES), 0,
    )  # fmt: skip
    remove_order(s, slot)


@inlined
def _reduce(s: int, symbol: int, book: int, level: int, slot: int, quantity: int) -> None:
    """Takes quantity off the first order of the best level; an order with nothing left is removed."""
    order = order_at(s, slot)
    left = load64(order + O_LEAVES)
    if quantity == left:
        unlink(s, book, slot)
        forget_order(s, slot)
        return
    store64(order + O_LEAVES, left - quantity)
    total = level_at(s, level) + V_TOTAL
    store64(total, load64(total) - quantity)
    shrink(s, slot, symbol, quantity)


@inlined
def note_trade(s: int, symbol: int, price: int) -> None:
    """Remembers a trade price: the symbol's last, and the range of this message, which triggers stops."""
    if load64(s + TRADED) == 0:
        store64(s + TRADED, 1)
        store64(s + TRADE_LOW, price)
        store64(s + TRADE_HIGH, price)
    elif price < load64(s + TRADE_LOW):
        store64(s + TRADE_LOW, price)
    elif price > load64(s + TRADE_HIGH):
        store64(s + TRADE_HIGH, price)
    at = symbol_at(s, symbol)
    store64(at + Y_LAST, price)
    store64(at + Y_HAS_LAST, 1)


@inlined
def _trade(
    s: int, symbol: int, book: int, level: int, slot: int, order_id: int, account: int, record: int,
    side: int,
    leaves: int,
) -> int:  # fmt: skip
    """Trades with one resting order; gives the taker's open quantity after it."""
    maker = order_at(s, slot)
    offered = load64(maker + O_LEAVES)
    quantity = min(leaves, offered)
    price = load64(maker + O_PRICE)
    at = report(s, TRADE, 0, symbol, order_id, account, side, price, quantity, leaves - quantity)
    store64(at + R_MAKER, load64(maker + O_ID))
    store64(at + R_TAKER, order_id)
    store64(at + R_MAKER_LEAVES, offered - quantity)
    codes = load64(at + R_MAKER_ACCOUNT_CODES)
    store64(at + R_MAKER_ACCOUNT_CODES, codes | load_u32(maker + O_ACCOUNT))
    note_trade(s, symbol, price)
    if record != NONE:
        move_mark(s, symbol, price)
        note_in_mean(s, symbol, price)
        book_fill(s, record, symbol, price, -quantity if side else quantity)
        book_fill(s, load32(maker + O_RECORD), symbol, price, quantity if side else -quantity)
    _reduce(s, symbol, book, level, slot, quantity)
    return leaves - quantity


@compiled
def _decrement(
    s: int, symbol: int, book: int, level: int, slot: int, order_id: int, account: int, side: int, leaves: int
) -> int:
    """Takes the smaller open quantity off both orders of one account without a trade."""
    maker = order_at(s, slot)
    quantity = min(leaves, load64(maker + O_LEAVES))
    maker_id = load64(maker + O_ID)
    price = load64(maker + O_PRICE)
    maker_leaves = load64(maker + O_LEAVES) - quantity
    _reduce(s, symbol, book, level, slot, quantity)
    for own in range(2):
        subject = order_id if own else maker_id
        at = report(
            s, DECREMENTED, BY_SELF_TRADE, symbol, subject, account, side if own else side ^ 1, price,
            quantity,
            leaves - quantity if own else maker_leaves,
        )  # fmt: skip
        store64(at + R_MAKER, maker_id)
        store64(at + R_TAKER, order_id)
        store64(at + R_MAKER_LEAVES, maker_leaves)
        codes = load64(at + R_MAKER_ACCOUNT_CODES)
        store64(at + R_MAKER_ACCOUNT_CODES, codes | account)
    if maker_leaves == 0:
        report(s, CANCELLED, BY_SELF_TRADE, symbol, maker_id, account, side ^ 1, price, 0, 0)
    return leaves - quantity


@inlined
def cross(
    s: int, symbol: int, book: int, limit: int, order_id: int, account: int, record: int, side: int,
    leaves: int,
    stp: int,
) -> tuple[int, int]:  # fmt: skip
    """Matches an incoming order up to a limit rank: best price first, oldest first, at the resting price.

    `book` is the other side's. Gives the open quantity after it, and 1 if self-trade prevention ended the
    order plus 2 if there was a trade.
    """
    traded = 0
    while leaves > 0 and reaches(s, book, limit):
        level = best_level(s, book)
        slot = load32(level_at(s, level) + V_HEAD)
        if stp != 0 and load_u32(order_at(s, slot) + O_ACCOUNT) == account:
            if stp == STP_NEWEST:
                return leaves, traded + 1
            if stp == STP_DECREMENT:
                leaves = _decrement(s, symbol, book, level, slot, order_id, account, side, leaves)
                if leaves == 0:
                    return 0, traded + 1
                continue
            cancel(s, slot, CANCELLED, BY_SELF_TRADE)
            if stp == STP_BOTH:
                return leaves, traded + 1
            continue
        leaves = _trade(s, symbol, book, level, slot, order_id, account, record, side, leaves)
        traded = 2
    return leaves, traded


@compiled
def fills_wholly(s: int, book: int, limit: int, account: int, leaves: int, stp: int) -> bool:
    """Whether an order would fill wholly now, given what self-trade prevention would do on the way."""
    block = load32(book_at(s, book) + B_FIRST)
    while block != NONE:
        here = block_at(s, block)
        mask = load64(here + K_MASK)
        first = load64(here + K_KEY) << BLOCK_SHIFT
        while mask != 0:
            bit = lowest_bit(mask)
            mask &= mask - 1
            if first + bit > limit:
                return False
            queue = level_at(s, block * BLOCK_WIDTH + bit)
            if stp == 0:
                leaves -= load64(queue + V_TOTAL)
            else:
                slot = load32(queue + V_HEAD)
                while slot != NONE and leaves > 0:
                    order = order_at(s, slot)
                    if load_u32(order + O_ACCOUNT) != account:
                        leaves -= load64(order + O_LEAVES)
                    elif stp != STP_OLDEST:
                        return False
                    slot = load32(order + O_NEXT)
            if leaves <= 0:
                return True
        block = load32(here + K_NEXT)
    return False
