"""Bars of every underlying from the live market, and their figures once a bar is complete."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.analytics import SeriesFigures, series_figures
from protos.market.v1.market_pb2 import EVENT_KIND_QUOTE, EVENT_KIND_TRADE
from protos.risk.v1.risk_pb2 import AnalyticsResult
from risk_service.market_events import MarketEvents, Tick
from risk_service.market_state import UNTRUSTED

BAR_NS = 1_000_000_000
BARS = 300  # kept of each underlying
# Seconds in which a share trades in a year: what realised volatility is scaled to.
BARS_PER_YEAR = 252 * 6.5 * 3600
UNDERLYINGS_MAX = 2_000  # correlations of all pairs go out each bar

_PRICE, _VOLUME, _TURNOVER = range(3)


@dataclass(slots=True)
class Analytics:
    """The last bars, one a second of the source's clock. A function of the records, in their order."""

    _places: dict[str, int] = field(default_factory=dict)
    # (price or volume or turnover, underlying, bar); the last bar is the one that goes on.
    _bars: NDArray[np.float64] = field(default_factory=lambda: _nothing(0, BARS + 1))
    _complete: int = -1  # bars before this one are
    _told: int = -1

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

    def results(self) -> list[AnalyticsResult]:
        """Figures of all underlyings if a bar was completed since they were asked for last; else nothing."""
        if self._told >= self._complete:
            return []
        self._told = self._complete
        return self._results(self._bars[:, :, :-1], self._complete * BAR_NS)

    def _advance(self, bar: int) -> None:
        """Begins a new bar; a record that comes late counts in the one that goes on."""
        if self._complete < 0:
            self._complete = self._told = bar
        if bar <= self._complete:
            return
        # A second without any record is a bar of nothing.
        ahead = min(bar - self._complete, BARS + 1)
        self._bars = np.concatenate((self._bars[:, :, ahead:], _nothing(len(self._places), ahead)), axis=2)
        self._complete = bar

    def _place(self, key: str, time_ns: int) -> int | None:
        """Of an underlying, at this moment; None for one too many."""
        self._advance(time_ns // BAR_NS)
        place = self._places.get(key)
        if place is None and len(self._places) < UNDERLYINGS_MAX:
            place = self._places[key] = len(self._places)
            self._bars = np.concatenate((self._bars, _nothing(1, BARS + 1)), axis=1)
        return place

    def _take_one(self, place: int, kind: int, bid: float, ask: float, price: float, quantity: float) -> None:
        bars = self._bars
        if kind == EVENT_KIND_QUOTE and bid > 0.0 and ask > 0.0:
            bars[_PRICE, place, -1] = 0.5 * (bid + ask)
        elif kind == EVENT_KIND_TRADE and price > 0.0 and quantity > 0.0:
            if np.isnan(bars[_PRICE, place, -1]):
                bars[_PRICE, place, -1] = price
            bars[_VOLUME, place, -1] += quantity
            bars[_TURNOVER, place, -1] += price * quantity

    def _results(self, bars: NDArray[np.float64], time_ns: int) -> list[AnalyticsResult]:
        if not self._places:
            return []
        figures = series_figures(
            bars[_PRICE], bars[_VOLUME], turnover=bars[_TURNOVER], bars_per_year=BARS_PER_YEAR
        )
        names = tuple(self._places)
        return [_result(names, place, figures, time_ns) for place in range(len(names))]


def _nothing(underlyings: int, bars: int) -> NDArray[np.float64]:
    empty = np.zeros((3, underlyings, bars))
    empty[_PRICE] = np.nan
    return empty


def _result(names: tuple[str, ...], place: int, figures: SeriesFigures, time_ns: int) -> AnalyticsResult:
    row = figures.correlation[place]
    others = [other for other in np.flatnonzero(np.isfinite(row)).tolist() if other != place]
    return AnalyticsResult(
        key=names[place],
        time_ns=time_ns,
        realised_vol=figures.realised_vol[place],
        vwap=figures.vwap[place],
        moving_average_fast=figures.moving_average_fast[place],
        moving_average_slow=figures.moving_average_slow[place],
        rsi=figures.rsi[place],
        correlated_symbol=[names[other] for other in others],
        correlation=row[others],
    )
