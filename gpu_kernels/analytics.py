"""Figures of many price series at once: realised volatility, VWAP, moving averages, RSI, correlation.

Bars in columns, series in rows, oldest first; a price of NaN is a bar in which nothing was said.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpu_kernels.errors import InvalidInput

Floats = NDArray[np.float64]

# Returns that two series must share before anything is said of their correlation.
SHARED_RETURNS_MIN = 8


@dataclass(frozen=True)
class SeriesFigures:
    """One entry per series; NaN where there is too little to tell."""

    realised_vol: Floats  # per year
    vwap: Floats  # of the bars with volume
    moving_average_fast: Floats
    moving_average_slow: Floats
    rsi: Floats  # 0 to 100
    correlation: Floats  # (N, N) of log returns


def series_figures(
    prices: ArrayLike,
    volumes: ArrayLike,
    *,
    bars_per_year: float,
    fast: int = 12,
    slow: int = 60,
    rsi_bars: int = 14,
    turnover: ArrayLike | None = None,
) -> SeriesFigures:
    """All figures of ``prices`` (N, T) and ``volumes`` (N, T), every series in one go.

    Moving averages are plain means of the last ``fast`` and ``slow`` prices there are; RSI is Wilder's index
    with plain means of the gains and losses of the last ``rsi_bars`` bars. A return is that between two bars
    side by side that both have a price. ``turnover`` (N, T) is what was paid for the volumes;
    without it they count at the bar's price.
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
    paid = np.nan_to_num(price) * volume if turnover is None else np.asarray(turnover, np.float64)
    if paid.shape != price.shape:
        raise InvalidInput("turnover", f"must have shape {price.shape}, got {paid.shape}")
    counted = np.where(np.isnan(price), 0.0, volume) if turnover is None else volume
    returns = np.diff(np.log(price), axis=1)
    known = np.isfinite(returns)
    moves = np.where(known, returns, 0.0)
    return SeriesFigures(
        realised_vol=np.sqrt(_ratio((moves**2).sum(axis=1), known.sum(axis=1)) * bars_per_year),
        vwap=_ratio(paid.sum(axis=1), counted.sum(axis=1)),
        moving_average_fast=_mean_of_last(price, fast),
        moving_average_slow=_mean_of_last(price, slow),
        rsi=_rsi(np.diff(price, axis=1)[:, -rsi_bars:]),
        correlation=_correlation(moves, known),
    )


def _ratio(above: Floats, below: ArrayLike) -> Floats:
    under = np.asarray(below, np.float64)
    return np.asarray(np.divide(above, under, out=np.full(above.shape, np.nan), where=under > 0.0))


def _mean_of_last(price: Floats, count: int) -> Floats:
    """Mean of the last ``count`` prices of each series that are there."""
    there = np.isfinite(price)
    # Counted from the newest bar backwards.
    rank = np.cumsum(there[:, ::-1], axis=1)[:, ::-1]
    chosen = there & (rank <= count)
    return _ratio(np.where(chosen, price, 0.0).sum(axis=1), chosen.sum(axis=1))


def _rsi(steps: Floats) -> Floats:
    gains = np.nansum(np.maximum(steps, 0.0), axis=1)
    losses = -np.nansum(np.minimum(steps, 0.0), axis=1)
    return 100.0 * _ratio(gains, gains + losses)


def _correlation(moves: Floats, known: NDArray[np.bool_]) -> Floats:
    """Pearson's, over the returns that both series of a pair have: a few products of matrices."""
    there = known.astype(np.float64)
    count = there @ there.T
    total = moves @ there.T  # of series i where j is there too
    square = (moves**2) @ there.T
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / count
        variance = square / count - mean**2
        covariance = (moves @ moves.T) / count - mean * mean.T
        # A series that does not move has no correlation; rounding must not give it one.
        still = (variance <= 1e-14 * square / count) | (variance.T <= 1e-14 * (square / count).T)
        found = covariance / np.sqrt(variance * variance.T)
    found = np.clip(found, -1.0, 1.0)
    found[still | (count < SHARED_RETURNS_MIN)] = np.nan
    return np.asarray(found)
