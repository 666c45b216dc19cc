"""European rows with cash dividends under scenarios on the CPU, priced on what is left of each spot."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.engines.cpu import ops, revaluation
from gpu_kernels.engines.cpu.compile import kernel
from gpu_kernels.engines.cpu.threads import workers
from gpu_kernels.engines.engine import Engine
from gpu_kernels.formulas.revaluation import shocked_value
from gpu_kernels.portfolio import Portfolio
from gpu_kernels.revaluation import Shocks
from gpu_kernels.scenarios import VOL_FLOOR

Floats = NDArray[np.float64]

# Stands for a spot or strike of which nothing is left.
SMALLEST = 1e-290
# Row × scenario numbers that a thread works on at a time.
NUMBERS_AT_ONCE = 1 << 18

_value = shocked_value(ops)
_exp, _log, _maximum = ops.exp, ops.log, ops.maximum


def european_pnl(
    engine: Engine, book: Portfolio, shocks: Shocks, today: Floats, due: Floats, out: Floats
) -> None:
    """P&L (P, S) from today's values and what dividends are worth at the horizon, (P, S) or (P, 1)."""
    rows = revaluation._rows(engine, book.without_dividends(), shocks, None)._replace(
        today=np.ascontiguousarray(today)
    )
    market = revaluation._market(shocks)
    vol_moves, rate_moves, has_surface = revaluation._flags(market)
    width = market.spot_return.shape[1]
    # Forward, as the spot is in the rows.
    forward = due * np.exp(-book.dividend_yield * rows.time)[:, None]
    wide = np.zeros((book.options, width))
    wide[:, : shocks.scenarios] = forward

    def work(start: int, stop: int) -> None:
        block = np.empty((stop - start, width))
        _write(rows, market, wide, vol_moves, rate_moves, has_surface, start, stop, block)
        out[start:stop] = block[:, : shocks.scenarios]

    workers().run(book.options, work, max(1, NUMBERS_AT_ONCE // max(1, width)))


@kernel
def _write(rows, market, due, vol_moves, rate_moves, has_surface, start, stop, out):  # type: ignore[no-untyped-def]
    """P&L of rows start..stop in every scenario, one row each."""
    width = out.shape[1]
    shift = np.zeros(width)
    for p in range(start, stop):
        u = rows.underlying[p]
        weight, sign, today = rows.weight[p], rows.sign[p], rows.today[p]
        forward, strike = rows.forward[p], rows.strike[p]
        vol, time, root = rows.vol[p], rows.time[p], rows.root_time[p]
        inverse_strike = 1.0 / max(strike, SMALLEST)
        shift[:] = 0.0
        if vol_moves:
            change = market.vol_change[u if market.vol_change.shape[0] > 1 else 0]
            for s in range(width):
                shift[s] = change[s]
        if has_surface:
            for k in range(4):
                share = rows.node_weight[p, k]
                node = market.surface[rows.node[p, k]]
                for s in range(width):
                    shift[s] += share * node[s]
        factors, own, answer = market.spot_factor[u], due[p], out[p - start]
        if rate_moves:
            rates = market.rate_change
            for s in range(width):
                left = _maximum(forward * factors[s] - own[s], SMALLEST)
                deviation = _maximum(vol + shift[s], VOL_FLOOR) * root
                carry = rates[s] * time
                centre = _log(left * inverse_strike) + carry
                value = _value(sign, left, strike * _exp(-carry), centre, deviation, 1.0 / deviation)
                answer[s] = weight * (value - today)
        else:
            for s in range(width):
                left = _maximum(forward * factors[s] - own[s], SMALLEST)
                deviation = _maximum(vol + shift[s], VOL_FLOOR) * root
                centre = _log(left * inverse_strike)
                value = _value(sign, left, strike, centre, deviation, 1.0 / deviation)
                answer[s] = weight * (value - today)
