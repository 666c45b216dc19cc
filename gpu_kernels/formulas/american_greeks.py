"""Greeks of American options, from an engine's premiums and European Greeks: NumPy over columns.

Spot derivatives come from differentiating the premium integral: the boundary does not depend on today's spot.
Theta and charm follow from the pricing equation, which holds above the boundary: theta = rV - (r-q) S delta
- vol^2 S^2 gamma / 2, and its derivative with respect to spot. Vega, vanna, volga and rho add to the closed
  form of the European part central differences of the premium, in volatility and in rate: the collocation has
  fixed nodes and steps, so that its result is a smooth function of both. Where the option is exercised now,
  it is worth its payoff.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpu_kernels.formulas import american_edge
from gpu_kernels.formulas.american import DOUBLE, SINGLE
from gpu_kernels.results import GreeksResult
from gpu_kernels.status import Status

VOL_STEP = 2e-3  # of the volatility, at most
RATE_STEP = 1e-4  # absolute, at most

# Rows of what an engine's slopes(columns, method) returns.
PREMIUM, DELTA, GAMMA, SPEED, SPAN, EXERCISED, USABLE, KIND, DISTANCE = range(9)
# No step moves the boundary across the spot: this much of the distance, for a boundary that moves by up to
# twice the relative step in volatility.
STEP_OF_DISTANCE = 0.2
LEAST_STEP = 1e-6
LEAST_RATE = 1e-3


def greeks(
    columns: Any,
    method: str,
    out: GreeksResult,
    slopes: Callable[[Any, str], Any],
    european: Callable[[Any, GreeksResult], None],
) -> None:
    """Write value, eight derivatives and status of each row; columns are full length."""
    here = slopes(columns, method)
    usable = here[USABLE] > 0.5
    columns = columns._replace(expiry=np.where(usable, here[SPAN], columns.expiry))
    # Hostile rows have a status already; a negative expiry has no root.
    least = american_edge.LEAST_DISTANCE * columns.vol * np.sqrt(np.maximum(columns.expiry, 0.0))
    near = usable & (here[EXERCISED] < 0.5) & (here[DISTANCE] < least)
    close = None
    if near.any():
        columns, here, close = american_edge.kept_off(
            columns, here, near, here[DISTANCE], lambda part: slopes(part, method)
        )
    european(columns, out)
    american = usable & (out.status == Status.OK)
    if american.any():
        whole = american.all()
        index = slice(None) if whole else np.flatnonzero(american)
        _add_premium(type(columns)(*(c[index] for c in columns)), here[:, index], method, slopes, out, index)
    if close is not None:
        american_edge.bring_back(columns, close, out)
    _stop_expired(columns, out)
    lost = (here[KIND] == DOUBLE) & (out.status == Status.OK)
    if lost.any():
        out.status[lost] = Status.NOT_CONVERGED
        for array in out.columns()[:-1]:
            array[lost] = np.nan
    sure = ~usable & (here[KIND] == SINGLE) & (out.status == Status.OK)
    if sure.any():
        certain(columns, np.flatnonzero(sure), out)


def _stop_expired(columns: Any, out: GreeksResult) -> None:
    """An expired option that would lose by waiting has been exercised: time changes nothing."""
    gain = np.where(columns.is_call, columns.spot - columns.strike, columns.strike - columns.spot)
    with np.errstate(invalid="ignore"):
        stopped = (out.status == Status.EXPIRED) & (gain > 0.0) & (out.theta > 0.0)
    out.theta[stopped] = out.charm[stopped] = 0.0


def _add_premium(
    columns: Any, here: Any, method: str, slopes: Callable[[Any, str], Any], out: GreeksResult, index: Any
) -> None:
    spot, strike, expiry, vol, rate, dividend_yield, is_call = columns
    carry = rate - dividend_yield
    total_vol = vol * np.sqrt(expiry)
    d1 = (np.log(spot / strike) + carry * expiry) / total_vol + 0.5 * total_vol
    european_speed = -out.gamma[index] / spot * (d1 / total_vol + 1.0)
    value = out.price[index] + np.maximum(here[PREMIUM], 0.0)
    delta = out.delta[index] + here[DELTA]
    gamma = out.gamma[index] + here[GAMMA]
    speed = european_speed + here[SPEED]
    half_variance = 0.5 * vol * vol
    theta = rate * value - carry * spot * delta - half_variance * spot * spot * gamma
    charm = rate * delta - carry * (delta + spot * gamma)
    charm -= half_variance * spot * (2.0 * gamma + spot * speed)

    room = STEP_OF_DISTANCE * np.abs(here[DISTANCE])
    step = np.clip(room, LEAST_STEP, VOL_STEP) * vol
    small = np.maximum(np.minimum(np.abs(rate), np.abs(dividend_yield)), LEAST_RATE)
    rate_step = np.clip(room * small, LEAST_STEP * LEAST_RATE, RATE_STEP)
    first, second, near = _rate_steps(columns, rate_step)
    up, down, one, two = _moved(columns, (step, -step), (first, second), method, slopes)
    vega = out.vega[index] + (up[PREMIUM] - down[PREMIUM]) / (2.0 * step)
    vanna = out.vanna[index] + (up[DELTA] - down[DELTA]) / (2.0 * step)
    volga = out.volga[index] + (up[PREMIUM] - 2.0 * here[PREMIUM] + down[PREMIUM]) / (step * step)
    central = (one[PREMIUM] - two[PREMIUM]) / (2.0 * rate_step)
    sided = (4.0 * one[PREMIUM] - two[PREMIUM] - 3.0 * here[PREMIUM]) / (2.0 * first)
    rho = out.rho[index] + np.where(near, sided, central)

    sign = np.where(is_call, 1.0, -1.0)
    payoff = sign * (spot - strike)
    exercised = here[EXERCISED] > 0.5
    results = (np.maximum(value, payoff), delta, gamma, vega, theta, rho, vanna, volga, charm)
    for name, result in zip(GreeksResult.COLUMNS, results, strict=False):
        at_payoff = payoff if name == "price" else sign if name == "delta" else 0.0
        getattr(out, name)[index] = np.where(exercised, at_payoff, result)


def _moved(columns: Any, vols: Any, rates: Any, method: str, slopes: Callable[[Any, str], Any]) -> Any:
    """Slopes at two other volatilities, then at two other rates: one batch of four times the rows."""
    size = columns.spot.size
    wide = type(columns)(*(np.tile(c, 4) for c in columns))
    wide.vol[: 2 * size] += np.concatenate(vols)
    wide.rate[2 * size :] += np.concatenate(rates)
    return slopes(wide, method).reshape(-1, 4, size).transpose(1, 0, 2)


def _rate_steps(columns: Any, step: Any) -> Any:
    """Two steps in the rate, and where they are to one side: they never cross rate = 0 or rate = yield.

    There early exercise sets in, or the boundary at expiry changes its form, and the derivative its error.
    """
    rate, dividend_yield = columns.rate, columns.dividend_yield
    near = np.minimum(np.abs(rate), np.abs(rate - dividend_yield)) < 2.0 * step
    above = (rate >= dividend_yield) & (rate >= 0.0)
    toward = np.where(above, 1.0, np.where(np.abs(rate) < 2.0 * step, 1.0, -1.0))
    first = np.where(near, toward * step, step)
    second = np.where(near, 2.0 * toward * step, -step)
    return first, second, near


def certain(columns: Any, index: Any, out: GreeksResult) -> None:
    """Greeks at zero volatility: of the payoff at the best time, which need not be moved to first order."""
    spot, strike, expiry, _, rate, dividend_yield, is_call = (c[index] for c in columns)
    sign = np.where(is_call, 1.0, -1.0)
    with np.errstate(all="ignore"):
        time = np.log((rate * strike) / (dividend_yield * spot)) / (rate - dividend_yield)
    time = np.where(np.isfinite(time), np.clip(time, 0.0, expiry), 0.0)
    times = np.stack((np.zeros_like(expiry), expiry, time))
    spot_legs = spot * np.exp(-dividend_yield * times)
    strike_legs = strike * np.exp(-rate * times)
    values = sign * (spot_legs - strike_legs)
    best = values.argmax(axis=0)
    rows = np.arange(index.size)
    alive = values[best, rows] > 0.0
    at = times[best, rows]
    spot_leg, strike_leg = spot_legs[best, rows], strike_legs[best, rows]
    last = alive & (best == 1) & (expiry > 0.0)
    out.price[index] = np.where(alive, values[best, rows], 0.0)
    out.delta[index] = np.where(alive, sign * np.exp(-dividend_yield * at), 0.0)
    out.theta[index] = np.where(last, sign * (dividend_yield * spot_leg - rate * strike_leg), 0.0)
    out.rho[index] = np.where(alive, sign * at * strike_leg, 0.0)
    out.charm[index] = np.where(last, sign * dividend_yield * np.exp(-dividend_yield * at), 0.0)
    for array in (out.gamma, out.vega, out.vanna, out.volga):
        array[index] = 0.0
