"""The matching engine: messages in, reports out, the whole book in between."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from book_service.matching import kernel, snapshot
from book_service.matching import layout as at
from book_service.matching.layout import DEPTH_DTYPE, ORDER_DTYPE, REPORT_DTYPE
from book_service.matching.kernel import SAVED_WORDS
from book_service.matching.snapshot import Saved, SnapshotError
from book_service.matching.storage import Storage, address

Records = NDArray[np.void]

LARGEST_SYMBOLS: Final = 1 << 20  # a book is 768 bytes per symbol


@cache
def kernels() -> kernel.Kernels:
    """The compiled core of this process."""
    return kernel.build(kernel.fingerprint())


def checked_messages(messages: Records) -> Records:
    """The messages, contiguous and in the layout of ORDER_DTYPE; another dtype raises, naming the field."""
    dtype = getattr(messages, "dtype", None)
    if not isinstance(messages, np.ndarray) or dtype is None or dtype.names is None:
        raise TypeError(f"messages: a structured array of ORDER_DTYPE is needed, not {type(messages).__name__}")
    if messages.ndim != 1:
        raise ValueError(f"messages: one dimension is needed, not {messages.ndim}")
    if dtype == ORDER_DTYPE:
        return np.ascontiguousarray(messages)
    fields, wanted = dtype.fields or {}, ORDER_DTYPE.fields or {}
    for name, (kind, *_) in wanted.items():
        if name not in fields:
            raise TypeError(f"messages: field '{name}' is missing")
        if fields[name][0] != kind:
            raise TypeError(f"messages: field '{name}' must be {kind}, not {fields[name][0]}")
    for name in dtype.names:
        if name not in wanted:
            raise TypeError(f"messages: unknown field '{name}'")
    out = np.zeros(len(messages), ORDER_DTYPE)
    for name in wanted:
        out[name] = messages[name]
    return out


class MatchingEngine:
    """Price-time priority books for symbols 0..n-1; a pure function of the messages it has been given."""

    def __init__(self, instruments: int | Sequence[Any], controls: Any = None) -> None:
        count = instruments if isinstance(instruments, int) else len(instruments)
        if not 1 <= count <= LARGEST_SYMBOLS:
            raise ValueError(f"instruments: between 1 and {LARGEST_SYMBOLS} symbols, not {count}")
        self._symbols = count
        self._storage = Storage(count)
        self._kernels = kernels()

    @property
    def symbols(self) -> int:
        """How many symbols there are."""
        return self._symbols

    @property
    def sequence(self) -> int:
        """Number of messages applied, which is the sequence of the next one."""
        return self._storage.get(at.SEQUENCE)

    @property
    def open_orders(self) -> int:
        """Number of resting orders and waiting stops."""
        return self._storage.get(at.LIVE)

    def _saved(self) -> Saved:
        storage = self._storage
        config = {
            "symbols": self._symbols,
            "sequence": storage.get(at.SEQUENCE),
            "next_age": storage.get(at.NEXT_AGE),
        }
        last = storage.symbols.reshape(self._symbols, -1)[:, [at.Y_LAST >> 3, at.Y_HAS_LAST >> 3]]
        return Saved(config, {"last": last, "orders": storage.open_orders()})

    def state_hash(self) -> str:
        """SHA-256 of the logical state, in hex: equal for two engines that will report the same for ever."""
        return snapshot.state_hash(self._saved())

    def snapshot(self) -> bytes:
        """The whole logical state, with its configuration, versioned and hashed."""
        return snapshot.encode(self._saved())

    @classmethod
    def restore(cls, blob: bytes) -> MatchingEngine:
        """A new engine in the state of a snapshot; raises SnapshotError for bytes that are not one."""
        saved = snapshot.decode(blob)
        engine = cls(snapshot.number(saved, "symbols", 1, LARGEST_SYMBOLS))
        storage = engine._storage
        next_age = snapshot.number(saved, "next_age", 0, at.LARGEST)
        last = snapshot.table(saved, "last", 2, engine._symbols)
        if not np.isin(last[:, 1], (0, 1)).all() or last[last[:, 1] == 0, 0].any():
            raise SnapshotError("snapshot: table 'last' holds an impossible flag")
        rows = np.ascontiguousarray(snapshot.table(saved, "orders", SAVED_WORDS))
        snapshot.check_orders(rows, engine._symbols, next_age)
        storage.symbols.reshape(engine._symbols, -1)[:, [at.Y_LAST >> 3, at.Y_HAS_LAST >> 3]] = last
        storage.set(at.SEQUENCE, snapshot.number(saved, "sequence", 0, at.LARGEST))
        while storage.get(at.CAPACITY) <= len(rows):
            storage.grow()
        engine._kernels.reopen(storage.address, address(rows), len(rows))
        storage.set(at.NEXT_AGE, next_age)
        return engine

    def process(self, messages: Records) -> Records:
        """Applies messages in order; gives their reports in order."""
        rows = checked_messages(messages)
        storage, run, start = self._storage, self._kernels.run, 0
        parts = []
        while start < len(rows):
            start = run(storage.address, address(rows), start, len(rows))
            parts.append(storage.take_reports())
            if storage.get(at.LIVE) >= storage.get(at.CAPACITY):
                storage.grow()
                self._kernels.reindex(storage.address)
        if not parts:
            return np.empty(0, REPORT_DTYPE)
        return (parts[0] if len(parts) == 1 else np.concatenate(parts)).view(REPORT_DTYPE)

    def _book(self, symbol: int, side: int) -> int:
        if not 0 <= symbol < self._symbols:
            raise ValueError(f"symbol: between 0 and {self._symbols - 1}, not {symbol}")
        return symbol * at.BOOKS_PER_SYMBOL + side

    def depth(self, symbol: int, levels: int) -> tuple[Records, Records]:
        """Bids and asks of a symbol, best first, at most `levels` of each: price (ticks), quantity, orders."""
        if levels < 0:
            raise ValueError(f"levels: not negative, not {levels}")
        sides = []
        for side in (0, 1):
            rows = np.empty(min(levels, self.open_orders), DEPTH_DTYPE)
            count = self._kernels.depth(self._storage.address, self._book(symbol, side), len(rows), address(rows))
            sides.append(rows[:count].copy())
        return sides[0], sides[1]

    def best(self, symbol: int) -> tuple[int | None, int | None]:
        """Best bid and ask of a symbol in ticks, None where there is none."""
        bids, asks = self.depth(symbol, 1)
        return (int(bids["price"][0]) if len(bids) else None, int(asks["price"][0]) if len(asks) else None)
