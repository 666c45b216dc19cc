"""What given scenarios do to a book."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from risk_service.on_demand.blocks import Revaluer
from risk_service.on_demand.books import ValuedBook

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StressAnswer:
    """P&L per scenario, and by group (G, S) and position (P, S) where asked for."""

    pnl: Floats
    by_group: Floats | None
    by_position: Floats | None
    value_today: float


def stress(
    revaluer: Revaluer, book: ValuedBook, scenarios: gk.Scenarios, *, by_group: bool, by_position: bool
) -> StressAnswer:
    """Full revaluation of the book in every scenario."""
    portfolio = book.portfolio
    groups = book.by_group(revaluer.pnl_by_group(portfolio, scenarios)) if by_group else None
    positions = book.by_position(revaluer.pnl_by_position(portfolio, scenarios)) if by_position else None
    return StressAnswer(
        pnl=revaluer.pnl(portfolio, scenarios),
        by_group=groups,
        by_position=positions,
        value_today=value_today(revaluer.engine, book),
    )


def value_today(engine: gk.Engine, book: ValuedBook) -> float:
    """What the positions that can be valued are worth now, in currency."""
    portfolio, linear = book.portfolio, book.portfolio.linear
    options = portfolio.quantity * portfolio.multiplier * engine.price(book.valuation.options).price
    return float(options.sum() + (linear.quantity * linear.multiplier * linear.spot).sum())
