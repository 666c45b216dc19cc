"""P&L of a book under scenarios, finite or refused, computed with the patience of one request."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from risk_service.on_demand.patience import Patience
from risk_service.on_demand.patient_engine import Limits, PatientEngine
from risk_service.on_demand.progress import Progress
from service_kit.errors import InvalidRequest

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Revaluer:
    """The engine of one request."""

    engine: PatientEngine

    @classmethod
    def of(
        cls, engine: gk.Engine, limits: Limits, patience: Patience, progress: Progress | None = None
    ) -> Revaluer:
        """An engine with the limits and the patience of one request."""
        return cls(PatientEngine(engine, limits, patience, progress))

    @property
    def patience(self) -> Patience:
        """How long the request goes on."""
        return self.engine.patience

    def pnl(self, portfolio: gk.Portfolio, scenarios: gk.Scenarios) -> Floats:
        """P&L of the portfolio in every scenario (S,), in currency."""
        return _finite(self.engine.revalue(portfolio, scenarios))

    def pnl_by_group(self, portfolio: gk.Portfolio, scenarios: gk.Scenarios) -> Floats:
        """P&L of every group in every scenario (G, S)."""
        answer: Floats = self.engine.revalue(portfolio, scenarios, by="group")
        return answer

    def pnl_by_position(self, portfolio: gk.Portfolio, scenarios: gk.Scenarios) -> Floats:
        """P&L of every position, options first, in every scenario (P, S)."""
        return self.engine.position_pnl(portfolio, scenarios)


def _finite(pnl: Floats) -> Floats:
    bad = np.flatnonzero(~np.isfinite(pnl))
    if bad.size:
        raise InvalidRequest("scenarios", "gives the book no finite value", int(bad[0]))
    return pnl
