"""Expected shortfall of a book, its parts, and what a trade does to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.es_components import TradeImpact, component_es, trade_impact
from gpu_kernels.tail_risk import Convention, tail_risks
from risk_service.on_demand.blocks import Revaluer
from risk_service.on_demand.books import ValuedBook

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TailAnswer:
    """One tail per level; components at the first level, where asked for."""

    tails: tuple[gk.TailRisk, ...]
    pnl: Floats
    by_position: Floats | None
    by_group: Floats | None


def expected_shortfall(
    revaluer: Revaluer,
    book: ValuedBook,
    scenarios: gk.Scenarios,
    levels: Sequence[float],
    convention: Convention,
    *,
    components: bool,
    pnl: Floats | None = None,
) -> TailAnswer:
    """Tail risk of the book under the scenarios; `pnl` is its vector where that is at hand."""
    vector = revaluer.pnl(book.portfolio, scenarios) if pnl is None else pnl
    tails = tail_risks(vector, levels, convention, weights=scenarios.weights)
    if not components:
        return TailAnswer(tails, vector, None, None)
    revaluer.patience.check()
    parts = component_es(revaluer.engine, book.portfolio, scenarios, levels[0], convention, pnl=vector)
    by_group = None if parts.by_group is None else book.by_group(parts.by_group)
    return TailAnswer(tails, vector, book.by_position(parts.by_position), by_group)


def what_if(
    revaluer: Revaluer,
    book: ValuedBook,
    trade: ValuedBook,
    scenarios: gk.Scenarios,
    level: float,
    pnl: Floats | None = None,
) -> TradeImpact:
    """The book's ES with and without the trade; `pnl` is the book's vector where that is at hand."""
    vector = revaluer.pnl(book.portfolio, scenarios) if pnl is None else pnl
    revaluer.patience.check()
    return trade_impact(revaluer.engine, book.portfolio, trade.portfolio, scenarios, level, pnl=vector)
