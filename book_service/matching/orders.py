"""The pool of open orders, the index that finds one by its id, and the heap of expiry times."""

from __future__ import annotations

from book_service.matching.accounts import (
    count_open,
)
from book_service.matching.codes import (
    GTD,
    STOP,
)
from book_service.matching.layout import (
    BIT_WAITING,
    D_EXPIRE,
    D_STOP,
    DATES_SIZE,
    EXPIRIES,
    INDEX_MASK,
    KIND_SHIFT,
    LIVE,
    NEVER,
    NEXT_AGE,
    NEXT_EXPIRY,
    NONE,
    O_ACCOUNT,
    O_AGE,
    O_BITS,
    O_HEAP,
    O_ID,
    O_LEAVES,
    O_NEXT,
    O_PRICE,
    O_RECORD,
    O_SYMBOL,
    ORDERS_FREE,
    ORDERS_HIGH,
    P_DATES,
    P_EXPIRY,
    P_INDEX,
    P_SYMBOLS,
    SYMBOL_SIZE,
    TIF_SHIFT,
    Y_OPEN,
)
from book_service.matching.levels import (
    append,
    order_at,
    rank_of,
    scramble,
    unlink,
)
from book_service.matching.memory import (
    compiled,
    fixed64,
    inlined,
    load32,
    load64,
    load_u32,
    store32,
    store64,
)

TAG = 0xFFFFFFFF
SYMBOL_SALT = -0x61C8864680B583EB


@inlined
def symbol_at(s: int, symbol: int) -> int:
    """Address of a symbol's record."""
    return fixed64(s + P_SYMBOLS) + symbol * SYMBOL_SIZE


@inlined
def dates_at(s: int, slot: int) -> int:
    """Address of an order's expiry time and stop price."""
    return fixed64(s + P_DATES) + slot * DATES_SIZE


@inlined
def book_of(order: int) -> int:
    """The book an open order is in."""
    return load_u32(order + O_SYMBOL) * 4 + (load32(order + O_BITS) & 3)


# The index: open addressing, linear probing, an entry is (32 bits of the hash, slot). Removal shifts entries
# back, so there are no tombstones and it never needs rebuilding except to grow.


@inlined
def _hash(symbol: int, order_id: int) -> int:
    return scramble(order_id ^ (symbol * SYMBOL_SALT)) & TAG


@inlined
def find_order(s: int, symbol: int, order_id: int) -> int:
    """The slot of an open order, or NONE."""
    table = fixed64(s + P_INDEX)
    mask = fixed64(s + INDEX_MASK)
    tag = _hash(symbol, order_id)
    at = tag & mask
    entry = load64(table + at * 8)
    while entry != NONE:
        if ((entry >> 32) & TAG) == tag:
            slot = entry & TAG
            order = order_at(s, slot)
            if load64(order + O_ID) == order_id and load_u32(order + O_SYMBOL) == symbol:
                return slot
        at = (at + 1) & mask
        entry = load64(table + at * 8)
    return NONE


@inlined
def index_order(s: int, symbol: int, order_id: int, slot: int) -> None:
    """Enters an order whose id is not there yet."""
    table = fixed64(s + P_INDEX)
    mask = fixed64(s + INDEX_MASK)
    tag = _hash(symbol, order_id)
    at = tag & mask
    while load64(table + at * 8) != NONE:
        at = (at + 1) & mask
    store64(table + at * 8, (tag << 32) | slot)


@inlined
def _unindex(s: int, symbol: int, order_id: int, slot: int) -> None:
    table = fixed64(s + P_INDEX)
    mask = fixed64(s + INDEX_MASK)
    tag = _hash(symbol, order_id)
    wanted = (tag << 32) | slot
    hole = tag & mask
    while load64(table + hole * 8) != wanted:
        hole = (hole + 1) & mask
    at = hole
    while True:
        at = (at + 1) & mask
        entry = load64(table + at * 8)
        if entry == NONE:
            break
        home = (entry >> 32) & mask
        if ((at - home) & mask) >= ((at - hole) & mask):
            store64(table + hole * 8, entry)
            hole = at
    store64(table + hole * 8, NONE)


# The heap of expiry times: a binary heap of slots, earliest first, then oldest; each order knows its place.


@inlined
def _sooner(s: int, left: int, right: int) -> bool:
    a = load64(dates_at(s, left) + D_EXPIRE)
    b = load64(dates_at(s, right) + D_EXPIRE)
    if a == b:
        return load64(order_at(s, left) + O_AGE) < load64(order_at(s, right) + O_AGE)
    return a < b


@inlined
def _seat(s: int, heap: int, place: int, slot: int) -> None:
    store32(heap + place * 4, slot)
    store32(order_at(s, slot) + O_HEAP, place)


@compiled
def _sift(s: int, place: int, slot: int) -> None:
    """Seats an order at a free place of the heap, then moves it up or down to where it belongs."""
    heap = fixed64(s + P_EXPIRY)
    count = load64(s + EXPIRIES)
    while place > 0:
        parent = (place - 1) >> 1
        other = load32(heap + parent * 4)
        if not _sooner(s, slot, other):
            break
        _seat(s, heap, place, other)
        place = parent
    while True:
        child = 2 * place + 1
        if child >= count:
            break
        other = load32(heap + child * 4)
        if child + 1 < count:
            second = load32(heap + child * 4 + 4)
            if _sooner(s, second, other):
                other = second
                child += 1
        if not _sooner(s, other, slot):
            break
        _seat(s, heap, place, other)
        place = child
    _seat(s, heap, place, slot)
    store64(s + NEXT_EXPIRY, load64(dates_at(s, load32(heap)) + D_EXPIRE))


@compiled
def _schedule(s: int, slot: int) -> None:
    count = load64(s + EXPIRIES)
    store64(s + EXPIRIES, count + 1)
    _sift(s, count, slot)


@compiled
def _unschedule(s: int, slot: int) -> None:
    count = load64(s + EXPIRIES) - 1
    store64(s + EXPIRIES, count)
    last = load32(fixed64(s + P_EXPIRY) + count * 4)
    if last != slot:
        _sift(s, load32(order_at(s, slot) + O_HEAP), last)
    elif count == 0:
        store64(s + NEXT_EXPIRY, NEVER)


@inlined
def value_price(s: int, slot: int) -> int:
    """The price at which an open order counts towards exposure: a stop order has only its stop price."""
    order = order_at(s, slot)
    if ((load32(order + O_BITS) >> KIND_SHIFT) & 3) == STOP:
        return load64(dates_at(s, slot) + D_STOP)
    return load64(order + O_PRICE)


@inlined
def shrink(s: int, slot: int, symbol: int, quantity: int) -> None:
    """Takes quantity off the totals that an open order counts in: of its symbol and of its account."""
    order = order_at(s, slot)
    opened = symbol_at(s, symbol) + Y_OPEN
    store64(opened, load64(opened) - quantity)
    count_open(
        s, load32(order + O_RECORD), symbol, load32(order + O_BITS) & 1, value_price(s, slot), -quantity
    )


@compiled
def add_order(
    s: int, symbol: int, order_id: int, account: int, record: int, price: int, stop: int, leaves: int,
    expire: int, bits: int,
) -> None:  # fmt: skip
    """Opens an order at the back of the queue of its price: the stop price while it waits, else its own."""
    slot = load64(s + ORDERS_FREE)
    if slot == NONE:
        slot = load64(s + ORDERS_HIGH)
        store64(s + ORDERS_HIGH, slot + 1)
    else:
        store64(s + ORDERS_FREE, load32(order_at(s, slot) + O_NEXT))
    order = order_at(s, slot)
    age = load64(s + NEXT_AGE)
    store64(s + NEXT_AGE, age + 1)
    store64(s + LIVE, load64(s + LIVE) + 1)
    store64(order + O_ID, order_id)
    store64(order + O_PRICE, price)
    store64(order + O_LEAVES, leaves)
    store64(order + O_AGE, age)
    store32(order + O_ACCOUNT, account)
    store32(order + O_SYMBOL, symbol)
    store32(order + O_RECORD, record)
    store32(order + O_BITS, bits)
    opened = symbol_at(s, symbol) + Y_OPEN
    store64(opened, load64(opened) + leaves)
    index_order(s, symbol, order_id, slot)
    count_open(s, record, symbol, bits & 1, stop if ((bits >> KIND_SHIFT) & 3) == STOP else price, leaves)
    if bits & BIT_WAITING:
        store64(dates_at(s, slot) + D_STOP, stop)
        price = stop
    book = symbol * 4 + (bits & 3)
    append(s, book, rank_of(book, price), slot)
    if ((bits >> TIF_SHIFT) & 7) == GTD:
        store64(dates_at(s, slot) + D_EXPIRE, expire)
        _schedule(s, slot)


@inlined
def forget_order(s: int, slot: int) -> None:
    """Frees an order that is in no queue any more: out of the index, the heap and the totals."""
    order = order_at(s, slot)
    symbol = load_u32(order + O_SYMBOL)
    shrink(s, slot, symbol, load64(order + O_LEAVES))
    _unindex(s, symbol, load64(order + O_ID), slot)
    if ((load32(order + O_BITS) >> TIF_SHIFT) & 7) == GTD:
        _unschedule(s, slot)
    store64(s + LIVE, load64(s + LIVE) - 1)
    store32(order + O_BITS, NONE)
    store32(order + O_NEXT, load64(s + ORDERS_FREE))
    store64(s + ORDERS_FREE, slot)


@compiled
def remove_order(s: int, slot: int) -> None:
    """Closes an open order."""
    unlink(s, book_of(order_at(s, slot)), slot)
    forget_order(s, slot)
