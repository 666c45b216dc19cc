"""Cash dividends of options: ex-dates and amounts in columns, one schedule for each option or for many."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.errors import InvalidInput
from gpu_kernels.formulas.cash_dividends import Schedule

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CashDividends:
    """Ex-dates (years from today, ascending) and amounts of schedule i at offsets[i]:offsets[i + 1].

    Option i has schedule index[i]; without an index it has schedule i.
    """

    times: Floats
    amounts: Floats
    offsets: Integers
    index: Integers | None = None

    def __post_init__(self) -> None:
        for name, kind in (("times", np.float64), ("amounts", np.float64), ("offsets", np.int64)):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=kind))
        if self.times.ndim != 1 or self.times.shape != self.amounts.shape:
            raise InvalidInput("amounts", f"shape {self.amounts.shape}, but times have {self.times.shape}")
        edges = self.offsets
        if edges.ndim != 1 or edges.size == 0 or edges[0] != 0 or edges[-1] != self.times.size:
            raise InvalidInput("offsets", "expected to start at 0 and to end at the number of dividends")
        if (np.diff(edges) < 0).any():
            raise InvalidInput("offsets", "must not fall", int(np.flatnonzero(np.diff(edges) < 0)[0]) + 1)
        bad = ~np.isfinite(self.times)
        if bad.any():
            raise InvalidInput("times", "not finite", int(np.flatnonzero(bad)[0]))
        bad = ~(np.isfinite(self.amounts) & (self.amounts >= 0.0))
        if bad.any():
            raise InvalidInput("amounts", "expected finite and at least 0", int(np.flatnonzero(bad)[0]))
        falls = np.flatnonzero(np.diff(self.times) < 0.0) + 1
        falls = falls[~np.isin(falls, edges)]
        if falls.size:
            raise InvalidInput("times", "must ascend within an option", int(falls[0]))
        if self.index is not None:
            self._check_index(np.asarray(self.index))

    def _check_index(self, index: NDArray[Any]) -> None:
        if index.ndim != 1 or (index.dtype.kind not in "iu" and index.size):
            raise InvalidInput("index", "expected one whole number per option")
        bad = np.flatnonzero((index < 0) | (index >= self.offsets.size - 1))
        if bad.size:
            row = int(bad[0])
            raise InvalidInput("index", f"is {index[row]}: there are {self.offsets.size - 1} schedules", row)
        object.__setattr__(self, "index", np.ascontiguousarray(index, dtype=np.int64))

    @classmethod
    def per_option(cls, dividends: Iterable[Iterable[tuple[float, float]]]) -> CashDividends:
        """From one list of (years from today, amount) per option."""
        lists = [list(one) for one in dividends]
        pairs = np.array([pair for one in lists for pair in one], dtype=np.float64).reshape(-1, 2)
        return cls(pairs[:, 0], pairs[:, 1], np.cumsum([0, *(len(one) for one in lists)]))

    @classmethod
    def same(cls, dividends: Iterable[tuple[float, float]], options: int) -> CashDividends:
        """The same (years from today, amount) for each of a number of options."""
        return cls.shared([list(dividends)], np.zeros(options, dtype=np.int64))

    @classmethod
    def shared(cls, schedules: Iterable[Iterable[tuple[float, float]]], index: Any) -> CashDividends:
        """Lists of (years from today, amount), and which of them each option has: its underlying's."""
        return replace(cls.per_option(schedules), index=index)

    def __len__(self) -> int:
        return self.offsets.size - 1 if self.index is None else self.index.size

    def schedule_of(self, options: int) -> Integers:
        """The number of each option's schedule; a single one holds for every option."""
        own = np.arange(self.offsets.size - 1) if self.index is None else self.index
        return np.broadcast_to(own, (options,)) if own.size == 1 else own

    def rows(self, chosen: Any, options: int) -> CashDividends:
        """The dividends of some of so many options: an index into their rows."""
        part: CashDividends = object.__new__(CashDividends)
        for name, value in zip(
            ("times", "amounts", "offsets", "index"),
            (self.times, self.amounts, self.offsets, np.ascontiguousarray(self.schedule_of(options)[chosen])),
            strict=True,
        ):
            object.__setattr__(part, name, value)
        return part

    def after(self, elapsed: float) -> CashDividends:
        """The same dividends seen so many years later; those paid by then count no more."""
        return self if elapsed == 0.0 else replace(self, times=self.times - elapsed)

    def within(self, expiry: Floats) -> Schedule:
        """The dividends that count for each option: more than nothing, after today and before its expiry."""
        counts = np.diff(self.offsets)
        own = self.schedule_of(expiry.size)
        sizes = counts[own]
        owner = np.repeat(np.arange(own.size), sizes)
        first = np.cumsum(sizes) - sizes
        place = np.arange(owner.size) + np.repeat(self.offsets[own] - first, sizes)
        times, amounts = self.times[place], self.amounts[place]
        keep = (times > 0.0) & (times < expiry[owner]) & (amounts > 0.0)
        kept = np.bincount(owner[keep], minlength=own.size)
        return Schedule(times[keep], amounts[keep], np.concatenate(([0], np.cumsum(kept))).astype(np.int64))


def joined(parts: list[tuple[CashDividends | None, int]]) -> CashDividends:
    """Dividends of several lots of options, one lot after the other; None are lots without any."""
    times: list[Floats] = []
    amounts: list[Floats] = []
    offsets: list[Integers] = [np.zeros(1, np.int64)]
    index: list[Integers] = []
    before, schedules = 0, 0
    for held, options in parts:
        one = CashDividends(np.empty(0), np.empty(0), np.zeros(2, np.int64)) if held is None else held
        times.append(one.times)
        amounts.append(one.amounts)
        offsets.append(one.offsets[1:] + before)
        index.append(one.schedule_of(options) + schedules)
        before, schedules = before + one.times.size, schedules + one.offsets.size - 1
    return CashDividends(
        np.concatenate(times), np.concatenate(amounts), np.concatenate(offsets), np.concatenate(index)
    )


def due(schedule: Schedule, carry: Floats) -> Floats:
    """What each option's dividends are worth today, discounted at rate less yield."""
    return sums(schedule, schedule.amounts * np.exp(-carry[owners(schedule)] * schedule.times))


def due_slope(schedule: Schedule, carry: Floats) -> Floats:
    """How much less they are worth for each 1.00 more of the rate."""
    here = schedule.amounts * schedule.times
    return sums(schedule, here * np.exp(-carry[owners(schedule)] * schedule.times))


def owners(schedule: Schedule) -> Integers:
    """The option of each dividend."""
    return np.repeat(np.arange(schedule.offsets.size - 1), np.diff(schedule.offsets))


def sums(schedule: Schedule, values: Floats) -> Floats:
    """Sums over each option's dividends, 0 where there are none."""
    return np.asarray(
        np.bincount(owners(schedule), weights=values, minlength=schedule.offsets.size - 1), np.float64
    )


def chosen_rows(schedule: Schedule, rows: Integers) -> Schedule:
    """The dividends of some options."""
    sizes = np.diff(schedule.offsets)[rows]
    edges = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    place = np.arange(edges[-1]) + np.repeat(schedule.offsets[rows] - edges[:-1], sizes)
    return Schedule(schedule.times[place], schedule.amounts[place], edges)
