"""Revaluation in blocks of scenarios, so that a deadline or a cancellation is seen within one block.

Every engine values a scenario without regard to the others, so the cut costs nothing but its overhead; the
CPU engine's numbers are the same bits with any cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.revaluation import position_pnl
from risk_service.on_demand.patience import Patience
from service_kit.errors import InvalidRequest, TooLarge

Floats = NDArray[np.float64]

# An American option costs about as much as this many European ones.
AMERICAN_COST = 200


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may cost. A revaluation is one European option under one scenario."""

    block_revaluations: int = 4_000_000  # between two looks at the clock
    request_revaluations_max: int = 5_000_000_000
    scenario_values_max: int = 16_000_000  # scenarios × underlyings
    answer_values_max: int = 4_000_000  # numbers in one answer


@dataclass(frozen=True, slots=True)
class Revaluer:
    """One engine, with the limits and the patience of one request."""

    engine: gk.Engine
    limits: Limits
    patience: Patience

    def pnl(self, portfolio: gk.Portfolio, scenarios: gk.Scenarios) -> Floats:
        """P&L of the portfolio in every scenario (S,), in currency."""
        out = np.empty(len(scenarios))
        for block in self._blocks(portfolio, scenarios):
            out[block] = self.engine.revalue(portfolio, _part(scenarios, block))
        return _finite(out)

    def pnl_by_group(self, portfolio: gk.Portfolio, scenarios: gk.Scenarios) -> Floats:
        """P&L of every group in every scenario (G, S)."""
        out = np.empty((portfolio.groups, len(scenarios)))
        for block in self._blocks(portfolio, scenarios):
            by: Literal["group"] = "group"
            out[:, block] = self.engine.revalue(portfolio, _part(scenarios, block), by=by)
        return out

    def pnl_by_position(self, portfolio: gk.Portfolio, scenarios: gk.Scenarios) -> Floats:
        """P&L of every position, options first, in every scenario (P, S)."""
        out = np.empty((len(portfolio), len(scenarios)))
        for block in self._blocks(portfolio, scenarios):
            out[:, block] = position_pnl(self.engine, portfolio, _part(scenarios, block))
        return out

    def _blocks(self, portfolio: gk.Portfolio, scenarios: gk.Scenarios) -> Iterator[slice]:
        american = int(np.count_nonzero(portfolio.american))
        cost = len(portfolio) + AMERICAN_COST * american
        if cost * len(scenarios) > self.limits.request_revaluations_max:
            raise TooLarge(
                f"{len(portfolio)} positions, {american} of them American, under {len(scenarios)} scenarios "
                "are more than one request may ask for"
            )
        step = max(1, self.limits.block_revaluations // max(1, cost))
        for start in range(0, len(scenarios), step):
            self.patience.check()
            yield slice(start, min(start + step, len(scenarios)))


def _part(scenarios: gk.Scenarios, block: slice) -> gk.Scenarios:
    whole = block.start == 0 and block.stop == len(scenarios)
    return scenarios if whole else scenarios.select(block)


def _finite(pnl: Floats) -> Floats:
    bad = np.flatnonzero(~np.isfinite(pnl))
    if bad.size:
        raise InvalidRequest("scenarios", "gives the book no finite value", int(bad[0]))
    return pnl
