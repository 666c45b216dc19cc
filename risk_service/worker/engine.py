"""A gpu_kernels.Engine whose kernels run in the worker; who computes with it sees no difference."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from types import ModuleType
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.engines.engine import AmericanMethod, Engine
from gpu_kernels.options import FLAG_FIELDS, NUMERIC_FIELDS
from gpu_kernels.results import GreeksResult, ImpliedVolResult, PriceResult, ResultT, checked_out
from risk_service.on_demand.patience import Patience, current_patience
from risk_service.worker.supervisor import EngineLost, Supervisor
from risk_service.worker.tasks import Answer, BookTask, Ended, Hold, OptionTask, Rows

Floats = NDArray[np.float64]
# A worker may lose what it was just given only when others give it more: twice is bad luck enough.
TRIES = 3


class WorkerEngine(Engine):
    """Asks the worker; raises EngineLost where it dies, and then the caller asks another engine."""

    def __init__(self, supervisor: Supervisor) -> None:
        found = supervisor.found
        super().__init__(found.name, found.device, cast(ModuleType, None))
        self._supervisor = supervisor

    def price(
        self,
        options: gk.Options,
        *,
        american_method: AmericanMethod = "accurate",
        out: PriceResult | None = None,
    ) -> PriceResult:
        """As Engine.price."""
        return self._rows("price", PriceResult, options, american_method, None, out)

    def greeks(
        self,
        options: gk.Options,
        *,
        american_method: AmericanMethod = "accurate",
        out: GreeksResult | None = None,
    ) -> GreeksResult:
        """As Engine.greeks."""
        return self._rows("greeks", GreeksResult, options, american_method, None, out)

    def implied_vol(
        self,
        options: gk.Options,
        price: Any,
        *,
        american_method: AmericanMethod = "accurate",
        out: ImpliedVolResult | None = None,
    ) -> ImpliedVolResult:
        """As Engine.implied_vol."""
        return self._rows("implied_vol", ImpliedVolResult, options, american_method, price, out)

    def revalue(
        self,
        portfolio: gk.Portfolio,
        scenarios: gk.Scenarios,
        *,
        by: Literal["group"] | None = None,
        out: Any = None,
    ) -> Any:
        """As Engine.revalue; the worker keeps book and scenarios for the next time."""
        rows = portfolio.groups if by == "group" else 1
        answer = self._book(portfolio, scenarios, by, rows)
        if out is None:
            return answer
        out[...] = answer
        return out

    def warm_up(self) -> None:
        """The worker has warmed up before it said that it is there."""

    def module(self, name: str) -> ModuleType:
        """What of the backend's modules can be asked of a worker: `revaluation.position_pnl`."""
        if name != "revaluation":
            raise gk.EngineUnavailable(f"engine {self.name!r} in a process of its own has no {name}")
        return cast(ModuleType, _Revaluation())

    def position_pnl(self, portfolio: gk.Portfolio, scenarios: gk.Scenarios) -> Floats:
        """P&L per position and scenario (P, S), in currency."""
        answer: Floats = self._book(portfolio, scenarios, "position", len(portfolio))
        return answer

    def _rows(
        self,
        kind: Rows,
        result: type[ResultT],
        options: gk.Options,
        method: str,
        price: Any,
        out: ResultT | None,
    ) -> ResultT:
        fields = {name: getattr(options, name) for name in (*NUMERIC_FIELDS, *FLAG_FIELDS)}
        if options.dividends is not None:
            fields["dividends"] = options.dividends
        task = OptionTask(kind, fields, method, price)
        values = self._ask(task, options.size * 8 * len(result.COLUMNS) + 4096).value
        if out is None:
            return result(*values)
        checked = checked_out(result, out, options.shape)
        for target, column in zip(checked.columns(), values, strict=True):
            target[...] = column
        return checked

    def _book(self, portfolio: gk.Portfolio, scenarios: gk.Scenarios, by: str | None, rows: int) -> Any:
        supervisor = self._supervisor
        things = {supervisor.key_of(thing): thing for thing in (portfolio, scenarios)}
        book, columns = things
        send = {key: thing for key, thing in things.items() if key not in supervisor.given}
        for _ in range(TRIES):
            answer = self._ask(BookTask(book, columns, by, send), rows * len(scenarios) * 8 + 4096)
            if answer.ended is not Ended.MISSING:
                supervisor.given.update(send)
                return answer.value
            # The worker is new, or others have given it more since than it keeps.
            send = things
        raise EngineLost(f"engine {self.name!r} is given more books at once than it keeps")

    def _ask(self, task: OptionTask | BookTask | Hold, answer_bytes: int) -> Answer:
        patience = current_patience()
        look, ends_at = (_nothing, math.inf) if patience is None else (patience.expect, _end_of(patience))
        with nullcontext() if patience is None else patience.elsewhere():
            answer = self._supervisor.ask(task, answer_bytes=answer_bytes, look=look, ends_at=ends_at)
        if answer.ended is Ended.INVALID:
            raise gk.InvalidInput(*answer.value)
        if answer.ended is Ended.UNAVAILABLE:
            raise gk.EngineUnavailable(answer.value)
        if answer.ended is Ended.FAILED:
            raise RuntimeError(f"the process of engine {self.name!r} failed: {answer.value}")
        if answer.ended is Ended.NO_MEMORY:
            raise EngineLost(f"engine {self.name!r}: {answer.value}")
        if answer.ended is Ended.DONE and answer.value is None and not isinstance(task, Hold):
            # The worker found the deadline past; so will the patience.
            look()
            raise EngineLost(f"engine {self.name!r} gave no answer in time")
        return answer


class _Revaluation:
    """Stands for the backend's module of that name."""

    def position_pnl(self, engine: Any, portfolio: gk.Portfolio, scenarios: gk.Scenarios) -> Floats:
        answer: Floats = engine.position_pnl(portfolio, scenarios)
        return answer


def _end_of(patience: Patience) -> float:
    return patience.ends_at if patience.ends_at > time.monotonic() else math.inf


def _nothing() -> None:
    """Nobody's deadline."""
