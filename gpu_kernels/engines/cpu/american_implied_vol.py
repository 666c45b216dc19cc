"""Implied volatility of American options on the CPU engine: each row's search in one compiled loop."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpu_kernels.engines.cpu import ops
from gpu_kernels.engines.cpu.american_one_row import angle_row, one_row_solver, premium_of_row
from gpu_kernels.engines.cpu.american_rows import (
    INVALID_INPUT,
    MOST_LOG_SPOT,
    MOST_NODES,
    NOT_CONVERGED,
    settle,
)
from gpu_kernels.engines.cpu.american_solver import carray, compiled
from gpu_kernels.engines.cpu.compile import kernel
from gpu_kernels.formulas.american import american
from gpu_kernels.formulas.american_implied_vol import LEAST_TIME_VALUE
from gpu_kernels.formulas.american_search import HIGHEST_TOTAL_VOL, LOWEST_VOL, american_search
from gpu_kernels.formulas.american_tables import SCHEMES, Scheme
from gpu_kernels.formulas.black_scholes import black_scholes

BLOCK_ROWS = 16

put_frame, perpetual, bend, _, _, _, _, _, _, _, certain_value = american(ops)
_, _, row_status = black_scholes(ops)
advance = american_search(ops, compiled)
sqrt = ops.sqrt

NAN = float("nan")
BELOW_INTRINSIC, ABOVE_MAXIMUM, NO_TIME_VALUE = 3, 4, 6
MOST_STEPS = 60
# From here on every second step halves the bracket.
PATIENCE = 10
# A row with two boundaries: left to the caller.
LEFT = 255


@compiled
def least_value(spot, strike, expiry, rate, dividend_yield, is_call):  # type: ignore[no-untyped-def]
    """The value without volatility."""
    return certain_value(spot, strike, expiry, rate, dividend_yield, is_call)


def valued(one_row: Any) -> Any:
    """value(...): the value of one row at one volatility."""

    @compiled
    def value(spot, strike, expiry, vol, rate, dividend_yield, is_call, tables, legs, steps):  # type: ignore[no-untyped-def]
        _, _, cosine, inv_cosine, weight, _, _, _, across = tables
        at, places, by_node, sines, by_angle = across
        few = carray(angle_row(), (MOST_NODES,))
        kind, usable, scale, x, t, v, r, q, log_x = put_frame(
            spot, strike, expiry, vol, rate, dividend_yield, is_call
        )
        gap, log_rt = bend(t, v, r, log_x)
        edge = one_row(
            t, v, r, q, log_x, perpetual(v, r, q, log_x), gap, log_rt, steps,
            at, places, cosine, inv_cosine, weight, by_node, sines, by_angle, at.shape[1], sines.shape[1],
            few,
        )  # fmt: skip
        near = min(max(x, -MOST_LOG_SPOT), MOST_LOG_SPOT)
        early = premium_of_row(near, log_x, few, t, v, r, q, legs[0], legs[1], legs[2])
        found, _ = settle(
            spot, strike, expiry, vol, rate, dividend_yield, is_call,
            1.0 if usable else 0.0, kind, t, x <= edge, early * scale,
        )  # fmt: skip
        return found

    return value


def searcher(scheme: Scheme) -> Any:
    """rows(...): the search of every row, by the boundaries of one scheme."""
    value = valued(one_row_solver(scheme.nodes, scheme.angles))

    @compiled
    def searched(  # type: ignore[no-untyped-def]
        target, scale, guess, spot, strike, expiry, rate, dividend_yield, is_call, tables, legs, steps
    ):  # fmt: skip
        highest = max(HIGHEST_TOTAL_VOL / max(sqrt(expiry), 1e-150), 2.0 * LOWEST_VOL)
        low, high, low_seen, high_seen = LOWEST_VOL, highest, 0.0, 0.0
        x = guess if guess > 0.0 else 0.3
        x = min(max(x, 2.0 * LOWEST_VOL), 0.5 * highest)
        x1, p1, x2, p2 = x, 0.0, x, 0.0
        for turn in range(MOST_STEPS):
            halve = 1.0 if turn > PATIENCE and turn % 2 == 0 else 0.0
            found = value(spot, strike, expiry, x, rate, dividend_yield, is_call, tables, legs, steps)
            if not np.isfinite(found):
                break
            over, y, p0, low, high, low_seen, high_seen = advance(
                target, scale, spot, strike, expiry, rate, dividend_yield, is_call, x, found, float(turn),
                x1, p1, x2, p2, low, high, low_seen, high_seen, halve,
            )  # fmt: skip
            if over:
                if y >= (1.0 - 1e-9) * highest:
                    return y, ABOVE_MAXIMUM
                # The value is flat below some volatility where the option is exercised at once.
                return y, NO_TIME_VALUE if y <= (1.0 + 1e-9) * LOWEST_VOL else 0
            x2, p2, x1, p1, x = x1, p1, x, p0, y
        return NAN, NOT_CONVERGED

    @compiled
    def rows(columns, prices, guesses, tables, legs, steps, vol, status):  # type: ignore[no-untyped-def]
        spots, strikes, expiries, _, rates, yields, calls = columns
        for i in range(status.shape[0]):
            s, k, t, r, q, call = spots[i], strikes[i], expiries[i], rates[i], yields[i], calls[i]
            target = prices[i]
            vol[i] = NAN
            state = row_status(s, k, t, 0.0, r, q)
            put_rate, put_yield = (q, r) if call else (r, q)
            scale = max(s, k)
            least = least_value(s, k, t, r, q, call)
            if state == INVALID_INPUT or not np.isfinite(target):
                status[i] = INVALID_INPUT
            elif target >= (s if call else k):
                status[i] = ABOVE_MAXIMUM
            elif state != 0 or abs(target - least) <= LEAST_TIME_VALUE * scale:
                status[i] = NO_TIME_VALUE
            elif target < least:
                status[i] = BELOW_INTRINSIC
            elif put_rate < 0.0 and put_yield < put_rate:
                status[i] = LEFT
            else:
                found, mark = searched(target, scale, guesses[i], s, k, t, r, q, call, tables, legs, steps)
                status[i] = mark
                if mark == 0:
                    vol[i] = found

    return rows


_fast_rows = searcher(SCHEMES["fast"])
_accurate_rows = searcher(SCHEMES["accurate"])


@kernel
def fast_vols(columns, prices, guesses, tables, legs, steps, vol, status):  # type: ignore[no-untyped-def]
    """Volatility and status of each row by the fast scheme; rows with two boundaries get the status LEFT."""
    _fast_rows(columns, prices, guesses, tables, legs, steps, vol, status)


@kernel
def accurate_vols(columns, prices, guesses, tables, legs, steps, vol, status):  # type: ignore[no-untyped-def]
    """Volatility and status of each row by the accurate scheme."""
    _accurate_rows(columns, prices, guesses, tables, legs, steps, vol, status)
