"""Position sizing by fractional Kelly: the holdings that make wealth grow fastest, taken with caution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
    check: Callable[[], None] | None = None,
) -> Hedge:
    """Trades that bring holdings to ``fraction`` of Kelly's: maximise f·mean − f·cov·f/(2·fraction).

    ``mean`` (U,) is the yearly return in excess of the rate, ``cov`` (U, U) per year; f are shares of
    ``capital``. ``limit`` bounds each holding in units, ``leverage`` the sum of |f|, ``budget`` the cost of
    the trades; where they bind the answer is the best within them. Without limits it is fraction·cov⁻¹·mean.
    Holdings are rounded towards zero to whole lots; the risk is the yearly volatility of wealth, as a share
    of capital. ``check`` is called again and again meanwhile; what it raises ends the search.
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
    problem = _Problem(
        mean=expected,
        cov=root.cov / fraction,
        most=column(limit, "limit", count, low=0.0, finite=False) * share,
        leverage=float(leverage),
        held=now * share,
        cost=charge / (lot * share),
        budget=float(budget),
        check=check or _go_on,
    )
    wanted = _shares(problem) / share
    # A hair below a whole lot is that lot.
    whole = np.trunc(np.round(wanted / lot, 6)) - np.trunc(np.round(now / lot, 6))
    lots = _within_budget(problem, whole, lot * share)
    spent = charge * np.abs(lots)
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


def _go_on() -> None:
    """Nobody ends the search."""


@dataclass(frozen=True)
class _Problem:
    """Growth f·mean − ½ f·cov·f of holdings f, in shares of capital, with what bounds them."""

    mean: Floats
    cov: Floats
    most: Floats
    leverage: float
    held: Floats
    cost: Floats  # of a trade in the whole of capital
    budget: float
    check: Callable[[], None]

    def growth(self, at: Floats) -> float:
        self.check()
        return float(at @ self.mean - 0.5 * at @ self.cov @ at)

    def spent(self, at: Floats) -> float:
        return float(self.cost @ np.abs(at - self.held))

    def allows(self, at: Floats) -> bool:
        slack = 1.0 + 1e-9
        return bool((np.abs(at) <= self.most * slack).all() and np.abs(at).sum() <= self.leverage * slack)


def _shares(problem: _Problem) -> Floats:
    """The holdings of the greatest growth within limits, leverage and budget."""
    mean, cov = problem.mean, problem.cov
    start = np.asarray(np.linalg.lstsq(cov, mean, rcond=None)[0], dtype=np.float64)
    if not np.allclose(
        cov @ start, mean, rtol=1e-8, atol=1e-12 * max(1.0, float(np.abs(mean).max(initial=0.0)))
    ):
        if not (np.isfinite(problem.most).all() or np.isfinite(problem.leverage)):
            raise InfeasibleHedge(
                "cov", "is singular where mean is not zero: without limits growth is unbounded"
            )
    elif problem.allows(start) and problem.spent(start) <= problem.budget:
        return start
    return _constrained(problem)


def _constrained(problem: _Problem) -> Floats:
    """The same by sequential quadratic programming: longs, shorts, buys and sells are variables apart."""
    count = len(problem.mean)
    tight = np.isfinite(problem.budget)
    rows, bound = _linear_bounds(problem)
    start = np.zeros(rows.shape[1])
    limits = np.concatenate([problem.most, problem.most])
    if tight:
        start = _cheapest(problem, rows, bound, limits)
    signs = np.concatenate([np.eye(count), -np.eye(count)]).T

    def value(at: Floats) -> float:
        return -problem.growth(signs @ at[: 2 * count])

    def slope(at: Floats) -> Floats:
        pull = signs.T @ (problem.cov @ (signs @ at[: 2 * count]) - problem.mean)
        return np.concatenate([pull, np.zeros(len(at) - 2 * count)])

    constraints: list[dict[str, Any]] = []
    if len(rows):
        constraints.append({"type": "ineq", "fun": lambda at: bound - rows @ at, "jac": lambda at: -rows})
    if tight:
        trade = np.hstack([signs, -np.eye(count), np.eye(count)])
        constraints.append(
            {"type": "eq", "fun": lambda at: trade @ at - problem.held, "jac": lambda at: trade}
        )
    ends = [(0.0, float(edge) if np.isfinite(edge) else None) for edge in limits]
    minimise: Any = optimize.minimize
    found = minimise(
        value,
        start,
        jac=slope,
        method="SLSQP",
        bounds=[*ends, *[(0.0, None)] * (len(start) - 2 * count)],
        constraints=constraints,
        options={"maxiter": 500, "ftol": 1e-15},
    )
    return np.asarray(signs @ found.x[: 2 * count])


def _linear_bounds(problem: _Problem) -> tuple[Floats, Floats]:
    """Rows and bounds over longs and shorts and, under a budget, buys and sells: leverage, budget."""
    count = len(problem.mean)
    tight = np.isfinite(problem.budget)
    width = 4 * count if tight else 2 * count
    rows, bound = [], []
    if np.isfinite(problem.leverage):
        rows.append(np.concatenate([np.ones(2 * count), np.zeros(width - 2 * count)]))
        bound.append(problem.leverage)
    if tight:
        # Scaled to a budget of 1, or of nothing at all.
        unit = problem.budget or 1.0
        rows.append(np.concatenate([np.zeros(2 * count), problem.cost, problem.cost]) / unit)
        bound.append(problem.budget / unit)
    return np.array(rows).reshape(len(rows), width), np.array(bound)


def _cheapest(problem: _Problem, rows: Floats, bound: Floats, limits: Floats) -> Floats:
    """Variables of the least costly trade within limits and leverage; refused if beyond the budget."""
    count = len(problem.mean)
    eye = np.eye(count)
    solve: Any = optimize.linprog
    found = solve(
        np.concatenate([np.zeros(2 * count), problem.cost, problem.cost]),
        A_ub=rows[:-1] if len(rows) > 1 else None,
        b_ub=bound[:-1] if len(rows) > 1 else None,
        A_eq=np.hstack([eye, -eye, -eye, eye]),
        b_eq=problem.held,
        bounds=[(0.0, float(most) if np.isfinite(most) else None) for most in limits]
        + [(0.0, None)] * (2 * count),
        method="highs",
    )
    if found.fun > problem.budget * (1.0 + 1e-9):
        raise InfeasibleHedge(
            "budget",
            f"{problem.budget:g} does not pay for bringing what is held within its limits, {found.fun:g}",
        )
    return np.asarray(found.x, dtype=np.float64)


def _within_budget(problem: _Problem, lots: Floats, lot: Floats) -> Floats:
    """Whole lots that rounding has not made dearer than the budget: the least useful are left out."""
    slack = problem.budget * (1.0 + 1e-9)
    while (problem.cost * lot) @ np.abs(lots) > slack:
        fewer = [
            lots - np.sign(lots[i]) * unit
            for i, unit in enumerate(np.eye(len(lots)))
            if lots[i] and problem.cost[i]
        ]
        trials = [trial for trial in fewer if problem.allows(problem.held + trial * lot)]
        if not trials:
            raise InfeasibleHedge(
                "budget",
                f"{problem.budget:g} does not pay for bringing what is held within its limits in whole lots",
            )
        lots = max(trials, key=lambda trial: problem.growth(problem.held + trial * lot))
    return lots
