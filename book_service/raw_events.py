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
# The columns of a short batch that has none, by its length; shared, so not to be written to.
_NOTHING = tuple(dict.fromkeys(COLUMNS, [0] * rows) for rows in range(_FEW + 1))


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

    def lists(self) -> dict[str, list[Any]]:
        """Every column as a list; that of the flags may be written to."""
        return {name: getattr(self, name).tolist() for name in COLUMNS}


class _FewRawEvents(RawEvents):
    """A short batch as the lists that protobuf gives; an array is made of a column where one is asked for.

    Fifteen arrays cost more than all that is done with the one event of most records of a live feed.
    """

    __slots__ = ("_columns", "_rows")
    _columns: dict[str, list[Any]]
    _rows: int

    def __init__(
        self, source: str, symbols: tuple[str, ...], columns: dict[str, list[Any]], rows: int
    ) -> None:
        for name, value in (("source", source), ("symbols", symbols), ("_columns", columns), ("_rows", rows)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return self._rows

    def lists(self) -> dict[str, list[Any]]:
        """Every column as a list; that of the flags may be written to."""
        return self._columns | {"flags": self._columns["flags"][:]}


def _array_of(name: str, dtype: np.dtype[Any]) -> property:
    def array(events: _FewRawEvents) -> NDArray[Any]:
        made: NDArray[Any] = np.array(events._columns[name], dtype)
        made.flags.writeable = False
        return made

    return property(array)


for _name, _dtype in zip(COLUMNS, _DTYPES, strict=True):
    setattr(_FewRawEvents, _name, _array_of(_name, _dtype))


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
    if rows <= _FEW:
        lists: dict[str, list[Any]] = dict(_NOTHING[rows])
        for name, one in zip(COLUMNS, values, strict=True):
            if one:
                lists[name] = one[:] if len(one) == rows else [one[0]] * rows
        if max(lists["symbol_index"]) >= len(batch.symbols):
            packing.names(batch, "symbols", "symbol_index", rows)  # raises, naming the row
        return _FewRawEvents(batch.source, tuple(batch.symbols), lists, rows)
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
    """As `packing.column` does it, without its price per call."""
    count = len(values)
    if count == rows:
        array: NDArray[Any] = np.array(values, dtype)
        return array
    if rows > _SHORT:
        return np.broadcast_to(np.asarray(values[0] if count else 0, dtype), (rows,))
    return np.full(rows, values[0], dtype) if count else _ZEROS[dtype][:rows]
