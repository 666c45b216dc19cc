"""Full revaluation on the CUDA engine: books stay on the device, shocks go in, a vector comes out."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import cupy
import numpy as np
from numpy.typing import NDArray

from gpu_kernels.dividend_revaluation import apart_pnl
from gpu_kernels.engines.cuda.revaluation_kernels import WIDTH, add_strips, strip_pnl
from gpu_kernels.engines.engine import Engine
from gpu_kernels.engines.held_books import HeldBook, HeldBooks
from gpu_kernels.portfolio import Portfolio
from gpu_kernels.revaluation import Shocks, position_pnl_with, revalue_with
from gpu_kernels.scenarios import Scenarios
from gpu_kernels.shocked_options import repriced_pnl

Floats = NDArray[np.float64]

# About this many strips for a large book: enough blocks for every multiprocessor, few enough partial sums.
STRIPS_WANTED = 1024
# Doubles of shocks and partial sums on the device at once (512 MiB); more scenarios are done in turns.
DOUBLES_MAX = 1 << 26
# Bytes of shocks kept on the device between calls.
SHOCK_BYTES_MAX = 1 << 29
BLOCKS_MAX = 1 << 20


def revalue(engine: Engine, portfolio: Portfolio, scenarios: Scenarios, by: str | None, out: Any) -> Floats:
    """P&L per scenario (S,), or per group and scenario (G, S)."""
    apart = partial(apart_pnl, engine, partial(repriced_pnl, engine))
    return revalue_with(_group_pnl, portfolio, scenarios, by, out, apart)


def position_pnl(engine: Engine, portfolio: Portfolio, scenarios: Scenarios) -> Floats:
    """P&L per position and scenario (P, S)."""
    apart = partial(apart_pnl, engine, partial(repriced_pnl, engine))
    return position_pnl_with(_position_pnl, portfolio, scenarios, apart)


def _group_pnl(portfolio: Portfolio, shocks: Shocks, out: Floats) -> None:
    out[:] = 0.0
    if not portfolio.options:
        return
    book = _books.of(portfolio, cupy.cuda.runtime.getDevice())
    groups = len(out)
    with book.lock:
        columns = book.columns(portfolio)
        first_strip = cupy.asarray(np.searchsorted(book.strip_group, np.arange(groups + 1)))

        def turn(start: int, stop: int) -> None:
            width = stop - start
            sums = cupy.empty(book.strips * width)
            _run_strips(book, columns, shocks, start, stop, False, sums)
            total = cupy.empty(groups * width)
            blocks = min(-(-total.size // add_strips.threads), BLOCKS_MAX)
            add_strips.launch(blocks, (np.int64(groups), np.int64(width), first_strip, sums, total))
            out[:, start:stop] = total.get().reshape(groups, width)

        _in_turns(turn, shocks, book.strips)


def _position_pnl(portfolio: Portfolio, shocks: Shocks, out: Floats) -> None:
    if not portfolio.options:
        return
    book = _books.of(portfolio, cupy.cuda.runtime.getDevice())
    with book.lock:
        columns = book.columns(portfolio)

        def turn(start: int, stop: int) -> None:
            rows = cupy.empty(len(out) * (stop - start))
            _run_strips(book, columns, shocks, start, stop, True, rows)
            out[:, start:stop] = rows.get().reshape(len(out), stop - start)

        _in_turns(turn, shocks, len(out))


def _in_turns(turn: Callable[[int, int], None], shocks: Shocks, rows: int) -> None:
    """Call turn(start, stop) over all scenarios, so many at a time that shocks and `rows` of results fit."""
    held = rows + len(shocks.spot_return) + len(shocks.vol_change) + 1
    held += 0 if shocks.surface is None else len(shocks.surface)
    step = max(WIDTH, DOUBLES_MAX // held // WIDTH * WIDTH)
    start = 0
    while start < shocks.scenarios:
        try:
            turn(start, min(start + step, shocks.scenarios))
            start += step
        except cupy.cuda.memory.OutOfMemoryError:
            if step <= WIDTH:
                raise
            _shock_arrays.clear()
            cupy.get_default_memory_pool().free_all_blocks()
            step = max(WIDTH, step // 2 // WIDTH * WIDTH)


def _run_strips(
    book: _Book, columns: tuple[Any, ...], shocks: Shocks, start: int, stop: int, each: bool, out: Any
) -> None:
    """Launch the kernel for scenarios start..stop."""
    width = stop - start
    tiles = -(-width // WIDTH)
    surface = shocks.surface is not None
    rates = shocks.rate_change is not None
    vols = surface or bool(shocks.vol_change.any())

    def moved(rows: Floats | None) -> Any:
        return np.intp(0) if rows is None else _shock_arrays.of(rows, start, stop)

    counts = (width, tiles, len(shocks.vol_change) == 1, vols, rates, surface, each)
    strip_pnl.launch(
        book.strips * tiles,
        (
            *(np.int64(number) for number in counts),
            np.float64(shocks.elapsed),
            book.order,
            book.strip_start,
            *columns,
            moved(shocks.spot_return),
            moved(shocks.vol_change) if vols else np.intp(0),
            moved(shocks.rate_change),
            moved(shocks.surface),
            np.intp(0) if shocks.node is None else cupy.asarray(shocks.node.reshape(-1)),
            np.intp(0) if shocks.node_weight is None else cupy.asarray(shocks.node_weight.reshape(-1)),
            out,
        ),
    )


_COLUMNS = (
    *("underlying", "quantity", "multiplier", "spot", "strike"),
    *("expiry", "vol", "rate", "dividend_yield", "is_call"),
)


class _Book(HeldBook):
    """Positions on the device, in the order in which they are added up. Used by one call at a time."""

    def __init__(self, portfolio: Portfolio) -> None:
        super().__init__(portfolio)
        order = np.lexsort((portfolio.underlying, self.group))
        starts = _strip_starts(self.group[order])
        self.strips = len(starts)
        self.strip_group = self.group[order[starts]]
        self.order = cupy.asarray(order)
        self.strip_start = cupy.asarray(np.append(starts, self.positions))
        # The next call may come on another stream.
        cupy.cuda.get_current_stream().synchronize()

    def columns(self, portfolio: Portfolio) -> tuple[Any, ...]:
        """The device's copies of the columns."""
        return tuple(self.sent(portfolio, _COLUMNS, lambda _, host: cupy.asarray(host)).values())


def _strip_starts(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where strips begin in positions sorted by group: of one group each, so many positions or fewer."""
    count = len(group)
    size = WIDTH * max(1, round(count / (WIDTH * STRIPS_WANTED)))
    begins = np.append(0, np.flatnonzero(np.diff(group)) + 1)
    ends = np.append(begins[1:], count)
    return np.concatenate([np.arange(begin, end, size) for begin, end in zip(begins, ends, strict=True)])


class _ShockArrays:
    """Shocks on the device. Kept for the next call when the host's array can not change meanwhile."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[int, ...], tuple[Any, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, rows: Floats, start: int, stop: int) -> Any:
        """Scenarios start..stop (the last axis) of some rows, on the device."""
        part = rows[..., start:stop]
        if rows.flags.writeable or part.nbytes > SHOCK_BYTES_MAX:
            return cupy.asarray(np.ascontiguousarray(part))
        key = (cupy.cuda.runtime.getDevice(), id(rows), start, stop)
        with self._lock:
            if key not in self._held:
                self._held[key] = (rows, cupy.asarray(np.ascontiguousarray(part)))
                # Other calls may use other streams.
                cupy.cuda.get_current_stream().synchronize()
            self._held.move_to_end(key)
            array = self._held[key][1]
            while sum(device.nbytes for _, device in self._held.values()) > SHOCK_BYTES_MAX:
                self._held.popitem(last=False)
            return array

    def clear(self) -> None:
        """Let all go."""
        with self._lock:
            self._held.clear()


_books = HeldBooks(_Book)
_shock_arrays = _ShockArrays()
