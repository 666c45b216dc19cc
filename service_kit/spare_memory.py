"""Memory that a process has no use for goes back to the system, some seconds after large messages."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from threading import Thread

from service_kit.lifecycle import Stop

# Bytes above the least that the process ever had from which it gives back, and how often that is looked at.
GROWN_BY = 256 << 20
EVERY_S = 5.0


def give_back() -> bool:
    """Gives back the pages of all heaps that hold nothing; False where the C library cannot, or none do.

    The end of a heap is bounded without that (`memory`); what is free between two things in use is not. It
    takes 0.1 s for a gigabyte, in which other threads may wait for memory.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim is not None and bool(trim(0))


def give_back_by_itself(stop: Stop, grown_by: int = GROWN_BY, every_s: float = EVERY_S) -> Thread:
    """A thread that does so whenever the process has grown by so many bytes, until told to stop."""
    thread = Thread(target=_see_to_it, args=(stop, grown_by, every_s), name="memory", daemon=True)
    thread.start()
    return thread


def resident() -> int:
    """Bytes of memory that the process has; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0


def _see_to_it(stop: Stop, grown_by: int, every_s: float) -> None:
    least = resident()
    while least and not stop.wait(every_s):
        now = resident()
        least = min(least, now)
        if now > least + grown_by:
            give_back()
