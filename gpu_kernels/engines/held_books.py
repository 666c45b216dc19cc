"""Books that stay on an engine's device between calls, so that a tick sends little more than its spots."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import numpy as np

from gpu_kernels.portfolio import Portfolio

# Books kept on the device, by number and by positions in all of them (about 100 bytes each).
BOOKS_MAX = 4096
POSITIONS_MAX = 10_000_000


class HeldBook:
    """What the device has of a portfolio: its order, and the columns that were sent. Columns never change."""

    def __init__(self, portfolio: Portfolio) -> None:
        self.lock = threading.Lock()
        self.keys = (portfolio.underlying, portfolio.group)
        self.positions = portfolio.options
        group = np.zeros(self.positions, np.int64) if portfolio.group is None else portfolio.group
        self.group = group[: self.positions]
        self._columns: dict[str, tuple[Any, Any]] = {}

    def sent(
        self, portfolio: Portfolio, names: Iterable[str], send: Callable[[str, Any], Any]
    ) -> dict[str, Any]:
        """The device's copies of these columns; only those that are new are sent."""
        for name in names:
            host = getattr(portfolio, name)
            if name not in self._columns or self._columns[name][0] is not host:
                self._columns[name] = (host, send(name, host))
        return {name: self._columns[name][1] for name in names}


BookT = TypeVar("BookT", bound=HeldBook)


class HeldBooks(Generic[BookT]):
    """The books on the device, the longest unused one going first when there are too many."""

    def __init__(self, make: Callable[[Portfolio], BookT]) -> None:
        self._make = make
        self._held: OrderedDict[tuple[int, int, int], BookT] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, portfolio: Portfolio, device: int = 0) -> BookT:
        """The book with the portfolio's underlyings and groups on this device."""
        key = (device, id(portfolio.underlying), id(portfolio.group))
        with self._lock:
            book = self._held.get(key)
            # A book holds its key's arrays, so an id cannot have passed to another array.
            if book is None or book.positions != portfolio.options:
                book = self._held[key] = self._make(portfolio)
            self._held.move_to_end(key)
            while len(self._held) > 1 and (
                len(self._held) > BOOKS_MAX
                or sum(one.positions for one in self._held.values()) > POSITIONS_MAX
            ):
                self._held.popitem(last=False)
            return book
