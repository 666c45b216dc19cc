"""Figures of many price series at once: realised volatility, VWAP, moving averages, RSI, correlation.

Bars in columns, series in rows, oldest first; a price of NaN is a bar in which nothing was said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpu_kernels.errors import InvalidInput

if TYPE_CHECKING:
    from gpu_kernels.engines.engine import Engine

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Returns that two series must share before anything is said of their correlation.
SHARED_RETURNS_MIN = 8
# A series whose returns vary by no more than this part of their mean square does not move.
STILL = 1e-14


@dataclass(frozen=True)
class SeriesFigures:
    """One entry per series; NaN where there is too little to tell."""

    realised_vol: Floats  # per year
    vwap: Floats  # of the bars with volume
    moving_average_fast: Floats
    moving_average_slow: Floats
    rsi: Floats  # 0 to 100
    peer: Integers  # (N, peers) series whose log returns go with each one's most, strongest first; -1: none
    correlation: Floats  # (N, peers) with them; NaN: none


class Bars(NamedTuple):
    """What engines are given, (N, T) each."""

    price: Floats
    volume: Floats
    turnover: Floats  # paid for the volumes


class Settings(NamedTuple):
    """How many bars the figures are of."""

    bars_per_year: float
    fast: int
    slow: int
    rsi_bars: int


class Figures(NamedTuple):
    """What engines answer: the figures of each series alone, in the order of FIGURES, and its peers."""

    alone: Floats  # (5, N)
    peer: Integers
    correlation: Floats


FIGURES = ("realised_vol", "vwap", "moving_average_fast", "moving_average_slow", "rsi")


def series_figures(
    engine: Engine,
    prices: ArrayLike,
    volumes: ArrayLike,
    *,
    bars_per_year: float,
    fast: int = 12,
    slow: int = 60,
    rsi_bars: int = 14,
    turnover: ArrayLike | None = None,
    peers: int = 20,
) -> SeriesFigures:
    """All figures of ``prices`` (N, T) and ``volumes`` (N, T) in one call of an engine.

    Moving averages are plain means of the last ``fast`` and ``slow`` prices there are. RSI is the one of
    plain means, Cutler's: 100 times the gains over gains and losses of the last ``rsi_bars`` bars, with no
    memory of bars before, as Wilder's has. A return is that between two bars side by side that both have a
    price. ``turnover`` (N, T) is what was paid for the volumes; without it they count at the bar's price.
    """
    price, volume = np.asarray(prices, np.float64), np.asarray(volumes, np.float64)
    if price.ndim != 2:
        raise InvalidInput("prices", f"must have shape (N, T), got {price.shape}")
    if volume.shape != price.shape:
        raise InvalidInput("volumes", f"must have shape {price.shape}, got {volume.shape}")
    bad = np.argwhere((price <= 0.0) | np.isinf(price))
    if len(bad):
        raise InvalidInput("prices", f"is {price[tuple(bad[0])]}", int(bad[0][0]))
    bad = np.argwhere(~((volume >= 0.0) & np.isfinite(volume)))
    if len(bad):
        raise InvalidInput("volumes", f"is {volume[tuple(bad[0])]}", int(bad[0][0]))
    if not (np.isfinite(bars_per_year) and bars_per_year > 0.0):
        raise InvalidInput("bars_per_year", f"must be above 0, got {bars_per_year}")
    for name, count in (("fast", fast), ("slow", slow), ("rsi_bars", rsi_bars), ("peers", peers)):
        if count < (name != "peers"):
            raise InvalidInput(name, f"must not be {count}")
    if turnover is None:
        volume = np.where(np.isnan(price), 0.0, volume)
        paid = np.nan_to_num(price) * volume
    else:
        paid = np.asarray(turnover, np.float64)
    if paid.shape != price.shape:
        raise InvalidInput("turnover", f"must have shape {price.shape}, got {paid.shape}")
    settings = Settings(float(bars_per_year), fast, slow, rsi_bars)
    found: Figures = engine.module("analytics").figures(Bars(price, volume, paid), settings, peers)
    return SeriesFigures(
        **dict(zip(FIGURES, found.alone, strict=True)), peer=found.peer, correlation=found.correlation
    )
