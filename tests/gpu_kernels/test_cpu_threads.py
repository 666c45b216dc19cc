"""The pool of threads: results do not depend on their number, mistakes surface, callers share it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gpu_kernels as gk

pytest.importorskip("numba", reason="the CPU engine needs numba")

from gpu_kernels.engines.cpu import threads
from gpu_kernels.engines.cpu.threads import BLOCK_ROWS, Workers


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("rows", [0, 1, 9, 10, 11, 20, 95, 1000])
def test_every_row_is_done_once_in_the_same_ranges(count: int, rows: int) -> None:
    pool = Workers(count)
    seen: list[tuple[int, int]] = []
    pool.run(rows, lambda start, stop: seen.append((start, stop)), block=10)
    pool.close()
    assert sorted(seen) == [(start, min(start + 10, rows)) for start in range(0, rows, 10)]


def test_no_threads_is_refused() -> None:
    with pytest.raises(ValueError, match="threads"):
        Workers(0)


def test_a_mistake_in_any_range_surfaces() -> None:
    pool = Workers(3)

    def work(start: int, stop: int) -> None:
        if start == 50:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pool.run(100, work, block=10)
    pool.run(100, lambda start, stop: None, block=10)
    pool.close()


def test_results_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = 5 * BLOCK_ROWS + 77
    options = gk.Options(spot=np.linspace(20.0, 300.0, rows), strike=100.0, expiry=0.5, vol=0.3, rate=0.02)
    engine = gk.engine("cpu")
    results = []
    for count in (1, 2, 5):
        pool = Workers(count)
        monkeypatch.setattr(threads, "_default", pool)
        results.append(np.stack(engine.greeks(options).columns()[:-1]))
        pool.close()
    assert (results[0] == results[1]).all()
    assert (results[0] == results[2]).all()


def test_many_callers_share_one_pool() -> None:
    pool = Workers(3)
    together = threading.Barrier(8)

    def call(caller: int) -> int:
        done = np.zeros(1000, dtype=np.int64)
        together.wait(30)

        def work(start: int, stop: int) -> None:
            done[start:stop] += caller

        for _ in range(20):
            pool.run(1000, work, block=10)
        return int(done.min()) if (done == done[0]).all() else -1

    with ThreadPoolExecutor(8) as callers:
        assert list(callers.map(call, range(8))) == [20 * caller for caller in range(8)]
    pool.close()
