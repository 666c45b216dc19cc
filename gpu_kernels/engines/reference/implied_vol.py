"""Implied volatility of European options on the reference engine."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpu_kernels.engines.engine import Columns
from gpu_kernels.engines.reference import ops
from gpu_kernels.formulas.implied_vol import implied_vol as formula
from gpu_kernels.results import ImpliedVolResult

CHUNK_ROWS = 65_536

_implied = formula(ops)


def implied_vol(columns: Columns, price: Any, out: ImpliedVolResult) -> None:
    """Write the volatility that each price implies, NaN where there is none, and why."""
    c = columns
    with np.errstate(all="ignore"):
        vol, status = _implied(c.spot, c.strike, c.expiry, c.rate, c.dividend_yield, c.is_call, price)
    out.status[:] = status
    out.vol[:] = np.where(status == 0, vol, np.nan)
