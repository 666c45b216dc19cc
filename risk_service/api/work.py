"""Where calls compute: short work in the event loop, long work in threads that stop when nobody waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import gpu_kernels as gk
from gpu_kernels.engines.cpu.threads import available_cores
from risk_service.admission import Admission, Room
from risk_service.engines import Engines
from risk_service.on_demand.patience import Patience, under
from risk_service.on_demand.turns import Turns
from risk_service.worker.supervisor import EngineLost
from service_kit.grpc_server.call import current_call
from service_kit.scheduling import compute_long

# Up to this cost (European rows) this engine, in this process, takes less time than a switch to a thread and
# back: measured, 10,000 rows take 0.13 ms here, and the two switches 2 ms on busy cores.
INLINE_COST = 16_384
INLINE_ENGINE = "cpu"
# Up to this cost (revaluations) a request asks for no room: nobody waits for it.
FREE_COST = 2_560

Answer = TypeVar("Answer")

# What the present call has of the backlog.
_ROOM: ContextVar[Room | None] = ContextVar("gpu_risk_room", default=None)


def _unlimited() -> Admission:
    return Admission(backlog_s_max=1e9)


@dataclass(frozen=True, slots=True)
class Work:
    """Runs the computations of calls."""

    executor: Executor  # of more threads than cores: those whose turn it is not wait
    admission: Admission = field(default_factory=_unlimited)
    turns: Turns = field(default_factory=lambda: Turns(available_cores()))

    def admitted(self, cost: float) -> AbstractContextManager[None]:
        """Room for work of this cost (revaluations) of the present caller; QuotaExceeded where there is none.

        The smallest ask for none: refusing them would cost as much.
        """
        return nullcontext() if cost <= FREE_COST else self._admitted(cost)

    @contextmanager
    def _admitted(self, cost: float) -> Iterator[None]:
        with self.admission.admitted(current_call().principal, cost) as room:
            token = _ROOM.set(room)
            try:
                yield
            finally:
                _ROOM.reset(token)

    def expect_room(self, cost: float) -> None:
        """Refuses, as `admitted` does, work that costs at least so much, before anything of it is read."""
        if cost > FREE_COST:
            self.admission.expect_room(current_call().principal, cost)

    async def expect(self, engines: Engines, name: str) -> None:
        """Refuses the name of an engine that is not there; one that nobody asked for before is loaded."""
        if name not in ("", engines.serving.name):
            await self.thread(lambda: engines.named(name))

    async def engine(self, engines: Engines, name: str, cost: float) -> gk.Engine:
        """The engine that work of this cost is for."""
        if name in ("", engines.serving.name):
            return engines.for_cost(name, int(cost))
        return await self.thread(lambda: engines.named(name))

    async def on_engine(
        self, engines: Engines, name: str, cost: float, work: Callable[[gk.Engine, Patience], Answer]
    ) -> Answer:
        """Runs work on the engine asked for, as long as the present call goes on."""
        engine = await self.engine(engines, name, cost)
        return await self.on(engine, engines, name, work, current_call().remaining_s())

    async def on(
        self,
        engine: gk.Engine,
        engines: Engines,
        name: str,
        work: Callable[[gk.Engine, Patience], Answer],
        seconds: float,
    ) -> Answer:
        """Runs work on the engine for so long at most; where its process is lost, whole on the spare one."""
        patience = Patience(seconds, self.turns)
        try:
            return await self.patiently(partial(work, engine), patience)
        except EngineLost as lost:
            why = str(lost)
            spare = await self.thread(lambda: engines.spare(name, why))
            if spare is None:
                raise
        return await self.patiently(partial(work, spare), patience)

    async def thread(self, work: Callable[[], Answer]) -> Answer:
        """Runs work that ends soon in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, work)

    async def patiently(self, work: Callable[[Patience], Answer], patience: Patience) -> Answer:
        """Runs long work in a thread; the patience's end, or this task's, ends it between two blocks."""
        under_way = self.executor.submit(_begun, work, patience)
        try:
            return await asyncio.wrap_future(under_way)
        except asyncio.CancelledError:
            patience.cancel()
            room = _ROOM.get()
            if room is not None:
                # The caller is let go at once; its room is given back when its thread has ended.
                room.goes_on = under_way
            raise


def _begun(work: Callable[[Patience], Answer], patience: Patience) -> Answer:
    # The call may have ended while its work waited for a thread.
    patience.expect()
    # The event loop started this thread, and is not to wait for it.
    compute_long()
    with patience.turn(), under(patience):
        patience.expect()
        return work(patience)
