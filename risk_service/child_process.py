"""A process of the service's own that computes beside it: at low priority, and never longer than it lives."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from service_kit.lifecycle import Stop

NICENESS = 10
STOP_WITHIN_S = 1.0
LOOK_S = 0.1  # how soon a stop is noticed


class Child(NamedTuple):
    """A running child and our end of its pipe."""

    connection: Connection
    pid: int

    def answered(self, stop: Stop, patience_s: float) -> bool:
        """Waits until it has something to say; False when told to stop.

        What takes longer than the patience has found no idle core, and gets a share of busy ones meanwhile.
        """
        waited_s = 0.0
        while not self.connection.poll(LOOK_S):
            if stop.is_set():
                return False
            waited_s += LOOK_S
            if waited_s >= patience_s:
                self.lift()
        if waited_s >= patience_s:
            self.sink()
        return True

    def lift(self) -> None:
        """Gives it a share of cores that are never idle, at the niceness of `settle`."""
        self._schedule("SCHED_OTHER")

    def sink(self) -> None:
        """Gives it idle cores only."""
        self._schedule("SCHED_IDLE")

    def _schedule(self, policy: str) -> None:
        if not hasattr(os, policy) or not hasattr(os, "sched_setscheduler"):
            return
        # It may be gone, or have threads that come and go.
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{self.pid}/task").iterdir():
                with contextlib.suppress(OSError):
                    os.sched_setscheduler(int(thread.name), getattr(os, policy), os.sched_param(0))


@contextlib.contextmanager
def child(serve: Callable[..., None], *arguments: Any, name: str) -> Iterator[Child]:
    """Runs `serve(connection, *arguments)` in a process until the block is left."""
    # CUDA, gRPC and our threads do not survive a fork.
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process: Any = spawn.Process(target=serve, args=(theirs, *arguments), name=name, daemon=True)
    process.start()
    # Held here it would keep us from seeing the child's death.
    theirs.close()
    try:
        yield Child(ours, process.pid)
    finally:
        ours.close()
        process.terminate()
        process.join(STOP_WITHIN_S)
        if process.is_alive():
            process.kill()
            process.join(STOP_WITHIN_S)


def settle(niceness: int = NICENESS, *, idle_cores_only: bool = True) -> None:
    """What a child does first: leaves Ctrl-C, which reaches the whole group, to the service, and makes way.

    A thread of low niceness that runs may keep one that wakes waiting for milliseconds; one that has idle
    cores only is put aside at once.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    if sys.platform != "win32":
        os.nice(niceness)
    if idle_cores_only and hasattr(os, "SCHED_IDLE"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def end_with_parent() -> None:
    """From now on this process ends with the service, however that ends and whatever is computed here."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait_for_end() -> None:
        parent.join()
        # Not by way of the interpreter's end: the thread that computes would be waited for.
        os._exit(0)

    threading.Thread(target=wait_for_end, name="parent", daemon=True).start()
