"""European prices and Greeks on the XLA engine."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from gpu_kernels.engines.engine import Columns
from gpu_kernels.engines.xla import ops
from gpu_kernels.engines.xla.compile import CHUNK_ROWS, Program, run_rows
from gpu_kernels.formulas.black_scholes import black_scholes
from gpu_kernels.results import GreeksResult, PriceResult

__all__ = ["CHUNK_ROWS", "greeks", "price", "traceable_price"]

_price, _price_and_greeks, _row_status = black_scholes(ops)

INVALID_INPUT = 2


def price(columns: Columns, out: PriceResult) -> None:
    """Write value and status of each row."""
    run_rows(price_rows, tuple(columns), out.columns())


def greeks(columns: Columns, out: GreeksResult) -> None:
    """Write value, eight derivatives and status of each row."""
    run_rows(greeks_rows, tuple(columns), out.columns())


def traceable_price(
    spot: Any, strike: Any, expiry: Any, vol: Any, rate: Any, dividend_yield: Any, is_call: Any
) -> Any:
    """Value as a function that JAX can transform (grad, jvp, vmap); use it in a float64 scope."""
    return _price(spot, strike, expiry, vol, rate, dividend_yield, is_call)


def _priced(*columns: Any) -> tuple[Any, ...]:
    return _finished(columns, (_price(*columns),))


def _priced_with_greeks(*columns: Any) -> tuple[Any, ...]:
    return _finished(columns, _price_and_greeks(*columns))


def _finished(columns: tuple[Any, ...], values: tuple[Any, ...]) -> tuple[Any, ...]:
    status = _row_status(*columns[:6])
    # Inputs so large that a value is out of range.
    status = jnp.where(jnp.isfinite(sum(values)), status, INVALID_INPUT)
    bad = status == INVALID_INPUT
    return (*(jnp.where(bad, jnp.nan, value) for value in values), status.astype(jnp.uint8))


price_rows = Program(_priced)
greeks_rows = Program(_priced_with_greeks)
