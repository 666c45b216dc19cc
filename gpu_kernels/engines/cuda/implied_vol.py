"""Implied volatility of European options on the CUDA engine: one thread a row."""

from __future__ import annotations

from typing import Any

from cupyx import jit

from gpu_kernels.engines.cuda import ops
from gpu_kernels.engines.cuda.compile import (
    BYTES_OUT,
    COUNT,
    FLOATS_OUT,
    OPTION_COLUMNS,
    as_byte,
    kernel,
    not_a_number,
    option_row,
    where,
)
from gpu_kernels.engines.cuda.rows import run_rows
from gpu_kernels.engines.engine import Columns
from gpu_kernels.formulas.implied_vol import implied_vol as formula
from gpu_kernels.results import ImpliedVolResult

_implied = formula(ops)


def implied_vol(columns: Columns, price: Any, out: ImpliedVolResult) -> None:
    """Write the volatility that each price implies, NaN where there is none, and why."""
    c = columns
    inputs = (c.spot, c.strike, c.expiry, c.rate, c.dividend_yield, price, c.is_call)
    run_rows(implied_vol_rows, inputs, out.columns())


@kernel(COUNT, COUNT, *OPTION_COLUMNS, FLOATS_OUT, BYTES_OUT, threads=128, blocks=4)
def implied_vol_rows(  # type: ignore[no-untyped-def]
    size, varies, spot, strike, expiry, rate, dividend_yield, price, is_call,
    one_spot, one_strike, one_expiry, one_rate, one_dividend_yield, one_price, one_is_call,
    vol, status,
):  # fmt: skip
    for i in range(jit.grid(1), size, jit.gridsize(1)):
        s, k, t, r, q, paid, call = option_row(
            varies, i, spot, strike, expiry, rate, dividend_yield, price, is_call,
            one_spot, one_strike, one_expiry, one_rate, one_dividend_yield, one_price, one_is_call,
        )  # fmt: skip
        value, state = _implied(s, k, t, r, q, call, paid)
        vol[i] = where(state == 0, value, not_a_number())
        status[i] = as_byte(state)
