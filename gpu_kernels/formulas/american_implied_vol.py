"""Implied volatility of American options: a bracket and a search in it, for all rows of a batch at once.

The value rises with volatility from its limit at zero volatility to the put's strike, or the call's spot. The
bracket is searched by Chandrupatla's method (1997): inverse quadratic interpolation where it is safe,
bisection else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpu_kernels.results import ImpliedVolResult, PriceResult
from gpu_kernels.status import Status

LOWEST_VOL = 1e-4
HIGHEST_TOTAL_VOL = 40.0
MOST_STEPS = 60
# The search ends where the bracket is this narrow, relative to the volatility, or the price is met this
# closely, relative to spot and strike.
VOL_TOLERANCE = 1e-13
PRICE_TOLERANCE = 1e-15
# A price closer to the value at zero volatility than this, relative to spot and strike, tells no volatility.
LEAST_TIME_VALUE = 1e-12


def implied_vol(
    columns: Any,
    prices: Any,
    method: str,
    out: ImpliedVolResult,
    price: Callable[[Any, str, PriceResult], None],
    known: Any = None,
) -> None:
    """Write volatility and status of each row; columns are full length.

    Rows that have a volatility in `known` are not searched.
    """
    size = out.status.size
    prices = np.broadcast_to(prices, (size,))
    out.vol[:] = np.nan
    scale = np.maximum(columns.spot, columns.strike)
    top = np.where(columns.is_call, columns.spot, columns.strike)

    def value(rows: Any, vol: Any) -> Any:
        part = type(columns)(*(c[rows] for c in columns))._replace(vol=vol)
        got = PriceResult(np.empty(rows.size), np.empty(rows.size, np.uint8))
        price(part, method, got)
        return got.price, got.status

    everything = np.arange(size)
    least, status = value(everything, np.full(size, 0.0))
    sane = np.isfinite(prices) & (status != Status.INVALID_INPUT)
    out.status[:] = np.where(sane, Status.NOT_CONVERGED, Status.INVALID_INPUT)
    expired = sane & (status == Status.EXPIRED)
    out.status[expired] = Status.NO_TIME_VALUE
    with np.errstate(invalid="ignore"):
        out.status[sane & (prices < least - LEAST_TIME_VALUE * scale)] = Status.BELOW_INTRINSIC
        out.status[sane & (np.abs(prices - least) <= LEAST_TIME_VALUE * scale)] = Status.NO_TIME_VALUE
        out.status[sane & (prices >= top)] = Status.ABOVE_MAXIMUM
    if known is not None:
        found = (out.status == Status.NOT_CONVERGED) & np.isfinite(known)
        out.vol[found], out.status[found] = known[found], Status.OK
    rows = everything[out.status == Status.NOT_CONVERGED]
    if rows.size:
        _search(rows, prices[rows], scale[rows], np.sqrt(columns.expiry[rows]), value, out)


def _search(
    rows: Any, prices: Any, scale: Any, root: Any, value: Callable[[Any, Any], Any], out: Any
) -> None:
    low = np.full(rows.size, LOWEST_VOL)
    high = np.maximum(HIGHEST_TOTAL_VOL / np.maximum(root, 1e-150), 2.0 * LOWEST_VOL)
    a = np.minimum(0.3, 0.5 * high)
    f_a = value(rows, a)[0] - prices
    # From one guess outwards, by factors, until the price is bracketed.
    b = np.where(f_a < 0.0, np.minimum(2.0 * a, high), np.maximum(0.5 * a, low))
    f_b = value(rows, b)[0] - prices
    for _ in range(30):
        wide = (np.sign(f_a) == np.sign(f_b)) & (b > low) & (b < high)
        if not wide.any():
            break
        a[wide], f_a[wide] = b[wide], f_b[wide]
        b[wide] = np.where(
            f_a[wide] < 0.0, np.minimum(2.5 * a[wide], high[wide]), np.maximum(0.4 * a[wide], low[wide])
        )
        f_b[wide] = value(rows[wide], b[wide])[0] - prices[wide]
    found = _chandrupatla(rows, a, b, f_a, f_b, prices, scale, value)
    out.vol[rows] = found
    out.status[rows] = np.where(np.isfinite(found), Status.OK, Status.NOT_CONVERGED)
    # Above every volatility that is searched: as good as unattainable.
    with np.errstate(invalid="ignore"):
        out.status[rows[(f_b < 0.0) & (b >= high)]] = Status.ABOVE_MAXIMUM
        # The value is flat below some volatility where the option is exercised at once.
        out.status[rows[(f_b > 0.0) & (b <= low)]] = Status.NO_TIME_VALUE
    out.vol[rows[out.status[rows] != Status.OK]] = np.nan


def _chandrupatla(rows: Any, a: Any, b: Any, f_a: Any, f_b: Any, prices: Any, scale: Any, value: Any) -> Any:
    """The root in the bracket (a, b) of each row, NaN where there is no bracket or no end to the search."""
    found = np.full(rows.size, np.nan)
    live = np.flatnonzero(np.sign(f_a) * np.sign(f_b) <= 0.0)
    x1, x2, f1, f2 = b[live], a[live], f_b[live], f_a[live]
    x3, f3 = x1.copy(), f1.copy()
    t = np.full(live.size, 0.5)
    for step in range(MOST_STEPS):
        x = x1 + t * (x2 - x1)
        f = value(rows[live], x)[0] - prices[live]
        same = np.sign(f) == np.sign(f1)
        x3, f3 = np.where(same, x1, x2), np.where(same, f1, f2)
        x2, f2 = np.where(same, x2, x1), np.where(same, f2, f1)
        x1, f1 = x, f
        best = np.where(np.abs(f2) < np.abs(f1), x2, x1)
        miss = np.minimum(np.abs(f1), np.abs(f2))
        width = np.abs(x2 - x1)
        with np.errstate(divide="ignore", invalid="ignore"):
            limit = 0.5 * VOL_TOLERANCE * best / width
        done = (width <= VOL_TOLERANCE * best) | (miss <= PRICE_TOLERANCE * scale[live])
        found[live[done]] = best[done]
        keep = ~done
        if not keep.any() or step == MOST_STEPS - 1:
            break
        live = live[keep]
        x1, x2, x3, f1, f2, f3, limit = (z[keep] for z in (x1, x2, x3, f1, f2, f3, limit))
        with np.errstate(divide="ignore", invalid="ignore"):
            xi = (x1 - x2) / (x3 - x2)
            phi = (f1 - f2) / (f3 - f2)
            quadratic = (phi**2 < xi) & ((1.0 - phi) ** 2 < 1.0 - xi)
            inverse = f1 / (f2 - f1) * f3 / (f2 - f3) + (x3 - x1) / (x2 - x1) * f1 / (f3 - f1) * f2 / (
                f3 - f2
            )
        t = np.where(quadratic & np.isfinite(inverse), inverse, 0.5)
        t = np.clip(t, limit, 1.0 - limit)
    return found
