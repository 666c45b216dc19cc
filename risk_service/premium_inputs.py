"""What the early exercise premiums of a desk are worked out from, and what is asked of whoever does."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from risk_service.desk_block import Block

Floats = NDArray[np.float64]


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


class Premiums(Protocol):
    """Premiums of the desk's blocks; used by one thread."""

    def keep(self, slots: set[int]) -> None:
        """Drops what is held of other underlyings: nobody holds them now, or other contracts on them."""

    def reweigh(self, slots: set[int]) -> None:
        """The weights of these underlyings have changed."""

    def today(self, slot: int, now: PremiumInputs, scenarios: Callable[[], gk.Scenarios]) -> Floats:
        """Premiums of value and Greeks, (rows, 9)."""

    def in_scenarios(self, block: Block, now: PremiumInputs) -> Floats:
        """What they change by, summed over contracts, per cell and scenario; after `today`."""

    def error(self, slots: Collection[int]) -> float:
        """Largest measured error of a premium of these underlyings, as a part of the spot."""

    def oldest_ns(self, slots: Collection[int]) -> int | None:
        """Moment of the oldest table or interpolant behind them; None where there is none."""
