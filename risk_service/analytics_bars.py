"""Bars of every underlying, one a second of the source's clock, as the live loop takes records in."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import dropwhile
from math import isnan, nan
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from protos.market.v1.market_pb2 import EVENT_KIND_QUOTE, EVENT_KIND_TRADE
from risk_service.market_events import MarketEvents, Tick
from risk_service.market_state import UNTRUSTED

BAR_NS = 1_000_000_000
BARS = 300  # kept
UNDERLYINGS_MAX = 2_000  # one too many gets no bars
LARGEST = 1e100  # price or quantity: sums of larger ones may be no numbers

Floats = NDArray[np.float64]


class Bar(NamedTuple):
    """One second; an entry for each underlying that was known by then."""

    number: int  # seconds since 1970 at its beginning
    price: Floats  # last middle of a quote, the first trade where there was none; NaN: nothing was said
    volume: Floats
    turnover: Floats


class History(NamedTuple):
    """The last bars that are complete, oldest first; a second without any record has none."""

    names: tuple[str, ...]
    bars: tuple[Bar, ...]
    ends: int  # seconds since 1970: of the bar that goes on

    def since(self, number: int) -> History:
        """The bars from a second on."""
        return self._replace(bars=tuple(dropwhile(lambda bar: bar.number < number, self.bars)))


NO_BARS = History((), (), 0)


@dataclass(slots=True)
class BarBook:
    """The bar that goes on, and those before it. A function of the records, in their order."""

    _places: dict[str, int] = field(default_factory=dict)
    _complete: deque[Bar] = field(default_factory=lambda: deque(maxlen=BARS))
    _number: int = -1  # of the bar that goes on
    _price: list[float] = field(default_factory=list)
    _volume: list[float] = field(default_factory=list)
    _turnover: list[float] = field(default_factory=list)

    def take(self, key: str, events: MarketEvents | Tick) -> None:
        """Takes in the trusted prices of the underlying `key` in one of its records."""
        if isinstance(events, Tick):
            place = self._place(key, events.source_time_ns)
            if place is not None and events.symbol == key and not events.flags & UNTRUSTED:
                self._take_one(place, events.kind, events.bid, events.ask, events.price, events.quantity)
            return
        if not len(events):
            return
        place = self._place(key, int(events.source_time_ns.max()))
        if place is None:
            return
        for row in np.flatnonzero((events.flags & UNTRUSTED) == 0).tolist():
            if events.symbols[events.symbol_index[row]] == key:
                one = (
                    float(column[row]) for column in (events.bid, events.ask, events.price, events.quantity)
                )
                self._take_one(place, int(events.kind[row]), *one)

    def history(self) -> History:
        """The bars that are complete."""
        return History(tuple(self._places), tuple(self._complete), self._number)

    def _place(self, key: str, time_ns: int) -> int | None:
        """Of an underlying, in the bar of this moment; None for one too many.

        A record that comes late counts in the bar that goes on.
        """
        number = time_ns // BAR_NS
        if number > self._number:
            if self._number >= 0:
                columns = (np.array(column) for column in (self._price, self._volume, self._turnover))
                self._complete.append(Bar(self._number, *columns))
            self._number, count = number, len(self._places)
            self._price, self._volume, self._turnover = [nan] * count, [0.0] * count, [0.0] * count
        place = self._places.get(key)
        if place is None and len(self._places) < UNDERLYINGS_MAX:
            place = self._places[key] = len(self._places)
            self._price.append(nan)
            self._volume.append(0.0)
            self._turnover.append(0.0)
        return place

    def _take_one(self, place: int, kind: int, bid: float, ask: float, price: float, quantity: float) -> None:
        if kind == EVENT_KIND_QUOTE and 0.0 < bid < LARGEST and 0.0 < ask < LARGEST:
            self._price[place] = 0.5 * (bid + ask)
        elif kind == EVENT_KIND_TRADE and 0.0 < price < LARGEST and 0.0 < quantity < LARGEST:
            if isnan(self._price[place]):
                self._price[place] = price
            self._volume[place] += quantity
            self._turnover[place] += price * quantity
