"""When the events of files are due: by their own times at a chosen speed, several files as one stream."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from book_service.adapters.errors import PlanError
from book_service.adapters.raw_columns import RawColumns

WINDOW_S = 0.02  # events that are due within so long of each other go out together
UNPACED_WINDOW_NS = 1_000_000_000  # of the events' own time, by which unpaced files take turns
NS = 1_000_000_000

Times = Literal["original", "now"]


@dataclass(frozen=True, slots=True)
class Pace:
    """`speed` is seconds of the files per second here, 0: as fast as it goes."""

    speed: float = 1.0
    times: Times = "original"  # or "now": events are stamped with the time at which they are due here
    pause_s_max: float = 60.0  # a longer silence (a night, a wild time) is cut to this, in seconds here

    def __post_init__(self) -> None:
        if not 0.0 <= self.speed <= 1e9:
            raise PlanError("speed", f"must be from 0 to 1e9, not {self.speed!r}")
        if self.times not in ("original", "now"):
            raise PlanError("times", f"{self.times!r} is none of original, now")
        if not 0.0 <= self.pause_s_max <= 1e9:
            raise PlanError("pause_s_max", f"must be from 0 to 1e9, not {self.pause_s_max!r}")


@dataclass(frozen=True, slots=True)
class Due:
    """Events that go out together, so many seconds after the start."""

    after_s: float
    events: RawColumns


def paced(files: Sequence[Iterable[RawColumns]], pace: Pace, start_ns: int) -> Iterator[Due]:
    """The events of all files, merged by their times; `start_ns` is the time here at the start.

    What a file has out of order goes out where it stands in the file.
    """
    window_ns = max(1, round(WINDOW_S * pace.speed * NS)) if pace.speed else UNPACED_WINDOW_NS
    whole = not pace.speed and len(files) == 1
    windows = [_windows(events, None if whole else window_ns) for events in files]
    here_s, last_ns = 0.0, None
    for time_ns, events in heapq.merge(*windows, key=_first):
        passed_s = 0.0 if last_ns is None else (time_ns - last_ns) / NS
        here_s += min(pace.pause_s_max, passed_s / pace.speed) if pace.speed else passed_s
        last_ns = time_ns
        if pace.times == "now":
            events = _stamped(events, time_ns, start_ns + round(here_s * NS), pace.speed or 1.0)
        yield Due(here_s if pace.speed else 0.0, events)


def wait_for(due: Iterator[Due], wait: Callable[[float], bool], clock: Callable[[], float]) -> Iterator[Due]:
    """Gives each when it is due; ends early when `wait` (of `threading.Event`) says so."""
    start_s = clock()
    for one in due:
        if wait(max(0.0, start_s + one.after_s - clock())):
            return
        yield one


def _first(window: tuple[int, RawColumns]) -> int:
    return window[0]


def _windows(file: Iterable[RawColumns], window_ns: int | None) -> Iterator[tuple[int, RawColumns]]:
    """Pieces of a file that lie in one window, each with the latest time before it or its own first."""
    latest = None
    for events in file:
        times = events.columns.get("source_time_ns")
        if times is None:
            times = np.zeros(len(events), np.int64)
        if not len(times):
            continue
        passed = np.maximum.accumulate(times if latest is None else np.maximum(times, latest))
        latest = int(passed[-1])
        if window_ns is None:
            yield int(passed[0]), events
            continue
        window = passed // window_ns
        starts = [0, *(np.flatnonzero(np.diff(window)) + 1).tolist(), len(passed)]
        for start, end in pairwise(starts):
            yield int(passed[start]), events.take(slice(start, end))


def _stamped(events: RawColumns, first_ns: int, here_ns: int, speed: float) -> RawColumns:
    times = events.columns.get("source_time_ns")
    shift = np.zeros(len(events)) if times is None else (times - first_ns) / speed
    stamped = here_ns + np.clip(shift, -here_ns, 2.0**62).astype(np.int64)
    return RawColumns(events.source, events.symbols, {**events.columns, "source_time_ns": stamped})
