"""Lifecycle with real processes and real signals: clean ends, hard ends, bounded stops, dead parents."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator

import psutil
import pytest

from service_kit.errors import PortTaken
from service_kit.lifecycle import ParentPipe, Stop, run_service

HEAD = """
import asyncio, sys, threading, time
from service_kit.errors import SettingError
from service_kit.lifecycle import ParentPipe, Stop, asynchronous, run_process
def ready(): print("ready", flush=True)
"""
# Far above any stop here: a test that reaches it has hung.
PATIENCE_S = 60


class Child:
    """A Python process that runs a few lines on top of the lifecycle."""

    def __init__(self, body: str, **arguments: object) -> None:
        code = HEAD + textwrap.dedent(body)
        self.process: subprocess.Popen[str] = subprocess.Popen(  # type: ignore[call-overload]
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **arguments,
        )

    def wait_ready(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == "ready\n", (line, self.process.communicate(timeout=PATIENCE_S))

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, err


THREAD_LOOP = """
def main(stop):
    ready()
    while not stop.wait(0.05):
        pass
    print("closed because", stop.reason)
run_process(main, name="svc")
"""
ASYNC_LOOP = """
async def main(stop):
    ready()
    await stop.wait_async()
    print("closed because", stop.reason)
run_process(asynchronous(main), name="svc")
"""
# A main thread inside a C call that no signal interrupts: no Python handler ever runs.
IN_C = """
import ctypes
def main(stop):
    stop.on_set(lambda: print("seen", stop.reason, flush=True))
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(256)
    libc.pthread_mutex_init(mutex, None)
    libc.pthread_mutex_lock(mutex)
    ready()
    libc.pthread_mutex_lock(mutex)
run_process(main, name="svc", stop_within_s=0.2)
"""


@pytest.mark.parametrize("body", [THREAD_LOOP, ASYNC_LOOP])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_cleanly(body: str, number: signal.Signals) -> None:
    child = Child(body)
    child.wait_ready()
    child.process.send_signal(number)
    assert child.end() == (0, f"closed because {number.name}\n", "")


def test_a_signal_is_seen_and_the_stop_bounded_while_the_main_thread_is_in_c() -> None:
    child = Child(IN_C)
    child.wait_ready()
    child.process.send_signal(signal.SIGTERM)
    status, out, err = child.end()
    assert (status, out) == (1, "seen SIGTERM\n")
    assert err.startswith("svc: did not stop within 0.2 s; still running: MainThread in ")


def test_the_same_signal_twice_ends_at_once() -> None:
    child = Child("""
    def main(stop):
        ready()
        stop.wait()
        print("stopping", flush=True)
        threading.Event().wait()
    run_process(main, name="svc", stop_within_s=3600)
    """)
    child.wait_ready()
    child.process.send_signal(signal.SIGINT)
    assert child.process.stdout is not None
    assert child.process.stdout.readline() == "stopping\n"
    child.process.send_signal(
        signal.SIGTERM
    )  # what a parent sends after a terminal's Ctrl-C: not a second one
    child.process.send_signal(signal.SIGINT)
    assert child.end() == (130, "", "svc: second SIGINT: ended at once\n")


@pytest.mark.parametrize(
    "body",
    [
        "def main(stop):\n    ready()\n    stop.wait()\n    threading.Event().wait()\n",
        # The main function returns, a thread that is not a daemon stays.
        "def main(stop):\n    threading.Thread(target=threading.Event().wait, name='stuck').start()\n"
        "    ready()\n    stop.wait()\n",
    ],
)
def test_a_stop_that_hangs_is_cut_short_and_names_what_hangs(body: str) -> None:
    child = Child(body + "run_process(main, name='svc', stop_within_s=0.2)\n")
    child.wait_ready()
    child.process.send_signal(signal.SIGTERM)
    status, _, err = child.end()
    assert status == 1
    assert err.startswith("svc: did not stop within 0.2 s; still running: ")
    assert "threading.py" in err
    assert err.count("\n") == 1


STARTS_FOR_EVER = """
def main(stop):
    ready()
    threading.Event().wait()
run_process(main, name="svc", starting=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_start_is_not_waited_for(number: signal.Signals) -> None:
    child = Child(STARTS_FOR_EVER)
    child.wait_ready()
    child.process.send_signal(number)
    assert child.end() == (0, "", f"svc: {number.name} while it started: ended\n")


def test_a_start_ends_with_the_parent() -> None:
    pipe = ParentPipe()
    child = Child(STARTS_FOR_EVER, **pipe.popen_arguments(dict(os.environ)))
    child.wait_ready()
    pipe.close()
    assert child.end() == (0, "", "svc: the parent process ended while it started: ended\n")


def test_what_has_started_ends_in_order() -> None:
    child = Child("""
    def main(stop):
        stop.started()
        ready()
        stop.wait()
        print("closed because", stop.reason)
    run_process(main, name="svc", starting=True)
    """)
    child.wait_ready()
    child.process.send_signal(signal.SIGTERM)
    assert child.end() == (0, "closed because SIGTERM\n", "")


def test_what_is_left_behind_keeps_nobody() -> None:
    child = Child("""
    import atexit
    from service_kit.closing import Resources
    def main(stop):
        atexit.register(print, "and what others have registered is done")
        threading.Thread(target=threading.Event().wait, name="waits for brokers").start()
        with Resources(stop=stop) as resources:
            resources.add("loop", threading.Event().wait, within_s=0.05, recovers=True)
            ready()
            stop.wait()
    run_process(main, name="svc", stop_within_s=3600)
    """)
    child.wait_ready()
    child.process.send_signal(signal.SIGTERM)
    status, out, err = child.end()
    assert (status, out) == (0, "and what others have registered is done\n")
    assert err == "left behind at the end, the next start makes it again: loop\n"


def test_a_known_error_is_one_line_and_status_1() -> None:
    child = Child("""
    def main(stop):
        raise SettingError("GPU_RISK_GRPC_PORT", "is missing")
    run_process(main, name="svc")
    """)
    assert child.end() == (1, "", "svc: setting GPU_RISK_GRPC_PORT: is missing\n")


def test_an_unknown_error_keeps_its_trace() -> None:
    child = Child("def main(stop):\n    {}['gone']\nrun_process(main, name='svc')\n")
    status, _, err = child.end()
    assert status == 1
    assert "Traceback" in err
    assert err.endswith("svc: failed: KeyError: 'gone'\n")


@pytest.mark.parametrize("body", [THREAD_LOOP, ASYNC_LOOP])
def test_closing_the_parents_pipe_stops_the_child(body: str) -> None:
    pipe = ParentPipe()
    child = Child(body, **pipe.popen_arguments(dict(os.environ)))
    child.wait_ready()
    pipe.close()
    assert child.end() == (0, "closed because the parent process ended\n", "")


def test_children_end_when_the_parent_is_killed() -> None:
    parent = Child(f"""
    import os, subprocess
    pipe = ParentPipe()
    code = {HEAD + THREAD_LOOP!r}
    for _ in range(2):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE,
                                 **pipe.popen_arguments(dict(os.environ)))
        child.stdout.readline()
        print(child.pid, flush=True)
    ready()
    time.sleep(3600)
    """)
    assert parent.process.stdout is not None
    children = [psutil.Process(int(parent.process.stdout.readline())) for _ in range(2)]
    parent.wait_ready()
    parent.process.kill()
    gone, alive = psutil.wait_procs(children, timeout=PATIENCE_S)
    for process in alive:
        process.kill()
    assert len(gone) == 2
    parent.end()


@pytest.fixture
def _signals_restored() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.usefixtures("_signals_restored")
def test_run_service_inside_a_process_gives_everything_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = psutil.Process().num_fds()
    seen: list[str] = []

    def main(stop: Stop) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        stop.wait()
        seen.append(stop.reason)

    def fails(_stop: Stop) -> None:
        raise PortTaken("gRPC", "127.0.0.1", 50051)

    assert run_service(main, name="svc") == 0
    assert run_service(fails, name="svc") == 1
    assert seen == ["SIGTERM"]
    assert "svc: gRPC: cannot listen on 127.0.0.1:50051" in capsys.readouterr().err
    assert psutil.Process().num_fds() == before
    assert "lifecycle" not in [thread.name for thread in threading.enumerate()]


async def test_stop_wakes_many_waiters_from_another_thread() -> None:
    stop = Stop()
    waiters = [asyncio.create_task(stop.wait_async()) for _ in range(5)]
    await asyncio.sleep(0)
    threading.Thread(target=stop.set, args=("why not",)).start()
    await asyncio.gather(*waiters)
    stop.set("too late")
    assert stop.reason == "why not"
    await stop.wait_async()
