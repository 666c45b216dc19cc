"""The early exercise premiums of a desk: one table per underlying, made anew before the market leaves it.

Tables are made elsewhere (`table_process`). Where there is none that fits, at the start or after a jump, wide
interpolants are read meanwhile: nobody waits for a table.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.premium_tables import PremiumTable, build_premium_table
from risk_service.desk_block import Block, Weights
from risk_service.premium_inputs import PremiumInputs
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
    """A table and what has been read from it for the weights at hand."""

    table: PremiumTable
    rows: NDArray[np.int64]
    time_ns: int
    weights: Weights | None = None
    sums: Floats = field(default_factory=lambda: np.zeros(0))
    # At each node, for the vols at hand: premiums of today, and what the sums change by in each scenario.
    # Between two quotes of options only the spot moves, and each is one product with the nodes' weights.
    vol: Floats = field(default_factory=lambda: np.zeros(0))
    today: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    changes: Floats | None = None

    def see(self, vol: Floats) -> None:
        """Takes these vols."""
        if not np.array_equal(self.vol, vol):
            self.vol, self.changes = vol, None
            self.today = self.table.today_at_nodes(vol).reshape(len(self.table.nodes), -1)

    def hold(self, weights: Weights) -> None:
        """Takes these weights (cells, rows), and works out what they make of the vols seen."""
        table = self.table
        if self.weights is None:
            self.weights, self.sums, self.changes = weights, table.sums(weights), None
        if self.changes is None:
            level, slope = table.vol_sums(self.weights, self.vol)
            prices = self.today.reshape(len(table.nodes), len(self.vol), -1)[:, :, 0]
            # Lagrange's polynomials through the nodes give what is linear in the log spot exactly.
            self.changes = self.sums + level + table.nodes[:, None, None] * slope
            self.changes -= (prices @ self.weights.T)[:, :, None]

    def fits(self, now: PremiumInputs) -> bool:
        """Whether anything may be read at all."""
        return np.array_equal(self.rows, now.rows) and abs(now.time_ns - self.time_ns) <= AGE_NS_MAX

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

    def __post_init__(self) -> None:
        self._wide = WidePremiums(self.engine)

    def keep(self, slots: set[int]) -> None:
        """Drops the tables of other underlyings, those that are being made too."""
        self._held = {slot: held for slot, held in self._held.items() if slot in slots}
        self._coming = {slot: coming for slot, coming in self._coming.items() if slot in slots}
        self._wide.keep(slots)
        self._read_wide &= slots

    def reweigh(self, slots: set[int]) -> None:
        """The weights of these underlyings have changed."""
        for slot in slots & self._held.keys():
            self._held[slot].weights = None

    def today(self, slot: int, now: PremiumInputs, scenarios: Callable[[], gk.Scenarios]) -> Floats:
        """Premiums of value and Greeks, (rows, 9)."""
        held = self._fitting(slot, now, scenarios)
        if held is None:
            self._read_wide.add(slot)
            return self._wide.today(slot, now, scenarios)
        self._read_wide.discard(slot)
        held.see(now.vol)
        return (held.table.spot_weights(now.spot) @ held.today).reshape(len(now.rows), -1)

    def in_scenarios(self, block: Block, now: PremiumInputs) -> Floats:
        """What the premiums change by, summed over contracts, per cell and scenario; after `today`."""
        if block.slot in self._read_wide:
            return self._wide.in_scenarios(block, now)
        held = self._held[block.slot]
        held.hold(block.weights(held.rows) if held.weights is None else held.weights)
        if held.changes is None:
            raise RuntimeError("premiums in scenarios are asked for before those of today")
        along = held.table.spot_weights(now.spot)
        return (along @ held.changes.reshape(len(along), -1)).reshape(held.changes.shape[1:])

    def error(self, slots: Collection[int]) -> float:
        """Largest measured error of the premiums of these underlyings, as a part of the spot."""
        held = self._held
        tables = (held[slot].table.error for slot in slots if slot in held and slot not in self._read_wide)
        return max(max(tables, default=0.0), self._wide.error(self._read_wide.intersection(slots)))

    def oldest_ns(self, slots: Collection[int]) -> int | None:
        """Moment of the oldest of the tables and interpolants in use; None where there is none."""
        held = self._held
        times = [held[slot].time_ns for slot in slots if slot in held and slot not in self._read_wide]
        wide = self._wide.oldest_ns(self._read_wide.intersection(slots))
        return min(times if wide is None else [*times, wide], default=None)

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
                held = self._held[slot] = _Held(table, now.rows, now.time_ns)
                self.built += 1
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
        self._held[slot] = _Held(table, coming.rows, coming.time_ns)
        self.built += 1


def _worn(held: _Held, strain: float, now: PremiumInputs) -> bool:
    return strain > REFRESH_STRAIN or abs(now.time_ns - held.time_ns) > REFRESH_AGE_NS
