"""The pre-trade checks of an order, and the clock that pauses and reopens symbols."""

from __future__ import annotations

from book_service.matching.accounts import (
    account_at,
    enter,
    limits_at,
    loses_more_than,
    record_at,
)
from book_service.matching.codes import (
    LIMIT,
    MARKET,
    STOP,
    STOP_LIMIT,
)
from book_service.matching.layout import (
    A_CAPITAL,
    A_CONCENTRATION,
    A_DUPLICATE,
    A_EXPOSURE,
    A_FLAGS,
    A_LOSS,
    A_MESSAGES,
    A_OPEN_VALUE,
    A_POSITION,
    A_RATE,
    A_SECOND,
    BAND_OFF,
    BAND_SET,
    BAND_STALE,
    BUCKET,
    BUCKET_NS,
    BUCKETS,
    C_BAND,
    C_BAND_HIGH,
    C_BAND_LOW,
    C_BAND_STATE,
    C_BUCKET,
    C_COUNTS,
    C_HALT_END,
    C_HALT_PRICE,
    C_HALTED,
    C_HAS_MARK,
    C_HAS_REFERENCE,
    C_MARK,
    C_MOVING,
    C_MULTIPLIER,
    C_PAUSE,
    C_POSITION,
    C_QUANTITY,
    C_REFERENCE,
    C_REOPENED,
    C_RESTRICTED,
    C_STATIC,
    C_SUMS,
    C_VALUE,
    CLOCK,
    E_ACCOUNT,
    E_LAST_CODES,
    E_LAST_PRICE,
    E_LAST_QUANTITY,
    E_LAST_STOP,
    E_LAST_TIME,
    E_OPEN_BUY,
    E_OPEN_SELL,
    E_POSITION,
    HIGHEST_PRICE,
    IS_KILLED,
    IS_REDUCING,
    IS_THROTTLED,
    KILLED,
    LARGEST,
    MILLION,
    N_SYMBOLS,
    NEVER,
    NONE,
    PAUSED,
    RUNNING,
    SECOND,
    SECOND_END,
    SECOND_NS,
    STRICT,
    TRIPPED,
)
from book_service.matching.memory import (
    compiled,
    fixed64,
    high_product,
    inlined,
    load64,
    store64,
)
from book_service.matching.reasons import RejectReason

# The controls' own reasons, in the order of RejectReason.
_REASONS = [int(reason) for reason in RejectReason if reason >= RejectReason.KILLED]
(R_KILLED, R_BLOCKED, R_HALTED, R_BREAKER, R_RESTRICTED, R_REDUCING, R_MISSING, R_STATIC, R_MOVING,
R_QUANTITY,
 R_VALUE, R_RATE, R_REPEATED, R_POSITION, R_CONCENTRATION, R_EXPOSURE, R_DUPLICATE, R_LOSS, _, _, R_RANGE,
 R_ACCOUNTS) = _REASONS  # fmt: skip


@inlined
def width(price: int, ppm: int) -> int:
    """So many parts per million of a price, in whole ticks, rounded down."""
    return abs(price) * ppm // MILLION


@compiled
def _new_second(s: int, clock: int) -> None:
    second = clock // SECOND_NS
    store64(s + SECOND, second)
    store64(s + SECOND_END, (second + 1) * SECOND_NS if second < LARGEST // SECOND_NS else NEVER)
    bucket = clock // BUCKET_NS
    store64(s + BUCKET, bucket)


@compiled
def _refresh_band(at: int) -> None:
    """Sets the band around the mean of the complete buckets, else around the best price there is."""
    ppm = load64(at + C_BAND)
    if ppm < 0:
        store64(at + C_BAND_STATE, BAND_OFF)
        return
    current = load64(at + C_BUCKET) % BUCKETS
    total = 0
    count = 0
    for i in range(BUCKETS):
        if i != current:
            total += load64(at + C_SUMS + i * 8)
            count += load64(at + C_COUNTS + i * 8)
    if count > 0:
        middle = total // count
        store64(at + C_REOPENED, 0)
    elif load64(at + C_REOPENED):
        middle = load64(at + C_HALT_PRICE)
    elif load64(at + C_HAS_MARK):
        middle = load64(at + C_MARK)
    else:
        store64(at + C_BAND_STATE, BAND_STALE)
        return
    store64(at + C_BAND_LOW, middle - width(middle, ppm))
    store64(at + C_BAND_HIGH, middle + width(middle, ppm))
    store64(at + C_BAND_STATE, BAND_SET)


@compiled
def _roll(s: int, at: int) -> None:
    """Brings a symbol to the clock: empties buckets now too old, ends a pause, refreshes the band."""
    old = load64(at + C_BUCKET)
    new = load64(s + BUCKET)
    for i in range(min(new - old, BUCKETS)):
        slot = ((old + 1 + i) % BUCKETS) * 8
        store64(at + C_SUMS + slot, 0)
        store64(at + C_COUNTS + slot, 0)
    store64(at + C_BUCKET, new)
    if load64(at + C_HALTED) == PAUSED and load64(s + CLOCK) >= load64(at + C_HALT_END):
        store64(at + C_HALTED, RUNNING)
        store64(at + C_REOPENED, 1)
        for i in range(BUCKETS):
            store64(at + C_SUMS + i * 8, 0)
            store64(at + C_COUNTS + i * 8, 0)
    _refresh_band(at)


@inlined
def tick(s: int, now: int) -> None:
    """Moves the clock of the controls, which never runs back."""
    if now > load64(s + CLOCK):
        store64(s + CLOCK, now)
        if now >= load64(s + SECOND_END):
            _new_second(s, now)


@inlined
def arrive(s: int, symbol: int, account: int) -> int:
    """Counts a message of an account and brings its symbol to the clock; gives the account's record there."""
    if symbol >= fixed64(s + N_SYMBOLS):
        return NONE
    record = enter(s, symbol, account)
    at = limits_at(s, symbol)
    if (
        load64(at + C_BUCKET) != load64(s + BUCKET)
        or load64(at + C_BAND_STATE) == BAND_STALE
        or load64(at + C_HALTED) == PAUSED
    ):
        _roll(s, at)
    if record != NONE:
        here = account_at(s, load64(record_at(s, record) + E_ACCOUNT))
        second = load64(s + SECOND)
        count = load64(here + A_MESSAGES) if load64(here + A_SECOND) == second else 0
        store64(here + A_SECOND, second)
        store64(here + A_MESSAGES, count + 1)
    return record


@inlined
def reducing(here: int, side: int, quantity: int, old: int) -> bool:
    """Whether an order, with all open ones of its side, only makes the position of a record smaller."""
    position = load64(here + E_POSITION)
    if side:
        return quantity <= position - (load64(here + E_OPEN_SELL) - old)
    return quantity <= -position - (load64(here + E_OPEN_BUY) - old)


@compiled
def _check_state(s: int, at: int, owner: int) -> int:
    """Switches that stop an order whatever it is."""
    if load64(s + KILLED):
        return R_KILLED
    if load64(s + TRIPPED):
        return R_BREAKER
    flags = load64(owner + A_FLAGS)
    if flags & IS_KILLED:
        return R_BLOCKED
    if flags & IS_THROTTLED:
        return R_REPEATED
    rate = load64(owner + A_RATE)
    if rate >= 0 and load64(owner + A_MESSAGES) > rate:
        return R_RATE
    if load64(at + C_RESTRICTED):
        return R_RESTRICTED
    if load64(at + C_HALTED):
        return R_HALTED
    return 0


@compiled
def _check_price(s: int, at: int, kind: int, price: int, stop: int) -> int:
    """Collars; an order without a limit price meets them while it matches, but needs a reference now."""
    if (kind in (LIMIT, STOP_LIMIT)) and (price > HIGHEST_PRICE or price < -HIGHEST_PRICE):
        return R_RANGE
    if kind >= STOP and (stop > HIGHEST_PRICE or stop < -HIGHEST_PRICE):
        return R_RANGE
    ppm = load64(at + C_STATIC)
    if ppm >= 0:
        reference = load64(at + C_REFERENCE)
        if load64(at + C_HAS_REFERENCE) == 0:
            return R_MISSING
        if (kind in (LIMIT, STOP_LIMIT)) and abs(price - reference) > width(reference, ppm):
            return R_STATIC
    ppm = load64(at + C_MOVING)
    if load64(at + C_HAS_MARK):
        mark = load64(at + C_MARK)
        if ppm >= 0 and kind == LIMIT and abs(price - mark) > width(mark, ppm):
            return R_MOVING
    elif load64(s + STRICT) and (ppm >= 0 or load64(at + C_BAND) >= 0 or kind == MARKET):
        return R_MISSING
    return 0


@compiled
def _check_position(
    s: int, at: int, here: int, owner: int, side: int, quantity: int, old: int, unit: int
) -> int:
    """Position, loss and concentration, with every open order of the side counted as if it were filled."""
    opened = load64(here + (E_OPEN_SELL if side else E_OPEN_BUY)) - old
    position = load64(here + E_POSITION)
    worst = opened - position if side else opened + position
    most = min(load64(at + C_POSITION), load64(owner + A_POSITION))
    if quantity > most - worst:
        return R_POSITION
    if reducing(here, side, quantity, old):
        return 0
    if load64(owner + A_FLAGS) & IS_REDUCING:
        return R_REDUCING
    loss = load64(owner + A_LOSS)
    if loss >= 0:
        state = loses_more_than(s, owner, loss)
        if state:
            return R_LOSS if state == 1 else R_MISSING
    ppm = load64(owner + A_CONCENTRATION)
    if ppm >= 0:
        capital = load64(owner + A_CAPITAL)
        if capital < 0:
            return R_MISSING
        if float(worst + quantity) * float(unit) > float(capital) * float(ppm) / 1e6:
            return R_CONCENTRATION
    return 0


@compiled
def check(
    s: int, record: int, symbol: int, side: int, kind: int, price: int, stop: int, quantity: int, old: int,
    old_price: int,
) -> int:  # fmt: skip
    """The first control that refuses an order of `quantity`, or 0.

    A replaced order gives back `old` at `old_price` before the new quantity counts; 0 for a new order.
    """
    if record == NONE:
        return R_ACCOUNTS
    here = record_at(s, record)
    owner = account_at(s, load64(here + E_ACCOUNT))
    at = limits_at(s, symbol)
    reason = _check_state(s, at, owner)
    if reason == 0:
        reason = _check_price(s, at, kind, price, stop)
    if reason:
        return reason
    if quantity > load64(at + C_QUANTITY):
        return R_QUANTITY
    if kind == MARKET:
        price = load64(at + C_MARK) if load64(at + C_HAS_MARK) else 0
    elif kind == STOP:
        price = stop
    multiplier = load64(at + C_MULTIPLIER)
    unit = abs(price) * multiplier
    value = unit * quantity
    if high_product(unit, quantity) != 0 or value < 0 or value > load64(at + C_VALUE):
        return R_VALUE
    reason = _check_position(s, at, here, owner, side, quantity, old, unit)
    if reason:
        return reason
    if load64(owner + A_OPEN_VALUE) - abs(old_price) * multiplier * old > load64(owner + A_EXPOSURE) - value:
        return R_EXPOSURE
    return 0


@inlined
def check_duplicate(s: int, record: int, price: int, stop: int, quantity: int, codes: int) -> int:
    """Refuses the same order again within the window; remembers one that passes."""
    here = record_at(s, record)
    window = load64(account_at(s, load64(here + E_ACCOUNT)) + A_DUPLICATE)
    now = load64(s + CLOCK)
    last = load64(here + E_LAST_TIME)
    if (
        last >= 0
        and now - last < window
        and load64(here + E_LAST_PRICE) == price
        and load64(here + E_LAST_STOP) == stop
        and load64(here + E_LAST_QUANTITY) == quantity
        and load64(here + E_LAST_CODES) == codes
    ):
        return R_DUPLICATE
    store64(here + E_LAST_TIME, now)
    store64(here + E_LAST_PRICE, price)
    store64(here + E_LAST_STOP, stop)
    store64(here + E_LAST_QUANTITY, quantity)
    store64(here + E_LAST_CODES, codes)
    return 0


@inlined
def band_rank(at: int, side: int) -> int:
    """The last rank of the other side inside the volatility band."""
    if load64(at + C_BAND_STATE) != BAND_SET:
        return LARGEST
    return ~load64(at + C_BAND_LOW) if side else load64(at + C_BAND_HIGH)


@compiled
def collar_rank(at: int, side: int) -> int:
    """The last rank of the other side inside the collars, for an order without a limit price of its own."""
    rank = LARGEST
    if load64(at + C_STATIC) >= 0 and load64(at + C_HAS_REFERENCE):
        price = load64(at + C_REFERENCE)
        away = width(price, load64(at + C_STATIC))
        rank = ~(price - away) if side else price + away
    if load64(at + C_MOVING) >= 0 and load64(at + C_HAS_MARK):
        price = load64(at + C_MARK)
        away = width(price, load64(at + C_MOVING))
        rank = min(rank, ~(price - away) if side else price + away)
    return rank


@compiled
def pause(s: int, at: int, price: int) -> None:
    """Trading would leave the band at a price: the symbol pauses, and reopens around that price."""
    now = load64(s + CLOCK)
    length = load64(at + C_PAUSE)
    store64(at + C_HALTED, PAUSED)
    store64(at + C_HALT_END, now + length if now <= NEVER - length else NEVER)
    store64(at + C_HALT_PRICE, price)
