"""The child processes of the demo: started, watched, and ended together, whatever ends first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from service_kit.errors import ServiceKitError
from service_kit.lifecycle import ParentPipe, Stop

# For all children together; then they are killed with what they have started. They keep nothing that a log
# and a restart would not give back, and nobody should wait a second for Ctrl-C.
STOP_WAIT_S = 0.4
LAST_LINES = 3  # of a dead child's log that are shown


class ChildEnded(ServiceKitError):
    """A process of the demo ended by itself."""


@dataclass(slots=True)
class Child:
    """One process, its log, and the address it said it listens on."""

    name: str
    process: subprocess.Popen[str]
    log: Path
    address: str = ""
    listening: threading.Event = field(default_factory=threading.Event)

    def read_output(self) -> None:
        """Notes the line that says where it listens; the rest of its stdout is not for us."""
        for line in self.process.stdout or ():
            if " listening on " in line and not self.address:
                self.address = line.rsplit(" ", 1)[1].strip()
                self.listening.set()

    def last_words(self) -> str:
        """The end of its log, in one line; empty where it is silent."""
        lines = self.log.read_text(errors="replace").strip().splitlines()[-LAST_LINES:]
        return "; it said: " + " | ".join(lines) if lines else ""

    def how_it_ended(self) -> str:
        """A line on a process that is no more."""
        code = self.process.returncode
        if code < 0:
            ended = f"was ended by {signal.Signals(-code).name}"
        else:
            ended = f"ended with status {code}"
        said = self.last_words() if code > 0 else ""
        return f"{self.name} (process {self.process.pid}) {ended}{said}"


class Children:
    """All child processes; leaving the `with` ends them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pipe = ParentPipe()
        self._children: list[Child] = []

    def start(self, name: str, command: str, env: Mapping[str, str]) -> Child:
        """Starts `risk COMMAND` with its log in the folder; it ends when this process does."""
        log = self._folder / f"{name}.log"
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "risk_cli.main", command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                # A Ctrl-C of the terminal is for this process; it ends the children in order.
                start_new_session=True,
                **self._pipe.popen_arguments(os.environ | env),
            )
        child = Child(name, process, log)
        self._children.append(child)
        threading.Thread(target=child.read_output, name=f"output of {name}", daemon=True).start()
        return child

    def wait_until_listening(self, child: Child, stop: Stop, within_s: float) -> None:
        """Until the child answers calls; raises when any child ends or the time is over."""
        deadline = time.monotonic() + within_s
        while not child.listening.wait(0.05):
            self.check()
            if stop.is_set():
                return
            if time.monotonic() > deadline:
                said = child.last_words()
                raise ChildEnded(f"{child.name} did not answer calls within {within_s:g} s{said}")

    def check(self) -> None:
        """Raises ChildEnded when one has ended."""
        for child in self._children:
            if child.process.poll() is not None:
                raise ChildEnded(child.how_it_ended())

    def close(self) -> None:
        """Ends all of them: asked first, killed after the wait."""
        self._pipe.close()
        deadline = time.monotonic() + STOP_WAIT_S
        for child in self._children:
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, deadline - time.monotonic()))
            # Each leads a session of its own; what a dead one has left there goes, too.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.process.pid, signal.SIGKILL)
            child.process.wait()
        self._children.clear()

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
