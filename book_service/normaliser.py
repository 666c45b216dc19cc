"""Raw market data in, clean market data out, by stated rules and from the log alone.

Per source and symbol, in the order of the log:

- An event of unknown kind, or with a price or quantity that is NaN, infinite or negative, is dropped.
- A sequence number not above the last one is a duplicate: dropped. One that skips is passed on, flagged GAP.
- A quote with bid above ask is passed on, flagged CROSSED, and is no reference for the next price.
- A price too far from the last good one is passed on, flagged OUT_OF_BAND, and is no reference either, until
  several in a row have come: then the market has moved, and the latest becomes the reference.
- An event older than the newest one seen of its source by more than the limit is flagged STALE.

Consumers take a flagged event for what it is: it is never silently mended.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from book_service.raw_events import RawEvents
from protos import packing
from protos.market.v1.market_pb2 import (
    EVENT_FLAG_CROSSED,
    EVENT_FLAG_GAP,
    EVENT_FLAG_OUT_OF_BAND,
    EVENT_FLAG_STALE,
    EVENT_KIND_QUOTE,
    EVENT_KIND_STATUS,
    EVENT_KIND_TRADE,
    NormalizedBatch,
    Origin,
)

_PASSED_ON = ("bid", "ask", "bid_quantity", "ask_quantity", "price", "quantity", "rate", "dividend_yield")


class Dropped(IntEnum):
    """Why an event was not passed on."""

    NO = 0
    UNKNOWN_KIND = 1
    BAD_VALUE = 2
    DUPLICATE = 3


@dataclass(frozen=True, slots=True)
class NormaliserRules:
    """The limits of the rules above."""

    band_relative: float = 0.25  # of the last good price
    band_absolute: float = 1.0  # currency; the wider of the two bands holds, so that cheap options may move
    band_confirmations: int = 5  # events outside the band in a row that make a new reference
    stale_after_ns: int = 2_000_000_000


@dataclass(slots=True)
class _Stream:
    """What is remembered of one symbol of one source."""

    last_sequence: int = 0
    good_price: float = 0.0  # 0: none yet
    outside_in_a_row: int = 0


@dataclass(frozen=True, slots=True)
class Normalised:
    """A batch's clean events, and what was dropped of it by reason."""

    batch: NormalizedBatch
    dropped: dict[Dropped, int]


@dataclass(slots=True)
class Normaliser:
    """Turns raw batches into clean ones. Its state is a function of the batches it was given, in order."""

    rules: NormaliserRules = field(default_factory=NormaliserRules)
    house_symbols: dict[tuple[str, str], str] = field(default_factory=dict)  # (source, its symbol) -> ours
    _streams: dict[tuple[str, str], _Stream] = field(default_factory=dict)
    _newest_ns: dict[str, int] = field(default_factory=dict)

    def apply(self, events: RawEvents, origin: Origin) -> Normalised:
        """Normalises one batch."""
        flags = events.flags.astype(np.uint32)
        dropped = _bad_events(events)
        flags[(dropped == Dropped.NO) & _crossed(events)] |= EVENT_FLAG_CROSSED
        self._mark_stale(events, flags)
        self._follow_streams(events, flags, dropped)
        return self._pack(events, origin, flags, dropped)

    def _mark_stale(self, events: RawEvents, flags: NDArray[np.uint32]) -> None:
        times = events.source_time_ns
        newest_before = self._newest_ns.get(events.source, np.iinfo(np.int64).min)
        newest = np.maximum.accumulate(np.maximum(times, newest_before))
        # Compared as a sum on the older side: a difference of hostile times could overflow.
        flags[times < newest - self.rules.stale_after_ns] |= EVENT_FLAG_STALE
        self._newest_ns[events.source] = int(newest[-1])

    def _follow_streams(
        self, events: RawEvents, flags: NDArray[np.uint32], dropped: NDArray[np.uint8]
    ) -> None:
        """Sequence numbers and price bands by symbol: at once where all is ordinary, else one by one."""
        prices = _reference_prices(events, flags)
        order = np.argsort(events.symbol_index, kind="stable")
        places = events.symbol_index[order]
        starts = np.flatnonzero(np.diff(places, prepend=np.uint32(places[0]) + 1))
        for start, end in zip(starts, np.append(starts[1:], len(order)), strict=True):
            rows = order[start:end]
            stream = self._stream(events.source, events.symbols[events.symbol_index[rows[0]]])
            if not self._all_ordinary(stream, events, prices, dropped, rows):
                self._one_by_one(stream, events, prices, flags, dropped, rows)

    def _stream(self, source: str, symbol: str) -> _Stream:
        return self._streams.setdefault((source, symbol), _Stream())

    def _all_ordinary(
        self,
        stream: _Stream,
        events: RawEvents,
        prices: NDArray[np.float64],
        dropped: NDArray[np.uint8],
        rows: NDArray[np.intp],
    ) -> bool:
        """Takes the rows as they are if every one follows the one before; else changes nothing."""
        sequence = events.source_sequence[rows]
        expected = np.arange(stream.last_sequence + 1, stream.last_sequence + 1 + len(rows), dtype=np.uint64)
        if dropped[rows].any() or not np.array_equal(sequence, expected):
            return False
        priced = prices[rows]
        priced = priced[priced > 0.0]
        if priced.size:
            before = np.concatenate(([stream.good_price or priced[0]], priced[:-1]))
            if (np.abs(priced - before) > self._band(before)).any():
                return False
            stream.good_price, stream.outside_in_a_row = float(priced[-1]), 0
        stream.last_sequence = int(sequence[-1])
        return True

    def _one_by_one(
        self,
        stream: _Stream,
        events: RawEvents,
        prices: NDArray[np.float64],
        flags: NDArray[np.uint32],
        dropped: NDArray[np.uint8],
        rows: NDArray[np.intp],
    ) -> None:
        for row in rows:
            sequence = int(events.source_sequence[row])
            if sequence and sequence <= stream.last_sequence:
                dropped[row] = Dropped.DUPLICATE
                continue
            if sequence:
                # A stream may be joined anywhere: its first number is no gap.
                if stream.last_sequence and sequence > stream.last_sequence + 1:
                    flags[row] |= EVENT_FLAG_GAP
                stream.last_sequence = sequence
            if dropped[row] == Dropped.NO and prices[row] > 0.0:
                self._check_band(stream, float(prices[row]), flags, int(row))

    def _check_band(self, stream: _Stream, price: float, flags: NDArray[np.uint32], row: int) -> None:
        good = stream.good_price or price
        outside = abs(price - good) > max(self.rules.band_relative * good, self.rules.band_absolute)
        stream.outside_in_a_row = stream.outside_in_a_row + 1 if outside else 0
        if not outside or stream.outside_in_a_row >= self.rules.band_confirmations:
            stream.good_price, stream.outside_in_a_row = price, 0
        else:
            flags[row] |= EVENT_FLAG_OUT_OF_BAND

    def _band(self, reference: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.maximum(self.rules.band_relative * reference, self.rules.band_absolute)

    def _pack(
        self, events: RawEvents, origin: Origin, flags: NDArray[np.uint32], dropped: NDArray[np.uint8]
    ) -> Normalised:
        kept = np.flatnonzero(dropped == Dropped.NO)
        house = [self.house_symbols.get((events.source, symbol), symbol) for symbol in events.symbols]
        batch = NormalizedBatch(
            origin=origin, source=events.source, symbols=house, dropped=len(events) - kept.size
        )
        packing.write(batch, "origin_index", kept)
        packing.write(batch, "flags", flags[kept])
        for name in ("symbol_index", "kind", "source_time_ns", *_PASSED_ON, "side", "state"):
            values = getattr(events, name)[kept]
            # A column of zeros says nothing; left out it costs nothing.
            if name in ("symbol_index", "kind") or values.any():
                packing.write(batch, name, values)
        counts = np.bincount(dropped, minlength=len(Dropped))
        reasons = {reason: int(counts[reason]) for reason in Dropped if reason and counts[reason]}
        return Normalised(batch, reasons)


def _bad_events(events: RawEvents) -> NDArray[np.uint8]:
    kind = events.kind
    dropped = np.zeros(len(events), np.uint8)
    for name in _PASSED_ON:
        values = getattr(events, name)
        if not values.any():
            continue
        bad = ~np.isfinite(values)
        if name not in ("rate", "dividend_yield"):
            bad |= values < 0.0
        dropped[bad] = Dropped.BAD_VALUE
    trade = (kind == EVENT_KIND_TRADE) & ~(events.price > 0.0)
    dropped[trade] = Dropped.BAD_VALUE
    dropped[(kind < EVENT_KIND_QUOTE) | (kind > EVENT_KIND_STATUS)] = Dropped.UNKNOWN_KIND
    return dropped


def _crossed(events: RawEvents) -> NDArray[np.bool_]:
    return _two_sided(events) & (events.bid > events.ask)


def _two_sided(events: RawEvents) -> NDArray[np.bool_]:
    quoted: NDArray[np.bool_] = (events.kind == EVENT_KIND_QUOTE) & (events.bid > 0.0) & (events.ask > 0.0)
    return quoted


def _reference_prices(events: RawEvents, flags: NDArray[np.uint32]) -> NDArray[np.float64]:
    """The price by which an event is held against the band; 0 where it has none."""
    two_sided = _two_sided(events) & ((flags & EVENT_FLAG_CROSSED) == 0)
    # Halved before added: two prices near the largest float must not become infinite.
    middle = np.where(two_sided, 0.5 * events.bid + 0.5 * events.ask, 0.0)
    return np.where(events.kind == EVENT_KIND_TRADE, events.price, middle)
