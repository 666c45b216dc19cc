"""What is remembered of one symbol of one source, and the rules that its events are held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from book_service.depth import LevelBook
from protos.market.v1.market_pb2 import (
    EVENT_FLAG_FIRST,
    EVENT_FLAG_GAP,
    EVENT_FLAG_LAST,
    EVENT_FLAG_OUT_OF_BAND,
    EVENT_KIND_BOOK_DELTA,
    EVENT_KIND_BOOK_SNAPSHOT,
)

LEAST_NS: Final = -(1 << 63)


class Dropped(IntEnum):
    """Why an event was not passed on."""

    NO = 0
    UNKNOWN_KIND = 1
    BAD_VALUE = 2
    DUPLICATE = 3
    AWAITING_SNAPSHOT = 4  # of a book that has lost events and no snapshot has come
    STANDBY = 5  # of a source that is not the active one


@dataclass(frozen=True, slots=True)
class NormaliserRules:
    """The limits of the normaliser's rules."""

    band_relative: float = 0.25  # of the last good price
    band_absolute: float = 1.0  # currency; the wider of the two bands holds, so that cheap options may move
    band_confirmations: int = 5  # events outside the band in a row that make a new reference
    stale_after_ns: int = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Judged:
    """Columns of a batch, as arrays or as lists; `flags` and `dropped` are written to."""

    kind: Sequence[int] | NDArray[np.int32]
    time_ns: Sequence[int] | NDArray[np.int64]
    side: Sequence[int] | NDArray[np.int32]
    price: Sequence[float] | NDArray[np.float64]
    quantity: Sequence[float] | NDArray[np.float64]
    flags: Any
    dropped: Any


@dataclass(slots=True)
class SourceStream:
    """One symbol of one source, up to the last event."""

    last_sequence: int = 0
    newest_ns: int = LEAST_NS  # of its numbered events
    good_price: float = 0.0  # 0: none yet
    outside_in_a_row: int = 0
    whole: bool = True  # it was joined at its first event, and none is missing since
    book: LevelBook | None = None

    def check_sequence(self, sequence: int, time_ns: int) -> int | None:
        """The flags that a sequence number brings; None for a duplicate's."""
        if not sequence:
            return 0
        last = self.last_sequence
        # What is sent again has the time it had. A number that falls back at a later time is of a source that
        # numbers anew, as after a restart: what was between is not known, so it is a gap.
        if sequence <= last and time_ns <= self.newest_ns:
            return None
        self.last_sequence, self.newest_ns = sequence, max(self.newest_ns, time_ns)
        if sequence == last + 1:
            return 0
        self.whole = False
        # A stream may be joined anywhere: its first number is no gap.
        return EVENT_FLAG_GAP if last else 0

    def check_band(self, price: float, rules: NormaliserRules) -> int:
        """The flags that a price (currency, above 0) brings."""
        good = self.good_price or price
        outside = abs(price - good) > max(rules.band_relative * good, rules.band_absolute)
        self.outside_in_a_row = self.outside_in_a_row + 1 if outside else 0
        if outside and self.outside_in_a_row < rules.band_confirmations:
            return EVENT_FLAG_OUT_OF_BAND
        self.good_price, self.outside_in_a_row = price, 0
        return 0

    def follow_book(
        self, events: Judged, rows: Sequence[int] | NDArray[np.intp], *, ordinary: bool
    ) -> int | None:
        """Takes a batch's events of this symbol into its book; the last one that changed it, if one did."""
        if self.book is None:
            if not any(events.kind[row] in _OF_BOOKS for row in rows):
                return None
            self.book = LevelBook(live=self.whole)
        book = self.book
        if ordinary and len(rows) >= MANY_DELTAS and book.live and not book.receiving:
            deltas = _plain_deltas(events, np.asarray(rows))
            if deltas is not None:
                columns = (
                    np.asarray(column)[deltas] for column in (events.side, events.price, events.quantity)
                )
                book.change_many(*columns)
                return int(deltas[-1]) if deltas.size else None
        changed_by: int | None = None
        for row in rows:
            if _into_book(book, events, int(row)):
                changed_by = int(row)
        return changed_by


MANY_DELTAS = 8  # from so many on, taking them through NumPy costs less than one by one
_OF_BOOKS = (EVENT_KIND_BOOK_DELTA, EVENT_KIND_BOOK_SNAPSHOT)


def _plain_deltas(events: Judged, rows: NDArray[np.intp]) -> NDArray[np.intp] | None:
    """Which events are deltas; None if there is more to do than to take them."""
    kinds, flags = np.asarray(events.kind)[rows], np.asarray(events.flags)[rows]
    if (kinds == EVENT_KIND_BOOK_SNAPSHOT).any() or (flags & EVENT_FLAG_GAP).any():
        return None
    deltas: NDArray[np.intp] = rows[kinds == EVENT_KIND_BOOK_DELTA]
    return deltas


def _into_book(book: LevelBook, events: Judged, row: int) -> bool:
    """Takes one event; whether it may have changed the book. One that needs what is missing is dropped."""
    flags, dropped = int(events.flags[row]), events.dropped[row]
    if dropped == Dropped.DUPLICATE:
        return False
    if flags & EVENT_FLAG_GAP:
        book.lose()
    kind = events.kind[row]
    if kind not in _OF_BOOKS:
        return False
    if dropped != Dropped.NO:
        book.lose()  # what it said is not known
        return False
    level = int(events.side[row]), float(events.price[row]), float(events.quantity[row])
    if kind == EVENT_KIND_BOOK_SNAPSHOT:
        first, last = bool(flags & EVENT_FLAG_FIRST), bool(flags & EVENT_FLAG_LAST)
        taken = book.snapshot_row(*level, first=first, last=last)
    else:
        taken = book.live or book.receiving
        book.change(*level)
    # The event that showed the gap is passed on: it tells consumers that their own book is lost too.
    if not taken and not flags & EVENT_FLAG_GAP:
        events.dropped[row] = Dropped.AWAITING_SNAPSHOT
    return taken
