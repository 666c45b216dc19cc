"""Expected shortfall, stresses, what-ifs and hedges, asked for by a desk at the live market."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import TypeVar

import gpu_kernels as gk
from protos.risk.v1 import risk_pb2 as wire
from risk_service.api.on_demand_plans import Job, OnDemandPlans, Plan
from risk_service.api.work import Work
from risk_service.engines import Engines
from risk_service.live_snapshot import SnapshotDesk
from risk_service.on_demand.blocks import Revaluer
from risk_service.on_demand.patience import Patience
from risk_service.on_demand.patient_engine import Limits
from risk_service.on_demand.progress import Progress
from service_kit.grpc_server.call import current_call

# How often a caller is told of progress: often enough to look alive, and nothing beside the work itself.
PROGRESS_EVERY_S = 0.1
# What a call takes beside what it computes, its snapshot and its way through a thread, in revaluations. Left
# out, desks that read vectors at hand would make the machine look a thousand times slower than it is.
CALL_COST = 1_000_000

Answer = TypeVar("Answer")
Update = TypeVar("Update")


@dataclass(frozen=True, slots=True)
class OnDemandRpcs:
    """Each call takes a snapshot from the live loop and computes in a thread, so that ticks go on."""

    engines: Engines
    plans: OnDemandPlans
    desk: SnapshotDesk
    limits: Limits
    work: Work

    async def answer(self, plan: Plan[Answer]) -> Answer:
        """What the plan computes."""
        return await self._compute(plan, Progress(plan.cost))

    async def with_progress(
        self, plan: Plan[Answer], update: Callable[..., Update]
    ) -> AsyncGenerator[Update]:
        """`update(progress=…)` from the start on and wherever it has moved, then `update(result=…)`."""
        # The call ends by itself: a server that stops lets it finish, unlike a watch.
        current_call().endless = False
        progress = Progress(plan.cost)
        computing = asyncio.ensure_future(self._compute(plan, progress))
        told, wait_s = -1, 0.0  # what is refused at once is refused before any progress
        try:
            while not (await asyncio.wait((computing,), timeout=wait_s))[0]:
                if progress.done > told:
                    told = progress.done
                    yield update(progress=_message(progress))
                wait_s = PROGRESS_EVERY_S
            yield update(result=computing.result())
        finally:
            computing.cancel()
            # Waited for, so that what it holds is given back before the call ends.
            await asyncio.gather(computing, return_exceptions=True)

    async def _compute(self, plan: Plan[Answer], progress: Progress) -> Answer:
        """Runs a plan at the newest snapshot."""
        await self.work.expect(self.engines, plan.engine)
        with self.work.admitted(CALL_COST + plan.cost):
            snapshot = await asyncio.wrap_future(self.desk.ask())

            def run(engine: gk.Engine, patience: Patience) -> Answer:
                progress.begin()
                return plan.compute(Job(snapshot, Revaluer.of(engine, self.limits, patience, progress)))

            return await self.work.on_engine(self.engines, plan.engine, plan.cost, run)


def _message(progress: Progress) -> wire.Progress:
    return wire.Progress(
        fraction=progress.fraction(),
        revaluations_done=progress.done,
        revaluations_total=max(progress.total, progress.done),
    )
