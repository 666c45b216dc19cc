"""What the early exercise premiums of a desk are worked out from, and what is asked of whoever does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from risk_service.desk_block import Block
from risk_service.held_dividends import NS_PER_YEAR

Floats = NDArray[np.float64]

FOREVER_NS = np.iinfo(np.int64).max
ROUNDING_NS = 1_000_000  # of times in years


@dataclass(frozen=True, slots=True)
class PremiumInputs:
    """The American contracts of a block, `rows` counted from its start, at one moment of the market."""

    rows: NDArray[np.int64]
    options: Callable[[], gk.Options]
    paying: NDArray[np.bool_]  # those with cash dividends to come
    spot: float
    vol: Floats
    rate: float
    dividend_yield: float
    time_ns: int

    def those(self, chosen: NDArray[np.bool_]) -> PremiumInputs:
        """Some of the contracts."""
        return replace(
            self,
            rows=self.rows[chosen],
            options=lambda: self.options().rows(chosen),
            paying=self.paying[chosen],
            vol=self.vol[chosen],
        )


def until_ns(time_ns: int, lasts: float) -> int:
    """The moment so many years after another, and a little before: an ex-date is passed then."""
    return FOREVER_NS if lasts == np.inf else time_ns + int(lasts * NS_PER_YEAR) - ROUNDING_NS


class Stated(NamedTuple):
    """What is said of premiums beside a number."""

    error: float  # largest measured error of one, as a part of the spot
    oldest_ns: int | None  # moment of the oldest table or interpolant behind them; None where there is none


class Premiums(Protocol):
    """Premiums of the desk's blocks; used by one thread."""

    def keep(self, slots: set[int]) -> None:
        """Drops what is held of other underlyings: nobody holds them now, or other contracts on them."""

    def reweigh(self, slots: set[int]) -> None:
        """The weights of these underlyings have changed."""

    def prepare(self, slot: int, now: PremiumInputs, scenarios: Callable[[], gk.Scenarios]) -> bool:
        """Sees to it that there is something to read at this moment of the market.

        False where nothing is there yet for contracts with dividends to come: they are not to be read.
        """

    def awaited(self, slots: set[int]) -> set[int]:
        """Those of the underlyings for which what was missing has come."""

    def add(self, block: Block, now: PremiumInputs, points: Floats, pnl: Floats) -> None:
        """Adds premiums to the values and Greeks of the block's cells, and what they change by to their P&L.

        ``points`` (cells, 10) and ``pnl`` (cells, scenarios) are those of all cells; after `prepare`.
        """

    def stated(self, slots: frozenset[int]) -> Stated:
        """Of the premiums of these underlyings."""
