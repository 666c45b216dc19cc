"""Many scenarios of one underlying, read from a few: where its vol moves with its spot along a line.

Simulated scenarios often are so: each vol change is a slope times the return. What an option does under them
is then a function of the return alone, and smooth; a polynomial through a few returns tells all the others.
How far it is off is measured between the nodes, for every option and at each look.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial.chebyshev import chebvander
from numpy.typing import NDArray

from gpu_kernels.scenarios import Scenarios

Floats = NDArray[np.float64]

# Returns at which an option is valued. Fewer scenarios than so many times as many are not worth it.
NODES = 32
WORTH = 4
# How far a vol change may be from the line: rounding.
STRAIGHT = 1e-12
# The error is taken for so many times the largest that was measured. The worst there is, a kink, was off by
# up to 2.43 times as much, wherever it lay (20 draws of 4,096 returns, 1,500 places of the kink in each).
SAFETY = 3.0


@dataclass(frozen=True)
class ScenarioLine:
    """Scenarios (S, 1) of one horizon as a polynomial through N of their returns."""

    looks: Scenarios  # the N nodes, then N + 1 returns at which the error is measured
    to_scenarios: Floats  # (N, S): values at the nodes make those of the scenarios
    to_checks: Floats  # (N, N + 1)

    @classmethod
    def through(cls, scenarios: Scenarios) -> ScenarioLine | None:
        """None where there is no such line, or too few scenarios to be worth it."""
        returns, changes = scenarios.spot_return[:, 0], scenarios.vol_change[:, 0]
        low, high = returns.min(), returns.max()
        if len(returns) < WORTH * NODES or not high > low or scenarios.vol_shock_surface is not None:
            return None
        if scenarios.rate_change.any() or (scenarios.elapsed != scenarios.elapsed[0]).any():
            return None
        first, last = changes[returns.argmin()], changes[returns.argmax()]
        slope = (last - first) / (high - low)
        if np.abs(first + slope * (returns - low) - changes).max() > STRAIGHT:
            return None
        angles = np.pi * (np.arange(NODES) + 0.5) / NODES
        places = np.concatenate((np.cos(angles), np.cos(np.pi * np.arange(NODES + 1) / NODES)))
        moves = low + (high - low) * 0.5 * (1.0 + places)
        to_coefficients = chebvander(np.cos(angles), NODES - 1) * (2.0 / NODES)
        to_coefficients[:, 0] *= 0.5
        spread = np.clip(2.0 * (returns - low) / (high - low) - 1.0, -1.0, 1.0)
        return cls(
            Scenarios(moves[:, None], (first + slope * (moves - low))[:, None], elapsed=scenarios.elapsed[0]),
            np.asarray(to_coefficients @ chebvander(spread, NODES - 1).T, np.float64),
            np.asarray(to_coefficients @ chebvander(places[NODES:], NODES - 1).T, np.float64),
        )

    def read(self, found: Floats) -> Floats:
        """In every scenario, (R, S), what was found at the looks, (R, 2 N + 1), or at the nodes alone."""
        return np.asarray(found[:, :NODES] @ self.to_scenarios)

    def errors(self, found: Floats) -> Floats:
        """Bound of the error (R,) of what is read, from what was found at the looks."""
        off = np.abs(found[:, :NODES] @ self.to_checks - found[:, NODES:])
        return np.asarray(SAFETY * off.max(axis=1, initial=0.0))
