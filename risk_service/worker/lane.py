"""The front's side of one lane: a pipe and an arena, one question at a time."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from risk_service.worker.arena import Arena, large_arrays, pack, room_for, unpack
from risk_service.worker.tasks import Answer, BookTask, Hold, OptionTask

# How often a waiting call looks whether anybody still waits for it.
LOOK_S = 0.01
# From this size of an answer on it is worth having an arena.
ANSWER_BYTES_MIN = 4096


class WorkerHangs(Exception):
    """The worker has not answered a bounded piece of work for far too long."""


class Lane:
    """Belongs to one thread while it asks. `owes`: an answer that nobody waited for is still to come."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._arena: Arena | None = None
        self._owes = False

    def ask(
        self,
        task: OptionTask | BookTask | Hold,
        *,
        answer_bytes: int,
        hangs_after_s: float,
        look: Callable[[], None],
        ends_at: float = math.inf,
    ) -> Answer:
        """The worker's answer. `look` is called while waiting and may raise; EOFError: the worker is dead."""
        if self._owes:
            # The last one who asked went away; the arena is the worker's until it has answered.
            self._take(hangs_after_s, look)
        body, arrays = large_arrays(task)
        room = room_for([array.nbytes for array in arrays])
        if arrays or answer_bytes >= ANSWER_BYTES_MIN:
            self._grow(room + answer_bytes)
        data, _ = pack(body, arrays, self._arena, 0)
        self._pipe.send((self._arena.name if self._arena is not None else "", ends_at, data))
        self._owes = True
        return self._take(hangs_after_s, look)

    def close(self) -> None:
        """Lets go of pipe and arena."""
        self._pipe.close()
        if self._arena is not None:
            self._arena.close()
            self._arena = None

    def _take(self, hangs_after_s: float, look: Callable[[], None]) -> Answer:
        gives_up = time.monotonic() + hangs_after_s
        while not self._pipe.poll(LOOK_S):
            look()
            if time.monotonic() > gives_up:
                raise WorkerHangs
        data = self._pipe.recv_bytes()
        self._owes = False
        if self._arena is not None:
            self._arena.unname()
        answer, _ = unpack(data, self._arena, copied=True)
        made: Answer = answer
        return made

    def _grow(self, size: int) -> None:
        if self._arena is not None and self._arena.size >= size:
            return
        if self._arena is not None:
            self._arena.close()
            self._arena = None
        # Without room everything goes through the pipe: slower, and right.
        with contextlib.suppress(OSError):
            self._arena = Arena.create(size)
