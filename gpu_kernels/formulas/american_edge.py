"""Greeks next to the exercise boundary, where the integrals behind them have a peak that no quadrature sees.

On the boundary itself all is known: value and slope are those of the payoff, vega and rho are 0, and the
pricing equation gives the curvature, 2 |r K - q B| / (vol B)^2. So a row closer to the boundary than
LEAST_DISTANCE is computed at that distance instead, and brought back: gamma along a line, and so delta and
value as its integrals, vega along a parabola with vanna its slope. What that leaves out is of the order of
LEAST_DISTANCE squared, of LEAST_DISTANCE for charm, volga and rho. A smaller distance would magnify the error
of the boundary, of which charm takes the difference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpu_kernels.results import GreeksResult

# Of vol sqrt(T), in log spot.
LEAST_DISTANCE = 1e-2


class Close(NamedTuple):
    """Rows that are computed further from their boundary than they are."""

    rows: Any
    spot: Any  # where they are
    boundary: Any


def kept_off(
    columns: Any, here: Any, close: Any, distance: Any, slopes: Callable[[Any], Any]
) -> tuple[Any, Any, Close]:
    """The columns and slopes with some rows moved to the least distance; `distance` is |log S/B|."""
    rows = np.flatnonzero(close)
    part = type(columns)(*(c[rows] for c in columns))
    outward = np.where(part.is_call, -1.0, 1.0)
    boundary = part.spot * np.exp(-outward * distance[rows])
    moved = boundary * np.exp(outward * (LEAST_DISTANCE * part.vol * np.sqrt(part.expiry)))
    spot, here = columns.spot.copy(), here.copy()
    spot[rows] = moved
    here[:, rows] = slopes(part._replace(spot=moved))
    return columns._replace(spot=spot), here, Close(rows, part.spot, boundary)


def bring_back(columns: Any, close: Close, out: GreeksResult) -> None:
    """Write what the rows are worth where they are, from their Greeks at the least distance."""
    rows, spot, boundary = close
    moved, strike, _, vol, rate, dividend_yield, is_call = (c[rows] for c in columns)
    sign = np.where(is_call, 1.0, -1.0)
    there, here = sign * (boundary - moved), sign * (boundary - spot)
    half_variance, carry = 0.5 * vol * vol, rate - dividend_yield
    edge = sign * (dividend_yield * boundary - rate * strike) / (half_variance * boundary * boundary)
    bend = (out.gamma[rows] - edge) / there
    gamma = edge + bend * here
    delta = sign * (1.0 - here * (edge + 0.5 * bend * here))
    value = sign * (spot - strike) + here * here * (0.5 * edge + bend * here / 6.0)
    speed = -sign * bend
    slope = 2.0 * out.vega[rows] / there + sign * out.vanna[rows]
    curve = -(sign * out.vanna[rows] + out.vega[rows] / there) / there
    out.price[rows], out.delta[rows], out.gamma[rows] = value, delta, gamma
    out.vega[rows] = here * (slope + curve * here)
    out.vanna[rows] = -sign * (slope + 2.0 * curve * here)
    out.rho[rows] *= here / there
    out.theta[rows] = rate * value - carry * spot * delta - half_variance * spot * spot * gamma
    charm = rate * delta - carry * (delta + spot * gamma)
    out.charm[rows] = charm - half_variance * spot * (2.0 * gamma + spot * speed)
