"""What a record of market.data.raw says, read once and checked: columns of equal length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos import packing
from protos.market.v1.market_pb2 import RawBatch
from service_kit.kafka.records import Record

AHEAD_MS_MAX = 60_000  # a source's clock may be ahead of the log's

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


_DTYPES = tuple(packing.read(RawBatch(), name).dtype for name in COLUMNS)
_FEW = 16
_SHORT = 4_096  # events for which a column that is not there is cut from one that is all zeros


def _zeros(dtype: np.dtype[Any]) -> NDArray[Any]:
    array: NDArray[Any] = np.zeros(_SHORT, dtype)
    array.flags.writeable = False
    return array


_ZEROS = {dtype: _zeros(dtype) for dtype in _DTYPES}


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
    values = [getattr(batch, name) for name in COLUMNS]
    lengths = [len(one) for one in values]
    rows = max(lengths)
    if rows > packing.MAX_ROWS or not {0, 1, rows}.issuperset(lengths):
        packing.row_count(batch, COLUMNS)  # raises, naming the column
    if rows == 0:
        raise packing.PackingError("kind", "the batch has no events")
    columns = {
        name: _column(one, rows, dtype) for name, one, dtype in zip(COLUMNS, values, _DTYPES, strict=True)
    }
    if int(columns["symbol_index"].max()) >= len(batch.symbols):
        packing.names(batch, "symbols", "symbol_index", rows)  # raises, naming the row
    return RawEvents(source=batch.source, symbols=tuple(batch.symbols), **columns)


def expect_present(events: RawEvents, record: Record) -> None:
    """Refuses a record with times long after it was written, by the log's own clock.

    One event from the future would make everything after it stale, and what is valued by it expired.
    """
    times = events.source_time_ns
    if record.timestamp_ms > 0 and times.max() > (record.timestamp_ms + AHEAD_MS_MAX) * 1_000_000:
        row = int(np.argmax(times))
        raise packing.PackingError("source_time_ns", f"{times[row]} is in the future of its record", row)


def _column(values: Any, rows: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """As `packing.column` does it, without its price per call: most records of a feed have one event."""
    count = len(values)
    if count == rows:
        # A list of a few numbers is read faster than the buffer that protobuf exports.
        array: NDArray[Any] = np.array(values[:] if rows <= _FEW else values, dtype)
        return array
    if rows > _SHORT:
        return np.broadcast_to(np.asarray(values[0] if count else 0, dtype), (rows,))
    return np.full(rows, values[0], dtype) if count else _ZEROS[dtype][:rows]
