"""Ctrl-C and SIGTERM: a command ends at once, also in the midst of a kernel, with the signal's status."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SHOW_CURSOR = b"\x1b[?25h"


def end_at_once() -> None:
    """From now on a signal ends this process, whatever it computes; nothing it leaves is half written.

    Python's own handler waits until the main thread comes back from a kernel, and the end of the interpreter
    for every thread that computes: so a thread hears of the signal through a pipe, and ends the process.
    """
    heard, told = os.pipe()
    os.set_blocking(told, False)
    for number in SIGNALS:
        signal.signal(number, _no_operation)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    threading.Thread(target=_wait, args=(heard,), name="signals", daemon=True).start()


@contextlib.contextmanager
def as_keyboard_interrupt() -> Iterator[None]:
    """Within, a signal raises KeyboardInterrupt: for a command whose usual end it is. Main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told = signal.set_wakeup_fd(-1)
    before = {number: signal.signal(number, _interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(told)


def status_of(number: int) -> int:
    """The exit status of a process that a signal has ended, as shells tell it."""
    return 128 + number


def _wait(heard: int) -> NoReturn:
    number = 0
    while number not in SIGNALS:
        number = os.read(heard, 1)[0]
    # A progress bar hides the cursor; nobody else is left to show it again.
    if sys.stderr is not None and sys.stderr.isatty():
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), SHOW_CURSOR)
    os._exit(status_of(number))


def _no_operation(_number: int, _frame: FrameType | None) -> None:
    """Stands in for the usual end, so that the pipe is told."""


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
