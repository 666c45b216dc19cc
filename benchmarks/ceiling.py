"""What the machine allows: copy bandwidth of memory, on one thread and on all.

python -m benchmarks.ceiling
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from benchmarks import measure

# Far beyond any cache.
NUMBERS = 16_000_000
BYTES = 2 * 8 * NUMBERS


class Copies:
    """Two large arrays and the threads that copy one to the other."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._source = np.ones(NUMBERS)
        self._target = np.zeros(NUMBERS)
        self._pool = ThreadPoolExecutor(threads)
        edges = np.linspace(0, NUMBERS, threads + 1).astype(int)
        self._parts = list(pairwise(edges))

    def run(self) -> None:
        """Copy once."""
        together = threading.Barrier(self.threads)

        def copy(part: tuple[int, int]) -> None:
            together.wait()
            np.copyto(self._target[part[0] : part[1]], self._source[part[0] : part[1]])

        list(self._pool.map(copy, self._parts))


def case(threads: int) -> measure.Case:
    """Copying as a case to time beside others: rows are numbers, 16 bytes each cross the bus."""
    return measure.Case(f"copy, {threads} threads", NUMBERS, Copies(threads).run, 16)


def bandwidth(timing: measure.Timing) -> float:
    """Bytes per second, read and written, of the median round."""
    return timing.rate * 16


def main() -> None:
    """Measure and write benchmarks/results/ceiling.json."""
    where = measure.machine()
    counts = sorted({1, int(where["cores"])})
    timings = measure.interleaved([case(count) for count in counts], rounds=11)
    found = {name: bandwidth(timing) for name, timing in timings.items()}
    lines = [f"| {name} | {rate / 1e9:.1f} |" for name, rate in found.items()]
    text = "\n".join(["### Copy bandwidth", "", "| what | GB/s |", "|---|---|", *lines, ""])
    measure.write("ceiling", {"machine": where, "bytes_per_second": found}, text)


if __name__ == "__main__":
    main()
