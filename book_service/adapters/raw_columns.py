"""Events in columns, as every decoder gives them, and the records of market.data.raw made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos import packing
from protos.market.v1.market_pb2 import RawBatch


@dataclass(frozen=True, slots=True)
class RawColumns:
    """Events of one source in order. Columns are named as in RawBatch; one left out is all zeros."""

    source: str
    symbols: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.columns["kind"])

    def take(self, rows: slice | NDArray[np.intp] | NDArray[np.bool_]) -> RawColumns:
        """Some of the events."""
        chosen = {name: values[rows] for name, values in self.columns.items()}
        return RawColumns(self.source, self.symbols, chosen)

    def batch(self) -> RawBatch:
        """All events as one record; it names only the symbols that it is about."""
        return self._batch(slice(None))

    def by_symbol(self, events_max: int = 5_000) -> Iterator[tuple[str, RawBatch]]:
        """Records of one symbol each and of at most `events_max` events: the symbol is the record's key."""
        index = self.columns["symbol_index"]
        order = np.argsort(index, kind="stable")
        starts = np.flatnonzero(np.diff(index[order], prepend=-1))
        for start, end in zip(starts, np.append(starts[1:], len(order)), strict=True):
            symbol = self.symbols[int(index[order[start]])]
            for first in range(int(start), int(end), events_max):
                yield symbol, self._batch(order[first : min(first + events_max, int(end))])

    def _batch(self, rows: slice | NDArray[np.intp]) -> RawBatch:
        present, index = np.unique(self.columns["symbol_index"][rows], return_inverse=True)
        batch = RawBatch(source=self.source, symbols=[self.symbols[int(place)] for place in present])
        packing.write(batch, "symbol_index", index)
        for name, values in self.columns.items():
            chosen = values[rows]
            if name == "kind" or (name != "symbol_index" and chosen.any()):
                packing.write(batch, name, np.ascontiguousarray(chosen))
        return batch


@dataclass(slots=True)
class SymbolCounters:
    """Numbers the events of each symbol from 1, for sources that number nothing by symbol themselves."""

    _last: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(64, np.uint64))

    def number(self, symbol_index: NDArray[np.integer[Any]]) -> NDArray[np.uint64]:
        """The next number of each event's symbol, in order."""
        if symbol_index.size == 0:
            return np.empty(0, np.uint64)
        size = int(symbol_index.max()) + 1
        if size > len(self._last):
            self._last = np.concatenate((self._last, np.zeros(size, np.uint64)))
        order = np.argsort(symbol_index, kind="stable")
        places = symbol_index[order]
        starts = np.flatnonzero(np.diff(places, prepend=-1))
        counts = np.diff(starts, append=len(places))
        within = np.arange(1, len(places) + 1) - np.repeat(starts, counts)
        numbers = np.empty(len(places), np.uint64)
        numbers[order] = self._last[places] + within.astype(np.uint64)
        self._last[places[starts]] += counts.astype(np.uint64)
        return numbers
