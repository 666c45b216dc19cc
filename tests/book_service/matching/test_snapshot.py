"""Snapshots that are damaged or hostile are refused with a clear error."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from book_service.matching import Controls, Instrument, MatchingEngine, SnapshotError, snapshot
from tests.book_service.matching.flows import controlled_flow


def a_snapshot() -> bytes:
    engine = MatchingEngine([Instrument(reference=1000)] * 2, Controls())
    engine.process(controlled_flow(np.random.default_rng(3), 700, "calm"))
    assert engine.open_orders > 2
    return engine.snapshot()


GOOD = a_snapshot()


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", "too few"),
        (GOOD[:30], "too few"),
        (b"X" + GOOD[1:], "magic"),
        (GOOD[:8] + struct.pack("<I", 9) + GOOD[12:], "version 9"),
        (GOOD[:-1], "bytes of state"),
        (GOOD + b"\0", "bytes of state"),
        ("text", "bytes are needed"),
    ],
)
def test_damage_is_named(blob: Any, message: str) -> None:
    with pytest.raises(SnapshotError, match=message):
        MatchingEngine.restore(blob)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_flipped_byte_is_found(where: int, flip: int) -> None:
    blob = bytearray(GOOD)
    blob[where] ^= flip
    with pytest.raises(SnapshotError):
        MatchingEngine.restore(bytes(blob))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=300))
def test_any_bytes_with_a_right_hash_are_refused(body: bytes) -> None:
    saved = snapshot._FRONT.pack(
        snapshot.MAGIC, snapshot.VERSION, len(body), snapshot.hashlib.sha256(body).digest()
    )
    with pytest.raises(SnapshotError):
        MatchingEngine.restore(saved + body)


def set_cell(name: str, row: int, column: int, value: int) -> Callable[[snapshot.Saved], None]:
    def change(saved: snapshot.Saved) -> None:
        saved.tables[name][row, column] = value

    return change


def swap_first_orders(saved: snapshot.Saved) -> None:
    saved.tables["orders"][[0, 1]] = saved.tables["orders"][[1, 0]]


def same_id_twice(saved: snapshot.Saved) -> None:
    saved.tables["orders"][1, :2] = saved.tables["orders"][0, :2]


def cross_the_book(saved: snapshot.Saved) -> None:
    orders = saved.tables["orders"]
    orders[:2, 0] = 0
    orders[:2, 7] = 0, 1
    orders[:2, 3] = 1010, 1000


def drop_a_record(saved: snapshot.Saved) -> None:
    saved.tables["records"] = saved.tables["records"][:-1]


def drop_the_orders(saved: snapshot.Saved) -> None:
    del saved.tables["orders"]


FORGERIES: dict[str, Callable[[snapshot.Saved], None]] = {
    "unknown symbol": set_cell("orders", 0, 0, 2),
    "negative symbol": set_cell("orders", 0, 0, -1),
    "account": set_cell("orders", 0, 2, -1),
    "no open quantity": set_cell("orders", 0, 5, 0),
    "unknown bits": set_cell("orders", 0, 7, 1 << 20),
    "market order that rests": set_cell("orders", 0, 7, 1 << 2),
    "stop order that rests": set_cell("orders", 0, 7, 2 << 2),
    "age": set_cell("orders", 0, 8, -1),
    "order of age": swap_first_orders,
    "same id": same_id_twice,
    "crossed": cross_the_book,
    "flag": set_cell("last", 0, 1, 7),
    "quantities that do not add up": set_cell("orders", 0, 5, 12345),
    "record of nobody": set_cell("records", 0, 0, 10**6),
    "record in no symbol": set_cell("records", 1, 1, 55),
    "linked list": set_cell("records", 1, 2, 1),
    "account without record": drop_a_record,
    "band": set_cell("limits", 0, 5, 1 << 40),
    "multiplier": set_cell("limits", 0, 7, 0),
    "state": set_cell("limits", 0, 13, 5),
    "not a number": set_cell("records", 1, 6, -1),
    "position": set_cell("records", 1, 3, 1 << 62),
    "no orders table": drop_the_orders,
    "huge": lambda saved: saved.config.update(symbols=1 << 20),
    "symbols as text": lambda saved: saved.config.update(symbols="2"),
    "true is no number": lambda saved: saved.config.update(symbols=True),
    "sequence": lambda saved: saved.config.update(sequence=-1),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_state_is_refused(name: str) -> None:
    saved = snapshot.decode(GOOD)
    FORGERIES[name](saved)
    with pytest.raises(SnapshotError):
        MatchingEngine.restore(snapshot.encode(saved))


def test_the_unchanged_state_is_taken() -> None:
    assert MatchingEngine.restore(snapshot.encode(snapshot.decode(GOOD))).snapshot() == GOOD
    assert json.loads(GOOD[60 : 60 + struct.unpack_from("<Q", GOOD, 52)[0]])["config"]["symbols"] == 2
