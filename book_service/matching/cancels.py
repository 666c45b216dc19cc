"""Cancelling many orders, and the heap that puts the oldest first."""

from __future__ import annotations

from book_service.matching.codes import (
    CANCELLED,
)
from book_service.matching.crossing import (
    cancel,
)
from book_service.matching.layout import (
    B_FIRST,
    BLOCK_WIDTH,
    K_MASK,
    K_NEXT,
    NONE,
    O_ACCOUNT,
    O_AGE,
    O_NEXT,
    P_SCRATCH,
    V_HEAD,
)
from book_service.matching.levels import (
    block_at,
    book_at,
    level_at,
    order_at,
)
from book_service.matching.memory import (
    compiled,
    fixed64,
    load32,
    load64,
    load_u32,
    lowest_bit,
    store32,
)


@compiled
def push_oldest(s: int, heap: int, count: int, slot: int) -> None:
    age = load64(order_at(s, slot) + O_AGE)
    while count > 0:
        parent = (count - 1) >> 1
        other = load32(heap + parent * 4)
        if load64(order_at(s, other) + O_AGE) < age:
            break
        store32(heap + count * 4, other)
        count = parent
    store32(heap + count * 4, slot)


@compiled
def pop_oldest(s: int, heap: int, count: int) -> int:
    """Takes the oldest of `count` orders out."""
    top = load32(heap)
    count -= 1
    slot = load32(heap + count * 4)
    age = load64(order_at(s, slot) + O_AGE)
    place_at = 0
    while True:
        child = 2 * place_at + 1
        if child >= count:
            break
        other = load32(heap + child * 4)
        if child + 1 < count:
            second = load32(heap + child * 4 + 4)
            if load64(order_at(s, second) + O_AGE) < load64(order_at(s, other) + O_AGE):
                other = second
                child += 1
        if load64(order_at(s, other) + O_AGE) > age:
            break
        store32(heap + place_at * 4, other)
        place_at = child
    store32(heap + place_at * 4, slot)
    return top


@compiled
def _collect(s: int, book: int, account: int, everybody: int, count: int) -> int:
    """Adds the orders of a book (of one account, or of all) to the heap of scratch memory."""
    heap = fixed64(s + P_SCRATCH)
    block = load32(book_at(s, book) + B_FIRST)
    while block != NONE:
        here = block_at(s, block)
        mask = load64(here + K_MASK)
        while mask != 0:
            slot = load32(level_at(s, block * BLOCK_WIDTH + lowest_bit(mask)) + V_HEAD)
            mask &= mask - 1
            while slot != NONE:
                order = order_at(s, slot)
                if everybody or load_u32(order + O_ACCOUNT) == account:
                    push_oldest(s, heap, count, slot)
                    count += 1
                slot = load32(order + O_NEXT)
        block = load32(here + K_NEXT)
    return count


@compiled
def cancel_many(s: int, first: int, last: int, account: int, everybody: int, reason: int) -> None:
    """Cancels the open orders of symbols first..last-1, oldest first; stops that wait are open too."""
    count = 0
    for book in range(first * 4, last * 4):
        count = _collect(s, book, account, everybody, count)
    heap = fixed64(s + P_SCRATCH)
    while count > 0:
        slot = pop_oldest(s, heap, count)
        count -= 1
        cancel(s, slot, CANCELLED, reason)
