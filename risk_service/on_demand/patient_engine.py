"""An engine as one request uses it: everything asked of it is cut into blocks, so that a deadline or a
cancellation is seen within one of them, and progress is counted.

Every engine values a row, and a scenario, without regard to the others, so the cut costs nothing but its
overhead; the CPU engine's numbers are the same bits with any cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.engines.engine import AmericanMethod, Engine
from gpu_kernels.results import GreeksResult, ImpliedVolResult, PriceResult, ResultT
from gpu_kernels.revaluation import position_pnl
from risk_service.on_demand.option_blocks import AMERICAN_COST, ROW_COSTS, in_blocks
from risk_service.on_demand.patience import Patience
from risk_service.on_demand.progress import Progress
from service_kit.errors import TooLarge

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may cost. A revaluation is one European option under one scenario."""

    block_revaluations: int = 4_000_000  # between two looks at the clock
    request_revaluations_max: int = 5_000_000_000
    scenario_values_max: int = 16_000_000  # scenarios × underlyings
    answer_values_max: int = 4_000_000  # numbers in one answer


class PatientEngine(Engine):
    """Asks the engine block by block, as long as the request's patience lasts."""

    def __init__(
        self, engine: Engine, limits: Limits, patience: Patience, progress: Progress | None = None
    ) -> None:
        # Its name and device and, where it answers in another's place, why.
        self.__dict__.update(engine.__dict__)
        self._inner, self._limits = engine, limits
        self.patience, self._progress = patience, progress or Progress(0)

    def price(
        self,
        options: gk.Options,
        *,
        american_method: AmericanMethod = "accurate",
        out: PriceResult | None = None,
    ) -> PriceResult:
        """As Engine.price."""

        def call(rows: gk.Options, _: Any) -> PriceResult:
            return self._inner.price(rows, american_method=american_method)

        row = ROW_COSTS["price", american_method]
        return _into(out, in_blocks(call, options, None, self.patience, row))

    def greeks(
        self,
        options: gk.Options,
        *,
        american_method: AmericanMethod = "accurate",
        out: GreeksResult | None = None,
    ) -> GreeksResult:
        """As Engine.greeks."""

        def call(rows: gk.Options, _: Any) -> GreeksResult:
            return self._inner.greeks(rows, american_method=american_method)

        row = ROW_COSTS["greeks", american_method]
        return _into(out, in_blocks(call, options, None, self.patience, row))

    def implied_vol(
        self,
        options: gk.Options,
        price: Any,
        *,
        american_method: AmericanMethod = "accurate",
        out: ImpliedVolResult | None = None,
    ) -> ImpliedVolResult:
        """As Engine.implied_vol; one price per option."""

        def call(rows: gk.Options, prices: Any) -> ImpliedVolResult:
            return self._inner.implied_vol(rows, prices, american_method=american_method)

        row = ROW_COSTS["implied volatility", american_method]
        return _into(out, in_blocks(call, options, price, self.patience, row))

    def revalue(
        self,
        portfolio: gk.Portfolio,
        scenarios: gk.Scenarios,
        *,
        by: Literal["group"] | None = None,
        out: Any = None,
    ) -> Any:
        """As Engine.revalue."""
        shape = (portfolio.groups, len(scenarios)) if by == "group" else (len(scenarios),)
        answer = np.empty(shape) if out is None else out
        for block in self._blocks(portfolio, scenarios):
            answer[..., block] = self._inner.revalue(portfolio, _part(scenarios, block), by=by)
        return answer

    def position_pnl(self, portfolio: gk.Portfolio, scenarios: gk.Scenarios) -> Floats:
        """P&L of every position, options first, in every scenario (P, S), in currency."""
        answer = np.empty((len(portfolio), len(scenarios)))
        for block in self._blocks(portfolio, scenarios):
            answer[:, block] = position_pnl(self._inner, portfolio, _part(scenarios, block))
        return answer

    def module(self, name: str) -> ModuleType:
        """As Engine.module; revaluation by position comes back to this engine."""
        return cast(ModuleType, _Revaluation()) if name == "revaluation" else self._inner.module(name)

    def did(self, revaluations: int) -> None:
        """So many more are done, or what takes as long; ends the computation where nobody waits for it."""
        self._progress.add(revaluations)
        self.patience.check()

    def warm_up(self) -> None:
        """Has been done by who made the engine."""

    def _blocks(self, portfolio: gk.Portfolio, scenarios: gk.Scenarios) -> Iterator[slice]:
        american = int(np.count_nonzero(portfolio.american))
        cost = len(portfolio) + AMERICAN_COST * american
        if cost * len(scenarios) > self._limits.request_revaluations_max:
            raise TooLarge(
                f"{len(portfolio)} positions, {american} of them American, under {len(scenarios)} scenarios "
                "are more than one request may ask for"
            )
        step = max(1, self._limits.block_revaluations // max(1, cost))
        for start in range(0, len(scenarios), step):
            self.patience.check()
            block = slice(start, min(start + step, len(scenarios)))
            yield block
            self._progress.add(cost * (block.stop - block.start))


class _Revaluation:
    """Stands for the backend's module of that name."""

    def position_pnl(self, engine: PatientEngine, portfolio: gk.Portfolio, scenarios: gk.Scenarios) -> Floats:
        return engine.position_pnl(portfolio, scenarios)


def _part(scenarios: gk.Scenarios, block: slice) -> gk.Scenarios:
    whole = block.start == 0 and block.stop == len(scenarios)
    return scenarios if whole else scenarios.select(block)


def _into(out: ResultT | None, result: ResultT) -> ResultT:
    if out is None:
        return result
    for target, column in zip(out.columns(), result.columns(), strict=True):
        target[...] = column
    return out
