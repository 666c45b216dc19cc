"""Figures of many price series on the CPU, in one kernel: each series by itself, then every pair of them.

Of each pair the sums over the bars that both have are kept for a tile of series at a time: the machine adds
several series at once, and no table of all pairs is ever made.
"""

from __future__ import annotations

import math

import numpy as np

from gpu_kernels.analytics import FIGURES, SHARED_RETURNS_MIN, STILL, Bars, Figures, Settings
from gpu_kernels.engines.cpu import ops
from gpu_kernels.engines.cpu.columns import plain
from gpu_kernels.engines.cpu.compile import inline, kernel

# Series worked on at once beside another one: their sums stay in the cache.
TILE = 128

_log, _sqrt = ops.log, ops.sqrt


def figures(bars: Bars, settings: Settings, peers: int) -> Figures:
    """Figures of every series, and the ``peers`` others that each is most correlated with."""
    series = len(bars.price)
    alone = np.full((len(FIGURES), series), np.nan)
    peer, correlation = np.full((series, peers), -1), np.full((series, peers), np.nan)
    columns = tuple(plain(np.ascontiguousarray(one)) for one in bars)
    write_figures(columns, tuple(settings), alone, peer, correlation)
    return Figures(alone, peer, correlation)


@inline
def _ratio(above, below):  # type: ignore[no-untyped-def]
    return above / below if below > 0.0 else math.nan


@inline
def _place(peer, correlation, other, found):  # type: ignore[no-untyped-def]
    """Takes a series in among the strongest, where the first of two as strong stays ahead."""
    at = len(peer)
    while at > 0 and (peer[at - 1] < 0 or abs(correlation[at - 1]) < abs(found)):
        if at < len(peer):
            peer[at], correlation[at] = peer[at - 1], correlation[at - 1]
        at -= 1
    if at < len(peer):
        peer[at], correlation[at] = other, found


@kernel
def write_figures(bars, settings, alone, peer, correlation):  # type: ignore[no-untyped-def]
    price, volume, turnover = bars
    bars_per_year, fast, slow, rsi_bars = settings
    series, length = price.shape
    steps = max(length - 1, 0)
    # A bar's moves side by side: the inner loops below run over series.
    moves, known = np.zeros((steps, series)), np.zeros((steps, series))
    for n in range(series):
        squares, count, traded, paid = 0.0, 0.0, 0.0, 0.0
        gains, losses = 0.0, 0.0
        last = math.nan
        for t in range(length):
            here = price[n, t]
            traded += volume[n, t]
            paid += turnover[n, t]
            # Not a number where either bar said nothing.
            step = here - last
            if step - step == 0.0:
                move = _log(here) - _log(last)
                moves[t - 1, n], known[t - 1, n] = move, 1.0
                squares += move * move
                count += 1.0
                if t >= length - rsi_bars:
                    gains += max(step, 0.0)
                    losses += max(-step, 0.0)
            last = here
        total, seen = 0.0, 0
        quick, slower = math.nan, math.nan
        for back in range(length):
            here = price[n, length - 1 - back]
            if here - here == 0.0 and seen < max(fast, slow):
                total += here
                seen += 1
                if seen <= fast:
                    quick = total / seen
                if seen <= slow:
                    slower = total / seen
        alone[0, n] = _sqrt(_ratio(squares, count) * bars_per_year)
        alone[1, n] = _ratio(paid, traded)
        alone[2, n], alone[3, n] = quick, slower
        alone[4, n] = 100.0 * _ratio(gains, gains + losses)
    if peer.shape[1] == 0:
        return
    shared, both = np.empty(TILE), np.empty(TILE)
    left, left_squares = np.empty(TILE), np.empty(TILE)
    right, right_squares = np.empty(TILE), np.empty(TILE)
    for low in range(0, series, TILE):
        wide = min(TILE, series - low)
        for i in range(low + wide):
            shared[:], both[:] = 0.0, 0.0
            left[:], left_squares[:] = 0.0, 0.0
            right[:], right_squares[:] = 0.0, 0.0
            for t in range(steps):
                if known[t, i] == 0.0:
                    continue
                x = moves[t, i]
                square = x * x
                theirs, there = moves[t, low : low + wide], known[t, low : low + wide]
                # Few arrays a loop: of more the compiler does not see that they lie apart.
                for s in range(wide):
                    shared[s] += there[s]
                    both[s] += x * theirs[s]
                for s in range(wide):
                    left[s] += x * there[s]
                    left_squares[s] += square * there[s]
                for s in range(wide):
                    right[s] += theirs[s]
                    right_squares[s] += theirs[s] * theirs[s]
            for s in range(max(0, i + 1 - low), wide):
                if shared[s] < SHARED_RETURNS_MIN:
                    continue
                mean, other_mean = left[s] / shared[s], right[s] / shared[s]
                size, other_size = left_squares[s] / shared[s], right_squares[s] / shared[s]
                variance, other_variance = size - mean * mean, other_size - other_mean * other_mean
                # A series that does not move has no correlation; rounding must not give it one.
                if variance <= STILL * size or other_variance <= STILL * other_size:
                    continue
                covariance = both[s] / shared[s] - mean * other_mean
                found = max(-1.0, min(1.0, covariance / _sqrt(variance * other_variance)))
                _place(peer[i], correlation[i], low + s, found)
                _place(peer[low + s], correlation[low + s], i, found)
