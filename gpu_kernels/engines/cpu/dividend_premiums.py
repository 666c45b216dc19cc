"""Reading early exercise premiums of options with cash dividends from their grids (`dividend_premiums`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.engines.cpu import ops
from gpu_kernels.engines.cpu.compile import kernel
from gpu_kernels.engines.cpu.threads import workers

Floats = NDArray[np.float64]

# Stands for a spot of which nothing is left.
SMALLEST = 1e-290
BLOCK_ROWS = 4

_log, _exp = ops.log, ops.exp


def read(grids: Any, spot: Floats, vol: Floats, due: Floats, moves: Floats, changes: Floats) -> Floats:
    """Premiums (C, S) at one horizon: spots (C,) moved by log returns (S,), vols (C,) by changes (S,).

    `due` (C,) is what is taken out of the spots.
    """
    out = np.empty((len(spot), len(moves)))
    factors = np.exp(moves)

    def work(start: int, stop: int) -> None:
        read_rows(tuple(grids), spot, vol, due, factors, changes, start, stop, out)

    workers().run(len(spot), work, BLOCK_ROWS)
    return out


@ops.function
def along(premium, at, nodes, gap, x):  # type: ignore[no-untyped-def]
    """Premium of the grid whose window begins at `at`, x nodes on; beyond its ends on straight lines."""
    inside = min(max(x, 0.0), nodes - 1.0)
    j = min(max(int(inside) - 1, 0), nodes - 4)
    p0, p1, p2, p3 = premium[at + j], premium[at + j + 1], premium[at + j + 2], premium[at + j + 3]
    a = inside - j
    b, c, d = a - 1.0, a - 2.0, a - 3.0
    here = (-b * c * d * p0 + a * b * c * p3) * (1.0 / 6.0) + (a * c * d * p1 - a * b * d * p2) * 0.5
    if x > inside:
        here -= (p3 - p2) * (_exp((x - inside) * gap) - 1.0) / (_exp(-gap) - 1.0)
    elif x < inside:
        here += (p1 - p0) * (_exp(x * gap) - 1.0) / (_exp(gap) - 1.0)
    return here


@kernel
def read_rows(grids, spot, vol, due, factors, changes, start, stop, out):  # type: ignore[no-untyped-def]
    """Cubics in log spot on each of four grids, and a cubic in log vol between them."""
    premium, base, width, first, spacing, log_strike, low, step = grids
    lanes = first.shape[1]
    value = np.empty(4)
    for c in range(start, stop):
        per_step, nodes = 1.0 / step[c], width[c]
        for s in range(factors.shape[0]):
            log_left = _log(max(spot[c] * factors[s] - due[c], SMALLEST)) - log_strike[c]
            up = (_log(max(vol[c] + changes[s], SMALLEST)) - low[c]) * per_step
            up = min(max(up, 0.0), lanes - 3.0)
            # `low` is the second lane's: the lanes k to k + 3 are around the place.
            k = min(int(up), lanes - 4)
            for o in range(4):
                gap = spacing[c, k + o]
                x = log_left / gap - first[c, k + o]
                value[o] = along(premium, base[c] + (k + o) * nodes, nodes, gap, x)
            u = up - k
            outer = (u + 1.0) * u * (u - 1.0) * value[3] - u * (u - 1.0) * (u - 2.0) * value[0]
            inner = (u + 1.0) * (u - 2.0) * ((u - 1.0) * value[1] - u * value[2])
            out[c, s] = max(outer * (1.0 / 6.0) + inner * 0.5, 0.0)
