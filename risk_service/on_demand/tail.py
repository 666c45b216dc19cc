"""Expected shortfall of a book, its parts, and what a trade does to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.basel import StressedPeriod, stressed_period
from gpu_kernels.es_components import TradeImpact, component_es, trade_impact
from gpu_kernels.tail_risk import Convention, tail_risks
from risk_service.on_demand.blocks import Revaluer
from risk_service.on_demand.books import ValuedBook
from risk_service.on_demand.liquidity import Horizons, expected_shortfall_over
from service_kit.errors import InvalidRequest, TooLarge

Floats = NDArray[np.float64]

# Neither is cut into blocks, so that a deadline would find them late: outcomes drawn, outcomes looked at.
BOOTSTRAP_DRAWS_MAX = 50_000_000
STRESSED_OUTCOMES_MAX = 50_000_000
CONFIDENCE_DEFAULT = 0.95


@dataclass(frozen=True, slots=True)
class TailQuestion:
    """What is asked of a vector of outcomes; components and all that is not a tail at the first level."""

    levels: Sequence[float]
    convention: Convention = "exact_tail"
    components: bool = False
    bootstrap: int = 0  # resamples
    confidence: float = CONFIDENCE_DEFAULT
    horizons: Horizons | None = None
    stressed_window: int = 0  # scenarios; 0: not asked


@dataclass(frozen=True, slots=True)
class TailAnswer:
    """One tail per level, and what else was asked for."""

    tails: tuple[gk.TailRisk, ...]
    pnl: Floats
    by_position: Floats | None
    by_group: Floats | None
    over_horizons: float | None
    stressed: StressedPeriod | None


def expected_shortfall(
    revaluer: Revaluer,
    book: ValuedBook,
    scenarios: gk.Scenarios,
    asked: TailQuestion,
    pnl: Floats | None = None,
) -> TailAnswer:
    """Tail risk of the book under the scenarios; `pnl` is its vector where that is at hand."""
    vector = revaluer.pnl(book.portfolio, scenarios) if pnl is None else pnl
    level, convention = asked.levels[0], asked.convention
    _expect_affordable(asked, len(vector))
    tails = tail_risks(
        vector,
        asked.levels,
        convention,
        weights=scenarios.weights,
        bootstrap=asked.bootstrap,
        confidence=asked.confidence,
    )
    by_position = by_group = over = None
    if asked.components:
        revaluer.patience.check()
        parts = component_es(revaluer.engine, book.portfolio, scenarios, level, convention, pnl=vector)
        by_position = book.by_position(parts.by_position)
        by_group = None if parts.by_group is None else book.by_group(parts.by_group)
    if asked.horizons is not None:
        over = expected_shortfall_over(revaluer, book, scenarios, level, convention, asked.horizons)
    stressed = _stressed(vector, scenarios, asked) if asked.stressed_window else None
    return TailAnswer(tails, vector, by_position, by_group, over, stressed)


def what_if(
    revaluer: Revaluer,
    book: ValuedBook,
    trade: ValuedBook,
    scenarios: gk.Scenarios,
    level: float,
    convention: Convention,
    pnl: Floats | None = None,
) -> TradeImpact:
    """The book's ES with and without the trade; `pnl` is the book's vector where that is at hand."""
    vector = revaluer.pnl(book.portfolio, scenarios) if pnl is None else pnl
    revaluer.patience.check()
    return trade_impact(
        revaluer.engine, book.portfolio, trade.portfolio, scenarios, level, convention, pnl=vector
    )


def _expect_affordable(asked: TailQuestion, scenarios: int) -> None:
    drawn = asked.bootstrap * sum(scenarios * (1.0 - level) for level in asked.levels)
    if drawn > BOOTSTRAP_DRAWS_MAX:
        raise TooLarge(
            f"bootstrap: {asked.bootstrap} resamples of these tails are more than one request may ask"
        )
    if asked.stressed_window * max(0, scenarios - asked.stressed_window + 1) > STRESSED_OUTCOMES_MAX:
        raise TooLarge("stressed_window: more windows of this length than one request may ask for")


def _stressed(vector: Floats, scenarios: gk.Scenarios, asked: TailQuestion) -> StressedPeriod:
    if scenarios.weights is not None:
        raise InvalidRequest(
            "stressed_window", "needs scenarios that weigh alike, in the order of their days"
        )
    return stressed_period(vector, asked.stressed_window, asked.levels[0], asked.convention)
