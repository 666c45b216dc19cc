"""The demo as a user runs it: it shows numbers, ends when told, and ends clearly when a part of it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from pathlib import Path

import psutil
import pytest
from running import PATIENCE_S, RISK, clean_environment, until

MARK = "DEMO_TEST_MARK"


class RunningDemo:
    """A demo with a mark in its environment, by which all its processes are found."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.mark = uuid.uuid4().hex
        self.out, self.err = folder / "out", folder / "err"
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [*RISK, "demo"],
                env=clean_environment({MARK: self.mark, **env}),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def processes(self) -> list[psutil.Process]:
        """All its living processes, the first one too."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        return found

    def child(self, command: str) -> psutil.Process:
        return next(one for one in self.processes() if one.cmdline()[-1:] == [command])

    def wait_for_numbers(self) -> None:
        def shown() -> bool:
            assert self.process.poll() is None, self.err.read_text()[-2000:]
            return "delta=" in self.out.read_text()

        until(shown, "the first risk number")

    def __enter__(self) -> RunningDemo:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes():
            process.kill()
        self.process.wait()


def test_it_runs_for_so_long_and_leaves_nothing_behind(tmp_path):
    with RunningDemo(tmp_path, DEMO_SECONDS="2") as demo:
        assert demo.process.wait(PATIENCE_S) == 0, demo.err.read_text()
        shown = demo.out.read_text()
        assert "delta=" in shown
        assert "ES=" in shown
        assert "p50" in shown
        assert "p99" in shown
        assert "summary: " in shown
        assert "nan" not in shown
        assert "left_out=0" in shown
        until(lambda: not demo.processes(), "every process to end")


@pytest.mark.parametrize(
    ("command", "name"), [("feed", "feed"), ("book", "book_service"), ("serve", "risk_service")]
)
def test_a_killed_process_ends_it_with_a_clear_message(tmp_path, command, name):
    with RunningDemo(tmp_path) as demo:
        demo.wait_for_numbers()
        killed = demo.child(command)
        killed.send_signal(signal.SIGKILL)
        assert demo.process.wait(PATIENCE_S) == 1
        assert f"{name} (process {killed.pid}) was ended by SIGKILL" in demo.err.read_text()
        until(lambda: not demo.processes(), "every process to end")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_ends_everything(tmp_path, number):
    with RunningDemo(tmp_path) as demo:
        demo.wait_for_numbers()
        os.kill(demo.process.pid, number)
        assert demo.process.wait(PATIENCE_S) == 0, demo.err.read_text()
        assert "summary: " in demo.out.read_text()
        until(lambda: not demo.processes(), "every process to end")


def test_children_do_not_outlive_a_killed_demo(tmp_path):
    with RunningDemo(tmp_path) as demo:
        demo.wait_for_numbers()
        demo.process.kill()
        demo.process.wait()
        until(lambda: not demo.processes(), "the children to end")


def test_a_bad_number_of_seconds_is_refused(tmp_path):
    with RunningDemo(tmp_path, DEMO_SECONDS="soon") as demo:
        assert demo.process.wait(PATIENCE_S) == 1
        assert demo.err.read_text() == "risk demo: DEMO_SECONDS must be a number of seconds\n"
