"""The arrays behind the compiled core, and the one address it is given."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from book_service.matching import layout as at
from book_service.matching.kernel import REPORTS_PER_MESSAGE, REPORTS_PER_ORDER

Words = NDArray[np.int64]

FIRST_CAPACITY: Final = 4096  # open orders; doubles when full
FIRST_ACCOUNTS: Final = 256
FIRST_RECORDS: Final = 1024
MINIMUM_REPORT_ROOM: Final = 16384
# Arrays with one row per open order at most, and the size of a row. There are no more blocks than orders,
# but for one while an order is being added.
PER_ORDER: Final = (
    ("orders", at.P_ORDERS, at.ORDER_SIZE),
    ("dates", at.P_DATES, at.DATES_SIZE),
    ("blocks", at.P_BLOCKS, at.BLOCK_SIZE),
    ("levels", at.P_LEVELS, at.LEVEL_SIZE * at.BLOCK_WIDTH),
    ("expiry", at.P_EXPIRY, 4),
    ("triggered", at.P_TRIGGERED, 4),
    ("scratch", at.P_SCRATCH, 4),
)


def address(array: NDArray[Any]) -> int:
    """Where an array's first byte is."""
    return int(array.__array_interface__["data"][0])


def aligned(size: int) -> NDArray[np.uint8]:
    """Bytes that start on a cache line; not touched, so a large array costs memory only where it is used."""
    raw = np.empty(size + 64, np.uint8)
    skip = -address(raw) % 64
    return raw[skip : skip + size]


class Storage:
    """Owns the memory of one engine and grows it between calls of the core."""

    def __init__(self, symbols: int, most_accounts: int = 0, capacity: int = FIRST_CAPACITY) -> None:
        self.arrays: dict[str, NDArray[np.uint8]] = {}
        self.header: Words = self._words("header", at.HEADER_WORDS)
        self.header[:] = 0
        self.address: Final = address(self.header)
        self.books: Words = self._words("books", symbols * at.BOOKS_PER_SYMBOL * at.BOOK_SIZE // 8)
        self.books[:] = at.NONE
        self.symbols: Words = self._words("symbols", symbols * at.SYMBOL_SIZE // 8)
        self.symbols[:] = 0
        self._point(at.P_BOOKS, "books")
        self._point(at.P_SYMBOLS, "symbols")
        self.set(at.N_SYMBOLS, symbols)
        for counter in (at.ORDERS_FREE, at.BLOCKS_FREE):
            self.set(counter, at.NONE)
        self.set(at.NEXT_EXPIRY, at.NEVER)
        self._resize(capacity)
        if most_accounts:
            self._add_controls(symbols, most_accounts)

    def _add_controls(self, symbols: int, most_accounts: int) -> None:
        self.limits: Words = self._words("limits", symbols * at.LIMITS_SIZE // 8).reshape(symbols, -1)
        self.limits[:] = 0
        self._point(at.P_LIMITS, "limits")
        self.set(at.CONTROLS, 1)
        self.set(at.MOST_ACCOUNTS, most_accounts)
        self.set(at.SECOND_END, at.SECOND_NS)
        self.set(at.BREAKER_PPM, at.NONE)
        self._resize_accounts(FIRST_ACCOUNTS, FIRST_RECORDS)
        first = self.accounts()
        first[:] = 0
        first[0, at.A_CAPITAL >> 3] = first[0, at.A_FIRST >> 3] = at.NONE
        self.set(at.ACCOUNTS, 1)

    def _resize_accounts(self, accounts: int, records: int) -> None:
        for name, pointer, used, size, count in (
            ("accounts", at.P_ACCOUNTS, at.ACCOUNTS, at.ACCOUNT_SIZE, accounts),
            ("records", at.P_RECORDS, at.RECORDS, at.RECORD_SIZE, records),
        ):
            old = self.arrays.get(name)
            self.arrays[name] = aligned(count * size)
            if old is not None:
                self.arrays[name][: self.get(used) * size] = old[: self.get(used) * size]
            self._point(pointer, name)
        entries = 1 << (2 * records - 1).bit_length()
        self._words("record index", entries)[:] = at.NONE
        self._point(at.P_RECORD_INDEX, "record index")
        self.set(at.RECORD_MASK, entries - 1)
        self.set(at.ACCOUNT_CAPACITY, accounts)
        self.set(at.RECORD_CAPACITY, records)

    def accounts(self) -> Words:
        """The accounts, row 0 the limits that a new one starts with."""
        rows = max(self.get(at.ACCOUNTS), 1)
        return (
            self.arrays["accounts"][: rows * at.ACCOUNT_SIZE]
            .view(np.int64)
            .reshape(rows, at.ACCOUNT_SIZE >> 3)
        )

    def records(self) -> Words:
        """The records of accounts in symbols, in the order in which they were made."""
        rows = self.get(at.RECORDS)
        return (
            self.arrays["records"][: rows * at.RECORD_SIZE].view(np.int64).reshape(rows, at.RECORD_SIZE >> 3)
        )

    def is_full(self) -> bool:
        """Whether one more message may need more room than there is."""
        if self.get(at.LIVE) >= self.get(at.CAPACITY):
            return True
        return bool(self.get(at.CONTROLS)) and (
            self.get(at.ACCOUNTS) >= self.get(at.ACCOUNT_CAPACITY)
            or self.get(at.RECORDS) + 2 > self.get(at.RECORD_CAPACITY)
        )

    def _words(self, name: str, count: int) -> Words:
        self.arrays[name] = aligned(count * 8)
        return self.arrays[name].view(np.int64)

    def _point(self, pointer: int, name: str) -> None:
        self.set(pointer, address(self.arrays[name]))

    def get(self, offset: int) -> int:
        """A word of the header."""
        return int(self.header[offset >> 3])

    def set(self, offset: int, value: int) -> None:
        """Writes a word of the header."""
        self.header[offset >> 3] = value

    def _resize(self, capacity: int) -> None:
        used = {
            "orders": at.ORDERS_HIGH,
            "dates": at.ORDERS_HIGH,
            "blocks": at.BLOCKS_HIGH,
            "levels": at.BLOCKS_HIGH,
        }
        for name, pointer, size in PER_ORDER:
            old = self.arrays.get(name)
            self.arrays[name] = aligned((capacity + 1) * size)
            if old is not None:
                rows = self.get(used[name]) if name in used else self.get(at.EXPIRIES)
                self.arrays[name][: rows * size] = old[: rows * size]
            self._point(pointer, name)
        entries = 1 << (2 * capacity - 1).bit_length()
        self._words("index", entries)[:] = at.NONE
        self._point(at.P_INDEX, "index")
        self.set(at.INDEX_MASK, entries - 1)
        room = MINIMUM_REPORT_ROOM + REPORTS_PER_ORDER * capacity + REPORTS_PER_MESSAGE
        self.arrays["reports"] = aligned(room * at.REPORT_SIZE)
        self._point(at.P_REPORTS, "reports")
        self.set(at.REPORT_CAPACITY, room)
        self.set(at.CAPACITY, capacity)

    def grow(self) -> None:
        """Doubles what is full; the indexes are then empty and must be filled again."""
        full = self.get(at.LIVE) >= self.get(at.CAPACITY)
        self._resize(self.get(at.CAPACITY) * (2 if full else 1))
        if self.get(at.CONTROLS):
            accounts, records = self.get(at.ACCOUNT_CAPACITY), self.get(at.RECORD_CAPACITY)
            self._resize_accounts(
                accounts * (2 if self.get(at.ACCOUNTS) >= accounts else 1),
                records * (2 if self.get(at.RECORDS) + 2 > records else 1),
            )

    def take_reports(self) -> NDArray[np.uint8]:
        """A copy of the reports written since the last call."""
        size = self.get(at.REPORTS) * at.REPORT_SIZE
        self.set(at.REPORTS, 0)
        return self.arrays["reports"][:size].copy()

    def open_orders(self) -> Words:
        """Open orders, oldest first: symbol, id, account, price, stop, leaves, expiry, bits, age."""
        high = self.get(at.ORDERS_HIGH)
        orders = self.arrays["orders"][: high * at.ORDER_SIZE]
        words = orders.view(np.int64).reshape(high, at.ORDER_SIZE >> 3)
        halves = orders.view(np.int32).reshape(high, at.ORDER_SIZE >> 2)
        dates = self.arrays["dates"][: high * at.DATES_SIZE].view(np.int64).reshape(high, at.DATES_SIZE >> 3)
        live = np.flatnonzero(halves[:, at.O_BITS >> 2] != at.NONE)
        live = live[np.argsort(words[live, at.O_AGE >> 3], kind="stable")]
        bits = halves[live, at.O_BITS >> 2].astype(np.int64)
        names = halves[live].astype(np.int64) & 0xFFFFFFFF
        dated = (bits >> at.TIF_SHIFT) & 7 == 4
        waiting = bits & at.BIT_WAITING != 0
        return np.column_stack(
            (
                names[:, at.O_SYMBOL >> 2],
                words[live, at.O_ID >> 3],
                names[:, at.O_ACCOUNT >> 2],
                words[live, at.O_PRICE >> 3],
                np.where(waiting, dates[live, at.D_STOP >> 3], 0),
                words[live, at.O_LEAVES >> 3],
                np.where(dated, dates[live, at.D_EXPIRE >> 3], 0),
                bits,
                words[live, at.O_AGE >> 3],
            )
        )
