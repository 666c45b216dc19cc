"""Price levels of one book: blocks of neighbouring prices, a bitmap each, in a treap threaded best to worst.

A price becomes a rank: the price itself for asks and buy stops, its complement for bids and sell stops. The
best price of every book is then its smallest rank, and buy and sell share one code path. A block covers
BLOCK_WIDTH ranks. Near the best a block is found through a small direct-mapped table of hints, elsewhere
through the treap, whose shape depends on its keys alone (the priority is a hash of the key): no bounds on
prices, O(log n) worst case in expectation, and nothing to rebuild after a restore.
"""

from __future__ import annotations

from book_service.matching.layout import (
    B_BEST,
    B_FIRST,
    B_HINTS,
    B_ROOT,
    BLOCK_SHIFT,
    BLOCK_SIZE,
    BLOCK_WIDTH,
    BLOCKS_FREE,
    BLOCKS_HIGH,
    BOOK_SIZE,
    HINTS,
    K_BOOK,
    K_KEY,
    K_LEFT,
    K_MASK,
    K_NEXT,
    K_PREV,
    K_RIGHT,
    LEVEL_SIZE,
    NONE,
    O_LEAVES,
    O_LEVEL,
    O_NEXT,
    O_PREV,
    ORDER_SIZE,
    P_BLOCKS,
    P_BOOKS,
    P_LEVELS,
    P_ORDERS,
    V_COUNT,
    V_HEAD,
    V_TAIL,
    V_TOTAL,
)
from book_service.matching.memory import (
    compiled,
    fixed64,
    inlined,
    load32,
    load64,
    lowest_bit,
    store32,
    store64,
)


@inlined
def scramble(x: int) -> int:
    """A bijection of int64 that looks random (the finaliser of splitmix64)."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


@inlined
def rank_of(book: int, price: int) -> int:
    """Rank of a price in a book, and price of a rank: bids and sell stops are complemented."""
    return price ^ -(((book ^ (book >> 1)) & 1) ^ 1)


@inlined
def book_at(s: int, book: int) -> int:
    """Address of a book."""
    return fixed64(s + P_BOOKS) + book * BOOK_SIZE


@inlined
def block_at(s: int, block: int) -> int:
    """Address of a block."""
    return fixed64(s + P_BLOCKS) + block * BLOCK_SIZE


@inlined
def level_at(s: int, level: int) -> int:
    """Address of a level."""
    return fixed64(s + P_LEVELS) + level * LEVEL_SIZE


@inlined
def order_at(s: int, slot: int) -> int:
    """Address of an order."""
    return fixed64(s + P_ORDERS) + slot * ORDER_SIZE


@compiled
def _descend(s: int, at: int, key: int) -> int:
    """The block of a key in a book's treap, or NONE."""
    node = load32(at + B_ROOT)
    while node != NONE:
        here = block_at(s, node)
        found = load64(here + K_KEY)
        if found == key:
            break
        node = load32(here + K_LEFT) if key < found else load32(here + K_RIGHT)
    return node


@inlined
def find_block(s: int, book: int, at: int, key: int) -> int:
    """The block of a key, or NONE."""
    hint = at + B_HINTS + (key & (HINTS - 1)) * 4
    block = load32(hint)
    if block != NONE:
        here = block_at(s, block)
        if load64(here + K_KEY) == key and load32(here + K_BOOK) == book:
            return block
    block = _descend(s, at, key)
    if block != NONE:
        store32(hint, block)
    return block


@compiled
def _insert_block(s: int, book: int, key: int) -> int:
    """A new empty block: into the treap by splitting, and into the thread between its neighbours."""
    at = book_at(s, book)
    block = load64(s + BLOCKS_FREE)
    if block == NONE:
        block = load64(s + BLOCKS_HIGH)
        store64(s + BLOCKS_HIGH, block + 1)
    else:
        store64(s + BLOCKS_FREE, load32(block_at(s, block) + K_NEXT))
    here = block_at(s, block)
    store64(here + K_KEY, key)
    store64(here + K_MASK, 0)
    store32(here + K_BOOK, book)
    before = NONE
    after = NONE
    priority = scramble(key)
    link = at + B_ROOT
    node = load32(link)
    while node != NONE:
        other = block_at(s, node)
        found = load64(other + K_KEY)
        if scramble(found) < priority:
            break
        if key < found:
            after = node
            link = other + K_LEFT
        else:
            before = node
            link = other + K_RIGHT
        node = load32(link)
    store32(link, block)
    left = here + K_LEFT
    right = here + K_RIGHT
    while node != NONE:
        other = block_at(s, node)
        if load64(other + K_KEY) < key:
            before = node
            store32(left, node)
            left = other + K_RIGHT
            node = load32(left)
        else:
            after = node
            store32(right, node)
            right = other + K_LEFT
            node = load32(right)
    store32(left, NONE)
    store32(right, NONE)
    store32(here + K_PREV, before)
    store32(here + K_NEXT, after)
    if before == NONE:
        store32(at + B_FIRST, block)
    else:
        store32(block_at(s, before) + K_NEXT, block)
    if after != NONE:
        store32(block_at(s, after) + K_PREV, block)
    store32(at + B_HINTS + (key & (HINTS - 1)) * 4, block)
    return block


@compiled
def _remove_block(s: int, book: int, block: int) -> None:
    """Takes an empty block out of its treap (its children merge) and thread, and frees it."""
    at = book_at(s, book)
    here = block_at(s, block)
    key = load64(here + K_KEY)
    link = at + B_ROOT
    node = load32(link)
    while node != block:
        other = block_at(s, node)
        link = other + (K_LEFT if key < load64(other + K_KEY) else K_RIGHT)
        node = load32(link)
    left = load32(here + K_LEFT)
    right = load32(here + K_RIGHT)
    while left != NONE and right != NONE:
        at_left = block_at(s, left)
        at_right = block_at(s, right)
        if scramble(load64(at_left + K_KEY)) > scramble(load64(at_right + K_KEY)):
            store32(link, left)
            link = at_left + K_RIGHT
            left = load32(link)
        else:
            store32(link, right)
            link = at_right + K_LEFT
            right = load32(link)
    store32(link, left if left != NONE else right)
    before = load32(here + K_PREV)
    after = load32(here + K_NEXT)
    if before == NONE:
        store32(at + B_FIRST, after)
    else:
        store32(block_at(s, before) + K_NEXT, after)
    if after != NONE:
        store32(block_at(s, after) + K_PREV, before)
    store32(here + K_BOOK, NONE)
    store32(here + K_NEXT, load64(s + BLOCKS_FREE))
    store64(s + BLOCKS_FREE, block)


@inlined
def append(s: int, book: int, rank: int, slot: int) -> None:
    """Puts an order at the back of the queue of its price."""
    at = book_at(s, book)
    key = rank >> BLOCK_SHIFT
    block = find_block(s, book, at, key)
    if block == NONE:
        block = _insert_block(s, book, key)
    level = block * BLOCK_WIDTH + (rank & (BLOCK_WIDTH - 1))
    queue = level_at(s, level)
    order = order_at(s, slot)
    leaves = load64(order + O_LEAVES)
    here = block_at(s, block)
    mask = load64(here + K_MASK)
    bit = 1 << (rank & (BLOCK_WIDTH - 1))
    store32(order + O_LEVEL, level)
    store32(order + O_NEXT, NONE)
    if mask & bit:
        last = load32(queue + V_TAIL)
        store32(order + O_PREV, last)
        store32(order_at(s, last) + O_NEXT, slot)
        store32(queue + V_TAIL, slot)
        store32(queue + V_COUNT, load32(queue + V_COUNT) + 1)
        store64(queue + V_TOTAL, load64(queue + V_TOTAL) + leaves)
        return
    store64(here + K_MASK, mask | bit)
    store32(order + O_PREV, NONE)
    store32(queue + V_HEAD, slot)
    store32(queue + V_TAIL, slot)
    store32(queue + V_COUNT, 1)
    store64(queue + V_TOTAL, leaves)
    first = load32(at + B_FIRST)
    if first == block:
        store64(at + B_BEST, (key << BLOCK_SHIFT) + lowest_bit(mask | bit))


@inlined
def drop_level(s: int, book: int, level: int) -> None:
    """Clears a level without orders; its block goes with its last level."""
    at = book_at(s, book)
    block = level >> BLOCK_SHIFT
    here = block_at(s, block)
    mask = load64(here + K_MASK) & ~(1 << (level & (BLOCK_WIDTH - 1)))
    store64(here + K_MASK, mask)
    if mask == 0:
        _remove_block(s, book, block)
    first = load32(at + B_FIRST)
    if first != NONE:
        best = block_at(s, first)
        store64(at + B_BEST, (load64(best + K_KEY) << BLOCK_SHIFT) + lowest_bit(load64(best + K_MASK)))


@inlined
def unlink(s: int, book: int, slot: int) -> None:
    """Takes an order out of the queue of its price."""
    order = order_at(s, slot)
    level = load32(order + O_LEVEL)
    queue = level_at(s, level)
    left = load32(queue + V_COUNT) - 1
    if left == 0:
        drop_level(s, book, level)
        return
    store32(queue + V_COUNT, left)
    store64(queue + V_TOTAL, load64(queue + V_TOTAL) - load64(order + O_LEAVES))
    before = load32(order + O_PREV)
    after = load32(order + O_NEXT)
    if before == NONE:
        store32(queue + V_HEAD, after)
    else:
        store32(order_at(s, before) + O_NEXT, after)
    if after == NONE:
        store32(queue + V_TAIL, before)
    else:
        store32(order_at(s, after) + O_PREV, before)


@inlined
def best_level(s: int, book: int) -> int:
    """The level of the best price of a book that is not empty."""
    block = load32(book_at(s, book) + B_FIRST)
    return block * BLOCK_WIDTH + lowest_bit(load64(block_at(s, block) + K_MASK))


@inlined
def reaches(s: int, book: int, limit: int) -> bool:
    """Whether a book's best rank is at or inside a limit rank."""
    at = book_at(s, book)
    return load32(at + B_FIRST) != NONE and load64(at + B_BEST) <= limit
