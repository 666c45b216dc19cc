"""The early exercise premiums of a desk: one table per underlying, made anew before the market leaves it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.premium_tables import PremiumTable, build_premium_table
from risk_service.desk import Block

Floats = NDArray[np.float64]

# A table is made anew in the background once the market has gone this part of its range, or once it is so
# old; beyond its range, or when older than the second, nothing is read from it: the loop waits for a new one.
REFRESH_STRAIN = 0.5
REFRESH_AGE_NS = 300_000_000_000
AGE_NS_MAX = 1_800_000_000_000


@dataclass(frozen=True, slots=True)
class PremiumInputs:
    """The American contracts of a block, `rows` counted from its start, at one moment of the market."""

    rows: NDArray[np.int64]
    options: Callable[[], gk.Options]
    spot: float
    vol: Floats
    rate: float
    dividend_yield: float
    time_ns: int


@dataclass(slots=True)
class _Held:
    """A table and what has been read from it for the weights at hand."""

    table: PremiumTable
    rows: NDArray[np.int64]
    time_ns: int
    weights: Floats | None = None
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

    def hold(self, weights: Floats) -> None:
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
    """Tables by underlying. Used by one thread; only the making of a table may be another's work."""

    engine: gk.Engine  # one that can make tables: the cpu's
    background: Executor | None = None  # None: whoever needs a table makes it
    built: int = 0
    waited: int = 0  # how many of them somebody had to wait for
    _held: dict[int, _Held] = field(default_factory=dict)
    _coming: dict[int, Future[_Held]] = field(default_factory=dict)

    def keep(self, slots: set[int]) -> None:
        """Drops the tables of underlyings that nobody holds now; the others' weights may have changed."""
        self._held = {slot: held for slot, held in self._held.items() if slot in slots}
        for held in self._held.values():
            held.weights = None

    def today(self, slot: int, now: PremiumInputs, scenarios: Callable[[], gk.Scenarios]) -> Floats:
        """Premiums of value and Greeks, (rows, 9); makes a table where there is none that fits."""
        held = self._fitting(slot, now, scenarios)
        held.see(now.vol)
        return (held.table.spot_weights(now.spot) @ held.today).reshape(len(now.rows), -1)

    def in_scenarios(self, block: Block, now: PremiumInputs) -> Floats:
        """What the premiums change by, summed over contracts, per cell and scenario; after `today`."""
        held = self._held[block.slot]
        held.hold(block.weights[:, held.rows] if held.weights is None else held.weights)
        if held.changes is None:
            raise RuntimeError("premiums in scenarios are asked for before those of today")
        along = held.table.spot_weights(now.spot)
        return (along @ held.changes.reshape(len(along), -1)).reshape(held.changes.shape[1:])

    def error(self, slots: Collection[int]) -> float:
        """Largest measured error of the tables of these underlyings, as a part of the spot."""
        held = self._held
        return max((held[slot].table.error for slot in slots if slot in held), default=0.0) if held else 0.0

    def oldest_ns(self, slots: Collection[int]) -> int | None:
        """Moment of the oldest of these tables; None where there is none."""
        held = self._held
        return min((held[slot].time_ns for slot in slots if slot in held), default=None) if held else None

    def _fitting(self, slot: int, now: PremiumInputs, scenarios: Callable[[], gk.Scenarios]) -> _Held:
        coming = self._coming.get(slot)
        if coming is not None and coming.done():
            self._take(slot)
        held = self._held.get(slot)
        strain = held.strain(now) if held is not None and held.fits(now) else np.inf
        if strain > 1.0 and slot in self._coming:
            held = self._take(slot)
            strain = held.strain(now) if held.fits(now) else np.inf
        if held is None or strain > 1.0:
            self.waited += 1
            held = self._held[slot] = _made(self.engine, now, scenarios())
            self.built += 1
        elif self.background is not None and slot not in self._coming and _worn(held, strain, now):
            self._coming[slot] = self.background.submit(_made, self.engine, now, scenarios())
        return held

    def _take(self, slot: int) -> _Held:
        held = self._held[slot] = self._coming.pop(slot).result()
        self.built += 1
        return held


def _worn(held: _Held, strain: float, now: PremiumInputs) -> bool:
    return strain > REFRESH_STRAIN or abs(now.time_ns - held.time_ns) > REFRESH_AGE_NS


def _made(engine: gk.Engine, now: PremiumInputs, scenarios: gk.Scenarios) -> _Held:
    return _Held(build_premium_table(engine, now.options(), scenarios), now.rows, now.time_ns)
