"""Early exercise premiums from wide interpolants: made in a fraction of a table's time, read in more of it.

An interpolant covers every scenario from any spot and vol within a wide range of today's. Reading one costs
an evaluation per contract and scenario, where a table (`desk_premiums`) costs a product. So these are for
Monte Carlo, which looks once a second, and for the live loop while it has no table. The scenarios of Monte
Carlo move each vol along a line with its spot: premiums are read at a few returns, which tell those of all
scenarios (gpu_kernels.scenario_line), and one by one only where that would be too far off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.american_book import AmericanBook
from gpu_kernels.premium_tables import POINT_FIELDS
from gpu_kernels.scenario_line import ScenarioLine
from risk_service.desk_block import Block, Weights
from risk_service.premium_inputs import PremiumInputs, Stated

Floats = NDArray[np.float64]

# How far log spot and each vol may go from where they were when the interpolants were made.
SPOT_REACH = 0.05
VOL_REACH = 0.05
# A contract whose interpolant has a larger error, as a part of the spot, is priced in full; and where reading
# along a line has a larger one, every scenario is read.
TOLERANCE = 2e-4
AGE_NS_MAX = 600_000_000_000
# Scenarios read at once: of twice as many the numbers of 100 contracts took a third more time.
PIECE = 2_048


class _Horizon(NamedTuple):
    columns: NDArray[np.intp]  # of the scenarios
    scenarios: gk.Scenarios
    book: AmericanBook
    line: ScenarioLine | None

    @classmethod
    def of(cls, engine: gk.Engine, book: gk.Portfolio, scenarios: gk.Scenarios, horizon: float) -> _Horizon:
        columns = np.flatnonzero(scenarios.elapsed == horizon)
        part = scenarios.select(columns)
        wide = AmericanBook(engine, book, _around(part), tolerance=TOLERANCE)
        return cls(columns, part, wide, ScenarioLine.through(part))


@dataclass(slots=True)
class _Wide:
    """Interpolants of a block's contracts, one set for each horizon of the scenarios."""

    rows: NDArray[np.int64]
    spot: float
    vol: Floats
    rate: float
    dividend_yield: float
    time_ns: int
    count: int  # scenarios
    horizons: tuple[_Horizon, ...]
    line_error: float = 0.0  # of one premium at the last look, as a part of the spot

    @classmethod
    def of(cls, engine: gk.Engine, now: PremiumInputs, scenarios: gk.Scenarios) -> _Wide:
        book = gk.Portfolio(options=now.options(), quantity=np.ones(len(now.rows)))
        return cls(
            *(now.rows, now.spot, now.vol, now.rate, now.dividend_yield, now.time_ns, len(scenarios)),
            tuple(_Horizon.of(engine, book, scenarios, one) for one in np.unique(scenarios.elapsed)),
        )

    @property
    def error(self) -> float:
        """Of one premium, as a part of the spot."""
        return max((one.book.error for one in self.horizons), default=0.0) + self.line_error

    def covers(self, now: PremiumInputs) -> bool:
        """Whether these contracts can be read at this moment of the market."""
        return (
            np.array_equal(self.rows, now.rows)
            and abs(now.time_ns - self.time_ns) <= AGE_NS_MAX
            and (self.rate, self.dividend_yield) == (now.rate, now.dividend_yield)
            and abs(np.log(now.spot / self.spot)) <= SPOT_REACH
            and bool((np.abs(now.vol - self.vol) <= VOL_REACH).all())
        )

    def changes(self, now: PremiumInputs, weights: Weights) -> Floats:
        """Sums over contracts of what the premiums change by, (cells, scenarios)."""
        out = np.empty((weights.shape[0], self.count))
        self.line_error = 0.0
        for one in self.horizons:
            moved = one.book.moved([now.spot], now.vol)
            if one.line is not None:
                found = moved.premium_pnl(one.line.looks)
                error = float(one.line.errors(found).max(initial=0.0)) / now.spot
                if error <= TOLERANCE:
                    self.line_error = max(self.line_error, error)
                    out[:, one.columns] = one.line.read(weights @ found)
                    continue
            for first in range(0, len(one.columns), PIECE):
                part = slice(first, first + PIECE)
                out[:, one.columns[part]] = weights @ moved.premium_pnl(one.scenarios.select(part))
        return out


@dataclass(slots=True)
class WidePremiums:
    """Interpolants by underlying, made when they are needed."""

    engine: gk.Engine  # one that has interpolants: the cpu's
    with_points: bool = True  # False: nobody asks for values and Greeks, only for what scenarios do
    built: int = 0
    _held: dict[int, _Wide] = field(default_factory=dict)

    def keep(self, slots: set[int]) -> None:
        """Drops what is held of other underlyings."""
        self._held = {slot: held for slot, held in self._held.items() if slot in slots}

    def reweigh(self, slots: set[int]) -> None:
        """The weights of these underlyings have changed: they are read at each look."""

    def prepare(self, slot: int, now: PremiumInputs, scenarios: Callable[[], gk.Scenarios]) -> None:
        """Makes interpolants where those at hand do not cover this moment of the market."""
        held = self._held.get(slot)
        if held is None or not held.covers(now):
            self._held[slot] = _Wide.of(self.engine, now, scenarios())
            self.built += 1

    def add(self, block: Block, now: PremiumInputs, points: Floats, pnl: Floats) -> None:
        """Adds premiums to the numbers of the block's cells; today's are worked out in full."""
        weights = block.weights(now.rows)
        pnl[block.cells] += self._held[block.slot].changes(now, weights)
        if self.with_points:
            options = now.options()
            american, european = self.engine.greeks(options), self.engine.greeks(_europeans(options))
            today = np.stack(
                [getattr(american, name) - getattr(european, name) for name in POINT_FIELDS], axis=-1
            )
            sums = weights @ today
            points[block.cells, 0] += sums[:, 0]
            points[block.cells, 1] += block.weights(now.rows, signed=False) @ today[:, 0]
            points[block.cells, 2:] += sums[:, 1:]

    def stated(self, slots: frozenset[int]) -> Stated:
        """Of the interpolants of these underlyings."""
        held = [self._held[slot] for slot in slots if slot in self._held]
        return Stated(
            max((one.error for one in held), default=0.0), min((one.time_ns for one in held), default=None)
        )


def _around(scenarios: gk.Scenarios) -> gk.Scenarios:
    """The ends of what may be asked for: the scenarios from anywhere within reach."""
    low, high = scenarios.spot_return.min(axis=0), scenarios.spot_return.max(axis=0)
    least, most = scenarios.vol_change.min(axis=0), scenarios.vol_change.max(axis=0)
    return gk.Scenarios(
        spot_return=np.stack((low - SPOT_REACH, high + SPOT_REACH)),
        vol_change=np.stack((least - VOL_REACH, most + VOL_REACH)),
        elapsed=float(scenarios.elapsed[0]),
    )


def _europeans(options: gk.Options) -> gk.Options:
    names = ("spot", "strike", "expiry", "vol", "rate", "dividend_yield", "is_call")
    columns: dict[str, Any] = {name: np.asarray(options.column(name)) for name in names}
    return gk.Options(**columns)
