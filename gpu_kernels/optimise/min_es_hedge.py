"""The hedge with the least expected shortfall, by convex optimisation on the scenario matrix.

Rockafellar and Uryasev (2000): ES is the minimum over ζ of ζ + Σ max(loss − ζ, 0)/k, so that the best trade
is a linear programme. With many scenarios the same optimum comes from cutting planes: ES is the largest of
the linear functions that the tails of single trades define, and a few hundred of them pin the minimum down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, sparse

from gpu_kernels.errors import InvalidInput
from gpu_kernels.hedging import Hedge, column
from gpu_kernels.tail_risk import Tail, tail_risk, tail_scenarios

Floats = NDArray[np.float64]

# Up to so many scenarios the whole programme is solved at once.
WHOLE_PROGRAMME_SCENARIOS = 2000
# Cutting planes: gap between bound and value, as a share of the value, and planes at most.
GAP = 1e-9
PLANES_MAX = 2000
MOVES_MAX = 1000
# Trades in whole lots around the exact optimum that are simply all tried.
AROUND_MAX = 700


def _go_on() -> None:
    """Nobody ends the search."""


@dataclass(frozen=True)
class _Problem:
    """P&L of the book (S,) and of one lot of each instrument (N, S), with limits in lots."""

    pnl: Floats
    per_lot: Floats
    level: float
    weights: Floats | None
    cost: Floats
    limit: Floats
    budget: float
    check: Callable[[], None] = _go_on

    def tail(self, lots: Floats) -> Tail:
        return tail_scenarios(self.pnl + lots @ self.per_lot, self.level, weights=self.weights)

    def value(self, lots: Floats) -> float:
        """ES after the trade, its cost included."""
        self.check()
        after = self.pnl + lots @ self.per_lot
        return tail_risk(after, self.level, weights=self.weights).es + float(self.cost @ np.abs(lots))

    def allows(self, lots: Floats) -> bool:
        slack = 1e-9
        within = (np.abs(lots) <= self.limit + slack).all()
        return bool(within and self.cost @ np.abs(lots) <= self.budget * (1.0 + slack))


def min_es_hedge(
    pnl: ArrayLike,
    instrument_pnl: ArrayLike,
    *,
    limit: ArrayLike,
    level: float = 0.975,
    lot_size: ArrayLike | None = 1.0,
    cost_per_lot: ArrayLike = 0.0,
    budget: float = np.inf,
    weights: ArrayLike | None = None,
    check: Callable[[], None] | None = None,
) -> Hedge:
    """Trades in N instruments that minimise the ES of the book plus what they cost; never worse than none.

    ``pnl`` (S,) is the book's, ``instrument_pnl`` (N, S) that of one unit of each instrument, in the same
    scenarios. ``limit`` is the largest trade in units, ``budget`` the most that trades may cost. With
    ``lot_size`` None trades may be fractions (``lots`` is then rounded); else they are whole lots, rounded
    from the exact optimum and improved lot by lot. ``risk_after`` is ES without the cost. ``check`` is called
    again and again meanwhile; what it raises ends the search.
    """
    book = column(pnl, "pnl", None)
    matrix = np.asarray(instrument_pnl, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[1] != len(book):
        raise InvalidInput("instrument_pnl", f"must have shape (N, {len(book)}), got {matrix.shape}")
    bad = np.argwhere(~np.isfinite(matrix))
    if len(bad):
        raise InvalidInput("instrument_pnl", f"is {matrix[tuple(bad[0])]}", int(bad[0][0]))
    if np.isnan(budget) or budget < 0.0:
        raise InvalidInput("budget", f"must not be negative, got {budget}")
    count = len(matrix)
    lot = column(1.0 if lot_size is None else lot_size, "lot_size", count, low=0.0, strict=True)
    most = column(limit, "limit", count, low=0.0) / lot
    problem = _Problem(
        pnl=book,
        per_lot=matrix * lot[:, None],
        level=level,
        weights=None if weights is None else np.asarray(weights, dtype=np.float64),
        cost=column(cost_per_lot, "cost_per_lot", count, low=0.0),
        limit=most if lot_size is None else np.floor(most + 1e-9),
        budget=float(budget),
        check=check or _go_on,
    )
    before = tail_risk(book, level, weights=problem.weights).es
    lots = _continuous(problem)
    if lot_size is not None:
        lots = _whole(problem, lots)
    if problem.value(lots) >= before:
        lots = np.zeros(count)
    return Hedge(
        trades=lots * lot,
        lots=np.rint(lots).astype(np.int64),
        costs=problem.cost * np.abs(lots),
        risk_before=before,
        risk_after=problem.tail(lots).es,
        measure=f"expected shortfall at {level:g}",
    )


def _continuous(problem: _Problem) -> Floats:
    if not len(problem.per_lot):
        return np.zeros(0)
    if len(problem.pnl) <= WHOLE_PROGRAMME_SCENARIOS:
        return whole_programme(problem)
    return cutting_planes(problem)


def whole_programme(problem: _Problem) -> Floats:
    """Rockafellar and Uryasev's linear programme: buys, sells, ζ and the excess of every scenario."""
    count, scenarios = problem.per_lot.shape
    mass = 1.0 - problem.level
    share = np.full(scenarios, 1.0 / scenarios)
    stack_columns: Any = sparse.hstack
    stack_rows: Any = sparse.vstack
    if problem.weights is not None:
        share = problem.weights / problem.weights.sum()
    unit = _unit(problem)
    objective = np.concatenate([problem.cost / unit, problem.cost / unit, [1.0], share / mass])
    gains = problem.per_lot.T / unit
    rows: Any = stack_columns(
        [-gains, gains, -np.ones((scenarios, 1)), -sparse.identity(scenarios)], format="csr"
    )
    bound = problem.pnl / unit
    if np.isfinite(problem.budget):
        spent = np.concatenate([problem.cost, problem.cost, np.zeros(1 + scenarios)]) / unit
        rows = stack_rows([rows, spent[None, :]], format="csr")
        bound = np.append(bound, problem.budget / unit)
    limits = [(0.0, float(most)) for most in np.concatenate([problem.limit, problem.limit])]
    found = optimize.linprog(
        objective,
        A_ub=rows,
        b_ub=bound,
        bounds=[*limits, (None, None), *[(0.0, None)] * scenarios],
        method="highs",
    )
    if found.x is None:
        return np.zeros(count)
    return np.asarray(found.x[:count] - found.x[count : 2 * count])


def cutting_planes(problem: _Problem) -> Floats:
    """Kelley's method: the tail at each trial bounds ES from below; the lowest point comes next."""
    count = len(problem.per_lot)
    unit = _unit(problem)
    cost = np.concatenate([problem.cost, problem.cost]) / unit
    limits = [(0.0, float(most)) for most in np.concatenate([problem.limit, problem.limit])]
    spent = None if not np.isfinite(problem.budget) else np.append(cost, 0.0)
    planes: list[Floats] = []
    heights: list[float] = []
    best, best_value = np.zeros(count), np.inf
    trial = np.zeros(count)
    solve: Any = optimize.linprog
    for _ in range(PLANES_MAX):
        problem.check()
        tail = problem.tail(trial)
        value = tail.es / unit + float(cost[:count] @ np.abs(trial))
        if value < best_value:
            best, best_value = trial, value
        # ES(x) ≥ −Σ w (pnl + x·instrument) over this tail, for every x.
        slope = -(problem.per_lot[:, tail.index] @ tail.weight) / unit
        planes.append(np.concatenate([slope, -slope, [-1.0]]))
        heights.append(float(problem.pnl[tail.index] @ tail.weight) / unit)
        rows, bound = np.array(planes), np.array(heights)
        if spent is not None:
            rows, bound = np.vstack([rows, spent]), np.append(bound, problem.budget / unit)
        found = solve(
            np.append(cost, 1.0), A_ub=rows, b_ub=bound, bounds=[*limits, (None, None)], method="highs"
        )
        if found.x is None or best_value - found.fun <= GAP * max(1.0, abs(best_value)):
            break
        trial = np.asarray(found.x[:count] - found.x[count : 2 * count])
    return best


def _unit(problem: _Problem) -> float:
    """Currency is scaled by the book's typical outcome, so that tolerances mean the same for every book."""
    return max(float(np.abs(problem.pnl).mean()), 1e-12)


def _whole(problem: _Problem, start: Floats) -> Floats:
    """Whole lots near the exact optimum: the best all around it, improved by single lots and by pairs."""
    count = len(start)
    if not count:
        return start
    candidates: list[Floats] = [*_around(start), np.trunc(start), np.zeros(count)]
    allowed = [lots for lots in candidates if problem.allows(lots)]
    best = min(allowed, key=problem.value)
    value = problem.value(best)
    steps = np.concatenate([np.eye(count), -np.eye(count)])
    pairs = [steps[i] + steps[j] for i in range(len(steps)) for j in range(i) if (i - j) % count]
    moves = np.concatenate([steps, pairs]) if pairs else steps
    for _ in range(MOVES_MAX):
        trials = [best + move for move in moves if problem.allows(best + move)]
        values = [problem.value(trial) for trial in trials]
        if not values or min(values) >= value:
            break
        value = min(values)
        best = trials[values.index(value)]
    return best


def _around(start: Floats) -> Floats:
    """Trades in whole lots next to the exact one, in as wide a box as there may be trials."""
    count = len(start)
    wide = max((reach for reach in (3, 2, 1) if (2 * reach) ** count <= AROUND_MAX), default=0)
    if not wide:
        return np.rint(start)[None, :]
    axes = [np.floor(place) + np.arange(1 - wide, 1 + wide) for place in start]
    return np.asarray(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, count))
