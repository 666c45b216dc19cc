"""Real processes for the end-to-end tests: started by the commands a user types, ended with the test."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")

PATIENCE_S = 240.0  # for anything that must happen; reached only when it never will
RISK = [sys.executable, "-m", "risk_cli.main"]


def clean_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This environment without settings of ours, then the given ones."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GPU_RISK_")}
    return kept | {"PYTHONUNBUFFERED": "1"} | dict(settings)


def run_risk(*words: str, settings: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
    """One command from start to end."""
    return subprocess.run(
        [*RISK, *words],
        env=clean_environment(settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


class Service:
    """A `risk` command that runs until it is stopped; its stdout and stderr are kept in files."""

    def __init__(self, folder: Path, *words: str, settings: Mapping[str, str]) -> None:
        self.out, self.err = folder / f"{words[0]}.out", folder / f"{words[0]}.err"
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [*RISK, *words],
                env=clean_environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def address(self) -> str:
        """Where it listens, once it says so."""
        return until(self._address, f"{self.process.args} to listen", self)

    def _address(self) -> str:
        for line in self.out.read_text().splitlines():
            if " listening on " in line:
                return line.rsplit(" ", 1)[1]
        return ""

    def stop(self) -> int:
        """Asks it to end; its exit status."""
        self.process.terminate()
        return self.process.wait(PATIENCE_S)

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def until(condition: Callable[[], T], what: str, *services: Service) -> T:
    """Polls until the condition holds; fails when a service has ended or nothing comes."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        for service in services:
            assert service.process.poll() is None, f"ended: {service.err.read_text()[-2000:]}"
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)
    return found


def descendants() -> set[int]:
    """All processes below this one."""
    return {child.pid for child in psutil.Process().children(recursive=True)}
