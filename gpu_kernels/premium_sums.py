"""A table's premiums, summed up for those who hold its options: a move of the spot costs a few products."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.premium_tables import POINT_FIELDS, PremiumTable

if TYPE_CHECKING:
    from gpu_kernels.engines.engine import Engine

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Holdings(NamedTuple):
    """Who holds how much of the options of a table: those of option n from first[n] to first[n + 1]."""

    first: Integers  # (C + 1,)
    cell: NDArray[np.int32]  # (H,)
    weight: Floats  # (H,)
    gross: Floats  # (H,) sizes added up without sign


class PremiumSums:
    """Premiums of a table in cells, at vols that were told last. Only the cpu engine has this."""

    def __init__(self, engine: Engine, table: PremiumTable, held: Holdings, cells: int) -> None:
        self._kernels = engine.module("premium_sums")
        self._table, self._held = table, held
        nodes, _, scenarios = table.in_scenarios.shape
        # Per cell: what is held is worth so much in each scenario at each node, and what vols add to that.
        self._sums = np.empty((cells, nodes + 2, scenarios), np.float32)
        self._today = np.empty((cells, nodes, 1 + len(POINT_FIELDS)))
        self._kernels.sum_scenarios(held, table, self._sums)

    def take(self, vol: Floats) -> None:
        """The vols (C,) are these from now on."""
        self._kernels.sum_at_vols(self._held, self._table, vol, self._sums, self._today)

    def add(self, spot: float, cells: Integers, points: Floats, pnl: Floats) -> None:
        """Adds premiums at this spot: their values and Greeks to ``points`` (cells, 2 + Greeks), value and
        value without sign first, and what they change by in each scenario to ``pnl`` (cells, S)."""
        self._kernels.add_at(self._table, spot, cells, self._sums, self._today, points, pnl)
