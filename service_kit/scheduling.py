"""How soon a thread that wakes gets a core from threads that compute: Linux's own slices, where it has them.

Without a word of ours a thread that computes keeps its core for a whole slice, or until the clock's next
tick, while one that has just been sent something waits. A thread that asks for shorter slices is let in at
once, as long as it has not had more than its share. Shares stay as they are, and it needs no privileges.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

SHORT_NS = 100_000  # the least that Linux takes

# The call has no name in most C libraries; its number is that of the processor's own table.
_SET = {"x86_64": 314, "aarch64": 274}.get(platform.machine()) if platform.system() == "Linux" else None
_LIBRARY = ctypes.CDLL(None) if _SET else None
# struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period.
_FIELDS = struct.Struct("=IIQiIQQQ")


def answer_soon() -> bool:
    """The calling thread and those that it starts wake at once; False where the system has no such thing."""
    return _take_slices(SHORT_NS)


def compute_long() -> bool:
    """The calling thread takes usual slices, whatever it has from the one that started it."""
    return _take_slices(0)


def _take_slices(nanoseconds: int) -> bool:
    if _LIBRARY is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    wanted = _FIELDS.pack(_FIELDS.size, os.SCHED_OTHER, 0, nice, 0, nanoseconds, 0, 0)
    # Before Linux 6.12 it says yes and changes nothing.
    return bool(_LIBRARY.syscall(_SET, 0, wanted, 0) == 0)
