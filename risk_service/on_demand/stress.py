"""What given scenarios do to a book."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.reverse_stress import ReverseStress, reverse_stress
from risk_service.on_demand.blocks import Revaluer
from risk_service.on_demand.books import ValuedBook

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ReverseQuestion:
    """How much is lost, and by the law of which market; per year, years."""

    loss: float
    cov: Floats
    horizon: float
    vol_beta: Floats
    deviations_max: float


@dataclass(frozen=True, slots=True)
class StressAnswer:
    """P&L per scenario, and by group (G, S) and position (P, S) where asked for."""

    pnl: Floats
    by_group: Floats | None
    by_position: Floats | None
    value_today: float
    reverse: ReverseStress | None = None


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


def reverse(revaluer: Revaluer, book: ValuedBook, asked: ReverseQuestion) -> ReverseStress:
    """The most likely scenario in which the book loses so much."""
    return reverse_stress(
        revaluer.engine,
        book.portfolio,
        asked.loss,
        cov=asked.cov,
        horizon=asked.horizon,
        vol_beta=asked.vol_beta,
        deviations_max=asked.deviations_max,
    )


def value_today(engine: gk.Engine, book: ValuedBook) -> float:
    """What the positions that can be valued are worth now, in currency."""
    portfolio = book.portfolio
    options = portfolio.quantity * portfolio.multiplier * engine.price(book.valuation.options).price
    return float(options.sum() + book.valuation.linear_value.sum())
