"""The early exercise premiums of a desk: one table per underlying, made anew before the market leaves it.

Tables are made elsewhere (`table_process`). Where there is none that fits, at the start or after a jump, wide
interpolants are read meanwhile: nobody waits for a table. Only contracts with cash dividends to come do: they
have no such interpolants, and are left out until their table is there.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.premium_sums import PremiumSums
from gpu_kernels.premium_tables import PremiumTable, build_premium_table
from risk_service.desk_block import Block
from risk_service.premium_inputs import PremiumInputs, Stated, until_ns
from risk_service.wide_premiums import WidePremiums

Floats = NDArray[np.float64]

# A table is made anew once the market has gone this part of its range, or once it is so old. Beyond its
# range, or when older than the second, nothing is read from it.
REFRESH_STRAIN = 0.5
REFRESH_AGE_NS = 300_000_000_000
AGE_NS_MAX = 1_800_000_000_000


class TableLost(Exception):
    """A table that was asked for will not come; another may."""


class MakeTable(Protocol):
    """Whoever makes tables elsewhere; urgent ones first."""

    def __call__(self, options: gk.Options, scenarios: gk.Scenarios, *, urgent: bool) -> Future[PremiumTable]:
        """The table of American options (C,) on one underlying under scenarios (S, 1)."""


class _Coming(NamedTuple):
    """A table that is being made, and what it will fit."""

    table: Future[PremiumTable]
    rows: NDArray[np.int64]
    time_ns: int


@dataclass(slots=True)
class _Held:
    """A table, and its sums for the weights and vols at hand."""

    table: PremiumTable
    rows: NDArray[np.int64]
    time_ns: int
    sums: PremiumSums | None = None
    vol: Floats = field(default_factory=lambda: np.zeros(0))  # that the sums are of

    def sums_of(self, engine: gk.Engine, block: Block, vol: Floats) -> PremiumSums:
        """Between two quotes of options only the spot moves, and the sums stay."""
        same = self.sums is not None and np.array_equal(self.vol, vol)
        if self.sums is None:
            self.sums = PremiumSums(engine, self.table, block.holdings(self.rows), len(block.cells))
        if not same:
            self.sums.take(vol)
            self.vol = vol
        return self.sums

    def fits(self, now: PremiumInputs) -> bool:
        """Whether anything may be read at all."""
        return (
            np.array_equal(self.rows, now.rows)
            and abs(now.time_ns - self.time_ns) <= AGE_NS_MAX
            and now.time_ns < until_ns(self.time_ns, self.table.lasts)
        )

    def strain(self, now: PremiumInputs) -> float:
        return self.table.strain(now.spot, now.vol, now.rate, now.dividend_yield)


@dataclass(slots=True)
class DeskPremiums:
    """Tables by underlying, and wide interpolants where a table is still being made. Used by one thread."""

    engine: gk.Engine  # one that can make tables: the cpu's
    tables: MakeTable | None = None  # elsewhere, in its own time; None: whoever needs a table makes it
    built: int = 0
    _wide: WidePremiums = field(init=False)
    _held: dict[int, _Held] = field(default_factory=dict)
    _coming: dict[int, _Coming] = field(default_factory=dict)
    _read_wide: set[int] = field(default_factory=set)  # slots without a table that fits
    _stated: dict[frozenset[int], Stated] = field(default_factory=dict)  # until another table is read

    def __post_init__(self) -> None:
        self._wide = WidePremiums(self.engine)

    def keep(self, slots: set[int]) -> None:
        """Drops the tables of other underlyings, those that are being made too."""
        self._held = {slot: held for slot, held in self._held.items() if slot in slots}
        self._coming = {slot: coming for slot, coming in self._coming.items() if slot in slots}
        self._wide.keep(slots)
        self._read_wide &= slots
        self._stated.clear()

    def reweigh(self, slots: set[int]) -> None:
        """The weights of these underlyings have changed."""
        for slot in slots & self._held.keys():
            self._held[slot].sums = None

    def prepare(self, slot: int, now: PremiumInputs, scenarios: Callable[[], gk.Scenarios]) -> bool:
        """Asks for a table where none fits or one is worn, and sees to wide interpolants meanwhile."""
        held = self._fitting(slot, now, scenarios)
        if held is not None and slot not in self._read_wide:
            return True
        self._stated.clear()
        if held is not None:
            self._read_wide.discard(slot)
            return True
        self._read_wide.add(slot)
        plain = ~now.paying
        if plain.all():
            return self._wide.prepare(slot, now, scenarios)
        if plain.any():
            self._wide.prepare(slot, now.those(plain), scenarios)
        return False

    def awaited(self, slots: set[int]) -> set[int]:
        """Those whose table has come."""
        return {slot for slot in slots if slot in self._coming and self._coming[slot].table.done()}

    def add(self, block: Block, now: PremiumInputs, points: Floats, pnl: Floats) -> None:
        """Adds premiums to the numbers of the block's cells."""
        if block.slot in self._read_wide:
            self._wide.add(block, now, points, pnl)
            return
        sums = self._held[block.slot].sums_of(self.engine, block, now.vol)
        sums.add(now.spot, block.cells, points, pnl)

    def stated(self, slots: frozenset[int]) -> Stated:
        """Of the tables and interpolants in use for these underlyings."""
        known = self._stated.get(slots)
        if known is None:
            known = self._stated[slots] = self._worst(slots)
        return known

    def _worst(self, slots: frozenset[int]) -> Stated:
        wide = self._wide.stated(slots & self._read_wide)
        held = [self._held[slot] for slot in slots if slot in self._held and slot not in self._read_wide]
        times = [one.time_ns for one in held] + ([] if wide.oldest_ns is None else [wide.oldest_ns])
        return Stated(max([wide.error, *(one.table.error for one in held)]), min(times) if times else None)

    def _fitting(self, slot: int, now: PremiumInputs, scenarios: Callable[[], gk.Scenarios]) -> _Held | None:
        """A table that can be read; None while one is made elsewhere."""
        coming = self._coming.get(slot)
        if coming is not None and coming.table.done():
            self._take(slot, coming)
        held = self._held.get(slot)
        strain = held.strain(now) if held is not None and held.fits(now) else np.inf
        if self.tables is None:
            if strain > 1.0:
                table = build_premium_table(self.engine, now.options(), scenarios())
                held = self._hold(slot, table, now.rows, now.time_ns)
            return held
        if slot not in self._coming and (held is None or _worn(held, strain, now)):
            made = self.tables(now.options(), scenarios(), urgent=strain > 1.0)
            self._coming[slot] = _Coming(made, now.rows, now.time_ns)
        return held if strain <= 1.0 else None

    def _take(self, slot: int, coming: _Coming) -> None:
        del self._coming[slot]
        try:
            table = coming.table.result()
        except TableLost:
            return  # it is asked for again
        self._hold(slot, table, coming.rows, coming.time_ns)

    def _hold(self, slot: int, table: PremiumTable, rows: NDArray[np.int64], time_ns: int) -> _Held:
        self._stated.clear()
        self.built += 1
        held = self._held[slot] = _Held(table, rows, time_ns)
        return held


def _worn(held: _Held, strain: float, now: PremiumInputs) -> bool:
    return strain > REFRESH_STRAIN or abs(now.time_ns - held.time_ns) > REFRESH_AGE_NS
