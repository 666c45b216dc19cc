"""Answers as tables of the kind that the question came in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from protos.risk.v1 import risk_pb2 as wire
from risk_client.answers import ExpectedShortfall, Floats, Hedge, StressTest, WhatIf
from risk_client.given import table_kind
from risk_client.scenario_tables import scenario_names
from risk_client.tables import Kind, frame_columns, new_table, refused, with_columns


@dataclass(frozen=True, slots=True)
class Asked:
    """The tables of a question: `rows` are positions, `scenarios` scenarios; None where it had none."""

    kind: Kind | None
    rows: Any
    scenarios: Any
    groups: tuple[str, ...]

    @classmethod
    def of(cls, rows: Any, scenarios: Any, held: wire.Portfolio | None) -> Asked:
        """What a caller gave, each a table or not; `held` is the portfolio, where it is known."""
        kinds = table_kind(rows), table_kind(scenarios)
        return cls(
            kinds[0] or kinds[1],
            rows if kinds[0] else None,
            scenarios if kinds[1] else None,
            () if held is None else tuple(held.groups),
        )

    @property
    def has_table(self) -> bool:
        """Whether anything was a table."""
        return self.kind is not None

    def stress(self, answer: StressTest) -> StressTest:
        """The answer with its tables."""
        if self.kind is None:
            return answer
        columns: dict[str, Any] = {"name": self._named(answer.names), "pnl": answer.pnl}
        if answer.pnl_by_group is not None:
            names = self._group_names(len(answer.pnl_by_group))
            columns |= {f"pnl.{name}": row for name, row in zip(names, answer.pnl_by_group, strict=True)}
        positions = None
        if answer.pnl_by_position is not None:
            by_scenario = zip(columns["name"], answer.pnl_by_position.T, strict=True)
            positions = self._beside({f"pnl.{name}": row for name, row in by_scenario}, answer.provenance)
        return replace(answer, by_scenario=new_table(self.kind, columns), positions=positions)

    def shortfall(self, answer: ExpectedShortfall) -> ExpectedShortfall:
        """The answer with its tables."""
        if self.kind is None:
            return answer
        by_level = new_table(self.kind, _tail_columns(answer.tail))
        by_scenario = by_group = positions = None
        if answer.pnl.size and self.scenarios is not None:
            columns = {"name": scenario_names(self.scenarios), "pnl": answer.pnl}
            by_scenario = new_table(self.kind, columns)
        if answer.component_by_group.size:
            names = self._group_names(answer.component_by_group.size)
            columns = {"group": names, "expected_shortfall": answer.component_by_group}
            by_group = new_table(self.kind, columns)
        if answer.component_by_position.size:
            parts = {"expected_shortfall": answer.component_by_position}
            positions = self._beside(parts, answer.provenance)
        return replace(
            answer, by_level=by_level, by_scenario=by_scenario, by_group=by_group, positions=positions
        )

    def what_if(self, answer: WhatIf) -> WhatIf:
        """The answer with its table: a row before the trade, a row after it."""
        if self.kind is None:
            return answer
        columns = {"portfolio": ["before", "after"], **_tail_columns((answer.before, answer.after))}
        return replace(answer, table=new_table(self.kind, columns))

    def hedge(self, answer: Hedge) -> Hedge:
        """The answer with its table: the instruments, what to trade of each, and what that costs."""
        if self.kind is None:
            return answer
        columns = {"trade": answer.trade, "cost": answer.cost}
        if self.rows is not None:
            return replace(answer, trades=self._beside(columns, answer.provenance))
        return replace(answer, trades=new_table(self.kind, {"symbol": list(answer.symbols), **columns}))

    def _named(self, names: Sequence[str]) -> list[str]:
        """The service's names; those of the table's rows where it has none."""
        own = [] if self.scenarios is None else scenario_names(self.scenarios)
        return [name or own[row] for row, name in enumerate(names)]

    def _group_names(self, count: int) -> list[str]:
        """The portfolio's groups; what is held through fills alone is one more."""
        return [*self.groups, "filled"][:count] if self.groups else ["all"][:count]

    def _beside(self, columns: dict[str, Floats], provenance: wire.Provenance) -> Any:
        """The caller's positions with these columns behind their own; None where they were no table."""
        if self.rows is None or self.kind is None or table_kind(self.rows) != self.kind:
            return None
        there = list(self.rows) if self.kind == "numpy" else frame_columns(self.rows, self.kind)
        for name in columns:
            if name in there:
                raise refused(
                    name, "is in the table already: rename it, the answer has a column of this name"
                )
        return with_columns(self.rows, self.kind, columns, provenance)


def _tail_columns(tails: Sequence[wire.TailRisk]) -> dict[str, Floats]:
    names = ("level", "value_at_risk", "expected_shortfall", "expected_shortfall_std_error")
    return {name: np.array([getattr(one, name) for one in tails]) for name in names}
