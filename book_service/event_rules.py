"""The normaliser's rules that need only the batch, or its symbols at once: whole columns through NumPy.

few_events.py has the same rules for an event at a time; tests hold the two against each other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from book_service.raw_events import RawEvents
from book_service.source_stream import Dropped, NormaliserRules, SourceStream
from protos.market.v1.market_pb2 import (
    EVENT_FLAG_CROSSED,
    EVENT_KIND_BOOK_DELTA,
    EVENT_KIND_BOOK_SNAPSHOT,
    EVENT_KIND_QUOTE,
    EVENT_KIND_STATUS,
    EVENT_KIND_TRADE,
    SIDE_SELL,
)

VALUES = ("bid", "ask", "bid_quantity", "ask_quantity", "price", "quantity", "rate", "dividend_yield")
SIGNED = ("rate", "dividend_yield")


def bad_events(events: RawEvents) -> NDArray[np.uint8]:
    """For each event whether it must be dropped for what it says, and why."""
    kind = events.kind
    dropped = np.zeros(len(events), np.uint8)
    for name in VALUES:
        values = getattr(events, name)
        if not values.any():
            continue
        bad = ~np.isfinite(values)
        if name not in SIGNED:
            bad |= values < 0.0
        dropped[bad] = Dropped.BAD_VALUE
    unpriced = ~(events.price > 0.0)
    dropped[(kind == EVENT_KIND_TRADE) & unpriced] = Dropped.BAD_VALUE
    bookish = (kind == EVENT_KIND_BOOK_DELTA) | (kind == EVENT_KIND_BOOK_SNAPSHOT)
    # A snapshot of nothing is one row without quantity, and needs no price.
    no_level = unpriced & ~((kind == EVENT_KIND_BOOK_SNAPSHOT) & (events.quantity == 0.0))
    dropped[bookish & (no_level | (events.side < 0) | (events.side > SIDE_SELL))] = Dropped.BAD_VALUE
    dropped[(kind < EVENT_KIND_QUOTE) | (kind > EVENT_KIND_STATUS)] = Dropped.UNKNOWN_KIND
    return dropped


def crossed(events: RawEvents) -> NDArray[np.bool_]:
    """Quotes with bid above ask."""
    return _two_sided(events) & (events.bid > events.ask)


def _two_sided(events: RawEvents) -> NDArray[np.bool_]:
    quoted: NDArray[np.bool_] = (events.kind == EVENT_KIND_QUOTE) & (events.bid > 0.0) & (events.ask > 0.0)
    return quoted


def reference_prices(events: RawEvents, flags: NDArray[np.uint32]) -> NDArray[np.float64]:
    """The price by which an event is held against the band; 0 where it has none."""
    two_sided = _two_sided(events) & ((flags & EVENT_FLAG_CROSSED) == 0)
    # Halved before added: two prices near the largest float must not become infinite.
    middle = np.where(two_sided, 0.5 * events.bid + 0.5 * events.ask, 0.0)
    return np.where(events.kind == EVENT_KIND_TRADE, events.price, middle)


def ordinary_symbols(
    streams: list[SourceStream],
    starts: NDArray[np.intp],
    sequence: NDArray[np.uint64],
    prices: NDArray[np.float64],
    rules: NormaliserRules,
) -> NDArray[np.bool_]:
    """Of which symbols every event follows the one before by number and price. Events are by symbol."""
    before = np.empty_like(sequence)
    before[1:] = sequence[:-1]
    before[starts] = [stream.last_sequence for stream in streams]
    numbered = np.logical_and.reduceat(sequence == before + np.uint64(1), starts)
    numbered |= ~np.logical_or.reduceat(sequence != 0, starts)
    priced = np.flatnonzero(prices > 0.0)
    if priced.size == 0:
        return numbered
    chosen = prices[priced]
    symbol = np.searchsorted(starts, priced, side="right") - 1
    first = np.flatnonzero(np.diff(symbol, prepend=-1))
    reference = np.empty_like(chosen)
    reference[1:] = chosen[:-1]
    good = np.array([stream.good_price for stream in streams])[symbol[first]]
    reference[first] = np.where(good > 0.0, good, chosen[first])
    band = np.maximum(rules.band_relative * reference, rules.band_absolute)
    numbered[symbol[np.abs(chosen - reference) > band]] = False
    return numbered
