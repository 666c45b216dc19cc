"""Placing an accepted order: match it, rest or cancel what is left; and stops, which wait for a price."""

from __future__ import annotations

from book_service.matching.accounts import (
    account_of,
    count_execution,
    limits_at,
)
from book_service.matching.cancels import (
    pop_oldest,
    push_oldest,
)
from book_service.matching.checks import (
    band_rank,
    collar_rank,
    pause,
)
from book_service.matching.codes import (
    BY_CONTROL,
    BY_FOK,
    BY_HALT,
    BY_IOC,
    BY_MARKET,
    BY_POST_ONLY,
    BY_SELF_TRADE,
    CANCELLED,
    FOK,
    IOC,
    LIMIT,
    MARKET,
    STOP,
    TRIGGERED_REPORT,
)
from book_service.matching.crossing import (
    cross,
    fills_wholly,
    report,
)
from book_service.matching.layout import (
    A_FLAGS,
    B_BEST,
    BIT_WAITING,
    C_HALTED,
    C_RESTRICTED,
    D_EXPIRE,
    D_STOP,
    FLAG_POST_ONLY,
    FLAGS_SHIFT,
    IS_THROTTLED,
    KIND_SHIFT,
    LARGEST,
    NONE,
    O_ACCOUNT,
    O_BITS,
    O_ID,
    O_LEAVES,
    O_PRICE,
    O_RECORD,
    P_TRIGGERED,
    STP_SHIFT,
    TIF_SHIFT,
    TRADE_HIGH,
    TRADE_LOW,
    TRADED,
    TRIGGERED,
    V_HEAD,
    Y_HAS_LAST,
    Y_LAST,
)
from book_service.matching.levels import (
    best_level,
    book_at,
    level_at,
    order_at,
    rank_of,
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
    store64,
)
from book_service.matching.orders import (
    add_order,
    dates_at,
    forget_order,
    symbol_at,
)


@inlined
def limit_rank(side: int, kind: int, price: int) -> int:
    """The worst rank of the other side that an order takes: a market or stop order takes any."""
    if kind in (MARKET, STOP):
        return LARGEST
    return price ^ -side


@inlined
def _control_rank(s: int, symbol: int, side: int, kind: int) -> int:
    """The last rank that the controls let an order trade at."""
    at = limits_at(s, symbol)
    rank = band_rank(at, side)
    return rank if kind == LIMIT else min(rank, collar_rank(at, side))


@inlined
def _stopped(s: int, symbol: int, record: int) -> int:
    """Why a triggered stop may not trade: what a new order would have been refused for."""
    at = limits_at(s, symbol)
    if load64(at + C_HALTED):
        return BY_HALT
    if load64(at + C_RESTRICTED) or load64(account_of(s, record) + A_FLAGS) & IS_THROTTLED:
        return BY_CONTROL
    return 0


@compiled
def _refused(s: int, symbol: int, other: int, side: int) -> int:
    """An order reached what the controls let it trade at: outside the band, the symbol pauses."""
    at = limits_at(s, symbol)
    best = load64(book_at(s, other) + B_BEST)
    if best > band_rank(at, side):
        pause(s, at, rank_of(other, best))
        return BY_HALT
    return BY_CONTROL


@compiled
def place(
    s: int,
    symbol: int,
    order_id: int,
    account: int,
    record: int,
    price: int,
    leaves: int,
    expire: int,
    bits: int,
) -> None:
    """Matches an order that has been accepted, and rests or cancels what is left of it."""
    side = bits & 1
    kind = (bits >> KIND_SHIFT) & 3
    tif = (bits >> TIF_SHIFT) & 7
    stp = (bits >> STP_SHIFT) & 7
    limit = limit_rank(side, kind, price)
    other = symbol * 4 + (side ^ 1)
    bound = limit
    why = 0
    if record != NONE:
        bound = min(limit, _control_rank(s, symbol, side, kind))
        why = _stopped(s, symbol, record)
    if why == 0 and reaches(s, other, limit):
        if (bits >> FLAGS_SHIFT) & FLAG_POST_ONLY:
            why = BY_POST_ONLY
        elif tif == FOK and not fills_wholly(s, other, bound, account, leaves, stp):
            why = BY_FOK
        else:
            leaves, ended = cross(s, symbol, other, bound, order_id, account, record, side, leaves, stp)
            if ended & 2 and record != NONE:
                count_execution(s, record)
            if ended & 1:
                why = BY_SELF_TRADE
            elif leaves == 0:
                return
            elif record != NONE and reaches(s, other, limit):
                why = _refused(s, symbol, other, side)
    if why == 0:
        if tif == FOK:
            why = BY_FOK
        elif kind in (MARKET, STOP):
            why = BY_MARKET
        elif tif == IOC:
            why = BY_IOC
    if why:
        report(s, CANCELLED, why, symbol, order_id, account, side, price, leaves, 0)
        return
    add_order(s, symbol, order_id, account, record, price, 0, leaves, expire, bits & ~BIT_WAITING)


@compiled
def wait(
    s: int, symbol: int, order_id: int, account: int, record: int, price: int, stop: int, leaves: int,
    expire: int, bits: int,
) -> None:  # fmt: skip
    """A stop order waits for its price; the last trade price counts as a trade now."""
    add_order(s, symbol, order_id, account, record, price, stop, leaves, expire, bits | BIT_WAITING)
    at = symbol_at(s, symbol)
    if load64(at + Y_HAS_LAST):
        last = load64(at + Y_LAST)
        store64(s + TRADED, 1)
        store64(s + TRADE_LOW, last)
        store64(s + TRADE_HIGH, last)


@compiled
def _activate(s: int, symbol: int, slot: int) -> None:
    """A triggered stop stops waiting and becomes an incoming order."""
    order = order_at(s, slot)
    bits = load32(order + O_BITS)
    order_id = load64(order + O_ID)
    account = load_u32(order + O_ACCOUNT)
    record = load32(order + O_RECORD)
    price = load64(order + O_PRICE)
    leaves = load64(order + O_LEAVES)
    dates = dates_at(s, slot)
    expire = load64(dates + D_EXPIRE)
    report(
        s, TRIGGERED_REPORT, 0, symbol, order_id, account, bits & 1, load64(dates + D_STOP), leaves, leaves
    )
    forget_order(s, slot)
    place(s, symbol, order_id, account, record, price, leaves, expire, bits)


@compiled
def run_stops(s: int, symbol: int) -> None:
    """Triggers the stops that this message's trades reach, oldest first, and so on from their trades."""
    heap = fixed64(s + P_TRIGGERED)
    while True:
        count = load64(s + TRIGGERED)
        for side in range(2):
            book = symbol * 4 + 2 + side
            limit = rank_of(book, load64(s + TRADE_LOW) if side else load64(s + TRADE_HIGH))
            while reaches(s, book, limit):
                slot = load32(level_at(s, best_level(s, book)) + V_HEAD)
                unlink(s, book, slot)
                push_oldest(s, heap, count, slot)
                count += 1
        if count == 0:
            return
        slot = pop_oldest(s, heap, count)
        store64(s + TRIGGERED, count - 1)
        _activate(s, symbol, slot)
