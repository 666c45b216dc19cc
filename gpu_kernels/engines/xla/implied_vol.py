"""Implied volatility of European options on the XLA engine."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from gpu_kernels.engines.engine import Columns
from gpu_kernels.engines.xla import ops
from gpu_kernels.engines.xla.compile import CHUNK_ROWS, Program, run_rows
from gpu_kernels.formulas.implied_vol import implied_vol as formula
from gpu_kernels.results import ImpliedVolResult
from gpu_kernels.status import Status

__all__ = ["CHUNK_ROWS", "implied_vol"]

LEAST_NORMAL = float(np.finfo(np.float64).tiny)

_implied = formula(ops)


def implied_vol(columns: Columns, price: Any, out: ImpliedVolResult) -> None:
    """Write the volatility that each price implies, NaN where there is none, and why."""
    c = columns
    # XLA takes subnormal numbers for 0, which as a price has another status than one too small to say much.
    subnormal = (price > 0.0) & (price < LEAST_NORMAL)
    seen = np.where(subnormal, LEAST_NORMAL, price)
    inputs = (c.spot, c.strike, c.expiry, c.rate, c.dividend_yield, c.is_call, seen)
    run_rows(implied_vol_rows, inputs, out.columns())
    lost = subnormal & (out.status == Status.OK)
    out.vol[lost] = np.nan
    out.status[lost] = Status.NOT_CONVERGED


def _solved(*columns: Any) -> tuple[Any, Any]:
    vol, status = _implied(*columns)
    return jnp.where(status == 0, vol, jnp.nan), status.astype(jnp.uint8)


implied_vol_rows = Program(_solved)
