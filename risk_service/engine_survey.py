"""Which engines there are on this machine: asked by a process that loads every library there is, and ends."""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import NamedTuple

import gpu_kernels as gk
from gpu_kernels.engines.choose import PREFERENCE
from risk_service.child_process import child, settle

WITHIN_S = 60.0


class Known(NamedTuple):
    """An engine, there or not."""

    name: str
    device: str
    available: bool
    reason: str


def surveyed() -> tuple[Known, ...]:
    """What is found; it takes seconds, at low priority, and on a busy machine it may be a TimeoutError."""
    with child(_survey, name="engine survey") as asked:
        if not asked.connection.poll(WITHIN_S):
            raise TimeoutError(f"no answer within {WITHIN_S:g} s")
        try:
            found: tuple[Known, ...] = asked.connection.recv()
        except EOFError:
            return _all_are("asking for it ended in a crash")
        return found


def unsurveyed(serving: gk.Engine, why: str) -> tuple[Known, ...]:
    """What is known without: the engine that answers."""
    rest = [one for one in _all_are(why) if one.name != serving.name]
    return Known(serving.name, serving.device, True, ""), *rest


def _all_are(reason: str) -> tuple[Known, ...]:
    return tuple(Known(name, "", False, reason) for name in PREFERENCE)


def _survey(answer: Connection) -> None:
    settle(idle_cores_only=False)
    found = []
    for one in gk.available_engines():
        device = "" if one.engine is None else one.engine.device
        found.append(Known(one.name, device, one.engine is not None, one.reason))
    answer.send(tuple(found))
