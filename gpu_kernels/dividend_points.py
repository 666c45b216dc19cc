"""Premiums of value and Greeks of American options with cash dividends, today, at several spots and vols.

Each vol has five grids: its own, and those of a little more and less vol and rate. Derivatives in the spot
are differences between nodes; those in time follow from the pricing equation, and are the European option's,
with the other sign, where exercise is best: then the American one's are 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.dividend_schedules import chosen_rows, due, due_slope
from gpu_kernels.dividend_tables import THIN, Grids, solved_grids, spacing_around
from gpu_kernels.engines.columns import Columns
from gpu_kernels.engines.escrowed import LEAST_TOTAL_VOL, POINTS
from gpu_kernels.errors import InvalidInput
from gpu_kernels.formulas.cash_dividends import RATE_STEP, VOL_STEP
from gpu_kernels.options import Options
from gpu_kernels.portfolio import Portfolio

if TYPE_CHECKING:
    from gpu_kernels.engines.engine import Engine

Floats = NDArray[np.float64]

# Vols below this part of today's are not solved: their values are those of the parabola.
LEAST_VOL = 0.5
# An American value so close to what exercise pays, as a part of the spot, is that.
EXERCISED = 2e-6
# Moves of vol and rate, in VOL_STEP and RATE_STEP, of the grids of one vol.
_BUMPS = np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
# Options at a time: 60 MB of grids.
OPTIONS_AT_ONCE = 128


class _Slopes(NamedTuple):
    """A premium and its derivatives in what is left of the spot, each (C, vols, bumps, N)."""

    price: Floats
    first: Floats
    second: Floats
    third: Floats


def premium_points(engine: Engine, book: Portfolio, moves: Floats, vol_range: float) -> Floats:
    """Premiums of value and eight Greeks (N, 3, C, 9) at log spots `moves` (N,) from today's, and at each vol
    less the range, itself, and plus the range; only the cpu engine has this."""
    parts = [
        _points(
            engine, book.rows(np.arange(start, min(start + OPTIONS_AT_ONCE, book.options))), moves, vol_range
        )
        for start in range(0, book.options, OPTIONS_AT_ONCE)
    ]
    return np.concatenate(parts, axis=2)


def _points(engine: Engine, book: Portfolio, moves: Floats, vol_range: float) -> Floats:
    if book.dividends is None:
        raise InvalidInput("dividends", "are missing")
    paid, carry = book.dividends.within(book.expiry), book.rate - book.dividend_yield
    worth, less = due(paid, carry), due_slope(paid, carry)
    least = np.maximum(LEAST_VOL * book.vol, THIN * LEAST_TOTAL_VOL / np.sqrt(book.expiry))
    vols = np.stack((np.maximum(book.vol - vol_range, least), book.vol, book.vol + vol_range), axis=1)
    spot = book.spot[:, None] * np.exp(moves)
    left = np.maximum(spot - worth[:, None], 1e-9 * spot)
    slopes = _slopes(engine, book, vols, left)
    european = _european(engine, book, vols, spot)
    p, d, g, s = (one[:, :, 0] for one in slopes)
    step = (VOL_STEP * vols)[:, :, None]
    x, v, r, q = left[:, None], vols[:, :, None], book.rate[:, None, None], carry[:, None, None]
    half = 0.5 * v * v
    theta = r * p - q * x * d - half * x * x * g
    charm = r * d - q * (d + x * g) - half * x * (2.0 * g + x * s)
    # Dividends come nearer: what is left falls by their carry, whatever the spot does.
    falls = (carry * worth)[:, None, None]
    theta, charm = theta - d * falls, charm - g * falls
    pays = np.where(book.is_call, 1.0, -1.0)[:, None] * (spot - book.strike[:, None])
    best = np.maximum(p, np.maximum(pays[:, None] - european[..., 0], 0.0))
    stopped = (best + european[..., 0] <= (pays + EXERCISED * spot)[:, None]) & (pays > 0.0)[:, None]
    theta = np.where(stopped, -european[..., 4], theta)
    charm = np.where(stopped, -european[..., 8], charm)
    price, first = slopes.price, slopes.first
    vega = (price[:, :, 1] - price[:, :, 2]) / (2.0 * step)
    volga = (price[:, :, 1] - 2.0 * p + price[:, :, 2]) / (step * step)
    vanna = (first[:, :, 1] - first[:, :, 2]) / (2.0 * step)
    rho = (price[:, :, 3] - price[:, :, 4]) / (2.0 * RATE_STEP) + d * less[:, None, None]
    fields = np.stack((best, d, g, vega, theta, rho, vanna, volga, charm), axis=-1)
    return np.ascontiguousarray(_at_range(fields, vols, vol_range).transpose(2, 1, 0, 3))


def _at_range(fields: Floats, vols: Floats, vol_range: float) -> Floats:
    """The same where the lowest vol is the middle one less the range, by the parabola through all three."""
    low, high = vols[:, 0] - vols[:, 1], vols[:, 2] - vols[:, 1]
    weights = np.stack(
        (
            -vol_range * (-vol_range - high) / (low * (low - high)),
            (-vol_range - low) * (-vol_range - high) / (low * high),
            (-vol_range - low) * -vol_range / ((high - low) * high),
        )
    )
    out = fields.copy()
    out[:, 0] = np.einsum("kc,ckjf->cjf", weights, fields)
    return out


def _slopes(engine: Engine, book: Portfolio, vols: Floats, left: Floats) -> _Slopes:
    options, bumps = len(vols), len(_BUMPS)
    vol = (vols[:, :, None] * (1.0 + VOL_STEP * _BUMPS[:, 0])).ravel()
    rate = (np.broadcast_to(book.rate[:, None, None], (*vols.shape, 1)) + RATE_STEP * _BUMPS[:, 1]).ravel()
    row = np.repeat(np.arange(options), vols.shape[1] * bumps)
    strike, expiry = book.strike[row], book.expiry[row]
    columns = Columns(strike, strike, expiry, vol, rate, book.dividend_yield[row], book.is_call[row])
    if book.dividends is None:
        raise InvalidInput("dividends", "are missing")
    paid = chosen_rows(book.dividends.within(book.expiry), row)
    # Differences between grids need the same nodes.
    spacing = spacing_around(columns, paid).reshape(options, -1).max(axis=1)[row]
    (grids,) = solved_grids(engine, columns, paid, spacing, np.zeros(1))
    at = np.broadcast_to(left[:, None], (options, vols.shape[1] * bumps, left.shape[1]))
    shape = (options, vols.shape[1], bumps, left.shape[1])
    return _Slopes(*(one.reshape(shape) for one in _read(grids, at.reshape(len(row), -1))))


def _read(grids: Grids, left: Floats) -> tuple[Floats, ...]:
    """A premium and three derivatives in what is left, (n, N), from grids (n,) of two resolutions."""
    gap = grids.spacing[:, None]
    fine, coarse = _differences(grids.fine, gap)[:, :, 2:-2:2], _differences(grids.coarse, 2.0 * gap)
    values = fine + (fine - coarse) / 3.0
    # Nodes of the coarse grid but the outer two on each side.
    place = (np.log(left) - grids.middle[:, None]) / (2.0 * gap) + (POINTS // 4 - 2)
    inside = np.clip(place, 0.0, values.shape[2] - 1.0)
    first = np.clip(inside.astype(np.int64) - 1, 0, values.shape[2] - 4)
    a = inside - first
    b, c, d = a - 1.0, a - 2.0, a - 3.0
    weights = (-b * c * d / 6.0, a * c * d / 2.0, -a * b * d / 2.0, a * b * c / 6.0)
    row = np.arange(len(left))[:, None]
    price, one, two, three = np.sum([w * values[:, row, first + k] for k, w in enumerate(weights)], axis=0)
    x = left * np.exp((inside - place) * 2.0 * gap)
    delta, straight = one / x, place != inside
    gamma = np.where(straight, 0.0, (two - one) / (x * x))
    speed = np.where(straight, 0.0, (three - 3.0 * two + 2.0 * one) / x**3)
    return price + delta * (left - x), delta, gamma, speed


def _differences(values: Floats, gap: Floats) -> Floats:
    """Values and their first three differences per log spot, (4, n, nodes - 4)."""
    far_down, down, here, up, far_up = (values[:, k : values.shape[1] - 4 + k] for k in range(5))
    return np.stack(
        (
            here,
            (up - down) / (2.0 * gap),
            (up - 2.0 * here + down) / gap**2,
            (far_up - 2.0 * up + 2.0 * down - far_down) / (2.0 * gap**3),
        )
    )


def _european(engine: Engine, book: Portfolio, vols: Floats, spot: Floats) -> Floats:
    """Value and Greeks of the European options (C, vols, N, 9)."""
    shape = (*vols.shape, spot.shape[1])

    def wide(column: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(np.broadcast_to(column, shape))

    names = ("strike", "expiry", "rate", "dividend_yield", "is_call")
    columns: dict[str, Any] = {name: wide(getattr(book, name)[:, None, None]) for name in names}
    place = np.broadcast_to(np.arange(len(vols))[:, None, None], shape).ravel()
    if book.dividends is not None:
        columns["dividends"] = book.dividends.rows(place, book.options)
    found = engine.greeks(
        Options(
            spot=wide(spot[:, None]),
            vol=wide(vols[:, :, None]),
            **columns,
        )
    )
    return np.stack([np.asarray(column) for column in found.columns()[:-1]], axis=-1)
