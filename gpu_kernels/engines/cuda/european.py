"""European prices and Greeks on the CUDA engine: one thread a row, one pass over memory."""

from __future__ import annotations

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
from gpu_kernels.formulas.black_scholes import black_scholes
from gpu_kernels.results import GreeksResult, PriceResult

_price, _price_and_greeks, _row_status = black_scholes(ops)

INVALID_INPUT = 2


def price(columns: Columns, out: PriceResult) -> None:
    """Write value and status of each row."""
    run_rows(price_rows, tuple(columns), out.columns())


def greeks(columns: Columns, out: GreeksResult) -> None:
    """Write value, eight derivatives and status of each row."""
    run_rows(greeks_rows, tuple(columns), out.columns())


@kernel(COUNT, COUNT, *OPTION_COLUMNS, FLOATS_OUT, BYTES_OUT, threads=128, blocks=8)
def price_rows(  # type: ignore[no-untyped-def]
    size, varies, spot, strike, expiry, vol, rate, dividend_yield, is_call,
    one_spot, one_strike, one_expiry, one_vol, one_rate, one_dividend_yield, one_is_call,
    price, status,
):  # fmt: skip
    for i in range(jit.grid(1), size, jit.gridsize(1)):
        s, k, t, v, r, q, call = option_row(
            varies, i, spot, strike, expiry, vol, rate, dividend_yield, is_call,
            one_spot, one_strike, one_expiry, one_vol, one_rate, one_dividend_yield, one_is_call,
        )  # fmt: skip
        value = _price(s, k, t, v, r, q, call)
        state = _row_status(s, k, t, v, r, q)
        # False for infinite and NaN: inputs so large that their value is out of range.
        state = where(value - value == 0.0, state, INVALID_INPUT)
        price[i] = where(state == INVALID_INPUT, not_a_number(), value)
        status[i] = as_byte(state)


@kernel(COUNT, COUNT, *OPTION_COLUMNS, *[FLOATS_OUT] * 9, BYTES_OUT, threads=128, blocks=6)
def greeks_rows(  # type: ignore[no-untyped-def]
    size, varies, spot, strike, expiry, vol, rate, dividend_yield, is_call,
    one_spot, one_strike, one_expiry, one_vol, one_rate, one_dividend_yield, one_is_call,
    price, delta, gamma, vega, theta, rho, vanna, volga, charm, status,
):  # fmt: skip
    for i in range(jit.grid(1), size, jit.gridsize(1)):
        s, k, t, v, r, q, call = option_row(
            varies, i, spot, strike, expiry, vol, rate, dividend_yield, is_call,
            one_spot, one_strike, one_expiry, one_vol, one_rate, one_dividend_yield, one_is_call,
        )  # fmt: skip
        value, v1, v2, v3, v4, v5, v6, v7, v8 = _price_and_greeks(s, k, t, v, r, q, call)
        state = _row_status(s, k, t, v, r, q)
        # Infinite or NaN as soon as one of them is: inputs so large that a value is out of range.
        total = value + v1 + v2 + v3 + v4 + v5 + v6 + v7 + v8
        state = where(total - total == 0.0, state, INVALID_INPUT)
        # Adding NaN is cheaper than nine selections.
        mark = where(state == INVALID_INPUT, not_a_number(), 0.0)
        price[i] = value + mark
        delta[i] = v1 + mark
        gamma[i] = v2 + mark
        vega[i] = v3 + mark
        theta[i] = v4 + mark
        rho[i] = v5 + mark
        vanna[i] = v6 + mark
        volga[i] = v7 + mark
        charm[i] = v8 + mark
        status[i] = as_byte(state)
