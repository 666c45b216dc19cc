"""The market as the log has told it so far: quotes, spots, rates, and the moment each is of.

A pure function of the records applied, in the order of each partition: two services that have applied the
same records hold the same numbers, and the snapshot id names which records those were.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from protos.market.v1.market_pb2 import (
    EVENT_FLAG_CROSSED,
    EVENT_FLAG_OUT_OF_BAND,
    EVENT_FLAG_STALE,
    EVENT_KIND_QUOTE,
    EVENT_KIND_REFERENCE,
    EVENT_KIND_TRADE,
)
from risk_service.market_events import MarketEvents, Tick

# A price with one of these flags is reported by the normaliser as not to be trusted: it marks nothing.
UNTRUSTED = EVENT_FLAG_CROSSED | EVENT_FLAG_OUT_OF_BAND | EVENT_FLAG_STALE
MISSING = -1  # no slot

# Time to expiry is that of the last whole second: so a book's number is a function of the log, whichever
# of its underlyings ticked last, and one that did not tick since is not worked out again.
VALUATION_STEP_NS = 1_000_000_000

# How far the clock of a source may be ahead of that of the log.
AHEAD_NS_MAX = 60_000_000_000
LOGGED_AT_ANY_TIME = 1 << 62  # the log does not say when

# A rate or yield beyond this, per year, is a mistake of units: it marks nothing.
RATE_MAX = 10.0

_FIRST_CAPACITY = 256


_SLOT = np.dtype(
    [
        ("mid", np.float64),
        ("last", np.float64),
        ("rate", np.float64),
        ("dividend_yield", np.float64),
        ("time_ns", np.int64),
        # What the underlying was when the instrument was quoted: a vol is implied from numbers of one moment.
        ("underlying_spot", np.float64),
        ("underlying_rate", np.float64),
        ("underlying_yield", np.float64),
        ("quotes", np.int64),
        ("quote_time_ns", np.int64),  # of the last quote: a trade tells no vol, and moves none
    ]
)


def _empty(capacity: int) -> NDArray[np.void]:
    slots = np.zeros(capacity, _SLOT)
    for name in ("mid", "last", "underlying_spot"):
        slots[name] = np.nan
    return slots


class Clocks(NamedTuple):
    """Newest moments seen. The numbers follow the source's; the other only measures the way of a tick."""

    source_time_ns: int = 0
    normalized_time_ns: int = 0


_UNSET = Clocks()


@dataclass(slots=True)
class MarketState:
    """Everything known of every instrument, one slot each."""

    _slots: dict[str, int] = field(default_factory=dict)
    _data: NDArray[np.void] = field(default_factory=lambda: _empty(_FIRST_CAPACITY))
    _next_offsets: dict[int, int] = field(default_factory=dict)
    clocks: Clocks = _UNSET
    _columns: dict[str, NDArray[Any]] = field(default_factory=dict)  # views of `_data`
    _snapshot_id: str | None = None
    from_the_future: int = 0  # records passed over
    # How long, by the host's clock, nothing has been heard: of a copy only, and only for ages.
    silent_ns: int = 0
    away: str = ""  # of a copy only: why nothing can be heard at all
    _free: list[int] = field(default_factory=list)  # slots without a symbol

    def __post_init__(self) -> None:
        self._hold(self._data)

    def apply(
        self,
        events: MarketEvents | Tick,
        key: str,
        partition: int,
        offset: int,
        logged_time_ns: int = LOGGED_AT_ANY_TIME,
    ) -> set[str]:
        """Takes in one record, all of it of the underlying `key`; returns the symbols that changed.

        A record with events of a time after it was logged, by more than clocks may differ, is passed over: by
        its clock the options of all books would expire.
        """
        if _newest_ns(events) > logged_time_ns + AHEAD_NS_MAX:
            self._snapshot_id = None
            self._next_offsets[partition] = offset + 1
            self.from_the_future += 1
            return set()
        underlying = self._slot(key)
        self._snapshot_id = None
        if isinstance(events, Tick):
            self._next_offsets[partition] = offset + 1
            return {events.symbol} if self._apply_tick(events, underlying) else set()
        slots = self.slots(events.symbols)
        places = slots[events.symbol_index]
        changed = self._set_references(events, places)
        priced = self._set_prices(events, places, underlying)
        self._tie_to_underlying(priced, underlying)
        changed |= {events.symbols[index] for index in np.unique(events.symbol_index[priced.rows]).tolist()}
        newest = _newest_ns(events)
        self.clocks = Clocks(
            max(self.clocks.source_time_ns, newest),
            max(self.clocks.normalized_time_ns, events.normalized_time_ns),
        )
        self._next_offsets[partition] = offset + 1
        return changed

    def _apply_tick(self, tick: Tick, underlying: int) -> bool:
        """As `apply` for a record of one event; whether it changed anything."""
        place, kind, time_ns = self._slot(tick.symbol), tick.kind, tick.source_time_ns
        clocks, columns = self.clocks, self._columns
        self.clocks = Clocks(
            max(clocks.source_time_ns, time_ns), max(clocks.normalized_time_ns, tick.normalized_time_ns)
        )
        if kind == EVENT_KIND_REFERENCE:
            if not (abs(tick.rate) <= RATE_MAX and abs(tick.dividend_yield) <= RATE_MAX):
                return False
            columns["rate"][place], columns["dividend_yield"][place] = tick.rate, tick.dividend_yield
            return True
        if tick.flags & UNTRUSTED:
            return False
        mid = 0.5 * (tick.bid + tick.ask)
        if (
            kind == EVENT_KIND_QUOTE
            and tick.ask > 0.0
            and (tick.bid > 0.0 or place != underlying)
            and mid < inf
        ):
            columns["mid"][place], columns["time_ns"][place] = mid, time_ns
            columns["quote_time_ns"][place] = time_ns
            mid = columns["mid"][underlying]
            columns["underlying_spot"][place] = mid if mid == mid else columns["last"][underlying]
            columns["underlying_rate"][place] = columns["rate"][underlying]
            columns["underlying_yield"][place] = columns["dividend_yield"][underlying]
            columns["quotes"][place] += 1
            return True
        if kind == EVENT_KIND_TRADE and 0.0 < tick.price < inf:
            columns["last"][place], columns["time_ns"][place] = tick.price, time_ns
            return True
        return False

    def snapshot_id(self) -> str:
        """Names the exact prefix of the log that this state is made of: partition and next offset of each."""
        if self._snapshot_id is None:
            self._snapshot_id = ",".join(
                f"{partition}:{self._next_offsets[partition]}" for partition in sorted(self._next_offsets)
            )
        return self._snapshot_id

    @property
    def valuation_time_ns(self) -> int:
        """The moment from which time to expiry counts."""
        return self.clocks.source_time_ns // VALUATION_STEP_NS * VALUATION_STEP_NS

    def slots(self, symbols: Iterable[str]) -> NDArray[np.int64]:
        """Slots of the symbols, made where nothing was said of one yet; MISSING for the empty name."""
        return np.array([self._slot(symbol) if symbol else MISSING for symbol in symbols], np.int64)

    @property
    def symbols(self) -> int:
        """How many have a slot."""
        return len(self._slots)

    def free(self, held: Iterable[NDArray[np.int64]]) -> None:
        """Frees the slots that are not held and of whose symbols nothing was said: other symbols get them."""
        columns = self._columns
        silent = np.isnan(columns["mid"]) & np.isnan(columns["last"]) & (columns["time_ns"] == 0)
        silent &= (columns["rate"] == 0.0) & (columns["dividend_yield"] == 0.0)
        for slots in held:
            silent[slots[slots != MISSING]] = False
        for symbol in [symbol for symbol, slot in self._slots.items() if silent[slot]]:
            self._free.append(self._slots.pop(symbol))

    def find(self, symbols: Iterable[str]) -> NDArray[np.int64]:
        """Slots of the symbols, MISSING for one of which nothing was said; makes none."""
        return np.array([self._slots.get(symbol, MISSING) for symbol in symbols], np.int64)

    def copy(self) -> MarketState:
        """The state as it is now; what is applied later does not reach it."""
        return MarketState(
            dict(self._slots),
            self._data.copy(),
            dict(self._next_offsets),
            self.clocks,
            silent_ns=self.silent_ns,
            away=self.away,
            _free=self._free.copy(),
        )

    def parts(self) -> tuple[list[str], NDArray[np.void], dict[int, int], Clocks]:
        """What `of_parts` makes it of again: symbols by slot, slots, next offsets, clocks."""
        slots = np.fromiter(self._slots.values(), np.int64, len(self._slots))
        return list(self._slots), self._data[slots], dict(self._next_offsets), self.clocks

    @classmethod
    def of_parts(
        cls, symbols: Iterable[str], data: NDArray[np.void], next_offsets: dict[int, int], clocks: Clocks
    ) -> MarketState:
        """The state that had these parts; ValueError where its slots are others than ours."""
        if data.dtype != _SLOT:
            raise ValueError(f"slots have the fields {data.dtype.names}, not {_SLOT.names}")
        slots = {symbol: slot for slot, symbol in enumerate(symbols)}
        return cls(slots, np.concatenate((data, _empty(_FIRST_CAPACITY))), next_offsets, clocks)

    def at(self, clocks: Clocks) -> MarketState:
        """The same prices seen from another moment; for reading only."""
        return MarketState(
            self._slots, self._data, self._next_offsets, clocks, silent_ns=self.silent_ns, away=self.away
        )

    def ages_ns(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """How old each slot's newest good price is."""
        return self.clocks.source_time_ns - self.times_ns(slots) + self.silent_ns

    def column(self, name: str, slots: NDArray[np.int64]) -> NDArray[np.float64]:
        """One column at the given slots; NaN where a slot is missing."""
        values = self._columns[name][slots].astype(np.float64, copy=False)
        values[slots == MISSING] = np.nan
        return values

    def times_ns(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Moment of each slot's newest good price, by the source's clock; 0 where there is none."""
        return self._moments("time_ns", slots)

    def quote_times_ns(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Moment of each slot's newest good quote, by the source's clock; 0 where there is none."""
        return self._moments("quote_time_ns", slots)

    def _moments(self, name: str, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        # A feed's moment before 1970 is none: an age counted from it might not be a number of 64 bits.
        times: NDArray[np.int64] = np.maximum(self._columns[name][slots], 0)
        times[slots == MISSING] = 0
        return times

    def spots(self, slots: NDArray[np.int64]) -> NDArray[np.float64]:
        """The middle of the last good quote, or the last good trade where there was never a quote."""
        mid = self.column("mid", slots)
        return np.where(np.isnan(mid), self.column("last", slots), mid)

    def _slot(self, symbol: str) -> int:
        slot = self._slots.get(symbol)
        if slot is None:
            # Where none is free all slots have a symbol.
            slot = self._slots[symbol] = self._free.pop() if self._free else len(self._slots)
            if slot >= len(self._data):
                self._hold(np.concatenate((self._data, _empty(slot))))
        return slot

    def _hold(self, data: NDArray[np.void]) -> None:
        self._data = data
        self._columns = {name: data[name] for name in _SLOT.names or ()}

    def _set_references(self, events: MarketEvents, places: NDArray[np.int64]) -> set[str]:
        known = (np.abs(events.rate) <= RATE_MAX) & (np.abs(events.dividend_yield) <= RATE_MAX)
        rows = np.flatnonzero((events.kind == EVENT_KIND_REFERENCE) & known)
        # NumPy keeps the last of several writes to one place, which is the latest event of the record.
        self._columns["rate"][places[rows]] = events.rate[rows]
        self._columns["dividend_yield"][places[rows]] = events.dividend_yield[rows]
        return {events.symbols[index] for index in np.unique(events.symbol_index[rows]).tolist()}

    def _set_prices(self, events: MarketEvents, places: NDArray[np.int64], underlying: int) -> _Priced:
        trusted = (events.flags & UNTRUSTED) == 0
        # An option that nobody bids for is worth something between nothing and its ask. An underlying is not.
        two_sided = (events.bid > 0.0) | (places != underlying)
        mids = 0.5 * (events.bid + events.ask)
        quoted = trusted & (events.kind == EVENT_KIND_QUOTE) & two_sided & (events.ask > 0.0) & (mids < inf)
        traded = trusted & (events.kind == EVENT_KIND_TRADE) & (events.price > 0.0) & (events.price < inf)
        self._columns["mid"][places[quoted]] = mids[quoted]
        self._columns["quote_time_ns"][places[quoted]] = events.source_time_ns[quoted]
        self._columns["last"][places[traded]] = events.price[traded]
        either = quoted | traded
        self._columns["time_ns"][places[either]] = events.source_time_ns[either]
        return _Priced(np.flatnonzero(either), np.unique(places[quoted]))

    def _tie_to_underlying(self, priced: _Priced, underlying: int) -> None:
        here = np.array([underlying], np.int64)
        self._columns["underlying_spot"][priced.quoted] = self.spots(here)[0]
        self._columns["underlying_rate"][priced.quoted] = self._columns["rate"][underlying]
        self._columns["underlying_yield"][priced.quoted] = self._columns["dividend_yield"][underlying]
        self._columns["quotes"][priced.quoted] += 1


def _newest_ns(events: MarketEvents | Tick) -> int:
    if isinstance(events, Tick):
        return events.source_time_ns
    return int(events.source_time_ns.max()) if len(events) else 0


@dataclass(frozen=True, slots=True)
class _Priced:
    rows: NDArray[np.intp]  # events that carried a good price
    quoted: NDArray[np.int64]  # slots that got a good quote
