"""Hedge sizing: what to trade, what it costs, and the risk before and after.

Trades are in units of the instrument (shares, contracts), whole lots of ``lot_size`` each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpu_kernels.errors import InvalidInput
from gpu_kernels.portfolio import Portfolio
from gpu_kernels.shocked_options import options_of

if TYPE_CHECKING:
    from gpu_kernels.engines.engine import Engine

Floats = NDArray[np.float64]


# Lots are counted in doubles: beyond this the next whole number is missing.
LOTS_MAX = 2.0**53


class InfeasibleHedge(InvalidInput):
    """No trade within the limits does what was asked for; ``field`` says which of them is in the way."""


@dataclass(frozen=True)
class Hedge:
    """Trades per instrument, their cost, and ``measure`` before and after, costs not included in it."""

    trades: Floats  # units: lots · lot size
    lots: NDArray[np.int64]
    costs: Floats  # currency, per instrument
    risk_before: float
    risk_after: float
    measure: str

    @property
    def cost(self) -> float:
        """Cost of all trades, in currency."""
        return float(self.costs.sum())


@dataclass(frozen=True)
class Exposures:
    """Greeks of a portfolio by underlying, quantities and multipliers included.

    All are derivatives to the underlying's spot. A spot position has a delta of 1 a unit, a future
    that of its price, e^((r − q)T) (`Portfolio.carry`).
    """

    delta: Floats  # units of the underlying at its spot
    gamma: Floats
    vega: Floats  # currency per 1.00 of vol
    spot: Floats  # NaN where there is no position


def exposures(engine: Engine, portfolio: Portfolio) -> Exposures:
    """Delta, gamma and vega per underlying (U,), derivatives to its spot, which comes beside them.

    The spot is that of the underlying's options. Where there are none, it is that behind its linear
    positions; the price of a future without terms (`LinearPositions.expiry`) then stands for it.
    """
    count = portfolio.underlyings
    delta, gamma, vega = np.zeros(count), np.zeros(count), np.zeros(count)
    spot = np.full(count, np.nan)
    if portfolio.options:
        greeks = engine.greeks(options_of(portfolio))
        # Beyond all numbers is inf or NaN here, which whoever sizes a hedge refuses by row.
        with np.errstate(over="ignore", invalid="ignore"):
            size = portfolio.quantity * portfolio.multiplier
            for total, column in ((delta, greeks.delta), (gamma, greeks.gamma), (vega, greeks.vega)):
                np.add.at(total, portfolio.underlying, size * column)
    linear = portfolio.linear
    with np.errstate(over="ignore", invalid="ignore"):
        np.add.at(delta, linear.underlying, linear.quantity * linear.multiplier * portfolio.carry)
    spot[linear.underlying] = linear.underlying_spot
    spot[portfolio.underlying] = portfolio.spot
    return Exposures(delta=delta, gamma=gamma, vega=vega, spot=spot)


def delta_hedge(
    delta: ArrayLike,
    *,
    spot: ArrayLike,
    lot_size: ArrayLike = 1.0,
    cost_per_lot: ArrayLike = 0.0,
    cost_rate: ArrayLike = 0.0,
    band: ArrayLike = 0.0,
    limit: ArrayLike = np.inf,
) -> Hedge:
    """Whole lots of each underlying that bring its ``delta`` (U,), in units, to zero or to the band's edge.

    ``band`` is the half-width within which nothing is traded, in units (see ``whalley_wilmott_band``);
    ``limit`` the largest trade, in units. A trade costs ``cost_per_lot`` a lot and ``cost_rate`` of its
    value. The risk is Σ|delta|·spot, in currency. Without a band or limit at most half a lot of delta is
    left. ``spot`` may be NaN where the delta is 0, as `exposures` has it where there is no position.
    """
    held = column(delta, "delta", None)
    count = len(held)
    price = column(_known(spot, held), "spot", count, low=0.0)
    lot = column(lot_size, "lot_size", count, low=0.0, strict=True)
    per_lot, rate = (
        column(cost_per_lot, "cost_per_lot", count, low=0.0),
        column(cost_rate, "cost_rate", count, low=0.0),
    )
    width = column(band, "band", count, low=0.0)
    most = column(limit, "limit", count, low=0.0, finite=False)
    excess = np.sign(held) * np.maximum(np.abs(held) - width, 0.0)
    # What leaves the range of doubles is refused below, by name.
    with np.errstate(over="ignore", invalid="ignore"):
        lots = np.where(np.abs(held) > width, -np.rint(excess / lot), 0.0)
        most_lots = np.floor(most / lot + 1e-9)
        lots = np.clip(lots, -most_lots, most_lots)
        trades = lots * lot
        costs = np.abs(lots) * per_lot + np.abs(trades) * price * rate
        worth = np.abs(held) * price
        left = np.abs(held + trades) * price
    _refuse(np.abs(lots) > LOTS_MAX, "delta", f"takes more than {LOTS_MAX:.0f} lots to hedge")
    _refuse(~(np.isfinite(worth) & np.isfinite(left)), "delta", "times its spot is beyond all numbers")
    _refuse(~np.isfinite(costs), "cost_per_lot", "and cost_rate make a cost beyond all numbers")
    return Hedge(
        trades=trades,
        lots=lots.astype(np.int64),
        costs=costs,
        risk_before=_total(worth, "delta"),
        risk_after=_total(left, "delta"),
        measure="sum of |delta| · spot",
    )


def _known(spot: ArrayLike, held: Floats) -> ArrayLike:
    """Spots, 0 where there is none and none is needed."""
    prices = np.asarray(spot, dtype=np.float64)
    return np.where(np.isnan(prices) & (held == 0.0), 0.0, prices) if prices.shape == held.shape else prices


def _refuse(bad: NDArray[np.bool_], field: str, why: str) -> None:
    rows = np.flatnonzero(bad)
    if rows.size:
        raise InvalidInput(field, why, int(rows[0]))


def _total(parts: Floats, field: str) -> float:
    """Sum of numbers that are each finite."""
    with np.errstate(over="ignore"):
        total = float(parts.sum())
    if not np.isfinite(total):
        raise InvalidInput(field, "adds up to more than all numbers")
    return total


def whalley_wilmott_band(
    gamma: ArrayLike,
    *,
    spot: ArrayLike,
    cost_rate: ArrayLike,
    risk_aversion: float,
    rate: float = 0.0,
    expiry: ArrayLike = 0.0,
) -> Floats:
    """Half-width of the no-trade band around the delta, in units (Whalley and Wilmott 1997).

    (3/2 · e^(−rT) · cost_rate · S · Γ² / risk_aversion)^(1/3): the optimum for small proportional costs and
    exponential utility. ``gamma`` is the position's, ``risk_aversion`` per unit of currency.
    """
    if not (np.isfinite(risk_aversion) and risk_aversion > 0.0):
        raise InvalidInput("risk_aversion", f"must be above 0, got {risk_aversion}")
    curve = column(gamma, "gamma", None)
    count = len(curve)
    price, cost = column(spot, "spot", count, low=0.0), column(cost_rate, "cost_rate", count, low=0.0)
    discount = np.exp(-rate * column(expiry, "expiry", count, low=0.0))
    return np.asarray(np.cbrt(1.5 * discount * cost * price * np.square(curve) / risk_aversion))


@dataclass(frozen=True)
class RebalancingPlan:
    """What to trade in one underlying now, and the next spots at which to trade, nearest first, in units.

    The trades at those spots are those of a position that has traded what is due now.
    """

    due_now: float
    spots_up: Floats
    trades_up: Floats
    spots_down: Floats
    trades_down: Floats


def rebalancing_plan(
    engine: Engine,
    portfolio: Portfolio,
    underlying: int,
    *,
    band: float,
    lot_size: float = 1.0,
    reach: float = 0.2,
    steps: int = 400,
) -> RebalancingPlan:
    """Spots, up and down, at which the delta of one underlying leaves its ``band`` (units), with the trades.

    ``due_now`` brings the present delta back to the band, 0 where it is within. From there the spot is walked
    ``reach`` (a fraction) either way in ``steps`` steps, vols and time as they are.
    """
    lot = float(column(lot_size, "lot_size", 1, low=0.0, strict=True)[0])
    width = float(column(band, "band", 1, low=0.0)[0])
    part = portfolio.rows(portfolio.position_underlying == underlying)
    if not len(part):
        raise InvalidInput("underlying", f"{underlying} has no positions")
    at = float(exposures(engine, part).spot[underlying])

    def due_at(spot: float, hedged: float) -> float:
        moved = part.with_spots(np.full(part.underlyings, spot))
        delta = float(exposures(engine, moved).delta[underlying]) + hedged
        return float(delta_hedge([delta], spot=spot, lot_size=lot, band=width).trades[0])

    now = due_at(at, 0.0)

    def walk(direction: float) -> tuple[Floats, Floats]:
        spots, trades, hedged = [], [], now
        for step in range(1, steps + 1):
            spot = at * (1.0 + direction * reach * step / steps)
            due = due_at(spot, hedged)
            if due:
                spots.append(spot)
                trades.append(due)
                hedged += due
        return np.array(spots), np.array(trades)

    up, down = walk(1.0), walk(-1.0)
    return RebalancingPlan(
        due_now=now, spots_up=up[0], trades_up=up[1], spots_down=down[0], trades_down=down[1]
    )


def column(
    value: ArrayLike,
    field: str,
    count: int | None,
    *,
    low: float = -np.inf,
    strict: bool = False,
    finite: bool = True,
) -> Floats:
    """``value`` as ``count`` doubles (or as many as it has), at least ``low``; refused by field and row."""
    values = np.asarray(value, dtype=np.float64)
    if count is None:
        values = np.atleast_1d(values)
        if values.ndim != 1:
            raise InvalidInput(field, f"must have one dimension, got shape {values.shape}")
    elif values.shape not in ((), (1,), (count,)):
        raise InvalidInput(field, f"must be a number or have shape ({count},), got {values.shape}")
    values = np.array(np.broadcast_to(values, (len(values) if count is None else count,)))
    good = (np.isfinite(values) if finite else ~np.isnan(values)) & (
        (values > low) if strict else (values >= low)
    )
    bad = np.flatnonzero(~good)
    if bad.size:
        bound = f" {'above' if strict else 'at least'} {low:g}" if low > -np.inf else ""
        raise InvalidInput(field, f"must be a number{bound}, got {values[bad[0]]}", int(bad[0]))
    return values
