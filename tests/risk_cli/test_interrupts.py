"""Ctrl-C and SIGTERM, on real processes: at once, quietly, with the right status, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from desk_files import write

PATIENCE_S = 30.0
RISK = (sys.executable, "-m", "risk_cli.main")
# As a kernel does, this computes for minutes without the interpreter's lock.
BUSY = """
import hashlib
from concurrent.futures import ThreadPoolExecutor
from risk_cli import interrupts

def work():
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 10**9)

interrupts.end_at_once()
print("busy", flush=True)
"""
WAYS = {
    "the main thread": BUSY + "work()",
    "a pool": BUSY + "list(ThreadPoolExecutor(2).map(lambda _: work(), range(2)))",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whatever_is_computed_ends_at_once(way: str, number: signal.Signals) -> None:
    with started(sys.executable, "-c", WAYS[way]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "busy\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (128 + number, "", "")


def test_a_stress_run_ends_quietly(tmp_path: Path) -> None:
    files = write(tmp_path, scenarios="[[monte_carlo]]\nscenarios = 9_000_000\n")
    named = [part for option, path in files.items() for part in (f"--{option}", path)]
    report = tmp_path / "report.html"
    with started(*RISK, "stress", "--engine", "reference", *named, "--report", str(report)) as process:
        # The signals are ours from the first line of main(): before that Python itself would tell of Ctrl-C.
        until(lambda: is_caught(process.pid, signal.SIGTERM), process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (130, "", "")
    assert not report.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_watch_that_is_ended_leaves_its_file(address: str, number: signal.Signals, tmp_path: Path) -> None:
    file = tmp_path / "live.parquet"
    with started(*RISK, "watch", "--server", address, "--csv", "--parquet", str(file)) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("published_time_ns,portfolio,")
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, "")
    assert pq.read_table(file).num_rows == len(out.splitlines())
    assert [one.name for one in tmp_path.iterdir()] == ["live.parquet"]


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A process that is gone afterwards, whatever happens."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def is_caught(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal, as the kernel knows it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(caught & 1 << (number - 1))


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Polls a condition while the process runs."""
    ends_at = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < ends_at
        os.sched_yield()
