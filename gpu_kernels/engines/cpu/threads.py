"""Runs a kernel over ranges of rows on a small pool of threads that lives as long as the process.

Kernels hold no interpreter lock. Ranges depend on the number of rows only, never on the number of threads, so
results do not either; any number of callers may share the pool at the same time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

# Rows in one range: small enough that a range's columns stay in the second-level cache, large enough that the
# cost of a call into compiled code (about 5 us) disappears.
BLOCK_ROWS = 8192


def available_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Workers:
    """A number of threads, the caller's own among them, that share out blocks of rows."""

    def __init__(self, threads: int) -> None:
        if threads < 1:
            raise ValueError(f"threads: expected at least 1, got {threads}")
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads - 1, "gpu-kernels") if threads > 1 else None

    def run(self, rows: int, work: Callable[[int, int], None], block: int = BLOCK_ROWS) -> None:
        """Call work(start, stop) on ranges that cover 0..rows, each starting at a multiple of `block`."""
        if self._pool is None or rows < 2 * block:
            for start in range(0, rows, block):
                work(start, min(start + block, rows))
            return
        starts = iter(range(0, rows, block))
        lock = threading.Lock()

        def share() -> None:
            while True:
                with lock:
                    start = next(starts, None)
                if start is None:
                    return
                work(start, min(start + block, rows))

        helpers = min(self.threads - 1, (rows - 1) // block)
        others = [self._pool.submit(share) for _ in range(helpers)]
        try:
            share()
        finally:
            for other in others:
                # One that has not begun has nothing left to do: the caller took all blocks.
                if not other.cancel():
                    other.result()

    def close(self) -> None:
        """End the threads; work in progress is finished first."""
        if self._pool is not None:
            self._pool.shutdown()


_default: Workers | None = None
_default_lock = threading.Lock()


def workers() -> Workers:
    """The pool that the CPU engine uses, one thread for each core; made on first use."""
    global _default
    if _default is None:
        with _default_lock:
            if _default is None:
                _default = Workers(available_cores())
    return _default
