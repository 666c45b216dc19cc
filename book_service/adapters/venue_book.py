"""Our own venue as one of the sources of market data: its books and trades to market.data.raw.

A book that is first seen becomes a snapshot, a later one of the same symbol the deltas from the one before.
Give every book with the same number of levels: one that leaves the visible range is taken away.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from book_service.adapters.raw_columns import RawColumns, SymbolCounters
from protos import packing
from protos.book.v1.book_pb2 import Book
from protos.market.v1.market_pb2 import (
    EVENT_FLAG_FIRST,
    EVENT_FLAG_LAST,
    EVENT_KIND_BOOK_DELTA,
    EVENT_KIND_BOOK_SNAPSHOT,
    EVENT_KIND_TRADE,
    SIDE_BUY,
    SIDE_SELL,
)
from protos.orders.v1.orders_pb2 import REPORT_KIND_TRADE, ExecutionBatch

_Levels = dict[tuple[int, int], int]  # (side, price in ticks) -> quantity


@dataclass(slots=True)
class VenueSource:
    """Numbers its events by symbol from 1, whether of books or of trades."""

    source: str
    _places: dict[str, int] = field(default_factory=dict)
    _books: dict[str, _Levels] = field(default_factory=dict)
    _counters: SymbolCounters = field(default_factory=SymbolCounters)

    def book(self, book: Book) -> RawColumns:
        """What has changed since the symbol's last book; all of it, if it is the first."""
        now = _levels(book)
        before = self._books.get(book.symbol)
        self._books[book.symbol] = now
        if before is None:
            kind, changes = EVENT_KIND_BOOK_SNAPSHOT, list(now.items()) or [((SIDE_BUY, 0), 0)]
        else:
            kind = EVENT_KIND_BOOK_DELTA
            gone = [(level, 0) for level in before if level not in now]
            changes = gone + [(level, size) for level, size in now.items() if before.get(level) != size]
        flags = np.zeros(len(changes), np.uint32)
        if before is None:
            flags[0] |= EVENT_FLAG_FIRST
            flags[-1] |= EVENT_FLAG_LAST
        ticks = np.array([price for (_, price), _ in changes], np.float64)
        return self._events(
            [book.symbol],
            symbol_index=np.full(len(changes), self._place(book.symbol), np.int64),
            kind=np.full(len(changes), kind, np.int32),
            source_time_ns=np.full(len(changes), book.time_ns, np.int64),
            side=np.array([side for (side, _), _ in changes], np.int32),
            price=ticks * book.tick_size,
            quantity=np.array([size for _, size in changes], np.float64),
            flags=flags,
        )

    def trades(self, batch: ExecutionBatch) -> RawColumns:
        """The trades among a batch of execution reports."""
        rows = packing.row_count(batch, ("kind", "symbol_index"))
        traded = np.flatnonzero(packing.column(batch, "kind", rows) == REPORT_KIND_TRADE)
        symbol = packing.names(batch, "symbols", "symbol_index", rows)[traded]
        places = np.array([self._place(each) for each in batch.symbols], np.int64)
        tick_size = packing.read(batch, "tick_size")
        return self._events(
            batch.symbols,
            symbol_index=places[symbol] if len(places) else np.empty(0, np.int64),
            kind=np.full(len(traded), EVENT_KIND_TRADE, np.int32),
            source_time_ns=packing.column(batch, "time_ns", rows)[traded],
            side=packing.column(batch, "side", rows)[traded].astype(np.int32),
            price=packing.column(batch, "price_ticks", rows)[traded] * tick_size[symbol],
            quantity=packing.column(batch, "quantity", rows)[traded].astype(np.float64),
        )

    def _place(self, symbol: str) -> int:
        return self._places.setdefault(symbol, len(self._places))

    def _events(self, symbols: Iterable[str], **columns: NDArray[Any]) -> RawColumns:
        for symbol in symbols:
            self._place(symbol)
        columns["source_sequence"] = self._counters.number(columns["symbol_index"])
        return RawColumns(self.source, tuple(self._places), columns)


def _levels(book: Book) -> _Levels:
    levels: _Levels = {}
    for side, prices, sizes in (
        (SIDE_BUY, book.bid_price_ticks, book.bid_quantity),
        (SIDE_SELL, book.ask_price_ticks, book.ask_quantity),
    ):
        levels.update({(side, price): size for price, size in zip(prices, sizes, strict=True)})
    return levels
