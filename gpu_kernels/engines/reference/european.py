"""European prices and Greeks on the reference engine."""

from __future__ import annotations

import numpy as np

from gpu_kernels.engines.engine import Columns
from gpu_kernels.engines.reference import ops
from gpu_kernels.formulas.black_scholes import black_scholes
from gpu_kernels.results import GreeksResult, PriceResult
from gpu_kernels.status import Status

# Some forty temporary arrays of a chunk live at once: 20 MB.
CHUNK_ROWS = 65_536

_price, _price_and_greeks, _row_status = black_scholes(ops)


def price(columns: Columns, out: PriceResult) -> None:
    """Write value and status of each row."""
    with np.errstate(all="ignore"):
        out.status[:] = _row_status(*columns[:6])
        out.price[:] = _price(*columns)
    _hide_bad_rows(out)


def greeks(columns: Columns, out: GreeksResult) -> None:
    """Write value, eight derivatives and status of each row."""
    with np.errstate(all="ignore"):
        out.status[:] = _row_status(*columns[:6])
        for target, source in zip(out.columns(), _price_and_greeks(*columns), strict=False):
            target[:] = source
    _hide_bad_rows(out)


def _hide_bad_rows(out: PriceResult | GreeksResult) -> None:
    values = out.columns()[:-1]
    # Inputs so large that a value is out of range.
    with np.errstate(all="ignore"):
        out.status[~np.isfinite(sum(values))] = Status.INVALID_INPUT
    bad = out.status == Status.INVALID_INPUT
    for array in values:
        array[bad] = np.nan
