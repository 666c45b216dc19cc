"""What answers while there is no worker: the CPU engine in the front, marked as what it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import gpu_kernels as gk
from gpu_kernels.engines.engine import AmericanMethod, Engine
from gpu_kernels.results import GreeksResult, ImpliedVolResult, PriceResult
from gpu_kernels.revaluation import position_pnl
from risk_service.worker.engine import WorkerEngine
from risk_service.worker.supervisor import EngineLost

Answer = TypeVar("Answer")


class SpareEngine(Engine):
    """An engine that answers in another's place, and says why."""

    def __init__(self, engine: Engine, degraded_reason: str) -> None:
        self.__dict__.update(engine.__dict__)
        self.degraded_reason = degraded_reason


class LastingEngine(Engine):
    """Asks the worker, and where it is lost the CPU; for the live loop, which must go on.

    `name`, `device` and `degraded_reason` tell of the last answer. For one thread.
    """

    def __init__(self, worker: WorkerEngine, spare: Engine) -> None:
        self.__dict__.update(worker.__dict__)
        self._worker, self._spare = worker, spare
        self.degraded_reason = ""

    def price(
        self,
        options: gk.Options,
        *,
        american_method: AmericanMethod = "accurate",
        out: PriceResult | None = None,
    ) -> PriceResult:
        """As Engine.price."""
        return self._do(lambda one: one.price(options, american_method=american_method, out=out))

    def greeks(
        self,
        options: gk.Options,
        *,
        american_method: AmericanMethod = "accurate",
        out: GreeksResult | None = None,
    ) -> GreeksResult:
        """As Engine.greeks."""
        return self._do(lambda one: one.greeks(options, american_method=american_method, out=out))

    def implied_vol(
        self,
        options: gk.Options,
        price: Any,
        *,
        american_method: AmericanMethod = "accurate",
        out: ImpliedVolResult | None = None,
    ) -> ImpliedVolResult:
        """As Engine.implied_vol."""
        return self._do(lambda one: one.implied_vol(options, price, american_method=american_method, out=out))

    def revalue(
        self,
        portfolio: gk.Portfolio,
        scenarios: gk.Scenarios,
        *,
        by: Literal["group"] | None = None,
        out: Any = None,
    ) -> Any:
        """As Engine.revalue."""
        return self._do(lambda one: one.revalue(portfolio, scenarios, by=by, out=out))

    def warm_up(self) -> None:
        """Both are warmed up by who made them."""

    def module(self, name: str) -> Any:
        """The worker's module of that name; its position_pnl comes back to this engine."""
        return self._worker.module(name)

    def position_pnl(self, portfolio: gk.Portfolio, scenarios: gk.Scenarios) -> Any:
        """P&L per position and scenario (P, S), in currency."""
        return self._do(lambda one: position_pnl(one, portfolio, scenarios))

    def _do(self, call: Callable[[Engine], Answer]) -> Answer:
        try:
            answer = call(self._worker)
        except EngineLost as lost:
            answer = call(self._spare)
            self._answered(self._spare, str(lost))
        else:
            self._answered(self._worker, "")
        return answer

    def _answered(self, engine: Engine, degraded_reason: str) -> None:
        self.name, self.device, self.degraded_reason = engine.name, engine.device, degraded_reason


def degraded_reason(engine: Engine) -> str:
    """Why this engine answers in another's place; empty where it does not."""
    reason: str = getattr(engine, "degraded_reason", "")
    return reason
