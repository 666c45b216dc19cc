"""A hedge of several Greeks with chosen instruments: least squares in whole lots under limits and costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from gpu_kernels.errors import InvalidInput
from gpu_kernels.hedging import Hedge, InfeasibleHedge, column

Floats = NDArray[np.float64]

# Improving moves of single lots and of pairs; far more than rounding ever leaves to do.
MOVES_MAX = 10_000
# Trades in whole lots that are simply all tried: a few instruments of a few lots.
GRID_MAX = 50_000
# Trials between two looks at whether anybody waits: some 10 µs each.
TRIALS_UNCHECKED = 64
# Values that differ by less, as a share, are as good as each other.
TIE = 1e-12


@dataclass(frozen=True)
class _Problem:
    """½|weighted residual|² in lots, with costs and limits."""

    exposure: Floats  # (K,) weighted
    per_lot: Floats  # (K, N) weighted
    cost: Floats  # (N,) currency per lot
    limit: Floats  # (N,) lots
    budget: float
    price_of_cost: float
    residual_limit: Floats  # (K,) weighted

    def value(self, lots: Floats) -> float:
        residual = self.exposure + self.per_lot @ lots
        return 0.5 * float(residual @ residual) + self.price_of_cost * float(self.cost @ np.abs(lots))

    def allows(self, lots: Floats) -> bool:
        residual = np.abs(self.exposure + self.per_lot @ lots)
        slack = 1e-9
        return bool(
            (np.abs(lots) <= self.limit + slack).all()
            and self.cost @ np.abs(lots) <= self.budget * (1.0 + slack)
            and (residual <= self.residual_limit * (1.0 + slack) + slack).all()
        )


def greek_hedge(
    exposure: ArrayLike,
    instrument_greeks: ArrayLike,
    *,
    scale: ArrayLike = 1.0,
    lot_size: ArrayLike = 1.0,
    limit: ArrayLike = np.inf,
    cost_per_lot: ArrayLike = 0.0,
    budget: float = np.inf,
    price_of_cost: float = 0.0,
    residual_limit: ArrayLike = np.inf,
    check: Callable[[], None] | None = None,
) -> Hedge:
    """Lots of N instruments that make the K ``exposure`` of a book (delta, gamma, vega, …) small.

    ``instrument_greeks`` (K, N) are per unit; ``scale`` (K,) turns each Greek into comparable risk
    (currency for a usual move). Minimised is ½Σ(scale·residual)² + ``price_of_cost``·cost, with trades up
    to ``limit`` units, costs up to ``budget`` and |residual| up to ``residual_limit`` (K,). The risk is
    √Σ(scale·residual)². Lots come from the continuous optimum by rounding and improving single lots and
    pairs until none is better. ``check`` is called again and again meanwhile; what it raises ends the search.
    """
    book = column(exposure, "exposure", None)
    greeks = np.asarray(instrument_greeks, dtype=np.float64)
    if greeks.ndim != 2 or len(greeks) != len(book) or not np.isfinite(greeks).all():
        raise InvalidInput(
            "instrument_greeks", f"must be finite and have shape ({len(book)}, N), got shape {greeks.shape}"
        )
    count = greeks.shape[1]
    weight = column(scale, "scale", len(book), low=0.0)
    lot = column(lot_size, "lot_size", count, low=0.0, strict=True)
    if np.isnan(budget) or budget < 0.0:
        raise InvalidInput("budget", f"must not be negative, got {budget}")
    if not price_of_cost >= 0.0:
        raise InvalidInput("price_of_cost", f"must not be negative, got {price_of_cost}")
    problem = _Problem(
        exposure=weight * book,
        per_lot=weight[:, None] * greeks * lot,
        cost=column(cost_per_lot, "cost_per_lot", count, low=0.0),
        limit=np.floor(column(limit, "limit", count, low=0.0, finite=False) / lot + 1e-9),
        budget=float(budget),
        price_of_cost=float(price_of_cost),
        residual_limit=weight * column(residual_limit, "residual_limit", len(book), low=0.0, finite=False),
    )
    look = check or _go_on
    start = _continuous(problem, look)
    lots = _whole(problem, start, look)
    before, after = problem.exposure, problem.exposure + problem.per_lot @ lots
    return Hedge(
        trades=lots * lot,
        lots=lots.astype(np.int64),
        costs=problem.cost * np.abs(lots),
        risk_before=float(np.sqrt(before @ before)),
        risk_after=float(np.sqrt(after @ after)),
        measure="root of the sum of squared scaled Greeks",
    )


def _reach(problem: _Problem) -> Floats:
    """A finite box around every sensible trade: no instrument is worth more than the book on its own."""
    lengths = np.square(problem.per_lot).sum(axis=0)
    alone = np.sqrt(float(np.square(problem.exposure).sum()) / np.where(lengths > 0.0, lengths, np.inf))
    return np.minimum(problem.limit, np.ceil(100.0 * alone + 1.0))


def _go_on() -> None:
    """Nobody ends the search."""


def _continuous(problem: _Problem, check: Callable[[], None]) -> Floats:
    """The optimum in fractions of lots; buys and sells are variables apart, so that costs are linear."""
    reach = _reach(problem)
    count = len(reach)
    _refuse_infeasible(problem, reach)
    if not count:
        return np.zeros(0)
    norm = max(1.0, float(np.square(problem.exposure).sum()))
    gain = problem.per_lot

    def value(at: Floats) -> float:
        check()
        residual = problem.exposure + gain @ (at[:count] - at[count:])
        return (
            0.5 * float(residual @ residual)
            + problem.price_of_cost * float(problem.cost @ (at[:count] + at[count:]))
        ) / norm

    def slope(at: Floats) -> Floats:
        pull = gain.T @ (problem.exposure + gain @ (at[:count] - at[count:]))
        charge = problem.price_of_cost * problem.cost
        return np.concatenate([pull + charge, charge - pull]) / norm

    constraints: list[dict[str, Any]] = []
    if np.isfinite(problem.budget):
        both = np.concatenate([problem.cost, problem.cost])
        unit = max(1.0, problem.budget)
        constraints.append(
            {
                "type": "ineq",
                "fun": lambda at: (problem.budget - both @ at) / unit,
                "jac": lambda at: -both / unit,
            }
        )
    bounded = np.isfinite(problem.residual_limit)
    if bounded.any():
        rows = np.concatenate([gain[bounded], -gain[bounded]], axis=1)
        base, edge = problem.exposure[bounded], problem.residual_limit[bounded]
        constraints.append(
            {
                "type": "ineq",
                "fun": lambda at: np.concatenate([edge - (base + rows @ at), edge + (base + rows @ at)]),
                "jac": lambda at: np.concatenate([-rows, rows]),
            }
        )
    minimise: Any = optimize.minimize
    found = minimise(
        value,
        np.zeros(2 * count),
        jac=slope,
        method="SLSQP",
        bounds=[(0.0, float(most)) for most in np.concatenate([reach, reach])],
        constraints=constraints,
        options={"maxiter": 400, "ftol": 1e-14},
    )
    return np.asarray(found.x[:count] - found.x[count:])


def _refuse_infeasible(problem: _Problem, reach: Floats) -> None:
    """Even fractions of lots may not bring every residual within its limit: then say so."""
    bounded = np.isfinite(problem.residual_limit)
    if not bounded.any():
        return
    gain, base, edge = problem.per_lot[bounded], problem.exposure[bounded], problem.residual_limit[bounded]
    rows = np.concatenate([gain, -gain], axis=1)
    # The last variable is how far the residual limits have to be stretched.
    stretch = -np.ones((len(base), 1))
    upper = [np.hstack([rows, stretch]), np.hstack([-rows, stretch])]
    bound = [edge - base, edge + base]
    if np.isfinite(problem.budget):
        upper.append(np.concatenate([problem.cost, problem.cost, [0.0]])[None, :])
        bound.append(np.array([problem.budget]))
    limits = [(0.0, float(most)) for most in np.concatenate([reach, reach])]
    solve: Any = optimize.linprog
    found = solve(
        np.concatenate([np.zeros(2 * len(reach)), [1.0]]),
        A_ub=np.concatenate(upper),
        b_ub=np.concatenate(bound),
        bounds=[*limits, (0.0, None)],
        method="highs",
    )
    scale = max(1.0, float(np.abs(base).max()))
    if not found.success or found.x[-1] > 1e-9 * scale:
        raise InfeasibleHedge(
            "residual_limit", "cannot be met by these instruments within their limits and the budget"
        )


def _whole(problem: _Problem, start: Floats, check: Callable[[], None]) -> Floats:
    """Whole lots: the best of all where they can be counted; else rounded, then improved lot by lot."""
    if not len(start):
        return start
    best_of_all = _best_of_all(problem)
    if best_of_all is not None:
        return best_of_all
    count = len(start)
    candidates = [np.rint(start), np.trunc(start), np.zeros(count)]
    allowed = [lots for lots in candidates if problem.allows(lots)]
    if allowed:
        best = min(allowed, key=problem.value)
    else:
        best = _nearest_allowed(problem, np.rint(start))
    value = problem.value(best)
    steps = np.concatenate([np.eye(count), -np.eye(count)])
    pairs = [steps[i] + steps[j] for i in range(len(steps)) for j in range(i) if (i - j) % count]
    moves = np.concatenate([steps, pairs]) if pairs else steps
    for _ in range(MOVES_MAX):
        trials, better = best + moves, []
        for i, trial in enumerate(trials):
            if not i % TRIALS_UNCHECKED:
                check()
            if problem.allows(trial):
                better.append((problem.value(trial), i))
        if not better or min(better)[0] >= value - 1e-12 * max(1.0, value):
            break
        value, at = min(better)
        best = trials[at]
    return best


def _best_of_all(problem: _Problem) -> Floats | None:
    """The best of every trade in whole lots; None where there are too many, or none is allowed."""
    reach = np.floor(_reach(problem) + 1e-9)
    if not np.isfinite(reach).all() or np.prod(2.0 * reach + 1.0) > GRID_MAX:
        return None
    axes = np.meshgrid(*(np.arange(-most, most + 1.0) for most in reach), indexing="ij")
    lots = np.stack(axes, axis=-1).reshape(-1, len(reach))
    residual = problem.exposure + lots @ problem.per_lot.T
    spent = np.abs(lots) @ problem.cost
    slack = 1e-9
    allowed = spent <= problem.budget * (1.0 + slack)
    allowed &= (np.abs(residual) <= problem.residual_limit * (1.0 + slack) + slack).all(axis=1)
    if not allowed.any():
        return None
    value = 0.5 * np.square(residual).sum(axis=1) + problem.price_of_cost * spent
    lots, value = lots[allowed], value[allowed]
    least = float(value.min())
    # Of trades that are as good as each other the smallest: an instrument that does nothing is left alone.
    equal = np.flatnonzero(value <= least + TIE * max(1.0, abs(least)))
    return np.asarray(lots[equal[np.argmin(np.abs(lots[equal]).sum(axis=1))]])


def _nearest_allowed(problem: _Problem, centre: Floats) -> Floats:
    """Some whole-lot trade within all limits near ``centre``, by exact integer programming."""
    count = len(centre)
    bounded = np.isfinite(problem.residual_limit)
    gain, base, edge = problem.per_lot[bounded], problem.exposure[bounded], problem.residual_limit[bounded]
    reach = _reach(problem)
    both = np.concatenate([gain, -gain], axis=1)
    constraints = [optimize.LinearConstraint(both, -edge - base, edge - base)] if len(base) else []
    if np.isfinite(problem.budget):
        spent = np.concatenate([problem.cost, problem.cost])[None, :]
        constraints.append(optimize.LinearConstraint(spent, -np.inf, problem.budget))
    found = optimize.milp(
        np.ones(2 * count),
        integrality=np.ones(2 * count, dtype=np.int64),
        bounds=optimize.Bounds(np.zeros(2 * count), np.concatenate([reach, reach])),
        constraints=constraints,
    )
    if found.x is None:
        raise InfeasibleHedge(
            "residual_limit", "cannot be met in whole lots within the limits and the budget"
        )
    lots = np.rint(found.x)
    return np.asarray(lots[:count] - lots[count:])
