"""Figures of many price series with NumPy: sums over bars, and products of matrices for the pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpu_kernels.analytics import SHARED_RETURNS_MIN, STILL, Bars, Figures, Floats, Settings


def figures(bars: Bars, settings: Settings, peers: int) -> Figures:
    """Figures of every series, and the ``peers`` others that each is most correlated with."""
    price = bars.price
    returns = np.diff(np.log(price), axis=1)
    known = np.isfinite(returns)
    moves = np.where(known, returns, 0.0)
    squares = _ratio((moves**2).sum(axis=1), known.sum(axis=1))
    alone = (
        np.sqrt(squares * settings.bars_per_year),
        _ratio(bars.turnover.sum(axis=1), bars.volume.sum(axis=1)),
        _mean_of_last(price, settings.fast),
        _mean_of_last(price, settings.slow),
        _rsi(np.diff(price, axis=1)[:, -settings.rsi_bars :]),
    )
    return Figures(np.array(alone), *_strongest(_correlation(moves, known), peers))


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
        still = (variance <= STILL * square / count) | (variance.T <= STILL * (square / count).T)
        found = covariance / np.sqrt(variance * variance.T)
    found = np.clip(found, -1.0, 1.0)
    found[still | (count < SHARED_RETURNS_MIN)] = np.nan
    np.fill_diagonal(found, np.nan)
    return np.asarray(found)


def _strongest(found: Floats, peers: int) -> tuple[NDArray[np.int64], Floats]:
    """Of each row the largest by size, the first of two as large ahead; -1 and NaN where there are fewer."""
    size = np.where(np.isnan(found), -1.0, np.abs(found))
    order = np.argsort(-size, axis=1, kind="stable")[:, :peers]
    correlation = np.take_along_axis(found, order, axis=1)
    missing = ((0, 0), (0, peers - order.shape[1]))
    return (
        np.pad(np.where(np.isnan(correlation), -1, order), missing, constant_values=-1),
        np.pad(correlation, missing, constant_values=np.nan),
    )
