"""What one message does: checks, the action asked for, and the stops its trades trigger."""

from __future__ import annotations

from book_service.matching.accounts import account_of, count_execution, limits_at
from book_service.matching.cancels import cancel_many, pop_oldest, push_oldest
from book_service.matching.checks import arrive, band_rank, check, check_duplicate, collar_rank, pause, tick
from book_service.matching.commands import apply_command, watch_breaker
from book_service.matching.crossing import LOW32, cancel, cross, fills_wholly, report
from book_service.matching.layout import (
    A_FLAGS,
    B_BEST,
    BIT_WAITING,
    C_HALTED,
    C_RESTRICTED,
    CONTROLS,
    D_EXPIRE,
    D_STOP,
    EXPIRIES,
    FLAG_ALL_SYMBOLS,
    FLAG_POST_ONLY,
    FLAGS_SHIFT,
    IS_THROTTLED,
    KIND_SHIFT,
    LARGEST,
    M_ACCOUNT,
    M_ACTION,
    M_CODES,
    M_EXPIRE,
    M_ID,
    M_PRICE,
    M_QUANTITY,
    M_STOP,
    M_STP,
    M_SYMBOL,
    M_TIME,
    N_SYMBOLS,
    NEXT_EXPIRY,
    NONE,
    O_ACCOUNT,
    O_BITS,
    O_ID,
    O_LEAVES,
    O_LEVEL,
    O_PRICE,
    O_RECORD,
    P_EXPIRY,
    P_TRIGGERED,
    R_MAKER_ACCOUNT_CODES,
    SEQUENCE,
    STP_SHIFT,
    TIF_SHIFT,
    TIME,
    TRADE_HIGH,
    TRADE_LOW,
    TRADED,
    TRIGGERED,
    V_HEAD,
    V_TOTAL,
    Y_HAS_LAST,
    Y_LAST,
    Y_OPEN,
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
    spliced,
    store32,
    store64,
    wire32,
    wire64,
)
from book_service.matching.orders import (
    GTD,
    add_order,
    dates_at,
    find_order,
    forget_order,
    remove_order,
    shrink,
    symbol_at,
    value_price,
)

ACCEPTED, CANCELLED, REPLACED, CANCEL_REJECTED, REPLACE_REJECTED, REJECTED = 0, 2, 3, 4, 5, 6
TRIGGERED_REPORT, EXPIRED = 7, 8
NEW, CANCEL, REPLACE, MASS_CANCEL, CONTROL = 0, 1, 2, 3, 4
LIMIT, MARKET, STOP, STOP_LIMIT = 0, 1, 2, 3
DAY, IOC, FOK, POST_ONLY = 0, 1, 2, 3
BAD_ACTION, BAD_SIDE, BAD_KIND, BAD_TIF, BAD_FLAGS, BAD_STP = 1, 2, 3, 4, 5, 6
UNKNOWN_SYMBOL, ZERO_QUANTITY, QUANTITY_OVERFLOW, MISSING_STOP, EXPIRY_PAST = 7, 8, 9, 10, 11
DUPLICATE_ID, UNKNOWN_ORDER, NOT_OWNER, WOULD_MATCH = 20, 21, 22, 23
CONTROLS_ARE_OFF, BAD_COMMAND = 59, 58
BY_IOC, BY_MARKET, BY_FOK, BY_SELF_TRADE, BY_POST_ONLY, BY_MASS = 100, 101, 102, 103, 104, 105
BY_HALT, BY_CONTROL = 108, 109


@inlined
def _limit_rank(side: int, kind: int, price: int) -> int:
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
    limit = _limit_rank(side, kind, price)
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


@inlined
def _fault(s: int, message: int, codes: int) -> int:
    """The first thing wrong with the row of a new order, or 0."""
    side = (codes >> 8) & 0xFF
    kind = (codes >> 16) & 0xFF
    tif = (codes >> 24) & 0xFF
    flags = (codes >> 32) & 0xFF
    stp = (codes >> 40) & 0xFF
    quantity = wire64(message + M_QUANTITY)
    if side > 1:
        return BAD_SIDE
    if kind > STOP_LIMIT:
        return BAD_KIND
    if tif > GTD:
        return BAD_TIF
    if flags > FLAG_POST_ONLY:
        return BAD_FLAGS
    if stp > 4:
        return BAD_STP
    if quantity == 0:
        return ZERO_QUANTITY
    if quantity < 0:
        return QUANTITY_OVERFLOW
    if kind >= STOP and wire64(message + M_STOP) == 0:
        return MISSING_STOP
    if tif == GTD and kind != MARKET and wire64(message + M_EXPIRE) <= load64(s + TIME):
        return EXPIRY_PAST
    return 0


@inlined
def _new_order(s: int, message: int, symbol: int, account: int, record: int, codes: int) -> None:
    order_id = wire64(message + M_ID)
    price = wire64(message + M_PRICE)
    quantity = wire64(message + M_QUANTITY)
    side = (codes >> 8) & 0xFF
    kind = (codes >> 16) & 0xFF
    tif = (codes >> 24) & 0xFF
    reason = UNKNOWN_SYMBOL if symbol >= fixed64(s + N_SYMBOLS) else _fault(s, message, codes)
    post_only = ((codes >> 32) & FLAG_POST_ONLY) | (1 if tif == POST_ONLY else 0)
    if reason == 0:
        if find_order(s, symbol, order_id) != NONE:
            reason = DUPLICATE_ID
        elif load64(symbol_at(s, symbol) + Y_OPEN) > LARGEST - quantity:
            reason = QUANTITY_OVERFLOW
        elif (
            post_only and kind < STOP and reaches(s, symbol * 4 + (side ^ 1), _limit_rank(side, kind, price))
        ):
            reason = WOULD_MATCH
        elif fixed64(s + CONTROLS):
            stop = wire64(message + M_STOP)
            reason = check(s, record, symbol, side, kind, price, stop, quantity, 0, 0)
            if reason == 0:
                reason = check_duplicate(s, record, price, stop, quantity, (codes >> 8) & LOW32)
    if reason:
        report(s, REJECTED, reason, symbol, order_id, account, side, price, quantity, 0)
        return
    report(s, ACCEPTED, 0, symbol, order_id, account, side, price, quantity, quantity)
    stp = (codes >> 40) & 0xFF
    expire = wire64(message + M_EXPIRE)
    bits = side | (kind << KIND_SHIFT) | (tif << TIF_SHIFT) | (post_only << FLAGS_SHIFT) | (stp << STP_SHIFT)
    if kind >= STOP:
        _wait(s, symbol, order_id, account, record, price, wire64(message + M_STOP), quantity, expire, bits)
        return
    place(s, symbol, order_id, account, record, price, quantity, expire, bits)


@compiled
def _wait(
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


@inlined
def _cancel_order(s: int, message: int, symbol: int, account: int) -> None:
    order_id = wire64(message + M_ID)
    reason = UNKNOWN_SYMBOL
    if symbol < fixed64(s + N_SYMBOLS):
        slot = find_order(s, symbol, order_id)
        reason = UNKNOWN_ORDER
        if slot != NONE:
            if load_u32(order_at(s, slot) + O_ACCOUNT) == account:
                cancel(s, slot, CANCELLED, 0)
                return
            reason = NOT_OWNER
    report(s, CANCEL_REJECTED, reason, symbol, order_id, account, 0, 0, 0, 0)


@compiled
def _replace_order(s: int, message: int, symbol: int, account: int, codes: int) -> None:
    order_id = wire64(message + M_ID)
    price = wire64(message + M_PRICE)
    quantity = wire64(message + M_QUANTITY)
    stp = (codes >> 40) & 0xFF
    slot = NONE
    reason = 0
    order, dates, bits, leaves, stop, expire, old_price, waiting, moved = 0, 0, 0, 0, 0, 0, 0, 0, False
    record = NONE
    if symbol >= fixed64(s + N_SYMBOLS):
        reason = UNKNOWN_SYMBOL
    elif stp > 4:
        reason = BAD_STP
    else:
        slot = find_order(s, symbol, order_id)
        if slot == NONE:
            reason = UNKNOWN_ORDER
        elif load_u32(order_at(s, slot) + O_ACCOUNT) != account:
            reason = NOT_OWNER
        elif quantity == 0:
            reason = ZERO_QUANTITY
        elif quantity < 0 or (
            load64(symbol_at(s, symbol) + Y_OPEN) - load64(order_at(s, slot) + O_LEAVES) > LARGEST - quantity
        ):
            reason = QUANTITY_OVERFLOW
    if reason == 0:
        order = order_at(s, slot)
        bits = load32(order + O_BITS)
        leaves = load64(order + O_LEAVES)
        dates = dates_at(s, slot)
        stop = load64(dates + D_STOP)
        expire = load64(dates + D_EXPIRE)
        record = load32(order + O_RECORD)
        moved = price != load64(order + O_PRICE)
        waiting = bits & BIT_WAITING
        old_price = value_price(s, slot)
        if waiting and wire64(message + M_STOP) != 0:
            moved = moved or wire64(message + M_STOP) != stop
            stop = wire64(message + M_STOP)
        if record != NONE and (moved or quantity > leaves):
            kind = (bits >> KIND_SHIFT) & 3 if waiting else LIMIT
            reason = check(s, record, symbol, bits & 1, kind, price, stop, quantity, leaves, old_price)
    if reason:
        report(s, REPLACE_REJECTED, reason, symbol, order_id, account, 0, price, quantity, 0)
        return
    report(s, REPLACED, 0, symbol, order_id, account, bits & 1, price, quantity, quantity)
    if not moved and quantity <= leaves:
        total = level_at(s, load32(order + O_LEVEL)) + V_TOTAL
        store64(total, load64(total) - (leaves - quantity))
        shrink(s, slot, symbol, leaves - quantity)
        store64(order + O_LEAVES, quantity)
        store32(order + O_BITS, (bits & ~(7 << STP_SHIFT)) | (stp << STP_SHIFT))
        return
    remove_order(s, slot)
    bits = (bits & ~(7 << STP_SHIFT)) | (stp << STP_SHIFT)
    if waiting:
        _wait(s, symbol, order_id, account, record, price, stop, quantity, expire, bits)
        return
    place(
        s, symbol, order_id, account, record, price, quantity, expire, bits & ~(FLAG_POST_ONLY << FLAGS_SHIFT)
    )


@inlined
def _mass_cancel(s: int, message: int, symbol: int, account: int, codes: int) -> None:
    if (codes >> 32) & FLAG_ALL_SYMBOLS:
        cancel_many(s, 0, fixed64(s + N_SYMBOLS), account, 0, BY_MASS)
    elif symbol < fixed64(s + N_SYMBOLS):
        cancel_many(s, symbol, symbol + 1, account, 0, BY_MASS)
    else:
        report(s, CANCEL_REJECTED, UNKNOWN_SYMBOL, symbol, wire64(message + M_ID), account, 0, 0, 0, 0)


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
def _run_stops(s: int, symbol: int) -> None:
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


@compiled
def _run_expiries(s: int, now: int) -> None:
    while load64(s + EXPIRIES) > 0 and load64(s + NEXT_EXPIRY) <= now:
        cancel(s, load32(fixed64(s + P_EXPIRY)), EXPIRED, 0)


@compiled
def _command(s: int, message: int, symbol: int, account: int, codes: int, action: int) -> None:
    """A control command: accepted before what it causes, or rejected."""
    price = wire64(message + M_PRICE)
    kind = ACCEPTED if action == CONTROL and fixed64(s + CONTROLS) else REJECTED
    reason = 0
    if kind == REJECTED:
        reason = CONTROLS_ARE_OFF if action == CONTROL else BAD_ACTION
    at = report(
        s, kind, reason, symbol, wire64(message + M_ID), account, 0, price if kind == ACCEPTED else 0, 0, 0
    )
    if kind == ACCEPTED:
        if not apply_command(s, message, symbol, account, codes):
            store64(at + R_MAKER_ACCOUNT_CODES, (BAD_COMMAND << 32) | (REJECTED << 48))
        watch_breaker(s)


@spliced
def step(s: int, message: int) -> None:
    """Applies one message."""
    action = wire32(message + M_ACTION) & 0xFF
    symbol = wire32(message + M_SYMBOL)
    account = wire32(message + M_ACCOUNT)
    # From here on the codes are one word: action, side, kind, time in force, flags, self-trade prevention.
    codes = action | (wire32(message + M_CODES) << 8) | ((wire32(message + M_STP - 3) >> 24) << 40)
    now = wire64(message + M_TIME)
    store64(s + TIME, now)
    if load64(s + NEXT_EXPIRY) <= now:
        _run_expiries(s, now)
    controlled = fixed64(s + CONTROLS) != 0
    record = NONE
    if controlled:
        tick(s, now)
        if action <= MASS_CANCEL:
            record = arrive(s, symbol, account)
    if action == NEW:
        _new_order(s, message, symbol, account, record, codes)
    elif action == CANCEL:
        _cancel_order(s, message, symbol, account)
    elif action == REPLACE:
        _replace_order(s, message, symbol, account, codes)
    elif action == MASS_CANCEL:
        _mass_cancel(s, message, symbol, account, codes)
    else:
        _command(s, message, symbol, account, codes, action)
    if load64(s + TRADED):
        _run_stops(s, symbol)
        if controlled:
            watch_breaker(s)
        store64(s + TRADED, 0)
    store64(s + SEQUENCE, load64(s + SEQUENCE) + 1)
