"""When to trade next in an underlying, and how much of it to hold: plans and Kelly's sizes of a book."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.hedging import Hedge, RebalancingPlan, rebalancing_plan
from gpu_kernels.optimise.kelly import kelly_sizes
from risk_service.on_demand.books import ValuedBook
from risk_service.on_demand.hedging import Instruments, book_exposures
from risk_service.on_demand.patient_engine import PatientEngine
from service_kit.errors import InvalidRequest

Floats = NDArray[np.float64]

# Spots on either side at which a rebalancing plan looks.
PLAN_STEPS = 400


def plans(
    engine: PatientEngine, book: ValuedBook, instruments: Instruments, band: Floats, reach: float
) -> tuple[RebalancingPlan, ...]:
    """When to trade next in each instrument, in its units; `reach` is a part of the spot."""
    if not instruments.one_linear_each():
        raise InvalidRequest("plan_reach", "needs one spot or future per underlying")
    held, portfolio = instruments.book.held, book.portfolio
    found, units = [], instruments.unit_deltas.tolist()
    for row, underlying in enumerate(held.underlying_index.tolist()):
        unit = units[row]
        if not (portfolio.position_underlying == underlying).any():
            none = np.zeros(0)
            found.append(RebalancingPlan(0.0, none, none, none, none))
            continue
        plan = rebalancing_plan(
            engine,
            portfolio,
            underlying,
            band=float(band[row]) * unit,
            lot_size=float(instruments.lot_size[row]) * unit,
            reach=reach,
            steps=PLAN_STEPS,
        )
        up, down = plan.trades_up / unit, plan.trades_down / unit
        found.append(RebalancingPlan(plan.due_now / unit, plan.spots_up, up, plan.spots_down, down))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class KellyQuestion:
    """How much is expected of each instrument's underlying, and how far to go; per year, in currency."""

    mean: Floats
    cov: Floats
    words: str  # where the covariance comes from
    capital: float
    fraction: float
    leverage: float  # infinite where there is no bound


def size_by_kelly(
    engine: PatientEngine, book: ValuedBook, instruments: Instruments, asked: KellyQuestion
) -> Hedge:
    """Trades that bring what the book holds, by its delta, to fractional Kelly's holdings."""
    if not instruments.one_linear_each():
        raise InvalidRequest("instruments", "must be one spot or future per underlying")
    held = instruments.book.held
    place, unit = held.underlying_index, instruments.unit_deltas
    deltas = book_exposures(engine, book).delta
    engine.patience.check()
    whole = kelly_sizes(
        asked.mean,
        asked.cov,
        spot=np.nan_to_num(instruments.book.valuation.spots)[place],
        capital=asked.capital,
        fraction=asked.fraction,
        held=deltas[place],
        lot_size=instruments.lot_size * unit,
        limit=instruments.limit * unit,
        leverage=asked.leverage,
        cost_per_lot=instruments.cost_per_lot,
        budget=instruments.budget,
        check=engine.patience.check,
    )
    return replace(whole, trades=whole.trades / unit)
