"""The engine in a process of its own: same bits, and whatever becomes of it, an answer or an error."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

import gpu_kernels as gk
from gpu_kernels.revaluation import position_pnl
from risk_service.engines import cuda_may_be_there
from risk_service.on_demand.patience import NobodyWaits, Patience, under
from risk_service.worker.engine import WorkerEngine
from risk_service.worker.fallback import LastingEngine, degraded_reason
from risk_service.worker.supervisor import EngineLost, Supervisor
from service_kit.errors import DeadlinePassed

PATIENCE_S = 120.0
UNDERLYINGS = 5
# Takes seconds on any machine: a kill finds it at work.
LONG = 60_000


@pytest.fixture(scope="module")
def supervisor():
    supervisor = Supervisor("cpu")
    assert supervisor.start().name == "cpu"
    yield supervisor
    pid = supervisor.pid
    supervisor.close()
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture(scope="module")
def there(supervisor):
    return WorkerEngine(supervisor)


@pytest.fixture(scope="module")
def here():
    return gk.engine("cpu")


def options(random, rows):
    return gk.Options(
        spot=random.uniform(80.0, 120.0, rows),
        strike=random.uniform(80.0, 120.0, rows),
        expiry=random.uniform(-0.1, 2.0, rows),  # some are bad rows
        vol=random.uniform(0.1, 0.5, rows),
        rate=0.02,
        is_call=random.random(rows) < 0.5,
    )


def book(random, rows=2_000):
    strikes, spots = random.uniform(80.0, 120.0, rows), random.uniform(80.0, 120.0, rows)
    return gk.Portfolio(
        gk.Options(spot=spots, strike=strikes, expiry=random.uniform(0.1, 2.0, rows), vol=0.2),
        quantity=random.normal(size=rows),
        underlying=random.integers(0, UNDERLYINGS, rows),
        group=random.integers(0, 3, rows),
    )


def scenarios(random, count=64):
    return gk.Scenarios(0.02 * random.standard_normal((count, UNDERLYINGS)))


def assert_same(one, other):
    for a, b in zip(one.columns(), other.columns(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("rows", [1, 100, 10_000, 300_000])
def test_options_come_back_to_the_bit(there, here, seed, rows):
    given = options(np.random.default_rng(seed), rows)
    assert_same(there.price(given), here.price(given))
    greeks = here.greeks(given)
    assert_same(there.greeks(given), greeks)
    assert_same(there.implied_vol(given, greeks.price), here.implied_vol(given, greeks.price))


def test_books_come_back_to_the_bit(there, here, seed):
    random = np.random.default_rng(seed)
    held, given = book(random), scenarios(random)
    np.testing.assert_array_equal(there.revalue(held, given), here.revalue(held, given))
    by_group = there.revalue(held, given, by="group")
    np.testing.assert_array_equal(by_group, here.revalue(held, given, by="group"))
    np.testing.assert_array_equal(position_pnl(there, held, given), position_pnl(here, held, given))
    out = np.empty(len(given))
    assert there.revalue(held, given, out=out) is out
    np.testing.assert_array_equal(out, here.revalue(held, given))


def test_a_book_that_was_pushed_out_is_sent_again(there, here, seed):
    random = np.random.default_rng(seed)
    held, given = book(random, 10), scenarios(random, 4)
    expected = here.revalue(held, given)
    np.testing.assert_array_equal(there.revalue(held, given), expected)
    others = [book(random, 2) for _ in range(300)]
    for other in others:
        there.revalue(other, given)
    np.testing.assert_array_equal(there.revalue(held, given), expected)


def test_a_callers_mistake_comes_back_as_one(there, seed):
    random = np.random.default_rng(seed)
    narrow = gk.Scenarios(np.zeros((3, 1)))
    with pytest.raises(gk.InvalidInput) as caught:
        there.revalue(book(random), narrow)
    assert caught.value.field == "underlying"
    assert "the scenarios have 1 underlyings" in str(caught.value)
    with pytest.raises(gk.EngineUnavailable):
        there.module("american_interpolant")


def test_without_room_in_shared_memory_answers_come_all_the_same(there, here, seed, monkeypatch):
    small, large = (options(np.random.default_rng(seed), rows) for rows in (10_000, 400_000))
    assert_same(there.greeks(small), here.greeks(small))
    before = set(os.listdir("/dev/shm"))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    # Too large for the segment that there is, and there is no other.
    for _ in range(2):
        assert_same(there.greeks(large), here.greeks(large))
        assert_same(there.greeks(small), here.greeks(small))
    monkeypatch.undo()
    assert_same(there.greeks(large), here.greeks(large))
    mine = {one for one in set(os.listdir("/dev/shm")) - before if one.startswith("psm_")}
    assert not mine & {one.name for one in _mapped(os.getpid())}


def _mapped(pid):
    """Shared memory of a process that still has its name."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return [Path(line.split()[-1]) for line in maps if "/dev/shm/psm_" in line and "(deleted)" not in line]


def test_many_threads_get_their_own_answers(there, here, seed):
    random = np.random.default_rng(seed)
    given = [options(random, rows) for rows in random.integers(1, 5_000, 24)]
    wrong = []

    def ask(one):
        try:
            assert_same(there.greeks(one), here.greeks(one))
        except (AssertionError, EngineLost) as failure:
            wrong.append(failure)

    threads = [threading.Thread(target=ask, args=(one,)) for one in given]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not wrong


def test_a_caller_who_leaves_is_let_go_at_once_and_the_lane_serves_the_next(there, here, seed):
    random = np.random.default_rng(seed)
    held, given = book(random, 10_000), scenarios(random, LONG // 2)
    patience = Patience(PATIENCE_S)
    threading.Timer(0.05, patience.cancel).start()
    with under(patience), pytest.raises(NobodyWaits):
        there.revalue(held, given)
    with under(Patience(0.05)), pytest.raises(DeadlinePassed):
        there.revalue(held, given)
    few = scenarios(random, 8)
    for _ in range(8):  # every lane
        np.testing.assert_array_equal(there.revalue(held, few), here.revalue(held, few))


def test_kill_9_at_work_is_seen_at_once_and_the_next_worker_has_the_books(there, here, supervisor, seed):
    random = np.random.default_rng(seed)
    held, many, few = book(random, 10_000), scenarios(random, LONG), scenarios(random, 8)
    expected = here.revalue(held, few)
    np.testing.assert_array_equal(there.revalue(held, few), expected)
    starts, pid = supervisor.starts, supervisor.pid
    threading.Timer(0.1, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(EngineLost) as lost:
        there.revalue(held, many)
    assert lost.value.retry_after_s > 0
    assert "died" in str(lost.value)
    assert supervisor.wait_ready(PATIENCE_S)
    assert supervisor.starts == starts + 1
    assert supervisor.pid != pid
    assert {supervisor.key_of(held), supervisor.key_of(few)} <= supervisor.given
    np.testing.assert_array_equal(there.revalue(held, few), expected)


def test_a_lasting_engine_goes_on_with_the_cpu_and_says_so(there, here, supervisor, seed):
    random = np.random.default_rng(seed)
    lasting = LastingEngine(there, here)
    held, many = book(random), scenarios(random, 2_000)
    expected = here.revalue(held, many)
    np.testing.assert_array_equal(lasting.revalue(held, many), expected)
    assert degraded_reason(lasting) == ""
    assert supervisor.wait_ready(PATIENCE_S)
    os.kill(supervisor.pid, signal.SIGKILL)
    seen = set()
    ends = time.monotonic() + PATIENCE_S
    while not seen or not supervisor.ready:
        np.testing.assert_array_equal(lasting.revalue(held, many), expected)
        seen |= {degraded_reason(lasting)} - {""}
        assert time.monotonic() < ends
    np.testing.assert_array_equal(lasting.revalue(held, many), expected)
    assert degraded_reason(lasting) == ""


def test_an_engine_that_is_not_there_says_why():
    supervisor = Supervisor("abacus")
    found = supervisor.start()
    assert found.name == ""
    assert "unknown engine 'abacus'" in found.reason
    assert not supervisor.ready


ORPHAN = """
import sys, time
from risk_service.worker.supervisor import Supervisor
if __name__ == "__main__":
    supervisor = Supervisor("reference")
    supervisor.start()
    import numpy as np, gpu_kernels as gk
    from risk_service.worker.engine import WorkerEngine
    WorkerEngine(supervisor).price(gk.Options(spot=np.full(9, 100.0), strike=100.0, expiry=1.0, vol=0.2))
    loaded = {"cupy", "jax", "numba"} & set(sys.modules)
    print(supervisor.pid, *loaded, flush=True)
    time.sleep(600)
"""


def test_the_front_loads_no_device_library_and_its_death_ends_the_worker(tmp_path):
    script = tmp_path / "front.py"
    script.write_text(ORPHAN)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as front:
        said = front.stdout.readline().split()
        front.kill()
    assert len(said) == 1, said
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(said[0])).wait(PATIENCE_S)


SURVEY = """
import sys
from risk_service.engines import Engines
if __name__ == "__main__":
    engines = Engines.start("auto", "auto")
    engines.survey().result()
    for one in engines.known():
        print(one.name, one.available, bool(one.reason), {"cupy", "jax"} & set(sys.modules) or "-")
    try:
        engines.named("cuda")
    except Exception as refusal:
        print(type(refusal).__name__)
    engines.close()
"""


@pytest.mark.skipif(cuda_may_be_there(), reason="there is a device here")
def test_engines_are_surveyed_in_another_process(tmp_path):
    script = tmp_path / "front.py"
    script.write_text(SURVEY)
    told = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    lines = [line.split() for line in told.stdout.splitlines()]
    assert [line[0] for line in lines[:4]] == ["cuda", "cpu", "xla", "reference"]
    assert all(line[2:] == ["True", "-"] for line in lines[:4])
    assert [line[1] for line in lines[:2]] == ["False", "True"]
    assert lines[4] == ["InvalidRequest"]
