"""The matching engine: messages in, reports out, the whole book in between."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from book_service.matching import kernel
from book_service.matching import layout as at
from book_service.matching.layout import DEPTH_DTYPE, ORDER_DTYPE, REPORT_DTYPE
from book_service.matching.storage import Storage, address

Records = NDArray[np.void]


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
        if not 1 <= count <= 1 << 20:
            raise ValueError(f"instruments: between 1 and {1 << 20} symbols, not {count}")
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
