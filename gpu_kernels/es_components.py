"""Where an expected shortfall comes from: its parts by position and group, and what a trade does to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpu_kernels.errors import InvalidInput
from gpu_kernels.portfolio import Portfolio
from gpu_kernels.revaluation import position_pnl
from gpu_kernels.scenarios import Scenarios
from gpu_kernels.tail_risk import Convention, Tail, TailRisk, tail_risk, tail_scenarios

if TYPE_CHECKING:
    from gpu_kernels.engines.engine import Engine

Floats = NDArray[np.float64]

# Position × scenario numbers held at once while components are worked out (32 MiB).
COMPONENT_BLOCK = 1 << 22


@dataclass(frozen=True)
class EsComponents:
    """An expected shortfall split by Euler's rule: each part is the position's mean loss in the book's tail.

    The parts add up to ``es``. A part is also the derivative of ``es`` to a relative change of that position.
    """

    level: float
    es: float
    by_position: Floats
    by_group: Floats | None
    tail: Tail


@dataclass(frozen=True)
class TradeImpact:
    """What a candidate trade does to the expected shortfall, in currency."""

    before: TailRisk
    after: TailRisk
    marginal: float  # derivative of ES towards the trade, per one whole trade
    incremental: float  # ES after minus ES before


def component_es(
    engine: Engine,
    portfolio: Portfolio,
    scenarios: Scenarios,
    level: float = 0.975,
    convention: Convention = "exact_tail",
    *,
    pnl: ArrayLike | None = None,
) -> EsComponents:
    """Euler components of ES by position (options, then linear) and by group; only the tail is priced twice.

    ``pnl`` is the book's P&L under ``scenarios`` where it is at hand, else it is worked out here.
    """
    total = engine.revalue(portfolio, scenarios) if pnl is None else np.asarray(pnl, dtype=np.float64)
    if total.shape != (len(scenarios),):
        raise InvalidInput("pnl", f"must have shape ({len(scenarios)},), got {total.shape}")
    tail = tail_scenarios(total, level, convention, weights=scenarios.weights)
    inside = scenarios.select(tail.index)
    parts = np.empty(len(portfolio))
    step = max(1, COMPONENT_BLOCK // max(1, len(inside)))
    for start in range(0, len(portfolio), step):
        rows = np.arange(start, min(start + step, len(portfolio)))
        book = portfolio if len(rows) == len(portfolio) else portfolio.rows(rows)
        parts[rows] = -(position_pnl(engine, book, inside) @ tail.weight)
    groups = None
    if portfolio.group is not None:
        groups = np.zeros(portfolio.groups)
        np.add.at(groups, portfolio.group, parts)
    return EsComponents(level=level, es=tail.es, by_position=parts, by_group=groups, tail=tail)


def trade_impact(
    engine: Engine,
    portfolio: Portfolio,
    trade: Portfolio,
    scenarios: Scenarios,
    level: float = 0.975,
    convention: Convention = "exact_tail",
    *,
    pnl: ArrayLike | None = None,
) -> TradeImpact:
    """ES before and after ``trade`` is added, and its derivative towards the trade; only the trade is priced.

    ``pnl`` is the book's P&L under ``scenarios`` where it is at hand, else it is worked out here.
    """
    held = engine.revalue(portfolio, scenarios) if pnl is None else np.asarray(pnl, dtype=np.float64)
    added = engine.revalue(trade, scenarios)
    tail = tail_scenarios(held, level, convention, weights=scenarios.weights)
    before = tail_risk(held, level, convention, weights=scenarios.weights)
    after = tail_risk(held + added, level, convention, weights=scenarios.weights)
    return TradeImpact(
        before=before,
        after=after,
        marginal=-float(np.dot(tail.weight, added[tail.index])),
        incremental=after.es - before.es,
    )
