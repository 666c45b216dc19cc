"""Position sizing by fractional Kelly: the holdings that make wealth grow fastest, taken with caution."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from gpu_kernels.covariance import covariance_root
from gpu_kernels.errors import InvalidInput
from gpu_kernels.hedging import Hedge, InfeasibleHedge, column

Floats = NDArray[np.float64]


def kelly_sizes(
    mean: ArrayLike,
    cov: ArrayLike,
    *,
    spot: ArrayLike,
    capital: float,
    fraction: float = 0.5,
    held: ArrayLike = 0.0,
    lot_size: ArrayLike = 1.0,
    limit: ArrayLike = np.inf,
    leverage: float = np.inf,
    cost_per_lot: ArrayLike = 0.0,
    budget: float = np.inf,
) -> Hedge:
    """Trades that bring holdings to ``fraction`` of Kelly's: maximise f·mean − f·cov·f/(2·fraction).

    ``mean`` (U,) is the yearly return in excess of the rate, ``cov`` (U, U) per year; f are shares of
    ``capital``. ``limit`` bounds each holding in units, ``leverage`` the sum of |f|, ``budget`` the cost of
    the trades. Without limits the answer is fraction·cov⁻¹·mean. Holdings are rounded towards zero to whole
    lots; the risk is the yearly volatility of wealth, as a share of capital.
    """
    expected = column(mean, "mean", None)
    count = len(expected)
    root = covariance_root(cov)
    if len(root.cov) != count:
        raise InvalidInput("cov", f"must have shape ({count}, {count}), got {root.cov.shape}")
    price = column(spot, "spot", count, low=0.0, strict=True)
    lot = column(lot_size, "lot_size", count, low=0.0, strict=True)
    now = column(held, "held", count)
    charge = column(cost_per_lot, "cost_per_lot", count, low=0.0)
    for field, value in (("capital", capital), ("fraction", fraction), ("leverage", leverage)):
        if not value > 0.0:
            raise InvalidInput(field, f"must be above 0, got {value}")
    if not budget >= 0.0:
        raise InvalidInput("budget", f"must not be negative, got {budget}")
    share = price / capital
    most = column(limit, "limit", count, low=0.0, finite=False) * share
    wanted = _shares(expected, root.cov / fraction, most, leverage) / share
    lots = np.trunc(wanted / lot) - np.trunc(now / lot)
    spent = charge * np.abs(lots)
    if spent.sum() > budget * (1.0 + 1e-9):
        raise InfeasibleHedge("budget", f"{budget:g} does not pay for the trades, which cost {spent.sum():g}")
    trades = lots * lot
    after = now + trades

    def volatility(units: Floats) -> float:
        f = units * share
        return float(np.sqrt(max(float(f @ root.cov @ f), 0.0)))

    return Hedge(
        trades=trades,
        lots=lots.astype(np.int64),
        costs=spent,
        risk_before=volatility(now),
        risk_after=volatility(after),
        measure="volatility of wealth per year",
    )


def _shares(mean: Floats, cov: Floats, most: Floats, leverage: float) -> Floats:
    """argmax f·mean − ½ f·cov·f with |f| ≤ most and Σ|f| ≤ leverage; longs and shorts apart."""
    count = len(mean)
    start = np.asarray(np.linalg.lstsq(cov, mean, rcond=None)[0], dtype=np.float64)
    if not np.allclose(
        cov @ start, mean, rtol=1e-8, atol=1e-12 * max(1.0, float(np.abs(mean).max(initial=0.0)))
    ):
        if not (np.isfinite(most).all() or np.isfinite(leverage)):
            raise InfeasibleHedge(
                "cov", "is singular where mean is not zero: without limits growth is unbounded"
            )
    elif (np.abs(start) <= most).all() and np.abs(start).sum() <= leverage:
        return np.asarray(start)

    def value(at: Floats) -> float:
        f = at[:count] - at[count:]
        return float(0.5 * f @ cov @ f - f @ mean)

    def slope(at: Floats) -> Floats:
        pull = cov @ (at[:count] - at[count:]) - mean
        return np.concatenate([pull, -pull])

    constraints: list[dict[str, Any]] = []
    if np.isfinite(leverage):
        constraints.append(
            {"type": "ineq", "fun": lambda at: leverage - at.sum(), "jac": lambda at: -np.ones_like(at)}
        )
    bounds = [(0.0, float(edge) if np.isfinite(edge) else None) for edge in np.concatenate([most, most])]
    minimise: Any = optimize.minimize
    found = minimise(
        value,
        np.zeros(2 * count),
        jac=slope,
        method="SLSQP",
        bounds=bounds,
        constraints=constraints,
        options={"maxiter": 500, "ftol": 1e-15},
    )
    return np.asarray(found.x[:count] - found.x[count:])
