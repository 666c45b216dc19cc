"""Records that nobody should send: each order is answered or its record refused, and the venue goes on."""

from __future__ import annotations

import random

import numpy as np
from google.protobuf.message import DecodeError

from book_service import order_events
from book_service.execution_parts import serialized
from book_service.venue import Venue
from protos import packing
from protos.market.v1.market_pb2 import Origin
from protos.orders.v1.orders_pb2 import OrderBatch
from tests.simulation.memory_venue import CONTROLS, LISTED

ROWS = 60_000
MASS_CANCEL = 3
EDGES = np.array([0, 1, 2, -1, 100, 101, 2**31, 2**62, 2**63 - 1, -(2**63), -(2**62), 10**15], np.int64)


def column(draw: np.random.Generator, name: str, rows: int):
    """Mostly what an order may carry, often the ends of the range, sometimes codes that do not exist."""
    wild = draw.random() < 0.25
    if name in ("price_ticks", "stop_price_ticks", "time_ns", "expire_time_ns"):
        return draw.choice(EDGES, rows) if wild else draw.integers(90, 110, rows)
    if name in ("quantity", "order_id"):
        return (draw.choice(EDGES, rows) if wild else draw.integers(0, 400, rows)).astype(np.uint64)
    if name == "account":
        return draw.integers(0, 2**32 if wild else 6, rows)
    if name == "symbol_index":
        return draw.integers(0, 3, rows)
    if name == "action":
        return draw.choice([0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 9], rows)
    return draw.integers(0, 256 if wild else 7, rows)


def hostile_record(draw: np.random.Generator, bits: random.Random) -> bytes:
    """A batch with some columns left out; one in ten is spoiled in some bytes or cut."""
    rows = bits.choice((1, 3, 50, 1_000))
    batch = OrderBatch(symbols=["AAA", "BBB", "unknown"])
    for name in ("symbol_index", *order_events.COLUMNS.values()):
        if name == "action" or bits.random() < 0.9:
            packing.write(batch, name, column(draw, name, rows))
    value = bytearray(batch.SerializeToString())
    if bits.random() < 0.1:
        for _ in range(bits.randint(1, 4)):
            value[bits.randrange(len(value))] = bits.randrange(256)
        value = value[: bits.randint(0, len(value))] if bits.random() < 0.5 else value
    return bytes(value)


def test_hostile_records_are_answered_or_refused_and_the_state_can_be_saved(seed: int) -> None:
    draw, bits = np.random.default_rng(seed), random.Random(seed)
    venue, rows, offset, refused = Venue(LISTED, CONTROLS), 0, 0, 0
    while rows < ROWS:
        try:
            events = order_events.decode(hostile_record(draw, bits))
        except (ValueError, DecodeError):
            refused += 1
            continue
        before = venue.orders
        executions = venue.apply(events, Origin(topic="orders.incoming", offset=offset))
        assert venue.orders == before + len(events.rows)
        answered = set(packing.column(executions, "sequence", len(executions.kind)).tolist())
        silent = [at for at in range(len(events.rows)) if before + at not in answered]
        # A mass cancel that finds nothing says nothing; every other order is answered.
        assert (events.rows["action"][silent] == MASS_CANCEL).all()
        assert serialized(executions, 1 << 16)
        rows, offset = rows + len(events.rows), offset + 1
        if offset % 40 == 0:
            again = Venue.restored(LISTED, CONTROLS, venue.state(), Origin())
            assert again.state_hash() == venue.state_hash()
    assert refused
