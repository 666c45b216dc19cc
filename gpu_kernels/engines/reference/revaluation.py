"""Full revaluation the obvious way: every option under every scenario is priced as an option of its own."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.engines.engine import Engine
from gpu_kernels.portfolio import Portfolio
from gpu_kernels.revaluation import Shocks, position_pnl_with, revalue_with
from gpu_kernels.scenarios import Scenarios
from gpu_kernels.shocked_options import REPRICED_AT_ONCE, repriced_pnl

Floats = NDArray[np.float64]


def revalue(engine: Engine, portfolio: Portfolio, scenarios: Scenarios, by: str | None, out: Any) -> Floats:
    """P&L per scenario (S,), or per group and scenario (G, S)."""
    return revalue_with(partial(_group_pnl, engine), portfolio, scenarios, by, out)


def position_pnl(engine: Engine, portfolio: Portfolio, scenarios: Scenarios) -> Floats:
    """P&L per position and scenario (P, S)."""
    return position_pnl_with(partial(repriced_pnl, engine), portfolio, scenarios)


def _group_pnl(engine: Engine, portfolio: Portfolio, shocks: Shocks, out: Floats) -> None:
    out[:] = 0.0
    step = max(1, REPRICED_AT_ONCE // max(1, shocks.scenarios))
    for start in range(0, portfolio.options, step):
        rows = np.arange(start, min(start + step, portfolio.options))
        pnl = np.empty((len(rows), shocks.scenarios))
        repriced_pnl(engine, portfolio.rows(rows), shocks.of_rows(rows), pnl)
        if portfolio.group is None:
            out[0] += pnl.sum(axis=0)
        else:
            np.add.at(out, portfolio.group[rows], pnl)
