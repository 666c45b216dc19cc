"""Batches of orders for the simulation: new, cancel, replace, stops, kills of an account, and poison."""

from __future__ import annotations

import random

import numpy as np

from protos import packing
from protos.orders.v1.orders_pb2 import OrderBatch

_NEW, _CANCEL, _REPLACE, _MASS_CANCEL = range(4)


def order_batch(
    draw: random.Random, count: int, first_id: int, first_ns: int, symbols: tuple[str, ...] = ("AAA", "BBB")
) -> bytes:
    """Orders around one price, a nanosecond apart; their ids go on from `first_id`."""
    made = np.random.default_rng(draw.getrandbits(64))
    ids = np.arange(first_id, first_id + count)
    action = made.choice((_NEW, _CANCEL, _REPLACE, _MASS_CANCEL), count, p=(0.6, 0.25, 0.14, 0.01))
    # Cancels and replaces mean an order that came a little before; many are gone by then, and are rejected.
    past = np.maximum(1, ids - made.integers(1, 200, count))
    batch = OrderBatch(symbols=symbols, client="simulation")
    columns = {
        "symbol_index": made.integers(0, len(symbols), count),
        "action": action,
        "order_id": np.where(action == _NEW, ids, past),
        "account": made.integers(1, 6, count),
        "side": made.integers(0, 2, count),
        "kind": made.choice((0, 1, 2, 3), count, p=(0.9, 0.04, 0.03, 0.03)),
        "time_in_force": made.choice((0, 1, 2, 3), count, p=(0.8, 0.1, 0.05, 0.05)),
        "price_ticks": made.integers(95, 106, count),
        "stop_price_ticks": made.integers(95, 106, count),
        "quantity": made.integers(1, 100, count),
        "time_ns": first_ns + np.arange(count),
        "self_trade_prevention": made.integers(0, 5, count),
    }
    for name, values in columns.items():
        packing.write(batch, name, values)
    return batch.SerializeToString()


def order_log(draw: random.Random, records: int, rows: int) -> list[bytes]:
    """A log; one record in ten is no batch."""
    values, first_id = [], 1
    for place in range(records):
        if draw.random() < 0.1:
            values.append(draw.randbytes(draw.randint(0, 40)) + b"\xff")
            continue
        values.append(order_batch(draw, rows, first_id, 1_000_000_000 * (place + 1)))
        first_id += rows
    return values
