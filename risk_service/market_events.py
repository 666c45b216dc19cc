"""What a record of market.data.normalized says, read once and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos import packing
from protos.market.v1.market_pb2 import NormalizedBatch

COLUMNS = (
    "symbol_index",
    "kind",
    "source_time_ns",
    "bid",
    "ask",
    "price",
    "quantity",
    "flags",
    "rate",
    "dividend_yield",
)


@dataclass(frozen=True, slots=True)
class MarketEvents:
    """One batch of clean events; every array has one entry per event."""

    symbols: tuple[str, ...]
    normalized_time_ns: int
    symbol_index: NDArray[np.uint32]
    kind: NDArray[np.int32]
    source_time_ns: NDArray[np.int64]
    bid: NDArray[np.float64]
    ask: NDArray[np.float64]
    price: NDArray[np.float64]
    quantity: NDArray[np.float64]
    flags: NDArray[np.uint32]
    rate: NDArray[np.float64]
    dividend_yield: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.kind)


def decode(value: bytes) -> MarketEvents:
    """Reads a record's value; a value that is no batch raises ValueError naming the column."""
    batch = NormalizedBatch.FromString(value)
    rows = packing.row_count(batch, COLUMNS)
    packing.names(batch, "symbols", "symbol_index", rows)
    # Most records of a fast feed hold one event.
    column = _one if rows == 1 else packing.column
    columns: dict[str, NDArray[Any]] = {name: column(batch, name, rows) for name in COLUMNS}
    return MarketEvents(symbols=tuple(batch.symbols), normalized_time_ns=batch.normalized_time_ns, **columns)


_TYPES: dict[str, Any] = {
    "symbol_index": np.uint32,
    "kind": np.int32,
    "source_time_ns": np.int64,
    "flags": np.uint32,
}


def _one(batch: NormalizedBatch, name: str, rows: int) -> NDArray[Any]:
    """The column of a batch of one row, which has one entry or none."""
    return np.array(getattr(batch, name)[:rows] or (0,), _TYPES.get(name, np.float64))
