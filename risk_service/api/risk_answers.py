"""What was computed, as responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.es_components import TradeImpact
from gpu_kernels.hedging import Hedge, RebalancingPlan
from gpu_kernels.tail_risk import Convention
from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from risk_service.live_risk import tail_message
from risk_service.on_demand.books import ValuedBook
from risk_service.on_demand.hedging import Instruments
from risk_service.on_demand.stress import StressAnswer
from risk_service.on_demand.tail import TailAnswer
from risk_service.worker.fallback import degraded_reason
from service_kit.errors import InvalidRequest


def convention(number: int) -> Convention:
    """The name of a tail convention."""
    if number not in wire.TailConvention.values():
        raise InvalidRequest("convention", f"{number} is no convention")
    return "discrete" if number == wire.TAIL_CONVENTION_DISCRETE else "exact_tail"


def came(engine: gk.Engine, book: ValuedBook, method: str) -> wire.Provenance:
    """Where an answer at the live market comes from."""
    why = degraded_reason(engine) or book.market.away
    return wire.Provenance(
        degraded=bool(why),
        degraded_reason=why,
        engine=engine.name,
        device=engine.device,
        method=method,
        market_snapshot_id=book.snapshot_id,
        data_age_ns=book.data_age_ns,
        executions_snapshot_id=book.executions_snapshot_id,
    )


def tail_response(
    book: ValuedBook,
    answer: TailAnswer,
    provenance: wire.Provenance,
    warnings: Sequence[str],
    *,
    with_pnl: bool,
) -> wire.ExpectedShortfallResponse:
    """Tails, components and, where asked for, the scenario vector."""
    response = wire.ExpectedShortfallResponse(
        tail=[_tail(tail, warnings) for tail in answer.tails],
        portfolio_version=book.held.version,
        scenarios=len(answer.pnl),
        provenance=provenance,
        filled=book.filled,
    )
    if answer.over_horizons is not None:
        response.liquidity_horizon_expected_shortfall = answer.over_horizons
    if answer.stressed is not None:
        start, stop, es = answer.stressed.start, answer.stressed.stop, answer.stressed.es
        response.stressed.CopyFrom(wire.StressedPeriod(start=start, stop=stop, expected_shortfall=es))
    _write(response, "component_by_position", answer.by_position)
    _write(response, "component_by_group", answer.by_group)
    _write(response, "pnl", answer.pnl if with_pnl else None)
    return response


def stress_response(
    book: ValuedBook,
    names: Sequence[str],
    answer: StressAnswer,
    provenance: wire.Provenance,
    warnings: Sequence[str],
) -> wire.StressTestResponse:
    """P&L per scenario, and the matrices asked for."""
    response = wire.StressTestResponse(
        name=names,
        value_today=answer.value_today,
        portfolio_version=book.held.version,
        provenance=provenance,
        warnings=warnings,
        filled=book.filled,
    )
    _write(response, "pnl", answer.pnl)
    if answer.reverse is not None:
        response.reverse.deviations, response.reverse.pnl = answer.reverse.deviations, answer.reverse.pnl
        packing.write(response.reverse, "spot_return", answer.reverse.spot_return)
        packing.write(response.reverse, "vol_change", answer.reverse.vol_change)
    _write_matrix(response.pnl_by_group, answer.by_group)
    _write_matrix(response.pnl_by_position, answer.by_position)
    return response


def what_if_response(
    book: ValuedBook, impact: TradeImpact, provenance: wire.Provenance, warnings: Sequence[str]
) -> wire.WhatIfResponse:
    """Before, after, and the difference."""
    return wire.WhatIfResponse(
        before=_tail(impact.before, warnings),
        after=_tail(impact.after, warnings),
        marginal=impact.marginal,
        incremental=impact.incremental,
        portfolio_version=book.held.version,
        provenance=provenance,
    )


def hedge_response(
    book: ValuedBook,
    instruments: Instruments,
    hedge: Hedge,
    provenance: wire.Provenance,
    warnings: Sequence[str],
    band: NDArray[np.float64] | None,
    plans: Sequence[RebalancingPlan] = (),
) -> wire.HedgeResponse:
    """A trade and its cost per instrument, the risk before and after, band and plans of a delta hedge."""
    response = wire.HedgeResponse(
        symbol=instruments.book.held.symbols,
        risk_before=hedge.risk_before,
        risk_after=hedge.risk_after,
        measure=hedge.measure,
        portfolio_version=book.held.version,
        provenance=provenance,
        warnings=warnings,
    )
    # −0.0 is no trade, and looks like one sold.
    packing.write(response, "trade", hedge.trades + 0.0)
    packing.write(response, "cost", hedge.costs)
    _write(response, "band", band)
    for plan in plans:
        message = response.plan.add(due_now=plan.due_now + 0.0)
        for field, values in (
            ("spot_up", plan.spots_up),
            ("trade_up", plan.trades_up),
            ("spot_down", plan.spots_down),
            ("trade_down", plan.trades_down),
        ):
            packing.write(message, field, values)
    return response


def _tail(tail: gk.TailRisk, warnings: Sequence[str]) -> wire.TailRisk:
    message = tail_message(tail)
    message.expected_shortfall_interval.extend(tail.es_interval or ())
    message.warnings.extend(warnings)
    return message


def _write(response: Any, field: str, values: NDArray[np.float64] | None) -> None:
    if values is not None:
        packing.write(response, field, values)


def _write_matrix(message: wire.Matrix, values: NDArray[np.float64] | None) -> None:
    if values is not None:
        message.rows, message.columns = values.shape
        packing.write(message, "values", values.reshape(-1))
