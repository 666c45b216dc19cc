"""Expected shortfall over Basel's liquidity horizons: what takes longer to sell has longer to lose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.basel import LIQUIDITY_HORIZONS, liquidity_horizon_es
from gpu_kernels.tail_risk import Convention
from risk_service.on_demand.blocks import Revaluer
from risk_service.on_demand.books import ValuedBook
from risk_service.price_history import BUSINESS_DAYS_PER_YEAR
from service_kit.errors import InvalidRequest

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Horizons:
    """Trading days that the spot and the vol of each underlying take to be sold or hedged."""

    spot_days: Floats
    vol_days: Floats

    def steps(self) -> tuple[float, ...]:
        """The horizons up to the longest in use; each is one more revaluation."""
        longest = max(self.spot_days.max(), self.vol_days.max())
        return tuple(days for days in LIQUIDITY_HORIZONS if days <= longest)


def expected_shortfall_over(
    revaluer: Revaluer,
    book: ValuedBook,
    scenarios: gk.Scenarios,
    level: float,
    convention: Convention,
    horizons: Horizons,
) -> float:
    """MAR33.5: at each horizon the shocks that take at least as long to escape, put together."""
    steps = horizons.steps()
    shortfalls = []
    for place, days in enumerate(steps):
        revaluer.patience.check()
        pnl = revaluer.pnl(book.portfolio, _lasting(scenarios, horizons, days, first=place == 0))
        tail = gk.tail_risk(pnl, level, convention, weights=scenarios.weights)
        shortfalls.append(max(0.0, tail.es))
    return liquidity_horizon_es(shortfalls, LIQUIDITY_HORIZONS, base_days(scenarios))


def base_days(scenarios: gk.Scenarios) -> float:
    """Trading days over which the scenarios play."""
    elapsed = scenarios.elapsed
    if not (elapsed[0] > 0.0 and (elapsed == elapsed[0]).all()):
        raise InvalidRequest("liquidity_horizons", "need scenarios that all play over one time, above 0")
    return float(elapsed[0] * BUSINESS_DAYS_PER_YEAR)


def _lasting(scenarios: gk.Scenarios, horizons: Horizons, days: float, *, first: bool) -> gk.Scenarios:
    """The shocks of what takes at least so many days; rates, vol surfaces and time go with the first step."""
    if first:
        return scenarios
    return gk.Scenarios(
        spot_return=np.where(horizons.spot_days >= days, scenarios.spot_return, 0.0),
        vol_change=np.where(horizons.vol_days >= days, scenarios.vol_change, 0.0),
    )
