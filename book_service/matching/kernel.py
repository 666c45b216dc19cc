"""Entry points of the compiled core, kept in numba's disk cache.

numba's cache notices a change only of the file that defines a kernel, and these kernels are made of many
files. Each therefore closes over a fingerprint of all sources of the package, which is part of the cache key.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numba
from numba import njit

from book_service.matching.accounts import find_record, index_record
from book_service.matching.layout import (
    ACCOUNT_CAPACITY,
    ACCOUNTS,
    B_FIRST,
    BIT_WAITING,
    BLOCK_SHIFT,
    BLOCK_WIDTH,
    CAPACITY,
    CONTROLS,
    K_KEY,
    K_MASK,
    K_NEXT,
    LIVE,
    MESSAGE_SIZE,
    NEXT_AGE,
    NONE,
    O_BITS,
    O_ID,
    O_SYMBOL,
    ORDERS_HIGH,
    RECORD_CAPACITY,
    RECORDS,
    REPORT_CAPACITY,
    REPORTS,
    V_COUNT,
    V_TOTAL,
)
from book_service.matching.levels import block_at, book_at, level_at, order_at, rank_of
from book_service.matching.memory import fixed64, inlined, load32, load64, load_u32, lowest_bit, store64
from book_service.matching.messages import step
from book_service.matching.orders import add_order, index_order

# A message makes at most eight reports per open order (as the maker: a trade, or two decrements and a cancel;
# as a triggered stop: triggered, one trade or decrement that leaves the maker open, cancelled), and a few of
# its own.
REPORTS_PER_ORDER = 8
REPORTS_PER_MESSAGE = 32
SAVED_WORDS = 9


class Kernels(NamedTuple):
    """The compiled entry points; addresses and numbers are int64."""

    run: Any
    depth: Any
    reindex: Any
    reopen: Any


def fingerprint(folder: Path = Path(__file__).parent) -> int:
    """A hash of the sources of a package and of numba's version."""
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return int.from_bytes(digest.digest()[:7], "little")


@inlined
def room_for_one(s: int) -> bool:
    """Whether whatever one message can do still fits: an order, an account, and its reports."""
    live = load64(s + LIVE)
    room = fixed64(s + REPORT_CAPACITY) - load64(s + REPORTS)
    if live >= fixed64(s + CAPACITY) or room < REPORTS_PER_ORDER * live + REPORTS_PER_MESSAGE:
        return False
    if fixed64(s + CONTROLS) == 0:
        return True
    accounts = load64(s + ACCOUNTS) < fixed64(s + ACCOUNT_CAPACITY)
    return accounts and load64(s + RECORDS) + 2 <= fixed64(s + RECORD_CAPACITY)


def build(sources: int) -> Kernels:
    """Compiles the entry points, or takes them from the disk cache if the same sources are in it."""

    @njit("int64(int64, int64, int64, int64)", cache=True)
    def run(s: int, messages: int, start: int, stop: int) -> int:
        """Applies messages from `start`; gives the first that there may be no room for."""
        if sources == 0:
            return start
        for i in range(start, stop):
            if not room_for_one(s):
                return i
            step(s, messages + i * MESSAGE_SIZE)
        return stop

    @njit("int64(int64, int64, int64, int64)", cache=True)
    def depth(s: int, book: int, levels: int, out: int) -> int:
        """Writes up to `levels` rows of (price, quantity, orders), best first; gives how many."""
        if sources == 0:
            return 0
        count = 0
        block = load32(book_at(s, book) + B_FIRST)
        while block != NONE:
            here = block_at(s, block)
            mask = load64(here + K_MASK)
            while mask != 0:
                if count == levels:
                    return count
                bit = lowest_bit(mask)
                mask &= mask - 1
                level = level_at(s, block * BLOCK_WIDTH + bit)
                row = out + count * 24
                store64(row, rank_of(book, (load64(here + K_KEY) << BLOCK_SHIFT) + bit))
                store64(row + 8, load64(level + V_TOTAL))
                store64(row + 16, load32(level + V_COUNT))
                count += 1
            block = load32(here + K_NEXT)
        return count

    @njit("void(int64)", cache=True)
    def reindex(s: int) -> None:
        """Fills the empty indexes from the orders and the records."""
        if sources == 0:
            return
        for slot in range(load64(s + ORDERS_HIGH)):
            order = order_at(s, slot)
            if load32(order + O_BITS) != NONE:
                index_order(s, load_u32(order + O_SYMBOL), load64(order + O_ID), slot)
        if fixed64(s + CONTROLS):
            for row in range(load64(s + RECORDS)):
                index_record(s, row)

    @njit("void(int64, int64, int64)", cache=True)
    def reopen(s: int, rows: int, count: int) -> None:
        """Opens saved orders, oldest first: symbol, id, account, price, stop, leaves, expiry, bits, age."""
        if sources == 0:
            return
        for i in range(count):
            row = rows + i * SAVED_WORDS * 8
            bits = load64(row + 56)
            store64(s + NEXT_AGE, load64(row + 64))
            record = find_record(s, load64(row), load64(row + 16)) if fixed64(s + CONTROLS) else NONE
            add_order(
                s, load64(row), load64(row + 8), load64(row + 16), record, load64(row + 24),
                load64(row + 32) if bits & BIT_WAITING else 0, load64(row + 40), load64(row + 48), bits,
            )  # fmt: skip

    return Kernels(run, depth, reindex, reopen)
