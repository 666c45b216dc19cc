"""How a service process starts, is told to stop, and ends: always, quickly, and with one clear line.

`run_process(main, name=...)` calls `main(stop)` in the main thread. `stop` is a `threading.Event`, set by
the first SIGINT or SIGTERM, or by the end of the parent process. The same signal a second time ends the
process at once. A stop that takes longer than its limit is cut short, naming what was still open. Exit
status: 0 after a clean end, 1 after a failure; a known error (ServiceKitError) is one line on stderr.
With `starting=True` a signal ends the process at once, with status 0, until `main` calls `stop.started()`:
nothing is held yet, and what a start waits for (a compiler, a broker) may take minutes.

Signals reach a watcher thread through a pipe, never a lock: a handler that runs in the middle of
`Event.wait` in the same thread would deadlock on the event's own lock, and a main thread inside a C call
(a Kafka poll, a kernel) runs no Python handler at all.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import selectors
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from service_kit.errors import ServiceKitError

PARENT_PIPE = "GPU_RISK_PARENT_PIPE"
STOP_WITHIN_S = 2.5  # the whole stop; a user waits at most 3 s after Ctrl-C
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop(threading.Event):
    """The event that ends a service, with the reason it was set and a way to wait for it in asyncio."""

    def __init__(self, *, starting: bool = False) -> None:
        super().__init__()
        self.reason = ""
        self.starting = starting
        self.set_at: float | None = None  # by the monotonic clock
        self.left_behind: list[
            str
        ] = []  # what did not end in time and need not: nobody waits for its threads
        self._callbacks: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def set(self, reason: str = "asked to stop") -> None:
        """Set the event; the first reason stays. Safe from any thread, not from a signal handler."""
        with self._lock:
            if self.is_set():
                return
            self.reason, self.set_at = reason, time.monotonic()
            super().set()
            callbacks = tuple(self._callbacks)
        for callback in callbacks:
            callback()

    def started(self) -> None:
        """From now on there is something to end in order."""
        self.starting = False

    def on_set(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when the event is set (at once if it is), from the thread that sets it."""
        with self._lock:
            if not self.is_set():
                self._callbacks.append(callback)
                return
        callback()

    async def wait_async(self) -> None:
        """Wait for the event without holding up the event loop."""
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(woken.set)

        self.on_set(wake)
        try:
            await woken.wait()
        finally:
            with self._lock:
                if wake in self._callbacks:
                    self._callbacks.remove(wake)


class ParentPipe:
    """Held by a parent process: its children stop when this closes, or when the parent dies in any way."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def popen_arguments(self, env: Mapping[str, str]) -> dict[str, Any]:
        """Keyword arguments for `subprocess.Popen` that hand the pipe to a child beside this environment."""
        return {"pass_fds": (self._read,), "env": {**env, PARENT_PIPE: str(self._read)}}

    def close(self) -> None:
        """Let go of the pipe: every child stops cleanly."""
        for fd in (self._write, self._read):
            if fd >= 0:
                os.close(fd)
        self._read = self._write = -1


def parent_pipe_fd(env: Mapping[str, str] | None = None) -> int | None:
    """The inherited pipe of this process, if a parent handed one over and it is open."""
    text = (os.environ if env is None else env).get(PARENT_PIPE, "")
    if not text.isdigit():
        return None
    try:
        os.fstat(int(text))
    except OSError:
        return None
    return int(text)


class _Watcher:
    """The thread that turns signals and the parent's end into `stop`, and bounds how long the stop takes."""

    def __init__(self, stop: Stop, name: str, stop_within_s: float) -> None:
        self._stop, self._name, self._within = stop, name, stop_within_s
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._seen: set[int] = set()
        self._end_by: float | None = None
        self._disarmed = False
        self._old_handlers = {number: signal.signal(number, _no_operation) for number in SIGNALS}
        self._old_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        stop.on_set(self._wake)
        self._thread = threading.Thread(target=self._watch, name="lifecycle", daemon=True)
        self._thread.start()

    def _wake(self) -> None:
        # Byte 0 is no signal: it makes the thread look at the time limit.
        if self._write >= 0:
            os.write(self._write, b"\0")

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._read, selectors.EVENT_READ)
            parent = parent_pipe_fd()
            if parent is not None:
                selector.register(parent, selectors.EVENT_READ)
            while not self._disarmed:
                left = None if self._end_by is None else max(0.0, self._end_by - time.monotonic())
                for key, _ in selector.select(left):
                    if key.fd == self._read:
                        self._on_bytes(os.read(self._read, 64))
                    elif not os.read(key.fd, 512):
                        selector.unregister(key.fd)
                        self._set("the parent process ended")
                if self._end_by is not None and time.monotonic() >= self._end_by and not self._disarmed:
                    self._end_now(f"did not stop within {self._within:g} s; {_open_threads()}", 1)

    def _on_bytes(self, data: bytes) -> None:
        for number in data:
            if number not in SIGNALS:
                continue
            if number in self._seen:
                # Only the same signal again: a terminal's Ctrl-C and a parent's SIGTERM come as a pair.
                self._end_now(f"second {signal.Signals(number).name}: ended at once", 128 + number)
            self._seen.add(number)
            self._set(signal.Signals(number).name)
        if self._stop.is_set() and self._end_by is None:
            self._end_by = time.monotonic() + self._within

    def _set(self, reason: str) -> None:
        if self._stop.starting:
            self._end_now(f"{reason} while it started: ended", 0)
        self._stop.set(reason)

    def _end_now(self, why: str, code: int) -> NoReturn:
        _tell_children()
        os.write(2, f"{self._name}: {why}\n".encode())
        os._exit(code)

    def disarm(self) -> None:
        """Give the signals back and end the thread; what stays open after this is the caller's."""
        signal.set_wakeup_fd(self._old_fd)
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        self._disarmed = True
        self._wake()
        self._thread.join()
        read, write, self._read, self._write = self._read, self._write, -1, -1
        os.close(read)
        os.close(write)


def _tell_children() -> None:
    """They end with us by themselves, but one that is just being started would complain of that at length."""
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in path.read_text().split():
                os.kill(int(child), signal.SIGTERM)


def _no_operation(_number: int, _frame: FrameType | None) -> None:
    """The wakeup pipe carries the signal; a handler must exist for Python to write to it."""


def _open_threads() -> str:
    """Names of the threads that still run, with the line each is at."""
    frames = sys._current_frames()
    parts = []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if thread.daemon or frame is None:
            continue
        code = frame.f_code
        parts.append(f"{thread.name} in {os.path.basename(code.co_filename)}:{frame.f_lineno} {code.co_name}")
    return "still running: " + ("; ".join(parts) or "none")


def run_service(
    main: Callable[[Stop], None],
    *,
    name: str,
    stop_within_s: float = STOP_WITHIN_S,
    stop: Stop | None = None,
) -> int:
    """Call `main(stop)` with signals wired; return the exit status. Main thread only."""
    watcher = _Watcher(stop := stop or Stop(), name, stop_within_s)
    try:
        return _status_of(main, stop, name)
    finally:
        watcher.disarm()


def run_process(
    main: Callable[[Stop], None],
    *,
    name: str,
    stop_within_s: float = STOP_WITHIN_S,
    starting: bool = False,
) -> NoReturn:
    """`run_service`, then end the process; the time limit holds until it is really gone."""
    stop = Stop(starting=starting)
    # Never disarmed: a thread that hangs after `main` returned must not keep the process either.
    _Watcher(stop, name, stop_within_s)
    status = _status_of(main, stop, name)
    stop.started()
    stop.set("main returned")
    if not stop.left_behind:
        threading._shutdown()  # type: ignore[attr-defined]
    # Not by way of the interpreter's end: that waits for what was left behind, as for a client's brokers.
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


def asynchronous(main: Callable[[Stop], Coroutine[Any, Any, None]]) -> Callable[[Stop], None]:
    """The same service written as a coroutine, for `run_service` and `run_process`."""

    def run(stop: Stop) -> None:
        asyncio.run(main(stop))

    return run


def _status_of(main: Callable[[Stop], None], stop: Stop, name: str) -> int:
    try:
        main(stop)
    except ServiceKitError as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        return 1
    except Exception as error:  # noqa: BLE001 the edge of the process: shown in full, and the status says so
        traceback.print_exc()
        print(f"{name}: failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 1
    return 0
