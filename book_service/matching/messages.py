"""What one message does: checks, the action asked for, and the stops its trades trigger."""

from __future__ import annotations

from book_service.matching.cancels import (
    cancel_many,
)
from book_service.matching.checks import (
    arrive,
    check,
    check_duplicate,
    tick,
)
from book_service.matching.codes import (
    ACCEPTED,
    BAD_ACTION,
    BAD_COMMAND,
    BAD_FLAGS,
    BAD_KIND,
    BAD_SIDE,
    BAD_STP,
    BAD_TIF,
    BY_MASS,
    CANCEL,
    CANCEL_REJECTED,
    CANCELLED,
    CONTROL,
    CONTROLS_ARE_OFF,
    DUPLICATE_ID,
    EXPIRED,
    EXPIRY_PAST,
    GTD,
    LIMIT,
    MARKET,
    MASS_CANCEL,
    MISSING_STOP,
    NEW,
    NOT_OWNER,
    POST_ONLY,
    QUANTITY_OVERFLOW,
    REJECTED,
    REPLACE,
    REPLACE_REJECTED,
    REPLACED,
    STOP,
    STOP_LIMIT,
    UNKNOWN_ORDER,
    UNKNOWN_SYMBOL,
    WOULD_MATCH,
    ZERO_QUANTITY,
)
from book_service.matching.commands import (
    apply_command,
    watch_breaker,
)
from book_service.matching.crossing import (
    LOW32,
    cancel,
    report,
)
from book_service.matching.layout import (
    BIT_WAITING,
    CONTROLS,
    D_EXPIRE,
    D_STOP,
    EXPIRIES,
    FLAG_ALL_SYMBOLS,
    FLAG_POST_ONLY,
    FLAGS_SHIFT,
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
    O_LEAVES,
    O_LEVEL,
    O_PRICE,
    O_RECORD,
    P_EXPIRY,
    R_MAKER_ACCOUNT_CODES,
    SEQUENCE,
    STP_SHIFT,
    TIF_SHIFT,
    TIME,
    TRADED,
    V_TOTAL,
    Y_OPEN,
)
from book_service.matching.levels import (
    level_at,
    order_at,
    reaches,
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
    dates_at,
    find_order,
    remove_order,
    shrink,
    symbol_at,
    value_price,
)
from book_service.matching.placing import (
    limit_rank,
    place,
    run_stops,
    wait,
)


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
        elif post_only and kind < STOP and reaches(s, symbol * 4 + (side ^ 1), limit_rank(side, kind, price)):
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
        wait(s, symbol, order_id, account, record, price, wire64(message + M_STOP), quantity, expire, bits)
        return
    place(s, symbol, order_id, account, record, price, quantity, expire, bits)


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
        wait(s, symbol, order_id, account, record, price, stop, quantity, expire, bits)
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
        if not apply_command(s, at, message, symbol, account, codes):
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
        run_stops(s, symbol)
        if controlled:
            watch_breaker(s)
        store64(s + TRADED, 0)
    store64(s + SEQUENCE, load64(s + SEQUENCE) + 1)
