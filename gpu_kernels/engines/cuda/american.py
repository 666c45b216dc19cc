"""American options on the CUDA engine.

Prices stay on the device when their columns are there. For Greeks and implied volatility the host combines
and searches what the kernels give it, so columns on the device come over first, and so do batches with rows
of two exercise boundaries, which go to the grid.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.engines.cuda import cash_dividends, european
from gpu_kernels.engines.cuda.american_kernels import THREADS, american_price_rows, american_slopes_rows
from gpu_kernels.engines.cuda.rows import Launch, on_host, run_rows, store
from gpu_kernels.engines.engine import Columns
from gpu_kernels.formulas import american_fallback, american_greeks, american_implied_vol
from gpu_kernels.formulas.american_tables import (
    GREEK_RULE,
    SCHEMES,
    angles,
    boundary_tables,
    interpolation,
    place_table,
)
from gpu_kernels.results import GreeksResult, ImpliedVolResult, PriceResult
from gpu_kernels.status import Status


def price(columns: Columns, method: str, out: PriceResult) -> None:
    """Write value and status of each row."""
    launch = _launch(method, (SCHEMES[method].premium, 1))
    run_rows(american_price_rows, tuple(columns), out.columns(), launch)
    if bool((out.status == Status.NOT_CONVERGED).any()):
        full = Columns(*map(on_host, columns)).full(out.status.size)
        result = PriceResult(on_host(out.price), on_host(out.status))
        american_fallback.price(full, result, cash_dividends.solve)
        store(out.columns(), result.columns())


def greeks(columns: Columns, method: str, out: GreeksResult) -> None:
    """Write value, eight derivatives and status of each row."""
    size = out.status.size
    full = Columns(*map(on_host, columns)).full(size)
    numbers = {name: np.empty(size) for name in GreeksResult.COLUMNS[:-1]}
    result = GreeksResult(**numbers, status=np.empty(size, np.uint8))
    american_greeks.greeks(full, method, result, slopes, european.greeks)
    american_fallback.greeks(full, result, cash_dividends.solve)
    store(out.columns(), result.columns())


def implied_vol(columns: Columns, prices: Any, method: str, out: ImpliedVolResult) -> None:
    """Write the volatility at which each row is worth its price, and its status."""
    size = out.status.size
    full = Columns(*map(on_host, columns)).full(size)
    result = ImpliedVolResult(np.empty(size), np.empty(size, np.uint8))
    american_implied_vol.implied_vol(full, on_host(prices), method, result, price)
    store(out.columns(), result.columns())


def slopes(columns: Columns, method: str) -> NDArray[np.float64]:
    """Premium, its three spot derivatives, expiry used, exercised, usable, kind, distance: (9, rows)."""
    out = np.empty((9, columns.spot.size))
    run_rows(american_slopes_rows, tuple(columns), tuple(out), _launch(method, GREEK_RULE))
    return out


@cache
def _launch(method: str, premium: tuple[int, int]) -> Launch:
    scheme = SCHEMES[method]
    made, rule = boundary_tables(scheme.nodes, scheme.angles), angles(*premium)
    inner = made.angles
    tables = (
        place_table(made.xi), place_table(made.places),
        inner.cosine, inner.inv_cosine, inner.weight, made.matrix,
        place_table(rule.sine), interpolation(scheme.nodes, rule.sine),
        rule.cosine, rule.inv_cosine, rule.weight,
    )  # fmt: skip
    counts = (scheme.nodes, scheme.angles, scheme.steps, premium[0])
    flat = tuple(np.ascontiguousarray(table).reshape(-1) for table in tables)
    return Launch(tuple(map(np.int64, counts)), flat, THREADS // scheme.nodes)
