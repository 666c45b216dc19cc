"""A saved engine as bytes: magic, version, length, SHA-256, then the logical state and nothing else.

The logical state is what future reports depend on: configuration, counters, last trade prices, open orders in
order of age (which is queue order within a price), and the state of the controls. Where an order lies in
memory, how large the pools are and how messages were cut into batches are not in it, so its hash compares two
engines.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from book_service.matching import layout as at

MAGIC: Final = b"GRMATCH\0"
VERSION: Final = 2
_FRONT: Final = struct.Struct("<8sIQ32s")
LARGEST_CONFIG_BYTES: Final = 1 << 28


class SnapshotError(ValueError):
    """The bytes are no snapshot of this version, are damaged, or describe an impossible state."""


@dataclass
class Saved:
    """The logical state: plain numbers and tables of int64."""

    config: dict[str, Any]
    tables: dict[str, NDArray[np.int64]] = field(default_factory=dict)


def payload(saved: Saved) -> bytes:
    """The canonical bytes of a logical state."""
    shapes = {name: list(table.shape) for name, table in saved.tables.items()}
    config = json.dumps(
        {"config": saved.config, "tables": shapes}, sort_keys=True, separators=(",", ":")
    ).encode()
    parts = [struct.pack("<Q", len(config)), config]
    parts += [np.ascontiguousarray(saved.tables[name], "<i8").tobytes() for name in sorted(saved.tables)]
    return b"".join(parts)


def state_hash(saved: Saved) -> str:
    """SHA-256 of the logical state, in hex."""
    return hashlib.sha256(payload(saved)).hexdigest()


def encode(saved: Saved) -> bytes:
    """A snapshot of a logical state."""
    body = payload(saved)
    return _FRONT.pack(MAGIC, VERSION, len(body), hashlib.sha256(body).digest()) + body


def decode(blob: bytes) -> Saved:
    """The logical state in a snapshot; raises SnapshotError for anything else."""
    if not isinstance(blob, (bytes, bytearray, memoryview)):
        raise SnapshotError(f"snapshot: bytes are needed, not {type(blob).__name__}")
    blob = bytes(blob)
    if len(blob) < _FRONT.size:
        raise SnapshotError(f"snapshot: {len(blob)} bytes are too few for a header of {_FRONT.size}")
    magic, version, length, digest = _FRONT.unpack_from(blob)
    if magic != MAGIC:
        raise SnapshotError("snapshot: not a snapshot of a matching engine (wrong magic)")
    if version != VERSION:
        raise SnapshotError(f"snapshot: version {version}, this program reads {VERSION}")
    body = blob[_FRONT.size :]
    if length != len(body):
        raise SnapshotError(f"snapshot: {len(body)} bytes of state, the header says {length}")
    if hashlib.sha256(body).digest() != digest:
        raise SnapshotError("snapshot: the hash does not match, the bytes are damaged")
    return _parse(body)


def _parse(body: bytes) -> Saved:
    if len(body) < 8:
        raise SnapshotError("snapshot: no configuration")
    (size,) = struct.unpack_from("<Q", body)
    if size > min(len(body) - 8, LARGEST_CONFIG_BYTES):
        raise SnapshotError("snapshot: the configuration is longer than the snapshot")
    try:
        front = json.loads(body[8 : 8 + size])
        config, shapes = front["config"], front["tables"]
        wanted = {str(name): (int(rows), int(columns)) for name, (rows, columns) in sorted(shapes.items())}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SnapshotError(f"snapshot: the configuration cannot be read ({error})") from error
    if not isinstance(config, dict):
        raise SnapshotError("snapshot: the configuration is not a table")
    tables, start = {}, 8 + size
    for name, (rows, columns) in wanted.items():
        if not (0 <= rows <= len(body) and 0 < columns <= 64 and start + rows * columns * 8 <= len(body)):
            raise SnapshotError(f"snapshot: table '{name}' does not fit")
        table = np.frombuffer(body, "<i8", rows * columns, start).reshape(rows, columns)
        tables[name] = table.astype(np.int64)
        start += rows * columns * 8
    if start != len(body):
        raise SnapshotError(f"snapshot: {len(body) - start} bytes too many")
    return Saved(config, tables)


def number(saved: Saved, name: str, low: int, high: int) -> int:
    """A whole number of the configuration, between bounds."""
    value = saved.config.get(name)
    if type(value) is not int or not low <= value <= high:
        raise SnapshotError(f"snapshot: {name} must be a whole number from {low} to {high}, not {value!r}")
    return value


def table(saved: Saved, name: str, columns: int, rows: int | None = None) -> NDArray[np.int64]:
    """A table of the snapshot, of the shape that it must have."""
    found = saved.tables.get(name)
    if found is None or found.shape[1] != columns or (rows is not None and len(found) != rows):
        raise SnapshotError(f"snapshot: table '{name}' is missing or of the wrong shape")
    return found


def _refuse(bad: NDArray[np.bool_], what: str) -> None:
    if bad.any():
        raise SnapshotError(f"snapshot: order {int(np.argmax(bad))} {what}")


def check_orders(rows: NDArray[np.int64], symbols: int, next_age: int) -> None:
    """Refuses open orders that no sequence of messages leaves behind."""
    symbol, _order_id, account, price, _, leaves, _, bits, age = rows.T
    _refuse((symbol < 0) | (symbol >= symbols), "has an unknown symbol")
    _refuse((account < 0) | (account >= 1 << 32), "has an account out of range")
    _refuse(leaves < 1, "has no open quantity")
    _refuse((age < 0) | (age >= next_age), "has an age out of range")
    _refuse(np.diff(age, prepend=-1) <= 0, "is out of order of age")
    kind, tif, stp = (bits >> at.KIND_SHIFT) & 3, (bits >> at.TIF_SHIFT) & 7, (bits >> at.STP_SHIFT) & 7
    waiting = bits & at.BIT_WAITING != 0
    _refuse(
        (bits < 0) | (bits >= 8 << at.STP_SHIFT) | ((bits >> at.FLAGS_SHIFT) & 2 != 0), "has unknown bits"
    )
    _refuse((tif > 4) | (stp > 4), "has an unknown code")
    _refuse(np.where(waiting, kind < 2, (kind == 1) | (kind == 2)), "cannot rest as the kind that it is")
    _refuse(~waiting & ((tif == 1) | (tif == 2)), "cannot rest with its time in force")
    if len(np.unique(rows[:, :2], axis=0)) != len(rows):
        raise SnapshotError("snapshot: two open orders of a symbol have one id")
    for one in range(symbols) if len(rows) else ():
        mine = symbol == one
        if sum(leaves[mine].tolist()) > at.LARGEST:
            raise SnapshotError(f"snapshot: the open quantity of symbol {one} overflows")
        bids, asks = price[mine & ~waiting & (bits & 1 == 0)], price[mine & ~waiting & (bits & 1 == 1)]
        if len(bids) and len(asks) and bids.max() >= asks.min():
            raise SnapshotError(f"snapshot: the book of symbol {one} is crossed")
