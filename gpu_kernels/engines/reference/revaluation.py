"""Full revaluation the obvious way: every option under every scenario is priced as an option of its own."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.engines.engine import Engine
from gpu_kernels.options import Options
from gpu_kernels.portfolio import Portfolio
from gpu_kernels.revaluation import Shocks, position_pnl_with, revalue_with
from gpu_kernels.scenarios import VOL_FLOOR, Scenarios

Floats = NDArray[np.float64]

# Prices in one array operation: enough to amortise Python, few enough to stay in the processor's cache.
CHUNK_PRICES = 1 << 17


def revalue(engine: Engine, portfolio: Portfolio, scenarios: Scenarios, by: str | None, out: Any) -> Floats:
    """P&L per scenario (S,), or per group and scenario (G, S)."""
    return revalue_with(partial(_group_pnl, engine), portfolio, scenarios, by, out)


def position_pnl(engine: Engine, portfolio: Portfolio, scenarios: Scenarios) -> Floats:
    """P&L per position and scenario (P, S)."""
    return position_pnl_with(partial(_position_pnl, engine), portfolio, scenarios)


def _group_pnl(engine: Engine, portfolio: Portfolio, shocks: Shocks, out: Floats) -> None:
    out[:] = 0.0
    for rows in _chunks(portfolio.options, shocks.scenarios):
        pnl = _rows_pnl(engine, portfolio, shocks, rows)
        if portfolio.group is None:
            out[0] += pnl.sum(axis=0)
        else:
            np.add.at(out, portfolio.group[rows], pnl)


def _position_pnl(engine: Engine, portfolio: Portfolio, shocks: Shocks, out: Floats) -> None:
    for rows in _chunks(portfolio.options, shocks.scenarios):
        out[rows] = _rows_pnl(engine, portfolio, shocks, rows)


def _chunks(options: int, scenarios: int) -> list[slice]:
    step = max(1, CHUNK_PRICES // max(1, scenarios))
    return [slice(start, min(start + step, options)) for start in range(0, options, step)]


def _rows_pnl(engine: Engine, portfolio: Portfolio, shocks: Shocks, rows: slice) -> Floats:
    """quantity · multiplier · (value under the scenario − value today), one row per option."""
    column = portfolio.underlying[rows]
    vol_change = shocks.vol_change[column if len(shocks.vol_change) > 1 else np.zeros_like(column)]
    if shocks.surface is not None and shocks.node is not None and shocks.node_weight is not None:
        nodes = shocks.surface[shocks.node[rows]]
        vol_change = vol_change + np.einsum("pk,pks->ps", shocks.node_weight[rows], nodes)
    rate_change = np.zeros(shocks.scenarios) if shocks.rate_change is None else shocks.rate_change
    shape = (len(column), shocks.scenarios)
    shocked = Options(
        spot=portfolio.spot[rows, None] * np.exp(shocks.spot_return[column]),
        strike=_wide(portfolio.strike[rows], shape),
        expiry=_wide(np.maximum(portfolio.expiry[rows] - shocks.elapsed, 0.0), shape),
        vol=np.maximum(portfolio.vol[rows, None] + vol_change, VOL_FLOOR),
        rate=portfolio.rate[rows, None] + rate_change,
        dividend_yield=_wide(portfolio.dividend_yield[rows], shape),
        is_call=_wide(portfolio.is_call[rows], shape),
        american=_wide(portfolio.american[rows], shape),
    )
    change = engine.price(shocked).price - engine.price(today(portfolio, rows)).price[:, None]
    return (portfolio.quantity[rows] * portfolio.multiplier[rows])[:, None] * change


def today(portfolio: Portfolio, rows: slice) -> Options:
    """The options of some rows at today's inputs."""
    return Options(
        spot=portfolio.spot[rows],
        strike=portfolio.strike[rows],
        expiry=portfolio.expiry[rows],
        vol=portfolio.vol[rows],
        rate=portfolio.rate[rows],
        dividend_yield=portfolio.dividend_yield[rows],
        is_call=portfolio.is_call[rows],
        american=portfolio.american[rows],
    )


def _wide(column: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    return np.ascontiguousarray(np.broadcast_to(column[:, None], shape))
