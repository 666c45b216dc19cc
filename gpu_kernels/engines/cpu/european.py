"""European prices and Greeks on the CPU engine."""

from __future__ import annotations

import math

from gpu_kernels.engines.cpu import ops
from gpu_kernels.engines.cpu.columns import blocks
from gpu_kernels.engines.cpu.compile import kernel
from gpu_kernels.engines.cpu.threads import workers
from gpu_kernels.engines.engine import Columns
from gpu_kernels.formulas.black_scholes import black_scholes
from gpu_kernels.results import GreeksResult, PriceResult

_price, _price_and_greeks, _row_status = black_scholes(ops)

NAN = math.nan
INVALID_INPUT = 2


def price(columns: Columns, out: PriceResult) -> None:
    """Write value and status of each row."""
    cut = blocks(columns, out.status.size)

    def work(start: int, stop: int) -> None:
        price_rows(*cut(start, stop), out.price[start:stop], out.status[start:stop])

    workers().run(out.status.size, work)


def greeks(columns: Columns, out: GreeksResult) -> None:
    """Write value, eight derivatives and status of each row."""
    cut = blocks(columns, out.status.size)
    arrays = out.columns()

    def work(start: int, stop: int) -> None:
        greeks_rows(*cut(start, stop), *[array[start:stop] for array in arrays])

    workers().run(out.status.size, work)


# Bad rows are rare: the hot loops write what comes out of the arithmetic and count them, and only a block
# that has one is gone over again.


@kernel
def price_rows(spot, strike, expiry, vol, rate, dividend_yield, is_call, price, status):  # type: ignore[no-untyped-def]
    bad = 0
    for i in range(status.shape[0]):
        value = _price(spot[i], strike[i], expiry[i], vol[i], rate[i], dividend_yield[i], is_call[i])
        state = _row_status(spot[i], strike[i], expiry[i], vol[i], rate[i], dividend_yield[i])
        # False for infinite and NaN: inputs so large that their value is out of range.
        state = state if value - value == 0.0 else INVALID_INPUT
        price[i] = value
        status[i] = state
        bad += 1 if state == INVALID_INPUT else 0
    if bad > 0:
        for i in range(status.shape[0]):
            if status[i] == INVALID_INPUT:
                price[i] = NAN


@kernel
def greeks_rows(  # type: ignore[no-untyped-def]
    spot,
    strike,
    expiry,
    vol,
    rate,
    dividend_yield,
    is_call,
    price,
    delta,
    gamma,
    vega,
    theta,
    rho,
    vanna,
    volga,
    charm,
    status,
):
    bad = 0
    for i in range(status.shape[0]):
        value, v1, v2, v3, v4, v5, v6, v7, v8 = _price_and_greeks(
            spot[i], strike[i], expiry[i], vol[i], rate[i], dividend_yield[i], is_call[i]
        )
        price[i] = value
        delta[i] = v1
        gamma[i] = v2
        vega[i] = v3
        theta[i] = v4
        rho[i] = v5
        vanna[i] = v6
        volga[i] = v7
        charm[i] = v8
        state = _row_status(spot[i], strike[i], expiry[i], vol[i], rate[i], dividend_yield[i])
        # Infinite or NaN where any of the nine is (delta and vanna never are alone): a value out of range.
        total = (value + v2) + (v3 + v4) + (v5 + v7) + v8
        state = state if total - total == 0.0 else INVALID_INPUT
        status[i] = state
        bad += 1 if state == INVALID_INPUT else 0
    if bad > 0:
        for i in range(status.shape[0]):
            if status[i] == INVALID_INPUT:
                price[i] = NAN
                delta[i] = NAN
                gamma[i] = NAN
                vega[i] = NAN
                theta[i] = NAN
                rho[i] = NAN
                vanna[i] = NAN
                volga[i] = NAN
                charm[i] = NAN
