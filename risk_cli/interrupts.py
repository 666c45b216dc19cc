"""Ctrl-C and SIGTERM: a command ends at once, also in the midst of a kernel, with the signal's status."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SHOW_CURSOR = b"\x1b[?25h"
_ENDS: list[Callable[[], None]] = []  # what a first signal calls; signals are the process's, not a caller's


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
def on_signal(end: Callable[[], None]) -> Iterator[None]:
    """Within, the first signal calls `end`, from a thread: for a command whose usual end it is.

    Raising KeyboardInterrupt instead would be lost where it falls into a finaliser or a callback.
    """
    _ENDS.append(end)
    try:
        yield
    finally:
        _ENDS.remove(end)


def status_of(number: int) -> int:
    """The exit status of a process that a signal has ended, as shells tell it."""
    return 128 + number


def _wait(heard: int) -> NoReturn:
    number, told = 0, False
    while True:
        number = os.read(heard, 1)[0]
        if number in SIGNALS and (told or not _ENDS):
            break
        if number in SIGNALS:
            told = True
            for end in tuple(_ENDS):
                end()
    # A progress bar hides the cursor; nobody else is left to show it again.
    if sys.stderr is not None and sys.stderr.isatty():
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), SHOW_CURSOR)
    os._exit(status_of(number))


def _no_operation(_number: int, _frame: FrameType | None) -> None:
    """Stands in for the usual end, so that the pipe is told."""
