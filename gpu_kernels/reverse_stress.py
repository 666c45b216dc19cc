"""Reverse stress: the most likely scenario in which a portfolio loses a given amount."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from gpu_kernels.covariance import covariance_root
from gpu_kernels.errors import InvalidInput
from gpu_kernels.portfolio import Portfolio
from gpu_kernels.random_streams import normals, sobol_uniforms
from gpu_kernels.scenarios import Scenarios

if TYPE_CHECKING:
    from gpu_kernels.engines.engine import Engine

Floats = NDArray[np.float64]

# Directions that are searched, steps along each, and the best of them that are refined.
DIRECTIONS = 256
RADII = 32
STARTS = 4
# Step of the differences that make gradients, in standard deviations.
DIFFERENCE = 1e-4


@dataclass(frozen=True)
class ReverseStress:
    """The most likely way to lose: log returns, how many standard deviations away, and what it costs."""

    spot_return: Floats
    vol_change: Floats
    deviations: float
    pnl: float
    scenario: Scenarios


def reverse_stress(
    engine: Engine,
    portfolio: Portfolio,
    loss: float,
    *,
    cov: ArrayLike,
    horizon: float,
    vol_beta: ArrayLike = 0.0,
    deviations_max: float = 12.0,
    seed: int = 0,
) -> ReverseStress:
    """The scenario nearest to no move, in standard deviations, that loses ``loss`` or more.

    ``cov`` (U, U) is per year, ``horizon`` in years; vols change by ``vol_beta`` times the return. Directions
    are searched from a Sobol sequence and the nearest refined; refused when no such loss lies within
    ``deviations_max``.
    """
    if not (np.isfinite(loss) and loss > 0.0):
        raise InvalidInput("loss", f"must be above 0, got {loss}")
    market = _Market(engine, portfolio, cov, horizon, vol_beta)
    starts = _search(market, loss, deviations_max, seed)
    refined = [_refined(market, loss, start) for start in starts]
    best = min(refined, key=lambda z: float(z @ z))
    scenario = market.scenarios(best[None, :])
    return ReverseStress(
        spot_return=scenario.spot_return[0],
        vol_change=scenario.vol_change[0],
        deviations=float(np.sqrt(best @ best)),
        pnl=float(market.pnl(best[None, :])[0]),
        scenario=scenario,
    )


class _Market:
    """P&L as a function of independent standard normal factors."""

    def __init__(
        self, engine: Engine, portfolio: Portfolio, cov: ArrayLike, horizon: float, vol_beta: ArrayLike
    ) -> None:
        if not (np.isfinite(horizon) and horizon > 0.0):
            raise InvalidInput("horizon", f"must be above 0 years, got {horizon}")
        root = covariance_root(cov).root * np.sqrt(horizon)
        alive = np.abs(root).max(axis=0) > 0.0
        self.root = root[:, alive]
        self.factors = int(alive.sum())
        if not self.factors:
            raise InvalidInput("cov", "is zero: nothing moves")
        self._engine, self._portfolio, self._horizon = engine, portfolio, horizon
        beta = np.asarray(vol_beta, dtype=np.float64)
        if beta.shape not in ((), (len(root),)):
            raise InvalidInput("vol_beta", f"must be a number or have shape ({len(root)},), got {beta.shape}")
        self._beta = np.broadcast_to(beta, (len(root),))
        bad = np.flatnonzero(~np.isfinite(self._beta))
        if bad.size:
            raise InvalidInput("vol_beta", f"is {self._beta[bad[0]]}", int(bad[0]))

    def scenarios(self, factors: Floats) -> Scenarios:
        returns = factors @ self.root.T
        return Scenarios(returns, vol_change=self._beta * returns, elapsed=self._horizon)

    def pnl(self, factors: Floats) -> Floats:
        return np.asarray(self._engine.revalue(self._portfolio, self.scenarios(factors)))

    def gradient(self, at: Floats) -> Floats:
        steps = DIFFERENCE * np.eye(self.factors)
        values = self.pnl(np.concatenate([at + steps, at - steps]))
        return np.asarray((values[: self.factors] - values[self.factors :]) / (2.0 * DIFFERENCE))


def _search(market: _Market, loss: float, furthest: float, seed: int) -> list[Floats]:
    """Points that lose enough, nearest first: along random directions and down the slope at the centre."""
    directions = normals(sobol_uniforms(seed, 0, DIRECTIONS, market.factors))
    slope = market.gradient(np.zeros(market.factors))
    directions = np.concatenate(
        [directions, -slope[None, :], np.eye(market.factors), -np.eye(market.factors)]
    )
    length = np.sqrt(np.square(directions).sum(axis=1))
    directions = directions[length > 0.0] / length[length > 0.0, None]
    radii = furthest * np.arange(1, RADII + 1) / RADII
    grid = (directions[:, None, :] * radii[None, :, None]).reshape(-1, market.factors)
    pnl = market.pnl(grid).reshape(len(directions), RADII)
    enough = pnl <= -loss
    reached = np.flatnonzero(enough.any(axis=1))
    if not len(reached):
        raise InvalidInput(
            "loss",
            f"no scenario within {furthest:g} standard deviations loses {loss:g}; the worst found loses "
            f"{-float(pnl.min()):g}",
        )
    outer = radii[enough[reached].argmax(axis=1)]
    inner = outer - furthest / RADII
    for _ in range(30):
        middle = (inner + outer) / 2.0
        loses = market.pnl(directions[reached] * middle[:, None]) <= -loss
        outer, inner = np.where(loses, middle, outer), np.where(loses, inner, middle)
    nearest = np.argsort(outer, kind="stable")[:STARTS]
    return [directions[reached[i]] * outer[i] for i in nearest]


def _refined(market: _Market, loss: float, start: Floats) -> Floats:
    """The local minimum of the distance, or the start where nothing nearer that loses enough is found."""
    constraint: dict[str, Any] = {
        "type": "ineq",
        "fun": lambda z: -(float(market.pnl(z[None, :])[0]) + loss) / loss,
        "jac": lambda z: -market.gradient(z) / loss,
    }
    minimise: Any = optimize.minimize
    found = minimise(
        lambda z: 0.5 * float(z @ z),
        start,
        jac=lambda z: z,
        method="SLSQP",
        constraints=[constraint],
        options={"maxiter": 60, "ftol": 1e-12},
    )
    at = np.asarray(found.x, dtype=np.float64)
    # The optimiser may stop a hair short of the loss: a step outwards of parts in a million is enough.
    for _ in range(20):
        if float(market.pnl(at[None, :])[0]) <= -loss:
            break
        at = at * (1.0 + 1e-6)
    else:
        return start
    return at if at @ at < start @ start else start
