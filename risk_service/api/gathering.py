"""Small requests for an engine in another process, gathered into one call of it.

A way to the worker and back costs as much as thousands of rows, and a device is idle with few. So a request
that finds the engine idle goes at once, alone; those that come while it computes wait for each other until
they are enough rows, or the first has waited long enough, or the engine is idle again. Up to which size that
gains is measured (`Engines.gathered_up_to`). Every row has its own answer, whatever stands beside it:
gathered or alone, the numbers are the same bits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.dividend_schedules import joined as joined_dividends
from gpu_kernels.options import FLAG_FIELDS, NUMERIC_FIELDS
from gpu_kernels.results import Result
from risk_service.api.work import Work
from risk_service.engines import Engines
from risk_service.on_demand.option_blocks import ROW_COSTS, Method, RowCost, What, in_blocks
from risk_service.on_demand.patience import Patience
from service_kit.grpc_server.call import current_call

# A batch of so much goes without waiting for more.
BATCH_COST = 65_536
# The longest that a request waits for others while the engine is busy.
WAIT_S = 0.0005

Floats = NDArray[np.float64]
Call = Callable[[gk.Engine, gk.Options, Any], Result]


class Kind(NamedTuple):
    """What requests must have in common to be gathered."""

    engine: str  # as asked for
    what: What
    method: Method

    @property
    def row_cost(self) -> RowCost:
        """What a row of it costs."""
        return ROW_COSTS[self.what, self.method]


class _Asked(NamedTuple):
    """One request of a batch."""

    options: gk.Options
    prices: Any
    cost: int
    ends_at: float  # event loop time
    answer: asyncio.Future[tuple[Any, gk.Engine]]


@dataclass(slots=True, eq=False)
class _Batch:
    """Requests that go together."""

    kind: Kind
    engine: gk.Engine
    call: Call
    asked: list[_Asked] = field(default_factory=list)
    cost: int = 0
    timer: asyncio.Handle | None = None
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Gathering:
    """Batches by kind. Used in the event loop only."""

    engines: Engines
    work: Work
    batches: int = 0  # sent so far
    gathered: int = 0  # requests in them
    _open: dict[Kind, _Batch] = field(default_factory=dict)
    _busy: dict[Kind, int] = field(default_factory=dict)  # batches under way

    async def ask(
        self, kind: Kind, engine: gk.Engine, options: gk.Options, prices: Any, cost: int, call: Call
    ) -> tuple[Any, gk.Engine]:
        """The result for these rows, and the engine that gave it."""
        loop = asyncio.get_running_loop()
        batch = self._open.get(kind)
        if batch is None:
            batch = self._open[kind] = _Batch(kind, engine, call)
            # Whatever else arrives in this turn of the event loop goes along with the first.
            wait_s = WAIT_S if self._busy.get(kind) else 0.0
            batch.timer = loop.call_later(wait_s, self._go, batch)
        asked = _Asked(options, prices, cost, current_call().ends_at, loop.create_future())
        batch.asked.append(asked)
        batch.cost += cost
        if batch.cost >= BATCH_COST:
            self._go(batch)
        try:
            return await asked.answer
        except asyncio.CancelledError:
            # The last one who leaves ends the work.
            if batch.task is not None and all(one.answer.cancelled() for one in batch.asked):
                batch.task.cancel()
            raise

    def _go(self, batch: _Batch) -> None:
        """Sends the batch; called by its timer, by its size, or because the engine is idle again."""
        if self._open.get(batch.kind) is not batch:
            return
        del self._open[batch.kind]
        if batch.timer is not None:
            batch.timer.cancel()
        batch.asked = [one for one in batch.asked if not one.answer.done()]
        if batch.asked:
            self._busy[batch.kind] = self._busy.get(batch.kind, 0) + 1
            batch.task = asyncio.get_running_loop().create_task(self._answer(batch))
            batch.task.add_done_callback(lambda _: self._done(batch.kind))

    def _done(self, kind: Kind) -> None:
        self._busy[kind] -= 1
        if not self._busy[kind]:
            del self._busy[kind]
            waiting = self._open.get(kind)
            if waiting is not None:
                self._go(waiting)

    async def _answer(self, batch: _Batch) -> None:
        self.batches += 1
        self.gathered += len(batch.asked)
        try:
            result, engine = await self._computed(batch, batch.asked)
        except Exception as fault:  # noqa: BLE001 whatever it is, it is the requests' own answer
            await self._one_by_one(batch, fault)
            return
        start = 0
        for one in batch.asked:
            rows = slice(start, start + one.options.size)
            start = rows.stop
            if not one.answer.done():
                part = type(result)(*(column[rows] for column in result.columns()))
                one.answer.set_result((part, engine))

    async def _one_by_one(self, batch: _Batch, fault: Exception) -> None:
        """A fault may be that of one request: each of several is asked alone."""
        alone = len(batch.asked) == 1
        for one in batch.asked:
            if one.answer.done():
                continue
            try:
                if alone:
                    raise fault
                answer = await self._computed(batch, [one])
            except Exception as own:  # noqa: BLE001 it is raised where the request waits
                if not one.answer.done():
                    one.answer.set_exception(own)
            else:
                if not one.answer.done():
                    one.answer.set_result(answer)

    async def _computed(self, batch: _Batch, asked: list[_Asked]) -> tuple[Any, gk.Engine]:
        options, prices = joined([(one.options, one.prices) for one in asked])

        def work(engine: gk.Engine, patience: Patience) -> tuple[Any, gk.Engine]:
            def call(rows: gk.Options, given: Any) -> Result:
                return batch.call(engine, rows, given)

            return in_blocks(call, options, prices, patience, batch.kind.row_cost), engine

        # Each request has its own deadline where it waits; the work goes on for the most patient.
        left_s = max(one.ends_at for one in asked) - asyncio.get_running_loop().time()
        return await self.work.on(batch.engine, self.engines, batch.kind.engine, work, left_s)


def joined(parts: list[tuple[gk.Options, Any]]) -> tuple[gk.Options, Any]:
    """The rows of all parts, one after the other, and their prices where they have some."""
    if len(parts) == 1:
        return parts[0]
    fields: dict[str, Any] = {
        name: np.concatenate([options.column(name) for options, _ in parts]) for name in NUMERIC_FIELDS
    }
    for name in FLAG_FIELDS:
        columns = [options.column(name) for options, _ in parts]
        same = all(getattr(options, name).size == 1 for options, _ in parts)
        firsts = {bool(column[0]) for column in columns}
        # A flag that is the same in all rows costs the kernels nothing.
        fields[name] = firsts.pop() if same and len(firsts) == 1 else np.concatenate(columns)
    if any(options.dividends is not None for options, _ in parts):
        fields["dividends"] = joined_dividends([(options.dividends, options.size) for options, _ in parts])
    given = [np.broadcast_to(prices, (options.size,)) for options, prices in parts if prices is not None]
    return gk.Options(**fields), np.concatenate(given) if given else None
