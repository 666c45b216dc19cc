"""Tables of early exercise premiums, made in a process of its own: no thread of the service computes them.

What is asked for is queued, urgent tables first. A child that dies takes the table it was making with it: who
asked learns that, and asks again.
"""

from __future__ import annotations

import itertools
import logging
import math
import queue
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

import gpu_kernels as gk
from gpu_kernels.premium_tables import PremiumTable, build_premium_table
from risk_service.child_process import LOOK_S, Child, child, settle
from risk_service.desk_premiums import TableLost
from service_kit.lifecycle import Stop

LOG = logging.getLogger(__name__)

AGAIN_S = 1.0  # between a child's death and the next child

_COLUMNS = ("spot", "strike", "expiry", "vol", "rate", "dividend_yield", "is_call")


class _Wanted(NamedTuple):
    options: dict[str, Any]  # gk.Options cannot be sent
    scenarios: gk.Scenarios
    table: Future[PremiumTable]


@dataclass(slots=True)
class TableProcess:
    """Makes tables with the cpu's engine; `make` may be called from any thread."""

    pid: int | None = None  # of the child
    _wanted: queue.PriorityQueue[tuple[int, int, _Wanted]] = field(default_factory=queue.PriorityQueue)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def make(self, options: gk.Options, scenarios: gk.Scenarios, *, urgent: bool) -> Future[PremiumTable]:
        """The table of American options on one underlying; a refusal of the engine is the future's."""
        columns: dict[str, Any] = {name: np.asarray(options.column(name)) for name in _COLUMNS}
        columns["dividends"] = options.dividends
        wanted = _Wanted(columns, scenarios, Future())
        self._wanted.put((0 if urgent else 1, next(self._numbers), wanted))
        return wanted.table

    def run(self, stop: Stop) -> None:
        """Until told to stop; a child that dies is replaced."""
        while not stop.is_set():
            with child(_serve, name="premium tables") as made:
                self.pid = made.pid
                if not self._carry(made, stop):
                    return
            LOG.warning("the process that makes tables died; another one is started")
            stop.wait(AGAIN_S)

    def _carry(self, made: Child, stop: Stop) -> bool:
        """Hands on what is wanted; whether the child died."""
        while not stop.is_set():
            try:
                _, _, wanted = self._wanted.get(timeout=LOOK_S)
            except queue.Empty:
                continue
            try:
                found = _answer(made, wanted, stop)
            except (EOFError, OSError):
                wanted.table.set_exception(TableLost("the process that makes tables died"))
                return True
            if isinstance(found, str):
                wanted.table.set_exception(gk.GpuKernelsError(found))
            elif found is not None:
                wanted.table.set_result(found)
        return False


def _answer(made: Child, wanted: _Wanted, stop: Stop) -> PremiumTable | str | None:
    """What the child makes of it, or why it makes nothing; None when told to stop."""
    made.connection.send((wanted.options, wanted.scenarios))
    if not made.answered(stop, math.inf):
        return None
    found: PremiumTable | str = made.connection.recv()
    return found


def _serve(connection: Connection) -> None:
    """The child's whole life; it ends when the service lets go of the pipe, or dies."""
    # Without its tables the live loop does many times their work, and would keep them from being made.
    settle(0, idle_cores_only=False)
    engine = gk.engine("cpu")
    while True:
        try:
            options, scenarios = connection.recv()
            connection.send(_made(engine, options, scenarios))
        except (EOFError, OSError):
            return


def _made(engine: gk.Engine, columns: dict[str, Any], scenarios: gk.Scenarios) -> PremiumTable | str:
    try:
        return build_premium_table(engine, gk.Options(**columns, american=True), scenarios)
    except gk.GpuKernelsError as refusal:
        return str(refusal)
