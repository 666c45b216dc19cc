"""Figures of all underlyings from their bars: what goes out on analytics.results. Beside the live loop."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

import gpu_kernels as gk
from gpu_kernels.analytics import SeriesFigures, series_figures
from protos.risk.v1.risk_pb2 import AnalyticsResult
from risk_service.analytics_bars import BAR_NS, BARS, Bar, History

# Seconds in which a share trades in a year: what realised volatility is scaled to.
BARS_PER_YEAR = 252 * 6.5 * 3600
# Correlations of one underlying that are told, the strongest: a message does not grow with their number.
PEERS_MAX = 20


class Result(NamedTuple):
    """A message, by its underlying."""

    key: str
    value: bytes


@dataclass(slots=True)
class Analytics:
    """Keeps the last bars, so that it is told each of them once."""

    told: int = 0  # bars before this second
    _bars: deque[Bar] = field(default_factory=lambda: deque(maxlen=BARS))

    def results(self, history: History) -> list[Result]:
        """Figures of all underlyings at the end of the last second; nothing where they are told already."""
        self._bars.extend(history.since(self.told).bars)
        if history.ends <= self.told or not self._bars:
            return []
        self.told = history.ends
        columns = np.zeros((3, len(history.names), BARS))
        columns[0] = np.nan
        for bar in self._bars:
            # Each second has its column, also one in which nobody said anything.
            place = bar.number - history.ends + BARS
            if place >= 0:
                columns[:, : len(bar.price), place] = bar.price, bar.volume, bar.turnover
        price, volume, turnover = columns
        figures = series_figures(
            gk.engine("cpu"), price, volume, turnover=turnover, bars_per_year=BARS_PER_YEAR, peers=PEERS_MAX
        )
        return [
            _result(history.names, place, figures, history.ends * BAR_NS)
            for place in range(len(history.names))
        ]


def _result(names: tuple[str, ...], place: int, figures: SeriesFigures, time_ns: int) -> Result:
    others = [other for other in figures.peer[place].tolist() if other >= 0]
    message = AnalyticsResult(
        key=names[place],
        time_ns=time_ns,
        realised_vol=figures.realised_vol[place],
        vwap=figures.vwap[place],
        moving_average_fast=figures.moving_average_fast[place],
        moving_average_slow=figures.moving_average_slow[place],
        rsi=figures.rsi[place],
        correlated_symbol=[names[other] for other in others],
        correlation=figures.correlation[place, : len(others)],
    )
    return Result(message.key, message.SerializeToString())
