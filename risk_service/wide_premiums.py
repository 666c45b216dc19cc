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
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.american_book import AmericanBook
from gpu_kernels.dividend_premiums import DividendPremiums, dividend_premiums, lasts
from gpu_kernels.premium_tables import POINT_FIELDS
from gpu_kernels.scenario_line import ScenarioLine
from risk_service.desk_block import Block, Weights
from risk_service.premium_inputs import PremiumInputs, Stated, until_ns

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


@dataclass(frozen=True, slots=True)
class _Contracts:
    """Interpolants of contracts without dividends to come and of those with some."""

    paying: NDArray[np.bool_]
    plain: AmericanBook | None
    dividends: DividendPremiums | None

    @classmethod
    def of(cls, engine: gk.Engine, book: gk.Portfolio, scenarios: gk.Scenarios) -> _Contracts:
        paying, plain = book.paying, None
        if not paying.all():
            plain = AmericanBook(engine, book.rows(~paying), _around(scenarios), tolerance=TOLERANCE)
        if not paying.any():
            return cls(paying, plain, None)
        rows = book.rows(paying)
        return cls(paying, plain, dividend_premiums(engine, rows, scenarios, SPOT_REACH, VOL_REACH))

    @property
    def error(self) -> float:
        return max(0.0 if one is None else one.error for one in (self.plain, self.dividends))

    def moved(self, spot: float, vol: Floats) -> _Contracts:
        plain = None if self.plain is None else self.plain.moved([spot], vol[~self.paying])
        paying = None if self.dividends is None else self.dividends.moved([spot], vol[self.paying])
        return _Contracts(self.paying, plain, paying)

    def premium_pnl(self, scenarios: gk.Scenarios) -> Floats:
        """What the right of early exercise adds to the P&L of every contract, (C, S)."""
        if self.dividends is None and self.plain is not None:
            return self.plain.premium_pnl(scenarios)
        out = np.empty((len(self.paying), len(scenarios)))
        if self.plain is not None:
            out[~self.paying] = self.plain.premium_pnl(scenarios)
        if self.dividends is not None:
            out[self.paying] = self.dividends.premium_pnl(scenarios)
        return out


class _Horizon(NamedTuple):
    columns: NDArray[np.intp]  # of the scenarios
    scenarios: gk.Scenarios
    book: _Contracts
    line: ScenarioLine | None

    @classmethod
    def of(cls, engine: gk.Engine, book: gk.Portfolio, scenarios: gk.Scenarios, horizon: float) -> _Horizon:
        columns = np.flatnonzero(scenarios.elapsed == horizon)
        part = scenarios.select(columns)
        return cls(columns, part, _Contracts.of(engine, book, part), ScenarioLine.through(part))


@dataclass(slots=True)
class _Wide:
    """Interpolants of a block's contracts, one set for each horizon of the scenarios."""

    rows: NDArray[np.int64]
    spot: float
    vol: Floats
    rate: float
    dividend_yield: float
    time_ns: int
    until_ns: int
    count: int  # scenarios
    horizons: tuple[_Horizon, ...]
    line_error: float = 0.0  # of one premium at the last look, as a part of the spot

    @classmethod
    def of(cls, engine: gk.Engine, now: PremiumInputs, scenarios: gk.Scenarios) -> _Wide:
        book = gk.Portfolio(options=now.options(), quantity=np.ones(len(now.rows)))
        return cls(
            rows=now.rows,
            spot=now.spot,
            vol=now.vol,
            rate=now.rate,
            dividend_yield=now.dividend_yield,
            time_ns=now.time_ns,
            until_ns=until_ns(now.time_ns, lasts(book, scenarios)),
            count=len(scenarios),
            horizons=tuple(_Horizon.of(engine, book, scenarios, one) for one in np.unique(scenarios.elapsed)),
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
            and now.time_ns < self.until_ns
            and (self.rate, self.dividend_yield) == (now.rate, now.dividend_yield)
            and abs(np.log(now.spot / self.spot)) <= SPOT_REACH
            and bool((np.abs(now.vol - self.vol) <= VOL_REACH).all())
        )

    def changes(self, now: PremiumInputs, weights: Weights) -> Floats:
        """Sums over contracts of what the premiums change by, (cells, scenarios)."""
        out = np.empty((weights.shape[0], self.count))
        self.line_error = 0.0
        for one in self.horizons:
            moved = one.book.moved(now.spot, now.vol)
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

    def prepare(self, slot: int, now: PremiumInputs, scenarios: Callable[[], gk.Scenarios]) -> bool:
        """Makes interpolants where those at hand do not cover this moment of the market."""
        held = self._held.get(slot)
        if held is None or not held.covers(now):
            self._held[slot] = _Wide.of(self.engine, now, scenarios())
            self.built += 1
        return True

    def awaited(self, slots: set[int]) -> set[int]:
        """Nothing is: what is missing is made at once."""
        return set()

    def add(self, block: Block, now: PremiumInputs, points: Floats, pnl: Floats) -> None:
        """Adds premiums to the numbers of the block's cells; today's are worked out in full."""
        weights = block.weights(now.rows)
        pnl[block.cells] += self._held[block.slot].changes(now, weights)
        if self.with_points:
            options = now.options()
            european = self.engine.greeks(options.replace(american=False))
            american = self.engine.greeks(options)
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
