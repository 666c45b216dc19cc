"""Options under scenarios as options of their own: the plain way to revalue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.dividend_schedules import CashDividends
from gpu_kernels.options import Options
from gpu_kernels.portfolio import Portfolio
from gpu_kernels.revaluation import Shocks
from gpu_kernels.scenarios import VOL_FLOOR

if TYPE_CHECKING:
    from gpu_kernels.engines.engine import Engine

Floats = NDArray[np.float64]

# Prices in one call of an engine where options are priced one by one under each scenario.
REPRICED_AT_ONCE = 1 << 17
EVERY_ROW = slice(None)


def repriced_pnl(engine: Engine, portfolio: Portfolio, shocks: Shocks, out: Floats) -> None:
    """P&L of each option row under the shocks (P, S): each is priced as an option of its own."""
    step = max(1, REPRICED_AT_ONCE // max(1, shocks.scenarios))
    for start in range(0, portfolio.options, step):
        rows = slice(start, min(start + step, portfolio.options))
        before = engine.price(options_of(portfolio, rows)).price
        after = engine.price(shocked_options(portfolio, shocks, rows)).price
        size = portfolio.quantity[rows] * portfolio.multiplier[rows]
        out[rows] = size[:, None] * (after - before[:, None])


def options_of(portfolio: Portfolio, rows: slice = EVERY_ROW) -> Options:
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
        dividends=_dividends_of(portfolio, rows),
    )


def _dividends_of(portfolio: Portfolio, rows: slice) -> CashDividends | None:
    held = portfolio.dividends
    return None if held is None else held.rows(rows, portfolio.options)


def shocked_options(portfolio: Portfolio, shocks: Shocks, rows: slice = EVERY_ROW) -> Options:
    """The options of some rows under every scenario, shape (rows, S).

    Dividends keep their amounts; those paid within the horizon are gone.
    """
    column = portfolio.underlying[rows]
    shape = (len(column), shocks.scenarios)

    def wide(values: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(np.broadcast_to(values[:, None], shape))

    dividends = _dividends_of(portfolio, rows)
    if dividends is not None:
        every = np.repeat(np.arange(len(column)), shocks.scenarios)
        dividends = dividends.after(shocks.elapsed).rows(every, len(column))
    rate_change = np.zeros(shocks.scenarios) if shocks.rate_change is None else shocks.rate_change
    return Options(
        spot=portfolio.spot[rows, None] * np.exp(shocks.spot_return[column]),
        strike=wide(portfolio.strike[rows]),
        expiry=wide(np.maximum(portfolio.expiry[rows] - shocks.elapsed, 0.0)),
        vol=np.maximum(portfolio.vol[rows, None] + vol_changes(portfolio, shocks, rows), VOL_FLOOR),
        rate=portfolio.rate[rows, None] + rate_change,
        dividend_yield=wide(portfolio.dividend_yield[rows]),
        is_call=wide(portfolio.is_call[rows]),
        american=wide(portfolio.american[rows]),
        dividends=dividends,
    )


def vol_changes(portfolio: Portfolio, shocks: Shocks, rows: slice = EVERY_ROW) -> Floats:
    """Change of vol per option row and scenario, shock surface included."""
    column = portfolio.underlying[rows]
    change = shocks.vol_change[column if len(shocks.vol_change) > 1 else np.zeros_like(column)]
    if shocks.surface is not None and shocks.node is not None and shocks.node_weight is not None:
        nodes = shocks.surface[shocks.node[rows]]
        change = change + np.einsum("pk,pks->ps", shocks.node_weight[rows], nodes)
    return change


def kinked_in_rate(portfolio: Portfolio, low: float, high: float) -> NDArray[np.bool_]:
    """Rows whose exercise boundary is not smooth while the rate changes by low to high.

    It has a kink where the rate crosses the yield, and where it crosses 0 under a put.
    """
    if high <= low:
        return np.zeros(portfolio.options, dtype=bool)
    least, most = portfolio.rate + low, portfolio.rate + high
    crosses = (least <= portfolio.dividend_yield) & (portfolio.dividend_yield <= most)
    return np.asarray(crosses | (~portfolio.is_call & (least <= 0.0)))
