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


@inline
def _alone(price, volume, turnover, settings, moves, known, answer):  # type: ignore[no-untyped-def]
    """The figures of one series, and its moves from bar to bar."""
    bars_per_year, fast, slow, rsi_bars = settings
    length = len(price)
    squares, count, traded, paid = 0.0, 0.0, 0.0, 0.0
    gains, losses = 0.0, 0.0
    last = math.nan
    for t in range(length):
        here = price[t]
        traded += volume[t]
        paid += turnover[t]
        # Not a number where either bar said nothing.
        step = here - last
        if step - step == 0.0:
            move = _log(here) - _log(last)
            moves[t - 1], known[t - 1] = move, 1.0
            squares += move * move
            count += 1.0
            if t >= length - rsi_bars:
                gains += max(step, 0.0)
                losses += max(-step, 0.0)
        last = here
    total, seen = 0.0, 0
    quick, slower = math.nan, math.nan
    for back in range(length):
        here = price[length - 1 - back]
        if here - here == 0.0 and seen < max(fast, slow):
            total += here
            seen += 1
            if seen <= fast:
                quick = total / seen
            if seen <= slow:
                slower = total / seen
    answer[0] = _sqrt(_ratio(squares, count) * bars_per_year)
    answer[1] = _ratio(paid, traded)
    answer[2], answer[3] = quick, slower
    answer[4] = 100.0 * _ratio(gains, gains + losses)


@inline
def _correlation(count, xy, x, xx, y, yy):  # type: ignore[no-untyped-def]
    """Pearson's, from sums over the bars that both series have; NaN where they tell none."""
    if count < SHARED_RETURNS_MIN:
        return math.nan
    mean_x, mean_y = x / count, y / count
    variance_x, variance_y = xx / count - mean_x * mean_x, yy / count - mean_y * mean_y
    # A series that does not move has no correlation; rounding must not give it one.
    if variance_x <= STILL * xx / count or variance_y <= STILL * yy / count:
        return math.nan
    return max(-1.0, min(1.0, (xy / count - mean_x * mean_y) / _sqrt(variance_x * variance_y)))


@kernel
def write_figures(bars, settings, alone, peer, correlation):  # type: ignore[no-untyped-def]
    price, volume, turnover = bars
    series = price.shape[0]
    steps = max(price.shape[1] - 1, 0)
    # A bar's moves side by side: the inner loops below run over series.
    moves, known = np.zeros((steps, series)), np.zeros((steps, series))
    for n in range(series):
        _alone(price[n], volume[n], turnover[n], settings, moves[:, n], known[:, n], alone[:, n])
    count, xy = np.empty(TILE), np.empty(TILE)
    x, xx = np.empty(TILE), np.empty(TILE)
    y, yy = np.empty(TILE), np.empty(TILE)
    for low in range(0, series, TILE):
        wide = min(TILE, series - low)
        for i in range(low + wide):
            count[:], xy[:] = 0.0, 0.0
            x[:], xx[:] = 0.0, 0.0
            y[:], yy[:] = 0.0, 0.0
            for t in range(steps):
                if known[t, i] == 0.0:
                    continue
                move = moves[t, i]
                square = move * move
                theirs, there = moves[t, low : low + wide], known[t, low : low + wide]
                # Few arrays a loop: of more the compiler does not see that they lie apart.
                for s in range(wide):
                    count[s] += there[s]
                    xy[s] += move * theirs[s]
                for s in range(wide):
                    x[s] += move * there[s]
                    xx[s] += square * there[s]
                for s in range(wide):
                    y[s] += theirs[s]
                    yy[s] += theirs[s] * theirs[s]
            for s in range(max(0, i + 1 - low), wide):
                found = _correlation(count[s], xy[s], x[s], xx[s], y[s], yy[s])
                if found - found == 0.0:
                    _place(peer[i], correlation[i], low + s, found)
                    _place(peer[low + s], correlation[low + s], i, found)
