"""Events of market data, column by column, and their form on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos import packing
from protos.market.v1.market_pb2 import RawBatch


@dataclass(frozen=True, slots=True)
class RawColumns:
    """One entry per event in every column; `instrument` is a row of the listing."""

    instrument: NDArray[np.int64]
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
    rate: NDArray[np.float64]
    dividend_yield: NDArray[np.float64]
    state: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.instrument)

    def take(self, rows: NDArray[np.intp]) -> RawColumns:
        """These rows, in this order."""
        return RawColumns(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def with_values(self, **columns: NDArray[Any]) -> RawColumns:
        """The same events with some columns replaced."""
        return replace(self, **columns)


_TYPES: dict[str, Any] = {
    "instrument": np.int64,
    "kind": np.int32,
    "source_time_ns": np.int64,
    "source_sequence": np.uint64,
    "side": np.int32,
    "state": np.int32,
}


def columns_of(count: int, **given: Any) -> RawColumns:
    """Columns of `count` events; a scalar holds for all of them, a column not given is zero."""
    built: dict[str, Any] = {}
    for field in fields(RawColumns):
        dtype = _TYPES.get(field.name, np.float64)
        values = given.pop(field.name, None)
        if values is None:
            built[field.name] = np.zeros(count, dtype=dtype)
        else:
            built[field.name] = (
                np.array(values, dtype=dtype) if np.ndim(values) else np.full(count, values, dtype)
            )
    if given:
        raise TypeError(f"no such columns: {', '.join(given)}")
    return RawColumns(**built)


def joined(parts: Sequence[RawColumns]) -> RawColumns:
    """The events of all parts, one part after the other."""
    return RawColumns(
        **{
            field.name: np.concatenate([getattr(p, field.name) for p in parts])
            for field in fields(RawColumns)
        }
    )


def raw_batch(source: str, symbols: Sequence[str], columns: RawColumns) -> RawBatch:
    """The events as a RawBatch whose table holds the symbols that occur. All-zero columns are left out."""
    present, index = np.unique(columns.instrument, return_inverse=True)
    batch = RawBatch(source=source, symbols=[symbols[place] for place in present])
    packing.write(batch, "symbol_index", index.astype(np.uint32))
    for field in fields(columns):
        values = getattr(columns, field.name)
        if field.name == "instrument" or not values.any():
            continue
        same = len(values) > 1 and bool((values == values[0]).all())
        packing.write(batch, field.name, values[:1] if same else values)
    return batch
