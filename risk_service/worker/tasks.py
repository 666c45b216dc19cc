"""What the worker is asked and how it does it, down the ladder when memory gives out."""

from __future__ import annotations

import copy
import sys
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, NamedTuple

import numpy as np

import gpu_kernels as gk
from gpu_kernels.revaluation import position_pnl

# Books and scenarios that a worker keeps, each kind by number. The front names them by a key it never reuses.
KEPT_MAX = 256
# The ladder's last step: with less than this at once the work goes to the CPU.
ROWS_MIN = 1024
SCENARIOS_MIN = 1

# What may say so: the exceptions of NumPy and CuPy are MemoryErrors, those of JAX RuntimeErrors.
NO_MEMORY_KINDS = (MemoryError, RuntimeError)

Rows = Literal["price", "greeks", "implied_vol"]


class OptionTask(NamedTuple):
    """Prices, Greeks or vols of options in columns; `price` is read for vols only."""

    kind: Rows
    fields: dict[str, Any]
    method: str
    price: Any = None


class BookTask(NamedTuple):
    """Revaluation of a kept book under kept scenarios; `by` is None, "group" or "position".

    `things` are those of the two that the worker has not been given yet.
    """

    book: int
    scenarios: int
    by: str | None
    things: dict[int, Any]


class Hold(NamedTuple):
    """Books and scenarios to keep under a key."""

    things: dict[int, Any]


class Ended(Enum):
    """How a task ended."""

    DONE = "done"
    MISSING = "missing"  # keys that the worker does not keep (any more)
    INVALID = "invalid"  # the caller's mistake: field, reason, row
    UNAVAILABLE = "unavailable"  # this engine does not do that
    NO_MEMORY = "no memory"  # not even in the smallest parts
    FAILED = "failed"  # a mistake in this program: its traceback
    POISONED = "poisoned"  # the device's context is lost: the worker ends


class Answer(NamedTuple):
    """How it ended, and what came of it."""

    ended: Ended
    value: Any


@dataclass(slots=True)
class Kept:
    """The newest things by key; the oldest go first."""

    most: int = KEPT_MAX
    _things: OrderedDict[int, Any] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, key: int, thing: Any) -> None:
        """Keeps a copy: what came may lie in memory that the next message overwrites."""
        own = copy.deepcopy(thing)
        with self._lock:
            self._things[key] = own
            while len(self._things) > self.most:
                self._things.popitem(last=False)

    def get(self, key: int) -> Any:
        """The thing, or None."""
        with self._lock:
            if key in self._things:
                self._things.move_to_end(key)
            return self._things.get(key)


def answer(engine: gk.Engine, kept: Kept, task: OptionTask | BookTask | Hold) -> Answer:
    """Does a task; every failure that is not a mistake in this program comes back as an answer."""
    try:
        if isinstance(task, OptionTask):
            return Answer(Ended.DONE, _options(engine, task))
        for key, thing in task.things.items():
            kept.put(key, thing)
        if isinstance(task, Hold):
            return Answer(Ended.DONE, None)
        return _book(engine, kept, task)
    except gk.InvalidInput as fault:
        return Answer(Ended.INVALID, (fault.field, fault.reason, fault.row))
    except gk.EngineUnavailable as fault:
        return Answer(Ended.UNAVAILABLE, str(fault))
    except Exception as fault:  # noqa: BLE001 the worker's edge: every failure becomes an answer
        if out_of_memory(fault):
            return Answer(Ended.NO_MEMORY, "out of memory, even in small parts")
        if of_the_device(fault):
            return Answer(Ended.POISONED, f"{type(fault).__name__}: {fault}")
        return Answer(Ended.FAILED, "".join(traceback.format_exception(fault)))


def _options(engine: gk.Engine, task: OptionTask) -> tuple[Any, ...]:
    options = gk.Options(**task.fields)
    method: Any = task.method

    def part(rows: gk.Options, prices: Any) -> tuple[Any, ...]:
        if task.kind == "implied_vol":
            return engine.implied_vol(rows, prices, american_method=method).columns()
        do = engine.price if task.kind == "price" else engine.greeks
        return do(rows, american_method=method).columns()

    def whole() -> tuple[Any, ...]:
        return part(options, task.price)

    def rows(start: int, stop: int) -> tuple[Any, ...]:
        index = slice(start, stop)
        prices = task.price if task.price is None or np.size(task.price) == 1 else task.price[index]
        return part(options.rows(index), prices)

    if len(options.shape) != 1:
        return whole()
    done = in_parts(options.size, ROWS_MIN, rows, whole, freeing(engine))
    return done[0] if len(done) == 1 else tuple(map(np.concatenate, zip(*done, strict=True)))


def _book(engine: gk.Engine, kept: Kept, task: BookTask) -> Answer:
    book, scenarios = kept.get(task.book), kept.get(task.scenarios)
    missing = [key for key, thing in ((task.book, book), (task.scenarios, scenarios)) if thing is None]
    if missing:
        return Answer(Ended.MISSING, missing)

    def part(given: gk.Scenarios) -> Any:
        if task.by == "position":
            return position_pnl(engine, book, given)
        by: Any = task.by
        return engine.revalue(book, given, by=by)

    done = in_parts(
        len(scenarios),
        SCENARIOS_MIN,
        lambda start, stop: part(scenarios.select(slice(start, stop))),
        lambda: part(scenarios),
        freeing(engine),
    )
    return Answer(Ended.DONE, done[0] if len(done) == 1 else np.concatenate(done, axis=-1))


def in_parts(
    count: int,
    least: int,
    part: Callable[[int, int], Any],
    whole: Callable[[], Any],
    free: Callable[[], None],
) -> list[Any]:
    """The whole at once; where memory gives out the pool is freed and parts are halved, to `least`."""
    try:
        return [whole()]
    except NO_MEMORY_KINDS as fault:
        if not out_of_memory(fault):
            raise
    free()
    step = -(-count // 2)
    done: list[Any] = []
    start = 0
    while start < count:
        try:
            done.append(part(start, min(start + step, count)))
            start += step
        except NO_MEMORY_KINDS as fault:
            if not out_of_memory(fault) or step <= least:
                raise
            free()
            step = max(least, step // 2)
    return done


def out_of_memory(fault: Exception) -> bool:
    """Whether host or device had no memory left; CuPy's is a MemoryError, JAX says so in its text."""
    return isinstance(fault, MemoryError) or "RESOURCE_EXHAUSTED" in str(fault)[:200]


def of_the_device(fault: Exception) -> bool:
    """Whether a CUDA or XLA call failed: after that the context is good for nothing."""
    names = {kind.__name__ for kind in type(fault).__mro__}
    return bool(names & {"CUDARuntimeError", "CUDADriverError", "XlaRuntimeError", "JaxRuntimeError"})


def freeing(engine: gk.Engine) -> Callable[[], None]:
    """What gives back the memory that the engine's library keeps for itself."""
    return _free_cuda if engine.name == "cuda" else _nothing


def _free_cuda() -> None:
    cupy = sys.modules["cupy"]
    cupy.get_default_memory_pool().free_all_blocks()
    cupy.get_default_pinned_memory_pool().free_all_blocks()


def _nothing() -> None:
    """Engines without a pool of their own have nothing to give back."""
