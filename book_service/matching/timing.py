"""The core with a cycle counter around every message: for benchmarks, not for the service."""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import njit

from book_service.matching.kernel import room_for_one
from book_service.matching.layout import MESSAGE_SIZE
from book_service.matching.memory import cycles, store64
from book_service.matching.messages import step


class Timers(NamedTuple):
    """Compiled entry points; addresses and numbers are int64."""

    run: Any  # like Kernels.run, and writes the cycles that each message took
    idle: Any  # writes the cycles between two readings of the counter with nothing in between
    now: Any  # the counter


def build_timers(sources: int) -> Timers:
    """Compiles the timed core, or takes it from the disk cache; see kernel.build."""

    @njit("int64(int64, int64, int64, int64, int64)", cache=True)
    def run(s: int, messages: int, start: int, stop: int, out: int) -> int:
        if sources == 0:
            return start
        for i in range(start, stop):
            if not room_for_one(s):
                return i
            before = cycles()
            step(s, messages + i * MESSAGE_SIZE)
            store64(out + i * 8, cycles() - before)
        return stop

    @njit("void(int64, int64)", cache=True)
    def idle(out: int, count: int) -> None:
        for i in range(count if sources else 0):
            before = cycles()
            store64(out + i * 8, cycles() - before)

    @njit("int64()", cache=True)
    def now() -> int:
        return cycles() if sources else 0

    return Timers(run, idle, now)
