"""The worker's side: it loads the engine, says that it is ready, and answers each lane in its own thread."""

from __future__ import annotations

import os
import signal
import threading
import time
from multiprocessing.connection import Connection
from typing import NamedTuple

import gpu_kernels as gk
from risk_service.child_process import end_with_parent
from risk_service.worker import tasks
from risk_service.worker.arena import Arena, large_arrays, pack, unpack
from risk_service.worker.tasks import Answer, Ended, Kept
from service_kit.memory import keep_memory

# Exit status of a worker whose device is lost.
POISONED_STATUS = 3


class Found(NamedTuple):
    """What the worker says first: its engine, or why there is none."""

    name: str
    device: str
    reason: str


def run(wanted: str, control: Connection, lanes: list[Connection]) -> None:
    """The worker's whole life; it ends when the front lets go of the lanes, or dies."""
    # Ctrl-C reaches the whole process group; the front decides when the worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    try:
        engine = gk.engine(wanted)
    except gk.EngineUnavailable as fault:
        control.send(Found("", "", str(fault)))
        return
    engine.warm_up()
    keep_memory()
    control.send(Found(engine.name, engine.device, ""))
    kept = Kept()
    threads = [threading.Thread(target=_serve, args=(engine, kept, lane)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _serve(engine: gk.Engine, kept: Kept, lane: Connection) -> None:
    """Answers one lane until the front lets go of it."""
    arena: Arena | None = None
    try:
        while True:
            name, ends_at, data = lane.recv()
            if arena is not None and arena.name != name:
                arena.close()
                arena = None
            if name and arena is None:
                arena = Arena.attach(name)
            reply, poisoned = _reply(engine, kept, data, arena, ends_at)
            lane.send_bytes(reply)
            if poisoned:
                # Not a clean exit: that would call into the lost context.
                os._exit(POISONED_STATUS)
    except (EOFError, OSError):
        # The front has gone, or has had enough of us.
        return
    finally:
        if arena is not None:
            arena.close()


def _reply(
    engine: gk.Engine, kept: Kept, data: bytes, arena: Arena | None, ends_at: float
) -> tuple[bytes, bool]:
    """The answer as it goes through the pipe, and whether it is the last one."""
    task, end = unpack(data, arena, copied=False)
    if time.monotonic() > ends_at:
        # Nobody waits any more; computing it would cost those who do.
        made = Answer(Ended.DONE, None)
    else:
        made = tasks.answer(engine, kept, task)
    body, arrays = large_arrays(made)
    reply, _ = pack(body, arrays, arena, end)
    return reply, made.ended is Ended.POISONED
