"""Raw market data in, clean market data out, by stated rules and from the log alone.

Per source and symbol, in the order of the log:

- An event of unknown kind, or with a price or quantity that is NaN, infinite or negative, is dropped.
- A sequence number not above the last one is a duplicate: dropped. One that skips is passed on, flagged GAP;
  so is one that falls back at a later time than any numbered before it: the source has begun to number anew.
- A quote with bid above ask is passed on, flagged CROSSED, and is no reference for the next price.
- A price too far from the last good one is passed on, flagged OUT_OF_BAND, and is no reference either, until
  several in a row have come: then the market has moved, and the latest becomes the reference.
- An event older than the newest one seen of its source by more than the limit is flagged STALE.
- After a gap, or when joined in its midst, a book is lost: its deltas are dropped until a snapshot is whole.
- When deltas or a snapshot have changed the best prices of a live book by the end of a batch, a quote says
  so. It has the time and the origin of the last event that changed the book, and follows it.
- Of sources that stand in for each other (see failover.py) only the active one is passed on, flagged FAILOVER
  when it is not the first choice. It is chosen once a batch and symbol; the others are followed all the same.

Consumers take a flagged event for what it is: it is never silently mended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from book_service import few_events
from book_service.depth import Level, Top
from book_service.event_rules import VALUES, bad_events, crossed, ordinary_symbols, reference_prices
from book_service.failover import Failover, FailoverRules
from book_service.raw_events import RawEvents
from book_service.source_stream import LEAST_NS, Dropped, Judged, NormaliserRules, SourceStream
from protos import packing
from protos.market.v1.market_pb2 import (
    EVENT_FLAG_CROSSED,
    EVENT_FLAG_FAILOVER,
    EVENT_FLAG_STALE,
    EVENT_KIND_BOOK_DELTA,
    EVENT_KIND_BOOK_SNAPSHOT,
    EVENT_KIND_QUOTE,
    NormalizedBatch,
    Origin,
)

__all__ = ["Dropped", "FailoverRules", "Normalised", "Normaliser", "NormaliserRules"]

FEW_EVENTS = 16  # up to so many, one by one costs less than NumPy's price for starting each operation

_TOP = ("bid", "bid_quantity", "ask", "ask_quantity")
_PASSED_ON = ("source_time_ns", *VALUES, "side", "state")
_OF_ITS_CAUSE = EVENT_FLAG_STALE | EVENT_FLAG_FAILOVER  # flags that a quote from the book takes over


@dataclass(frozen=True, slots=True)
class Normalised:
    """A batch's clean events, and what was dropped of it by reason."""

    batch: NormalizedBatch
    dropped: dict[Dropped, int]


@dataclass(frozen=True, slots=True)
class TopQuote:
    """A quote made from a book: it follows the event `cause` of its batch."""

    cause: int
    top: Top
    flags: int


@dataclass(slots=True)
class Normaliser:
    """Turns raw batches into clean ones. Its state is a function of the batches it was given, in order."""

    rules: NormaliserRules = field(default_factory=NormaliserRules)
    house_symbols: dict[tuple[str, str], str] = field(default_factory=dict)  # (source, its symbol) -> ours
    failover: FailoverRules = field(default_factory=FailoverRules)
    _streams: dict[tuple[str, str], SourceStream] = field(default_factory=dict)
    _newest_ns: dict[str, int] = field(default_factory=dict)
    _tops: dict[str, Top] = field(default_factory=dict)  # last published, by house symbol
    _standbys: Failover = field(init=False)

    def __post_init__(self) -> None:
        self._standbys = Failover(self.failover)

    def apply(self, events: RawEvents, origin: Origin) -> Normalised:
        """Normalises one batch."""
        if len(events) <= FEW_EVENTS:
            return self._apply_few(events, origin)
        flags = events.flags.astype(np.uint32)
        dropped = bad_events(events)
        flags[(dropped == Dropped.NO) & crossed(events)] |= EVENT_FLAG_CROSSED
        self._mark_stale(events, flags)
        order, starts, streams, clean = self._follow_streams(events, flags, dropped)
        columns = Judged(
            events.kind, events.source_time_ns, events.side, events.price, events.quantity, flags, dropped
        )
        bookish = (events.kind == EVENT_KIND_BOOK_DELTA) | (events.kind == EVENT_KIND_BOOK_SNAPSHOT)
        any_book = bool(bookish.any())
        quotes: list[TopQuote] = []
        ends = np.append(starts[1:], len(order))
        for stream, start, end, ordinary in zip(streams, starts, ends, clean, strict=True):
            if any_book or stream.book is not None or self.failover.sources:
                rows = order[start:end]
                self._finish(events, stream, columns, rows, quotes, ordinary=ordinary)
        return self._pack(events, origin, flags, dropped, quotes)

    def depth(self, source: str, symbol: str, levels: int) -> tuple[list[Level], list[Level]] | None:
        """Best levels (buy, sell) of a symbol as its source names it; None without a live book."""
        stream = self._streams.get((source, symbol))
        if stream is None or stream.book is None or not stream.book.live:
            return None
        return stream.book.depth(levels)

    def active_source(self, symbol: str) -> str | None:
        """Which ranked source is passed on for a house symbol."""
        return self._standbys.active(symbol)

    def _mark_stale(self, events: RawEvents, flags: NDArray[np.uint32]) -> None:
        times = events.source_time_ns
        newest_before = self._newest_ns.get(events.source, LEAST_NS)
        newest = np.maximum.accumulate(np.maximum(times, newest_before))
        # The limit is taken off what cannot overflow by it, and times are hostile.
        oldest = np.maximum(newest, LEAST_NS + self.rules.stale_after_ns) - self.rules.stale_after_ns
        flags[times < oldest] |= EVENT_FLAG_STALE
        self._newest_ns[events.source] = int(newest[-1])

    def _stream(self, source: str, symbol: str) -> SourceStream:
        stream = self._streams.get((source, symbol))
        if stream is None:
            stream = self._streams[(source, symbol)] = SourceStream()
        return stream

    def _follow_streams(
        self, events: RawEvents, flags: NDArray[np.uint32], dropped: NDArray[np.uint8]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], list[SourceStream], list[bool]]:
        """Sequence numbers and price bands by symbol: all at once where all is ordinary, else one by one.

        Returns the events' order by symbol, where each symbol starts in it, its stream, and whether it was
        ordinary.
        """
        prices = reference_prices(events, flags)
        order = np.argsort(events.symbol_index, kind="stable")
        places = events.symbol_index[order]
        starts = np.flatnonzero(np.diff(places, prepend=np.uint32(places[0]) + 1))
        streams = [self._stream(events.source, events.symbols[place]) for place in places[starts]]
        ordinary = ordinary_symbols(streams, starts, events.source_sequence[order], prices[order], self.rules)
        ordinary &= np.logical_and.reduceat(dropped[order] == Dropped.NO, starts)
        newest = np.maximum.reduceat(events.source_time_ns[order], starts).tolist()
        ends = np.append(starts[1:], len(order))
        for stream, start, end, clean, time_ns in zip(streams, starts, ends, ordinary, newest, strict=True):
            rows = order[start:end]
            if clean:
                self._take_all(stream, events, prices, rows, time_ns)
            else:
                self._one_by_one(stream, events, prices, flags, dropped, rows)
        return order, starts, streams, ordinary.tolist()

    def _take_all(
        self,
        stream: SourceStream,
        events: RawEvents,
        prices: NDArray[np.float64],
        rows: NDArray[np.intp],
        newest_ns: int,
    ) -> None:
        last = int(events.source_sequence[rows[-1]])
        if last:
            stream.last_sequence, stream.newest_ns = last, max(stream.newest_ns, newest_ns)
        priced = prices[rows]
        if priced[-1] > 0.0:
            stream.good_price, stream.outside_in_a_row = float(priced[-1]), 0
            return
        priced = priced[priced > 0.0]
        if priced.size:
            stream.good_price, stream.outside_in_a_row = float(priced[-1]), 0

    def _one_by_one(
        self,
        stream: SourceStream,
        events: RawEvents,
        prices: NDArray[np.float64],
        flags: NDArray[np.uint32],
        dropped: NDArray[np.uint8],
        rows: NDArray[np.intp],
    ) -> None:
        for row in rows:
            found = stream.check_sequence(int(events.source_sequence[row]), int(events.source_time_ns[row]))
            if found is None:
                dropped[row] = Dropped.DUPLICATE
                continue
            flags[row] |= found
            if dropped[row] == Dropped.NO and prices[row] > 0.0:
                flags[row] |= stream.check_band(float(prices[row]), self.rules)

    def _finish(
        self,
        events: RawEvents,
        stream: SourceStream,
        columns: Judged,
        rows: Sequence[int] | NDArray[np.intp],
        quotes: list[TopQuote],
        *,
        ordinary: bool,
    ) -> None:
        """One symbol's book and which source is active, once its events have been judged."""
        symbol = events.symbols[int(events.symbol_index[rows[0]])]
        house = self.house_symbols.get((events.source, symbol), symbol)
        changed_by = stream.follow_book(columns, rows, ordinary=ordinary)
        book = stream.book
        if events.source in self.failover.sources:
            newest = max(int(columns.time_ns[row]) for row in rows)
            usable = book is None or book.live
            active = self._standbys.heard(house, events.source, newest, len(rows), usable=usable)
            for row in rows:
                if not active and columns.dropped[row] == Dropped.NO:
                    columns.dropped[row] = Dropped.STANDBY
                elif active and events.source != self.failover.sources[0]:
                    columns.flags[row] |= EVENT_FLAG_FAILOVER
            if not active:
                return
        if changed_by is None or book is None or not book.live:
            return
        top = book.top()
        if self._tops.get(house) != top:
            self._tops[house] = top
            flags = int(columns.flags[changed_by]) & _OF_ITS_CAUSE
            quotes.append(TopQuote(int(changed_by), top, flags | self._judge_top(stream, top)))

    def _judge_top(self, stream: SourceStream, top: Top) -> int:
        if not (top.bid and top.ask):
            return 0
        if top.bid > top.ask:
            return EVENT_FLAG_CROSSED
        return stream.check_band(0.5 * top.bid + 0.5 * top.ask, self.rules)

    def _apply_few(self, events: RawEvents, origin: Origin) -> Normalised:
        few = few_events.read(events)
        newest = self._newest_ns.get(events.source, LEAST_NS)
        groups: dict[int, list[int]] = {}
        for row, place in enumerate(few.columns["symbol_index"]):
            groups.setdefault(place, []).append(row)
            newest = few_events.judge(few, row, newest, self.rules)
        self._newest_ns[events.source] = newest
        quotes: list[TopQuote] = []
        for place in sorted(groups):
            rows = groups[place]
            stream = self._stream(events.source, events.symbols[place])
            for row in rows:
                few_events.follow(few, row, stream, self.rules)
            if few.bookish or stream.book is not None or self.failover.sources:
                self._finish(events, stream, few.judged, rows, quotes, ordinary=False)
        if not quotes:
            return Normalised(*few_events.pack(few, events, origin, self._house(events)))
        flags, dropped = np.array(few.judged.flags, np.uint32), np.array(few.judged.dropped, np.uint8)
        return self._pack(events, origin, flags, dropped, quotes)

    def _house(self, events: RawEvents) -> Sequence[str]:
        if not self.house_symbols:
            return events.symbols
        return [self.house_symbols.get((events.source, symbol), symbol) for symbol in events.symbols]

    def _pack(
        self,
        events: RawEvents,
        origin: Origin,
        flags: NDArray[np.uint32],
        dropped: NDArray[np.uint8],
        quotes: list[TopQuote],
    ) -> Normalised:
        kept = np.flatnonzero(dropped == Dropped.NO)
        batch = NormalizedBatch(
            origin=origin,
            source=events.source,
            symbols=self._house(events),
            dropped=len(events) - kept.size,
        )
        causes = np.array([quote.cause for quote in quotes], np.intp)
        index = np.concatenate((kept, causes))
        order = np.argsort(index, kind="stable") if quotes else np.arange(len(kept))
        packing.write(batch, "origin_index", index[order])
        quote_flags = np.array([quote.flags for quote in quotes], np.uint32)
        packing.write(batch, "flags", np.concatenate((flags[kept], quote_flags))[order])
        for name in ("symbol_index", "kind", *_PASSED_ON):
            values = getattr(events, name)[kept]
            if quotes:
                values = np.concatenate((values, _of_quotes(events, name, quotes, causes)))[order]
            # A column of zeros says nothing; left out it costs nothing.
            if name in ("symbol_index", "kind") or values.any():
                packing.write(batch, name, values)
        counts = np.bincount(dropped, minlength=len(Dropped))
        reasons = {reason: int(counts[reason]) for reason in Dropped if reason and counts[reason]}
        return Normalised(batch, reasons)


def _of_quotes(
    events: RawEvents, name: str, quotes: list[TopQuote], causes: NDArray[np.intp]
) -> NDArray[Any]:
    """A column of the quotes that books gave."""
    column: NDArray[Any] = getattr(events, name)
    if name in ("symbol_index", "source_time_ns"):
        return column[causes]
    if name == "kind":
        return np.full(len(quotes), EVENT_KIND_QUOTE, column.dtype)
    if name in _TOP:
        return np.array([getattr(quote.top, name) for quote in quotes], column.dtype)
    return np.zeros(len(quotes), column.dtype)
