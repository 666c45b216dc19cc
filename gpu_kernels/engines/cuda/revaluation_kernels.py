"""The two CUDA kernels of full revaluation: strips of positions under scenarios, then sums of strips.

A block takes one strip and as many scenarios as it has threads, one scenario a thread. Positions are prepared
in shared memory, a block's worth at a time and one a thread; then every thread goes through them with its sum
in a register. What is added in which order depends on the portfolio only, so the same inputs give the same
bits, whatever the cut of the scenarios, and with no atomic operation.
"""

from __future__ import annotations

import numpy as np
from cupyx import jit

from gpu_kernels.engines.cuda import ops
from gpu_kernels.engines.cuda.compile import (
    COUNT,
    FLAGS,
    FLOATS,
    FLOATS_OUT,
    INTEGERS,
    NUMBER,
    device,
    kernel,
    quotient,
)
from gpu_kernels.formulas.black_scholes import black_scholes
from gpu_kernels.formulas.revaluation import shocked_value
from gpu_kernels.scenarios import VOL_FLOOR

# Threads of a block: scenarios side by side, and positions prepared at a time.
WIDTH = 128
# Stands for √T once an option has expired: its value is then intrinsic to the last bit.
EXPIRED_ROOT_TIME = 1e-100
# Stands for a spot or strike of 0 in logarithms.
SMALLEST = 1e-290
# Nodes of a vol shock surface around a position.
NODES = 4

exp, log_ratio, sqrt, maximum, where = ops.exp, ops.log_ratio, ops.sqrt, ops.maximum, ops.where
_price = black_scholes(ops)[0]
_value = shocked_value(ops)


@device
def _under_shock(sign, forward, strike, moneyness, deviation, inverse, weight, today):  # type: ignore[no-untyped-def]
    """One position's P&L in one scenario."""
    return weight * (_value(sign, forward, strike, moneyness, deviation, inverse) - today)


@kernel(
    *[COUNT] * 7,
    NUMBER,
    *[INTEGERS] * 3,
    *[FLOATS] * 8,
    FLAGS,
    *[FLOATS] * 4,
    INTEGERS,
    FLOATS,
    FLOATS_OUT,
    threads=WIDTH,
    blocks=5,
)
def strip_pnl(  # type: ignore[no-untyped-def]
    scenarios,  # columns of every shock array
    tiles,  # blocks side by side for one strip
    vol_rows,  # 1 when all underlyings share one row of vol changes
    vols_move,
    rates_move,
    has_surface,
    each,  # 1 to write every position's P&L instead of the strips' sums
    elapsed,
    order,
    strip_start,
    underlying,
    quantity,
    multiplier,
    spot,
    strike,
    expiry,
    vol,
    rate,
    dividend_yield,
    is_call,
    spot_return,
    vol_change,
    rate_change,
    surface,
    node,
    node_weight,
    out,
):
    the_sign = jit.shared_memory(np.float64, WIDTH)
    the_weight = jit.shared_memory(np.float64, WIDTH)
    the_forward = jit.shared_memory(np.float64, WIDTH)
    the_strike = jit.shared_memory(np.float64, WIDTH)
    the_moneyness = jit.shared_memory(np.float64, WIDTH)
    the_vol = jit.shared_memory(np.float64, WIDTH)
    the_time = jit.shared_memory(np.float64, WIDTH)
    the_root = jit.shared_memory(np.float64, WIDTH)
    the_deviation = jit.shared_memory(np.float64, WIDTH)
    the_inverse = jit.shared_memory(np.float64, WIDTH)
    the_today = jit.shared_memory(np.float64, WIDTH)
    the_underlying = jit.shared_memory(np.int64, WIDTH)
    the_position = jit.shared_memory(np.int64, WIDTH)

    thread = np.int64(jit.threadIdx.x)
    block = np.int64(jit.blockIdx.x)
    strip = quotient(block, tiles)
    scenario = (block - strip * tiles) * WIDTH + thread
    last = strip_start[strip + 1]
    total = 0.0
    current = np.int64(-1)
    move = 0.0
    factor = 1.0
    vol_shock = 0.0
    carry = 0.0
    rate_shock = 0.0
    if rates_move == 1 and scenario < scenarios:
        rate_shock = rate_change[scenario]
    for first in range(strip_start[strip], last, WIDTH):
        # Nobody reads the positions before any more.
        jit.syncthreads()
        if first + thread < last:
            p = order[first + thread]
            left = maximum(expiry[p] - elapsed, 0.0)
            the_position[thread] = p
            the_underlying[thread] = underlying[p]
            the_weight[thread] = quantity[p] * multiplier[p]
            the_sign[thread] = where(is_call[p], 1.0, -1.0)
            the_forward[thread] = spot[p] * exp(-dividend_yield[p] * left)
            the_strike[thread] = strike[p] * exp(-rate[p] * left)
            the_moneyness[thread] = (
                log_ratio(maximum(spot[p], SMALLEST), maximum(strike[p], SMALLEST))
                + (rate[p] - dividend_yield[p]) * left
            )
            the_vol[thread] = vol[p]
            the_time[thread] = left
            the_root[thread] = maximum(sqrt(left), EXPIRED_ROOT_TIME)
            the_deviation[thread] = maximum(vol[p], VOL_FLOOR) * the_root[thread]
            the_inverse[thread] = 1.0 / the_deviation[thread]
            the_today[thread] = _price(
                spot[p], strike[p], expiry[p], vol[p], rate[p], dividend_yield[p], is_call[p]
            )
        jit.syncthreads()
        if scenario < scenarios:
            for n in range(min(WIDTH, last - first)):
                # Positions come by underlying: its shocks stay in registers until the next one.
                if the_underlying[n] != current:
                    current = the_underlying[n]
                    move = spot_return[current * scenarios + scenario]
                    factor = exp(move)
                    if vols_move == 1:
                        vol_shock = vol_change[where(vol_rows == 1, 0, current) * scenarios + scenario]
                deviation = the_deviation[n]
                inverse = the_inverse[n]
                if vols_move == 1:
                    shift = vol_shock
                    if has_surface == 1:
                        for k in range(NODES):
                            place = the_position[n] * NODES + k
                            shift += node_weight[place] * surface[node[place] * scenarios + scenario]
                    deviation = maximum(the_vol[n] + shift, VOL_FLOOR) * the_root[n]
                    inverse = 1.0 / deviation
                shocked_strike = the_strike[n]
                if rates_move == 1:
                    carry = rate_shock * the_time[n]
                    shocked_strike = shocked_strike * exp(-carry)
                pnl = _under_shock(
                    the_sign[n],
                    the_forward[n] * factor,
                    shocked_strike,
                    the_moneyness[n] + move + carry,
                    deviation,
                    inverse,
                    the_weight[n],
                    the_today[n],
                )
                if each == 1:
                    out[the_position[n] * scenarios + scenario] = pnl
                else:
                    total += pnl
    if each == 0 and scenario < scenarios:
        out[strip * scenarios + scenario] = total


@kernel(COUNT, COUNT, INTEGERS, FLOATS, FLOATS_OUT, threads=WIDTH)
def add_strips(groups, scenarios, group_start, strip_sums, out):  # type: ignore[no-untyped-def]
    for i in range(jit.grid(1), groups * scenarios, jit.gridsize(1)):
        group = quotient(i, scenarios)
        scenario = i - group * scenarios
        total = 0.0
        for strip in range(group_start[group], group_start[group + 1]):
            total += strip_sums[strip * scenarios + scenario]
        out[i] = total
