"""What the service answers, as records with arrays."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from risk_client.scenarios import array_of

Floats = NDArray[np.float64]


class RowStatus(IntEnum):
    """What became of one row; the numbers are those of `gpu_kernels.Status`."""

    OK = wire.ROW_STATUS_OK
    EXPIRED = wire.ROW_STATUS_EXPIRED
    INVALID_INPUT = wire.ROW_STATUS_INVALID_INPUT
    BELOW_INTRINSIC = wire.ROW_STATUS_BELOW_INTRINSIC
    ABOVE_MAXIMUM = wire.ROW_STATUS_ABOVE_MAXIMUM
    NOT_CONVERGED = wire.ROW_STATUS_NOT_CONVERGED
    NO_TIME_VALUE = wire.ROW_STATUS_NO_TIME_VALUE
    NO_MARKET_DATA = wire.ROW_STATUS_NO_MARKET_DATA
    NOT_VALUED_LIVE = wire.ROW_STATUS_NOT_VALUED_LIVE  # of live numbers: its table is being made


@dataclass(frozen=True, slots=True)
class Columns:
    """An answer in columns, `answer["delta"]`, with each row's `RowStatus` and where the numbers come from.

    The columns are arrays, or of the kind that was asked with: pandas or polars series, arrow arrays.
    """

    columns: dict[str, Any]
    status: Any
    provenance: wire.Provenance

    def __getitem__(self, name: str) -> Any:
        return self.columns[name]


@dataclass(frozen=True, slots=True)
class ExpectedShortfall:
    """Tail risk, one entry per level, losses positive; components are at the first level.

    The last four are tables of the caller's kind, where a table was asked with; `positions` is the caller's
    own with the column expected_shortfall, `by_scenario` needs a table of scenarios and `with_pnl`.
    """

    tail: tuple[wire.TailRisk, ...]
    component_by_position: Floats  # empty where not asked for
    component_by_group: Floats
    pnl: Floats
    portfolio_version: int
    scenarios: int
    provenance: wire.Provenance
    filled: tuple[str, ...] = ()  # held through fills alone: positions after the portfolio's own
    over_liquidity_horizons: float | None = None  # ES at the first level, where asked for
    stressed: wire.StressedPeriod | None = None
    by_level: Any = None
    by_group: Any = None
    by_scenario: Any = None
    positions: Any = None

    @classmethod
    def of(cls, answer: wire.ExpectedShortfallResponse) -> ExpectedShortfall:
        """Reads a response."""
        return cls(
            tail=tuple(answer.tail),
            component_by_position=packing.read(answer, "component_by_position"),
            component_by_group=packing.read(answer, "component_by_group"),
            pnl=packing.read(answer, "pnl"),
            portfolio_version=answer.portfolio_version,
            scenarios=answer.scenarios,
            provenance=answer.provenance,
            filled=tuple(answer.filled),
            over_liquidity_horizons=answer.liquidity_horizon_expected_shortfall
            if answer.HasField("liquidity_horizon_expected_shortfall")
            else None,
            stressed=answer.stressed if answer.HasField("stressed") else None,
        )


@dataclass(frozen=True, slots=True)
class StressTest:
    """P&L per scenario (S,), and by group (G, S) and position (P, S) where asked for.

    The last two are tables of the caller's kind, where a table was asked with: a row for each scenario, and
    the caller's positions with a column `pnl.NAME` for each.
    """

    names: tuple[str, ...]
    pnl: Floats
    pnl_by_group: Floats | None
    pnl_by_position: Floats | None
    value_today: float
    portfolio_version: int
    provenance: wire.Provenance
    warnings: tuple[str, ...] = ()  # what is not in the numbers, and why
    filled: tuple[str, ...] = ()  # held through fills alone: positions after the portfolio's own
    reverse: wire.ReverseStressAnswer | None = None
    by_scenario: Any = None
    positions: Any = None

    @classmethod
    def of(cls, answer: wire.StressTestResponse) -> StressTest:
        """Reads a response."""
        groups, positions = answer.HasField("pnl_by_group"), answer.HasField("pnl_by_position")
        return cls(
            names=tuple(answer.name),
            pnl=packing.read(answer, "pnl"),
            pnl_by_group=array_of(answer.pnl_by_group) if groups else None,
            pnl_by_position=array_of(answer.pnl_by_position) if positions else None,
            value_today=answer.value_today,
            portfolio_version=answer.portfolio_version,
            provenance=answer.provenance,
            warnings=tuple(answer.warnings),
            filled=tuple(answer.filled),
            reverse=answer.reverse if answer.HasField("reverse") else None,
        )


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Tail risk of a portfolio before and after a trade; losses positive."""

    before: wire.TailRisk
    after: wire.TailRisk
    marginal: float  # derivative of the expected shortfall towards the trade
    incremental: float  # after minus before
    portfolio_version: int
    provenance: wire.Provenance
    table: Any = None  # of the caller's kind, where the trade was a table: before and after in rows

    @classmethod
    def of(cls, answer: wire.WhatIfResponse) -> WhatIf:
        """Reads a response."""
        return cls(
            before=answer.before,
            after=answer.after,
            marginal=answer.marginal,
            incremental=answer.incremental,
            portfolio_version=answer.portfolio_version,
            provenance=answer.provenance,
        )


@dataclass(frozen=True, slots=True)
class Hedge:
    """Trades per instrument in its own units, their cost, and `measure` before and after."""

    symbols: tuple[str, ...]
    trade: Floats
    cost: Floats
    risk_before: float
    risk_after: float
    measure: str
    portfolio_version: int
    provenance: wire.Provenance
    warnings: tuple[str, ...] = ()  # what is not in the numbers, and why
    band: Floats | None = None  # of a delta hedge: half-width within which delta is left alone
    plan: tuple[wire.RebalancingPlan, ...] = ()  # per instrument, where plan_reach was given
    trades: Any = None  # a table of the caller's kind, where a table was asked with

    @classmethod
    def of(cls, answer: wire.HedgeResponse) -> Hedge:
        """Reads a response."""
        return cls(
            symbols=tuple(answer.symbol),
            trade=packing.read(answer, "trade"),
            cost=packing.read(answer, "cost"),
            risk_before=answer.risk_before,
            risk_after=answer.risk_after,
            measure=answer.measure,
            portfolio_version=answer.portfolio_version,
            provenance=answer.provenance,
            warnings=tuple(answer.warnings),
            band=packing.read(answer, "band") if answer.band else None,
            plan=tuple(answer.plan),
        )
