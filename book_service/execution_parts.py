"""The executions of one record of orders as records of orders.executed: several where one would be too large.

A kill of a full book causes hundreds of thousands of reports. Parts carry the same origin one after another;
their `first_report` goes on, so that a report's number on its partition names it in whichever part it stands.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from protos import packing
from protos.orders.v1.orders_pb2 import ExecutionBatch

# Well below the largest record (kafka.record_bytes_max). Where a batch is cut is part of the output's bytes:
# a venue that goes on with an output must cut as the one before did.
PART_BYTES_MAX: Final = 4_194_304
_TABLES: Final = frozenset({"symbols", "tick_size", "symbol_index"})


def serialized(batch: ExecutionBatch, bytes_max: int = PART_BYTES_MAX) -> list[bytes]:
    """The batch as values of records, halved until each fits; one report is never cut."""
    rows = len(batch.kind)
    if rows <= 1 or batch.ByteSize() <= bytes_max:
        return [batch.SerializeToString()]
    half = rows // 2
    return [
        *serialized(_rows(batch, 0, half), bytes_max),
        *serialized(_rows(batch, half, rows), bytes_max),
    ]


def _rows(batch: ExecutionBatch, start: int, stop: int) -> ExecutionBatch:
    places = packing.read(batch, "symbol_index")[start:stop]
    present, index = np.unique(places, return_inverse=True)
    ticks = packing.read(batch, "tick_size")
    part = ExecutionBatch(
        origin=batch.origin,
        symbols=[batch.symbols[place] for place in present],
        first_report=batch.first_report + start,
    )
    packing.write(part, "tick_size", ticks[present])
    packing.write(part, "symbol_index", index)
    for field, _ in batch.ListFields():
        if field.is_repeated and field.name not in _TABLES:
            packing.write(part, field.name, packing.read(batch, field.name)[start:stop])
    return part
