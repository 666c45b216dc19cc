"""Where calls compute: short work in the event loop, long work in threads that stop when nobody waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import gpu_kernels as gk
from risk_service.engines import Engines
from risk_service.on_demand.patience import Patience
from service_kit.grpc_server.call import current_call

# Up to this many European rows the kernel takes less time than handing the work to another thread.
INLINE_ROWS = 256

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Work:
    """Runs the computations of calls."""

    executor: Executor

    async def rows(self, cost: int, work: Callable[[], Answer]) -> Answer:
        """Runs a kernel: here when it is small, else in a thread, so that other calls go on."""
        return work() if cost <= INLINE_ROWS else await self.thread(work)

    async def engine(self, engines: Engines, name: str) -> gk.Engine:
        """The engine asked for; one that nobody asked for before is loaded in a thread."""
        return engines.named(name) if not name else await self.thread(lambda: engines.named(name))

    async def thread(self, work: Callable[[], Answer]) -> Answer:
        """Runs work that ends soon in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, work)

    async def patiently(self, work: Callable[[Patience], Answer]) -> Answer:
        """Runs long work in a thread; the call's deadline and its cancellation end it between two blocks."""
        patience = Patience(current_call().remaining_s())
        try:
            return await self.thread(partial(_begun, work, patience))
        finally:
            patience.cancel()


def _begun(work: Callable[[Patience], Answer], patience: Patience) -> Answer:
    # The call may have ended while its work waited for a thread.
    patience.check()
    return work(patience)
