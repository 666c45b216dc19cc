"""Implied volatility of European options on the CPU engine."""

from __future__ import annotations

import math
from typing import Any

from gpu_kernels.engines.cpu import ops
from gpu_kernels.engines.cpu.columns import blocks
from gpu_kernels.engines.cpu.compile import kernel
from gpu_kernels.engines.cpu.threads import workers
from gpu_kernels.engines.engine import Columns
from gpu_kernels.formulas.implied_vol import implied_vol as formula
from gpu_kernels.results import ImpliedVolResult

_implied = formula(ops)

NAN = math.nan


def implied_vol(columns: Columns, price: Any, out: ImpliedVolResult) -> None:
    """Write the volatility that each price implies, NaN where there is none, and why."""
    c = columns
    cut = blocks((c.spot, c.strike, c.expiry, c.rate, c.dividend_yield, c.is_call, price), out.status.size)

    def work(start: int, stop: int) -> None:
        implied_vol_rows(*cut(start, stop), out.vol[start:stop], out.status[start:stop])

    workers().run(out.status.size, work)


@kernel
def implied_vol_rows(spot, strike, expiry, rate, dividend_yield, is_call, price, vol, status):  # type: ignore[no-untyped-def]
    for i in range(status.shape[0]):
        value, state = _implied(
            spot[i], strike[i], expiry[i], rate[i], dividend_yield[i], is_call[i], price[i]
        )
        vol[i] = value if state == 0 else NAN
        status[i] = state
