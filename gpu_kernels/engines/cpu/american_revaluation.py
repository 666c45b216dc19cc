"""American rows under scenarios: one boundary per option serves all scenarios that move spot only.

Where vols or rates move too, boundaries come from a few that span those moves, see `american_moves`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.engines.cpu.american import block_state
from gpu_kernels.engines.cpu.american_moves import METHOD, PREMIUM, moved_pnl
from gpu_kernels.engines.cpu.american_rows import (
    EDGE,
    EXPIRY,
    KIND,
    LOG_SPOT,
    SCALE,
    USABLE,
    input_rows,
    load,
    premium_block,
    settle,
)
from gpu_kernels.engines.cpu.american_solver import LANES, carray, stack
from gpu_kernels.engines.cpu.columns import plain
from gpu_kernels.engines.cpu.compile import kernel
from gpu_kernels.engines.cpu.threads import workers
from gpu_kernels.engines.engine import Engine
from gpu_kernels.formulas.american_tables import angles
from gpu_kernels.portfolio import Portfolio
from gpu_kernels.revaluation import Shocks
from gpu_kernels.scenarios import VOL_FLOOR
from gpu_kernels.shocked_options import options_of, repriced_pnl

Floats = NDArray[np.float64]

work_rows = stack(16 * LANES)
WORK_ROWS = 16


def american_pnl(engine: Engine, portfolio: Portfolio, shocks: Shocks, out: Floats) -> None:
    """P&L of American rows per scenario (P, S); boundaries are reused, or solved where that is not enough."""
    if not portfolio.options:
        return
    if shocks.vol_change.any() or shocks.surface is not None or shocks.rate_change is not None:
        lost = moved_pnl(engine, portfolio, shocks, out)
    else:
        _spot_pnl(engine, portfolio, shocks, out)
        lost = np.flatnonzero(np.isnan(out).any(axis=1))
    if lost.size:
        piece = np.empty((len(lost), shocks.scenarios))
        repriced_pnl(engine, portfolio.rows(lost), shocks.of_rows(lost), piece)
        out[lost] = piece


def _spot_pnl(engine: Engine, portfolio: Portfolio, shocks: Shocks, out: Floats) -> None:
    columns = tuple(
        plain(column)
        for column in (
            portfolio.spot,
            portfolio.strike,
            np.maximum(portfolio.expiry - shocks.elapsed, 0.0),
            np.maximum(portfolio.vol, VOL_FLOOR),
            portfolio.rate,
            portfolio.dividend_yield,
            portfolio.is_call,
        )
    )
    underlying, returns = plain(portfolio.underlying), plain(shocks.spot_return)
    today = plain(engine.price(options_of(portfolio)).price)
    weight = portfolio.quantity * portfolio.multiplier
    factors = np.exp(shocks.spot_return)
    rule = angles(*PREMIUM)
    premium = (rule.cosine, rule.inv_cosine, rule.weight)

    def work(start: int, stop: int) -> None:
        part = tuple(column[start:stop] for column in columns)
        state = block_state(part, METHOD, PREMIUM)
        _under_spots(
            part,
            underlying[start:stop],
            returns,
            factors,
            state,
            premium,
            LANES,
            weight[start:stop],
            today[start:stop],
            out[start:stop],
        )

    workers().run(portfolio.options, work, 2 * LANES)


def values_at_spots(columns: tuple[Floats, ...], state: Floats, spots: Floats) -> Floats:
    """Value of each American row at spots of its own (P, K), from the boundaries in ``state``."""
    rule = angles(*PREMIUM)
    factors = spots / columns[0][:, None]
    out = np.empty(spots.shape)
    count = len(spots)
    _under_spots(
        columns,
        np.arange(count),
        np.log(factors),
        factors,
        state,
        (rule.cosine, rule.inv_cosine, rule.weight),
        LANES,
        np.ones(count),
        np.zeros(count),
        out,
    )
    return out


@kernel
def _under_spots(columns, underlying, returns, factors, state, angles, lanes, weight, today, out):  # type: ignore[no-untyped-def]
    """Quantity times value less today's, of each row at every shocked spot, from the row's boundary."""
    cosine, inv_cosine, quadrature = angles
    put = carray(input_rows(), (8, LANES))
    work = carray(work_rows(), (WORK_ROWS, LANES))
    for block in range(state.shape[0]):
        one = state[block]
        count = load(block, columns, put)
        for a in range(lanes):
            work[8, a] = put[0, a]
            work[9, a] = one[LOG_SPOT, a]
        for s in range(factors.shape[1]):
            for a in range(lanes):
                u = underlying[block * LANES + min(a, count - 1)]
                shocked = work[8, a] * factors[u, s]
                put[0, a] = shocked
                # A call is held as the put with spot and strike changed over, in units of the spot.
                call = put[6, a] > 0.5
                one[LOG_SPOT, a] = work[9, a] - returns[u, s] if call else work[9, a] + returns[u, s]
                one[SCALE, a] = shocked if call else one[SCALE, a]
            premium_block(one, cosine, inv_cosine, quadrature, work, lanes)
            for a in range(lanes):
                value, mark = settle(
                    put[0, a], put[1, a], put[2, a], put[3, a], put[4, a], put[5, a], put[6, a] > 0.5,
                    one[USABLE, a], one[KIND, a], one[EXPIRY, a], one[LOG_SPOT, a] <= one[EDGE, a],
                    work[6, a] * one[SCALE, a],
                )  # fmt: skip
                work[0, a] = value + 0.0 * mark
            for a in range(count):
                row = block * LANES + a
                out[row, s] = weight[row] * (work[0, a] - today[row])
