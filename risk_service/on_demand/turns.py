"""Whose turn it is to compute: as many threads at a time as there are cores, each for a while.

More than that would gain nothing. They would take the cores from the thread that answers and, put off by the
system while they have the interpreter, hold it up for as long as they wait.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

# A turn lasts so long while others wait: a core has nothing to do while one thread follows another.
TURN_S = 0.03


class Turns:
    """First come, first served. Safe to use from several threads."""

    def __init__(self, most: int, turn_s: float = TURN_S) -> None:
        self._free = most
        self._turn_s = turn_s
        self._own = threading.local()  # when a thread's turn began
        self._waiting: deque[threading.Lock] = deque()
        self._lock = threading.Lock()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Waits for a turn; it is the next thread's at the end."""
        self._take()
        try:
            yield
        finally:
            self._give()

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Gives the turn away while another process computes, and waits for a new one at the end."""
        self._give()
        try:
            yield
        finally:
            self._take()

    def pass_on(self) -> bool:
        """Lets those who wait go first, at the end of a turn; whether anybody did."""
        if not self._waiting or time.monotonic() - self._own.began < self._turn_s:
            return False
        self._give()
        self._take()
        return True

    def _take(self) -> None:
        with self._lock:
            mine = threading.Lock()
            if self._free:
                self._free -= 1
            else:
                # Whoever gives a turn away opens the first of these.
                mine.acquire()
                self._waiting.append(mine)
        mine.acquire()
        self._own.began = time.monotonic()

    def _give(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1
