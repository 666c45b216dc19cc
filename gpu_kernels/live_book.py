"""A portfolio that is revalued at every tick: only positions whose underlying moved are priced again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.errors import InvalidInput
from gpu_kernels.portfolio import Portfolio
from gpu_kernels.revaluation import check
from gpu_kernels.scenarios import Scenarios

if TYPE_CHECKING:
    from gpu_kernels.engines.engine import Engine

Floats = NDArray[np.float64]


class LiveBook:
    """The scenario P&L of a portfolio, one vector per underlying, so a tick costs its own positions only.

    The total after any sequence of ticks equals a fresh book at the same market, bit for bit: vectors are
    never corrected by differences but replaced, and always added in the order of the underlyings.
    """

    def __init__(self, engine: Engine, portfolio: Portfolio, scenarios: Scenarios) -> None:
        check(portfolio, scenarios)
        self._engine = engine
        self._scenarios = scenarios
        underlying = portfolio.position_underlying
        self._parts = {int(u): portfolio.rows(underlying == u) for u in np.unique(underlying)}
        self._pnl = np.zeros((len(self._parts), len(scenarios)))
        self._place = {u: place for place, u in enumerate(self._parts)}
        for u in self._parts:
            self._revalue(u)

    @property
    def scenarios(self) -> Scenarios:
        """The scenarios in use."""
        return self._scenarios

    @property
    def underlyings(self) -> tuple[int, ...]:
        """Underlyings with positions, in the order of ``pnl_by_underlying``."""
        return tuple(self._parts)

    @property
    def pnl_by_underlying(self) -> Floats:
        """P&L per underlying with positions and scenario, in currency."""
        return self._pnl

    def pnl(self) -> Floats:
        """P&L of the whole book in every scenario (S,), in currency."""
        total = np.zeros(len(self._scenarios))
        for row in self._pnl:
            total += row
        return total

    def move(self, spots: Mapping[int, float]) -> Floats:
        """Set new spot prices by underlying and return the new P&L (S,); other underlyings cost nothing."""
        for u, spot in spots.items():
            if not (np.isfinite(spot) and spot >= 0.0):
                raise InvalidInput("spots", f"is {spot} for underlying {u}", int(u))
        for u, spot in spots.items():
            if u in self._parts:
                at = np.zeros(u + 1)
                at[u] = spot
                self._parts[u] = self._parts[u].with_spots(at)
                self._revalue(u)
        return self.pnl()

    def replace(self, underlying: int, portfolio: Portfolio) -> Floats:
        """Put ``portfolio``, of this underlying only, in place of its positions; new vols come in so too."""
        check(portfolio, self._scenarios)
        if len(portfolio) and set(np.unique(portfolio.position_underlying)) != {underlying}:
            raise InvalidInput("portfolio", f"must hold positions of underlying {underlying} only")
        if underlying not in self._parts:
            self._insert(underlying)
        self._parts[underlying] = portfolio
        self._revalue(underlying)
        return self.pnl()

    def _insert(self, underlying: int) -> None:
        order = sorted([*self._parts, underlying])
        vectors = {u: self._pnl[place] for u, place in self._place.items()}
        self._pnl = np.stack([vectors.get(u, np.zeros(len(self._scenarios))) for u in order])
        self._place = {u: place for place, u in enumerate(order)}
        self._parts = {u: self._parts[u] if u != underlying else Portfolio() for u in order}

    def _revalue(self, underlying: int) -> None:
        part = self._parts[underlying]
        self._engine.revalue(part, self._scenarios, out=self._pnl[self._place[underlying]])
