"""The normaliser's rules for an event at a time.

A record of one event is the common case on a live feed. Through NumPy it costs some hundred operations on
arrays of length one; here, plain Python on numbers. event_rules.py has the same rules by columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from book_service.event_rules import VALUES
from book_service.raw_events import RawEvents
from book_service.source_stream import Dropped, Judged, NormaliserRules, SourceStream
from protos.market.v1.market_pb2 import (
    EVENT_FLAG_CROSSED,
    EVENT_FLAG_STALE,
    EVENT_KIND_BOOK_DELTA,
    EVENT_KIND_BOOK_SNAPSHOT,
    EVENT_KIND_QUOTE,
    EVENT_KIND_STATUS,
    EVENT_KIND_TRADE,
    SIDE_SELL,
    NormalizedBatch,
    Origin,
)

_ALWAYS = ("symbol_index", "kind")
_IF_ANY = ("source_time_ns", *VALUES, "side", "state")
_UNSIGNED = VALUES[:6]
_SIGNED = VALUES[6:]


@dataclass(slots=True)
class FewEvents:
    """A small batch as lists, what is thought of each event, and whether any is about a book."""

    columns: dict[str, list[Any]]
    judged: Judged
    bookish: bool = False


def read(events: RawEvents) -> FewEvents:
    """The batch's columns as lists."""
    columns = events.lists()
    return FewEvents(
        columns,
        Judged(
            kind=columns["kind"],
            time_ns=columns["source_time_ns"],
            side=columns["side"],
            price=columns["price"],
            quantity=columns["quantity"],
            flags=columns["flags"],
            dropped=[Dropped.NO] * len(events),
        ),
    )


def judge(few: FewEvents, row: int, newest_ns: int, rules: NormaliserRules) -> int:
    """What an event says by itself and by its age; returns its source's newest time with it."""
    columns, flags, dropped = few.columns, few.judged.flags, few.judged.dropped
    dropped[row] = _fault(few, row)
    if (
        dropped[row] is Dropped.NO
        and columns["kind"][row] == EVENT_KIND_QUOTE
        and columns["bid"][row] > columns["ask"][row] > 0.0
    ):
        flags[row] |= EVENT_FLAG_CROSSED
    time_ns: int = columns["source_time_ns"][row]
    if time_ns >= newest_ns:
        return time_ns
    if time_ns < newest_ns - rules.stale_after_ns:
        flags[row] |= EVENT_FLAG_STALE
    return newest_ns


def follow(few: FewEvents, row: int, stream: SourceStream, rules: NormaliserRules) -> None:
    """What an event says after those before it: its number and its price."""
    found = stream.check_sequence(few.columns["source_sequence"][row], few.columns["source_time_ns"][row])
    if found is None:
        few.judged.dropped[row] = Dropped.DUPLICATE
        return
    few.judged.flags[row] |= found
    if few.judged.dropped[row] is Dropped.NO:
        price = _reference_price(few, row)
        if price > 0.0:
            few.judged.flags[row] |= stream.check_band(price, rules)


def pack(
    few: FewEvents, events: RawEvents, origin: Origin, house: Sequence[str]
) -> tuple[NormalizedBatch, dict[Dropped, int]]:
    """The batch that goes out, and what was dropped of it by reason."""
    columns, dropped = few.columns, few.judged.dropped
    kept = [row for row, reason in enumerate(dropped) if reason is Dropped.NO]
    if len(kept) < len(dropped):
        columns = {name: [values[row] for row in kept] for name, values in columns.items()}
    filled: dict[str, Any] = {name: columns[name] for name in _IF_ANY if any(columns[name])}
    filled |= {name: columns[name] for name in _ALWAYS}
    batch = NormalizedBatch(
        origin=origin,
        source=events.source,
        symbols=house,
        origin_index=kept,
        flags=columns["flags"],
        dropped=len(dropped) - len(kept),
        **filled,
    )
    return batch, {reason: dropped.count(reason) for reason in Dropped if reason and reason in dropped}


def _fault(few: FewEvents, row: int) -> Dropped:
    columns = few.columns
    kind = columns["kind"][row]
    if not EVENT_KIND_QUOTE <= kind <= EVENT_KIND_STATUS:
        return Dropped.UNKNOWN_KIND
    # A comparison with NaN is false.
    sane = all(0.0 <= columns[name][row] < inf for name in _UNSIGNED)
    if not (sane and all(-inf < columns[name][row] < inf for name in _SIGNED)):
        return Dropped.BAD_VALUE
    price = columns["price"][row]
    if kind == EVENT_KIND_TRADE:
        return Dropped.NO if price > 0.0 else Dropped.BAD_VALUE
    if kind not in (EVENT_KIND_BOOK_DELTA, EVENT_KIND_BOOK_SNAPSHOT):
        return Dropped.NO
    few.bookish = True
    nothing = kind == EVENT_KIND_BOOK_SNAPSHOT and columns["quantity"][row] == 0.0
    level = price > 0.0 or nothing
    return Dropped.NO if level and 0 <= columns["side"][row] <= SIDE_SELL else Dropped.BAD_VALUE


def _reference_price(few: FewEvents, row: int) -> float:
    columns = few.columns
    kind = columns["kind"][row]
    if kind == EVENT_KIND_TRADE:
        price: float = columns["price"][row]
        return price
    if kind != EVENT_KIND_QUOTE or few.judged.flags[row] & EVENT_FLAG_CROSSED:
        return 0.0
    bid, ask = columns["bid"][row], columns["ask"][row]
    return 0.5 * bid + 0.5 * ask if bid > 0.0 and ask > 0.0 else 0.0
