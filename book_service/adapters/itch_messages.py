"""NASDAQ TotalView-ITCH 5.0: the layout of its messages, and a length-prefixed stream of them as arrays.

Layouts are those of Nasdaq's "TotalView-ITCH 5.0" specification, section 4: all integers big-endian, prices
with four implied decimals (eight in V), timestamps 48-bit nanoseconds since midnight. The framing is that of
its BinaryFILE: two bytes of length before every message, a length of zero ends the session.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from book_service.adapters.errors import ItchError

PRICE_SCALE = 10_000  # of Price (4)
_PREFIX = 2  # bytes of length before a message
_UNKNOWN = 255  # no ITCH message is so long

_HEADER = [("type", "S1"), ("locate", ">u2"), ("tracking", ">u2"), ("time_high", ">u2"), ("time_low", ">u4")]
_STOCK = ("stock", "S8")
_REF = ("ref", ">u8")
_ADD = [_REF, ("side", "S1"), ("shares", ">u4"), _STOCK, ("price", ">u4")]
_FIELDS: Final[dict[bytes, list[tuple[str, str]]]] = {
    b"S": [("event", "S1")],
    b"R": [
        _STOCK,
        ("market_category", "S1"),
        ("financial_status", "S1"),
        ("round_lot_size", ">u4"),
        ("round_lots_only", "S1"),
        ("issue_classification", "S1"),
        ("issue_sub_type", "S2"),
        ("authenticity", "S1"),
        ("short_sale_threshold", "S1"),
        ("ipo_flag", "S1"),
        ("luld_tier", "S1"),
        ("etp_flag", "S1"),
        ("etp_leverage", ">u4"),
        ("inverse", "S1"),
    ],
    b"H": [_STOCK, ("state", "S1"), ("reserved", "S1"), ("reason", "S4")],
    b"Y": [_STOCK, ("action", "S1")],
    b"L": [("mpid", "S4"), _STOCK, ("primary", "S1"), ("mode", "S1"), ("state", "S1")],
    b"V": [("level_1", ">u8"), ("level_2", ">u8"), ("level_3", ">u8")],
    b"W": [("breached", "S1")],
    b"K": [_STOCK, ("release_time_s", ">u4"), ("qualifier", "S1"), ("price", ">u4")],
    b"J": [
        _STOCK,
        ("reference_price", ">u4"),
        ("upper_price", ">u4"),
        ("lower_price", ">u4"),
        ("extension", ">u4"),
    ],
    b"h": [_STOCK, ("market", "S1"), ("action", "S1")],
    b"A": _ADD,
    b"F": [*_ADD, ("attribution", "S4")],
    b"E": [_REF, ("shares", ">u4"), ("match", ">u8")],
    b"C": [_REF, ("shares", ">u4"), ("match", ">u8"), ("printable", "S1"), ("price", ">u4")],
    b"X": [_REF, ("shares", ">u4")],
    b"D": [_REF],
    b"U": [_REF, ("new_ref", ">u8"), ("shares", ">u4"), ("price", ">u4")],
    b"P": [*_ADD, ("match", ">u8")],
    b"Q": [("shares", ">u8"), _STOCK, ("price", ">u4"), ("match", ">u8"), ("cross_type", "S1")],
    b"B": [("match", ">u8")],
    b"I": [
        ("paired_shares", ">u8"),
        ("imbalance_shares", ">u8"),
        ("direction", "S1"),
        _STOCK,
        ("far_price", ">u4"),
        ("near_price", ">u4"),
        ("reference_price", ">u4"),
        ("cross_type", "S1"),
        ("variation", "S1"),
    ],
    b"N": [_STOCK, ("interest", "S1")],
    b"O": [
        _STOCK,
        ("open_eligibility", "S1"),
        ("minimum_price", ">u4"),
        ("maximum_price", ">u4"),
        ("near_price", ">u4"),
        ("near_time", ">u8"),
        ("lower_collar", ">u4"),
        ("upper_collar", ">u4"),
    ],
}

LAYOUTS: Final[dict[bytes, np.dtype[Any]]] = {
    kind: np.dtype([*_HEADER, *fields]) for kind, fields in _FIELDS.items()
}
_LENGTHS = bytes(
    LAYOUTS[bytes([code])].itemsize if bytes([code]) in LAYOUTS else _UNKNOWN for code in range(256)
)


@dataclass(frozen=True, slots=True)
class ItchMessages:
    """Messages of one piece of a stream: by type, each with its places in the order of the stream."""

    count: int
    rows: Mapping[bytes, NDArray[Any]]  # structured arrays laid out as LAYOUTS
    places: Mapping[bytes, NDArray[np.intp]]
    unknown: int  # messages of a type that this version does not have; skipped by their length

    def times_ns(self) -> NDArray[np.int64]:
        """Nanoseconds since midnight of each message, by place."""
        times = np.zeros(self.count, np.int64)
        for kind, rows in self.rows.items():
            times[self.places[kind]] = times_ns(rows)
        return times


def times_ns(rows: NDArray[Any]) -> NDArray[np.int64]:
    """Nanoseconds since midnight of each row."""
    high: NDArray[np.int64] = rows["time_high"].astype(np.int64)
    return (high << 32) | rows["time_low"].astype(np.int64)


@dataclass(slots=True)
class ItchDecoder:
    """Bytes in pieces of any size in, messages out. Keeps at most one unfinished message (64 KiB).

    Pieces of about a megabyte decode fastest: what is computed on them then stays in the processor's cache.
    """

    ended: bool = False
    offset: int = 0  # of the first byte not yet used, in the stream
    _rest: bytes = b""

    def decode(self, piece: bytes) -> ItchMessages:
        """The whole messages up to the end of `piece`; ItchError leaves the decoder as it was."""
        data = self._rest + piece if self._rest else bytes(piece)
        if self.ended and data:
            raise ItchError(self.offset, "bytes after the end of the session")
        starts, used, ended = _frame(data, self.offset)
        messages = _by_type(data, starts)
        self._rest, self.offset = data[used:], self.offset + used
        self.ended |= ended
        return messages

    def finish(self) -> None:
        """Says that the stream is over; ItchError if it broke off within a message."""
        if self._rest:
            raise ItchError(self.offset, f"the stream ends within a message ({len(self._rest)} bytes of it)")


def _frame(data: bytes, offset: int) -> tuple[NDArray[np.intp], int, bool]:
    """Where messages start (at their type), how many bytes they use, and whether the session ended.

    Following length after length costs Python some 100 ns a message. Instead, every byte that could be the
    start of a frame is found at once (zero, length, a type of that length), and the chain is checked at once;
    only where it breaks (a pattern within a message's fields, a type that we do not know) is it followed.
    """
    codes = np.frombuffer(data, np.uint8)
    lengths = np.frombuffer(data.translate(_LENGTHS), np.uint8)
    likely = np.flatnonzero((lengths[_PREFIX:] == codes[1:-1]) & (codes[:-_PREFIX] == 0))
    nexts = likely + codes[likely + 1] + _PREFIX
    likely, nexts = likely[nexts <= len(data)], nexts[nexts <= len(data)]
    breaks = np.flatnonzero(likely[1:] != nexts[:-1]).tolist()
    if likely.size:
        breaks.append(len(likely) - 1)
    runs: list[NDArray[np.intp]] = []
    position = 0
    while position < len(data):
        place = int(np.searchsorted(likely, position))
        if place < len(likely) and likely[place] == position:
            last = breaks[bisect_left(breaks, place)]
            runs.append(likely[place : last + 1])
            position = int(nexts[last])
            continue
        after = _follow(data, position, offset)
        if after == position:
            break
        if after == position + _PREFIX:
            if after != len(data):
                raise ItchError(offset + after, "bytes after the end of the session")
            return _joined(runs), after, True
        runs.append(np.array([position], np.intp))
        position = after
    return _joined(runs), position, False


def _joined(runs: list[NDArray[np.intp]]) -> NDArray[np.intp]:
    return np.concatenate(runs) + _PREFIX if runs else np.empty(0, np.intp)


def _follow(data: bytes, position: int, offset: int) -> int:
    """Where the frame at `position` ends; `position` itself if it is not there in full."""
    head = data[position : position + _PREFIX + 1]
    if len(head) < _PREFIX:
        return position
    length = int.from_bytes(head[:_PREFIX], "big")
    if length and len(head) > _PREFIX:
        kind = head[_PREFIX:]
        if kind in LAYOUTS and LAYOUTS[kind].itemsize != length:
            why = f"a message {kind!r} has {LAYOUTS[kind].itemsize} bytes, its prefix says {length}"
            raise ItchError(offset + position, why)
    after = position + _PREFIX + length
    return after if after <= len(data) else position


def _by_type(data: bytes, starts: NDArray[np.intp]) -> ItchMessages:
    kinds = np.frombuffer(data, np.uint8)[starts]
    counts = np.bincount(kinds, minlength=256)
    rows: dict[bytes, NDArray[Any]] = {}
    places: dict[bytes, NDArray[np.intp]] = {}
    for code in np.flatnonzero(counts):
        kind = bytes([code])
        layout = LAYOUTS.get(kind)
        if layout is None:
            continue
        places[kind] = np.flatnonzero(kinds == code)
        # Overlapping records, one at every byte: indexing copies just those at the starts, and as plain bytes
        # (NumPy copies a record with fields field by field, ten times slower).
        size = len(data) - layout.itemsize + 1
        everywhere: NDArray[Any] = np.ndarray((size,), f"V{layout.itemsize}", data, 0, (1,))
        rows[kind] = everywhere[starts[places[kind]]].view(layout)
    known = sum(len(found) for found in places.values())
    return ItchMessages(len(starts), rows, places, len(starts) - known)
