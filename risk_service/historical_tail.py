"""VaR and ES of historical P&L, thousands of times a second: `gk.tail_risk` to the bit, checks once only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.tail_risk import INTEGER_TOLERANCE, THIN_TAIL, tail_scenarios

Floats = NDArray[np.float64]


class _Cut(NamedTuple):
    worst: int  # outcomes in the tail, the last one in part
    weight: Floats


class BookTail(NamedTuple):
    """A tail, and the scenarios that make it up with their weights."""

    risk: gk.TailRisk
    scenarios: NDArray[np.intp]
    weight: Floats

    def parts(self, pnl: Floats) -> Floats:
        """Components of the ES, one per row of P&L (rows, S) that adds up to the book's."""
        return np.asarray(-(pnl[:, self.scenarios] @ self.weight))


@dataclass(slots=True)
class HistoricalTail:
    """VaR and ES at one level; what depends on the number of scenarios only is worked out once."""

    level: float
    _cuts: dict[int, _Cut | None] = field(default_factory=dict)

    def of(self, pnl: Floats) -> BookTail:
        """The tail of these outcomes (S,); InvalidInput where one of them is beyond all numbers."""
        count = len(pnl)
        if count not in self._cuts:
            self._cuts[count] = _cut(count, self.level)
        cut = self._cuts[count]
        # What needs a warning or a refusal gets it from gpu_kernels.
        if cut is None or not np.isfinite(pnl.sum()):
            risk, tail = gk.tail_risk(pnl, self.level), tail_scenarios(pnl, self.level)
            return BookTail(risk, tail.index, tail.weight)
        index = np.argpartition(pnl, cut.worst - 1)[: cut.worst]
        worst = pnl[index]
        order = np.argsort(worst)
        index, worst = index[order], worst[order]
        var, es = -float(worst[-1]), -float(np.dot(cut.weight, worst))
        mass, rest = 1.0 - self.level, var - es
        influence = np.maximum(-worst - var, 0.0) / mass + rest
        others = (count - cut.worst) * rest * rest
        error = float(np.sqrt(np.square(influence).sum() + others) / count)
        return BookTail(gk.TailRisk(self.level, "exact_tail", count, var, es, error), index, cut.weight)


def _cut(count: int, level: float) -> _Cut | None:
    k = count * (1.0 - level)
    if abs(k - round(k)) <= INTEGER_TOLERANCE:
        k = float(round(k))
    if k < THIN_TAIL:
        return None
    whole = int(np.floor(k))
    fraction = k - whole
    if fraction == 0.0:
        return _Cut(whole, np.full(whole, 1.0 / k))
    weight = np.full(whole + 1, 1.0 / k)
    weight[whole] = fraction / k
    return _Cut(whole + 1, weight)
