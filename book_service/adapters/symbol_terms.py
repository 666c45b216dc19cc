"""A source's symbols and prices in the house's terms: our names, and prices that are exactly on our ticks.

Two feeds write the same price with different noise in its last digits, and a book keeps its levels by
price. So a price within a millionth of a tick of the grid becomes the double nearest to that multiple. One
that is off the grid (a midpoint print) is left alone and counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from book_service.adapters.errors import PlanError, SymbolError
from book_service.adapters.raw_columns import RawColumns

ON_GRID = 1e-6  # of a tick
_PRICES = ("bid", "ask", "price")
_EXACT = 2.0**53


@dataclass(slots=True)
class SymbolTerms:
    """How one source's symbols are called here. `tick_size` is by our symbol, in currency; 0: not known."""

    ours: Mapping[str, str] = field(default_factory=dict)
    only_mapped: bool = False  # others of the source's symbols are left out
    tick_size: Mapping[str, float] = field(default_factory=dict)
    default_tick_size: float = 0.0
    left_out: int = 0  # events
    off_grid: int = 0  # prices
    _table: tuple[str, ...] = ()
    _names: tuple[str, ...] = ()
    _kept: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    _ticks: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))

    def __post_init__(self) -> None:
        if len(set(self.ours.values())) != len(self.ours):
            raise PlanError("map", "two of the source's symbols have the same name here")
        for symbol, tick in [*self.tick_size.items(), ("default", self.default_tick_size)]:
            if not 0.0 <= tick < math.inf:
                raise PlanError("tick_size", f"{symbol}: {tick!r} is no tick size")

    def apply(self, events: RawColumns) -> RawColumns:
        """The same events in our terms."""
        if events.symbols != self._table:
            self._learn(events.symbols)
        columns = dict(events.columns)
        kept = self._kept[columns["symbol_index"]]
        if not kept.all():
            self.left_out += int(kept.size - np.count_nonzero(kept))
            columns = {name: values[kept] for name, values in columns.items()}
        terms = self._ticks[columns["symbol_index"]]
        if terms.size and terms.any():
            for name in _PRICES:
                if name in columns:
                    columns[name] = self._on_grid(columns[name], terms[:, 0], terms[:, 1])
        return RawColumns(events.source, self._names, columns)

    def _learn(self, symbols: tuple[str, ...]) -> None:
        names = tuple(self.ours.get(symbol, symbol) for symbol in symbols)
        kept = [not self.only_mapped or symbol in self.ours for symbol in symbols]
        seen: dict[str, str] = {}
        for symbol, name, keep in zip(symbols, names, kept, strict=True):
            if keep and seen.setdefault(name, symbol) != symbol:
                raise SymbolError(f"symbols {seen[name]!r} and {symbol!r} would both be {name!r} here")
        sizes = [self.tick_size.get(name, self.default_tick_size) for name in names]
        self._table, self._names = symbols, names
        self._kept = np.array(kept, np.bool_)
        self._ticks = np.array([_fraction(size) for size in sizes], np.float64).reshape(len(sizes), 2)

    def _on_grid(
        self, prices: NDArray[Any], whole: NDArray[np.float64], parts: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Prices whose tick is whole / parts."""
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            ticks = prices * parts / whole
            multiple = np.rint(ticks)
            real = (whole > 0.0) & (prices > 0.0) & (prices < math.inf)
            near = real & (np.abs(ticks - multiple) <= ON_GRID) & (multiple * whole < _EXACT)
            # One rounding of an exact quotient: the double nearest to the decimal price.
            exact = multiple * whole / parts
        self.off_grid += int(np.count_nonzero(real & ~near))
        return np.where(near, exact, prices)


def _fraction(tick: float) -> tuple[float, float]:
    """A tick size as written, 0.05, as a quotient of whole numbers, 5 / 100; zeros without one."""
    if not tick:
        return 0.0, 0.0
    exponent = int(Decimal(repr(tick)).normalize().as_tuple().exponent)
    parts = 10 ** max(0, -exponent)
    return float(round(Decimal(repr(tick)) * parts)), float(parts)
