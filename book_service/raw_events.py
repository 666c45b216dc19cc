"""What a record of market.data.raw says, read once and checked: columns of equal length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos import packing
from protos.market.v1.market_pb2 import RawBatch

COLUMNS = (
    "symbol_index",
    "kind",
    "source_time_ns",
    "source_sequence",
    "bid",
    "ask",
    "bid_quantity",
    "ask_quantity",
    "price",
    "quantity",
    "side",
    "flags",
    "rate",
    "dividend_yield",
    "state",
)


@dataclass(frozen=True, slots=True)
class RawEvents:
    """One batch of one source. Every array has one entry per event; none may be written to."""

    source: str
    symbols: tuple[str, ...]
    symbol_index: NDArray[np.uint32]
    kind: NDArray[np.int32]
    source_time_ns: NDArray[np.int64]
    source_sequence: NDArray[np.uint64]
    bid: NDArray[np.float64]
    ask: NDArray[np.float64]
    bid_quantity: NDArray[np.float64]
    ask_quantity: NDArray[np.float64]
    price: NDArray[np.float64]
    quantity: NDArray[np.float64]
    side: NDArray[np.int32]
    flags: NDArray[np.uint32]
    rate: NDArray[np.float64]
    dividend_yield: NDArray[np.float64]
    state: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.kind)


def decode(value: bytes) -> RawEvents:
    """Reads a record's value; a value that is no batch raises ValueError naming the column."""
    batch = RawBatch.FromString(value)
    if not batch.source:
        raise packing.PackingError("source", "is empty")
    if len(set(batch.symbols)) != len(batch.symbols):
        raise packing.PackingError("symbols", "names a symbol twice")
    rows = packing.row_count(batch, COLUMNS)
    if rows == 0:
        raise packing.PackingError("kind", "the batch has no events")
    packing.names(batch, "symbols", "symbol_index", rows)
    columns: dict[str, NDArray[Any]] = {name: packing.column(batch, name, rows) for name in COLUMNS}
    return RawEvents(source=batch.source, symbols=tuple(batch.symbols), **columns)
