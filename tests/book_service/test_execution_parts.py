"""Executions that are too large for one record: cut into parts that say together what the whole said."""

from __future__ import annotations

import random

import numpy as np
import pytest

from book_service import order_events
from book_service.execution_parts import PART_BYTES_MAX, serialized
from book_service.matching import ControlCommand, Controls
from book_service.venue import Listed, Venue
from protos import packing
from protos.control_commands import ControlRow, control_batch
from protos.market.v1.market_pb2 import Origin
from protos.orders.v1.orders_pb2 import ExecutionBatch, OrderBatch
from service_kit.kafka.settings import KafkaSettings
from tests.simulation.order_flow import order_batch

LISTED = (Listed("AAA", 0.01, 1.0), Listed("BBB", 0.5, 50.0))
ORIGIN = Origin(topic="orders.incoming", partition=0, offset=7)


def rows(batch: ExecutionBatch) -> list[tuple[object, ...]]:
    """Every report with its number, its symbol and tick size by name, whatever table they stood in."""
    count = len(batch.kind)
    names = [one.name for one in batch.DESCRIPTOR.fields if one.is_repeated]
    names = [name for name in names if name not in ("symbols", "tick_size", "symbol_index")]
    columns = [packing.column(batch, name, count).tolist() for name in names]
    places = packing.column(batch, "symbol_index", count).tolist()
    return [
        (batch.first_report + at, batch.symbols[place], batch.tick_size[place], *values)
        for at, (place, *values) in enumerate(zip(places, *columns, strict=True))
    ]


@pytest.mark.parametrize("bytes_max", [1, 150, 400, 3_000, 1 << 20])
def test_the_parts_are_the_whole(bytes_max: int, seed: int) -> None:
    venue = Venue(LISTED, Controls())
    values = order_batch(random.Random(seed), 90, 1, 1_000, ("AAA", "unknown here", "BBB"))
    whole = venue.apply(order_events.decode(values), ORIGIN)
    parts = [ExecutionBatch.FromString(value) for value in serialized(whole, bytes_max)]
    assert [row for part in parts for row in rows(part)] == rows(whole)
    assert all(part.origin == ORIGIN for part in parts)
    assert all(part.ByteSize() <= bytes_max or len(part.kind) == 1 for part in parts)
    assert len({part.SerializeToString() for part in parts}) == len(parts)
    assert serialized(whole, bytes_max) == [part.SerializeToString() for part in parts]


def test_a_kill_of_a_full_book_fits_into_records() -> None:
    venue = Venue((Listed("AAA", 0.01, 1.0),), Controls())
    batch = OrderBatch(symbols=["AAA"], symbol_index=[0])
    packing.write(batch, "action", [0])
    packing.write(batch, "order_id", np.arange(1, 250_001))
    packing.write(batch, "account", [7])
    packing.write(batch, "price_ticks", [100])
    packing.write(batch, "quantity", [1])
    packing.write(batch, "time_ns", [1_000])
    venue.apply(order_events.decode(batch.SerializeToString()), ORIGIN)
    command = control_batch([ControlRow(ControlCommand.KILL)], 2_000)
    killed = venue.apply(order_events.decode(command.SerializeToString()), ORIGIN)
    assert killed.ByteSize() > KafkaSettings().record_bytes_max
    parts = serialized(killed)
    assert all(len(part) <= PART_BYTES_MAX < KafkaSettings().record_bytes_max for part in parts)
    assert sum(len(ExecutionBatch.FromString(part).kind) for part in parts) == len(killed.kind) > 250_000


def test_a_symbol_that_no_report_could_name_is_refused() -> None:
    batch = OrderBatch(symbols=["A" * 300], symbol_index=[0], action=[0])
    with pytest.raises(packing.PackingError, match="300 characters"):
        order_events.decode(batch.SerializeToString())
