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


@dataclass(slots=True)
class Tick:
    """A batch of one clean event, of which a fast feed sends thousands a second."""

    symbol: str
    normalized_time_ns: int
    kind: int
    source_time_ns: int
    bid: float
    ask: float
    price: float
    quantity: float
    flags: int
    rate: float
    dividend_yield: float

    def __len__(self) -> int:
        return 1


def decode(value: bytes) -> MarketEvents | Tick:
    """Reads a record's value; a value that is no batch raises ValueError naming the column."""
    batch = NormalizedBatch.FromString(value)
    tick = _tick(batch)
    if tick is not None:
        return tick
    rows = packing.row_count(batch, COLUMNS)
    packing.names(batch, "symbols", "symbol_index", rows)
    columns: dict[str, NDArray[Any]] = {name: packing.column(batch, name, rows) for name in COLUMNS}
    return MarketEvents(symbols=tuple(batch.symbols), normalized_time_ns=batch.normalized_time_ns, **columns)


def _tick(batch: NormalizedBatch) -> Tick | None:
    """The event of a batch of one row, whose columns have one entry or none; None for any other batch."""
    columns = [getattr(batch, name) for name in COLUMNS]
    if max(map(len, columns)) != 1:
        return None
    place, *values = [column[0] if column else 0 for column in columns]
    if place >= len(batch.symbols):
        return None
    return Tick(batch.symbols[place], batch.normalized_time_ns, *values)
