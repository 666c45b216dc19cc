"""A program: the CUDA kernels on the processor's threads, under a sanitizer that its caller has preloaded.

    LD_PRELOAD=libtsan.so python cuda_sanitized.py thread
    LD_PRELOAD=libasan.so python cuda_sanitized.py address

The first finds threads of a block that touch the same shared memory without a barrier in between, the second
accesses outside an array.
"""

from __future__ import annotations

import sys

import cuda_on_host
import cuda_stand_in
import grids
import numpy as np
import pytest
from scenario_books import fresh_rng, random_book, random_scenarios

import gpu_kernels as gk
from gpu_kernels import cash_dividends
from gpu_kernels.dividend_schedules import CashDividends
from gpu_kernels.engines.engine import Columns
from gpu_kernels.revaluation import position_pnl
from gpu_kernels.scenarios import VolShockSurface


def columns_of(options: gk.Options) -> Columns:
    """Its columns, full length."""
    return Columns(*(options.column(name) for name in Columns._fields))


def main(sanitizer: str) -> None:
    """Run every kernel once, on sizes that fill no block."""
    cuda_on_host.EXTRA_FLAGS += [f"-fsanitize={sanitizer}", "-O0"]
    engine, _ = cuda_stand_in.install(pytest.MonkeyPatch())
    rng = fresh_rng()
    from gpu_kernels.engines.cuda import revaluation

    # Few strips, so that a block prepares several lots of positions one after another.
    revaluation.STRIPS_WANTED = 2
    book = random_book(rng, 700, 3, groups=2)
    plain = random_scenarios(rng, 11, 3)
    surface = VolShockSurface.factors(parallel=rng.normal(0, 0.05, 11), skew=rng.normal(0, 0.2, 11))
    scenarios = gk.Scenarios(
        plain.spot_return, plain.vol_change, plain.rate_change, plain.elapsed, vol_shock_surface=surface
    )
    engine.revalue(book, scenarios, by="group")
    position_pnl(engine, book, scenarios)
    # Blocks of eight and of four options, the last one not full.
    american = gk.Options(
        spot=np.linspace(90, 110, 13), strike=100.0, expiry=0.5, vol=0.3, rate=0.03, is_call=False,
        american=True,
    )  # fmt: skip
    engine.price(american, american_method="fast")
    engine.price(american.rows(np.arange(5)))
    engine.module("american").slopes(columns_of(american), "fast")
    if sanitizer != "thread":
        # One thread a row: nothing is shared there.
        options = gk.Options(**grids.everything(rng, 1001)._asdict())
        prices = engine.price(options).price
        engine.greeks(options)
        engine.implied_vol(options, prices)
        engine.price(gk.Options(spot=100.0, strike=np.linspace(50, 150, 37), expiry=1.0, vol=0.2))
        paid = CashDividends.same([(0.2, 2.0), (0.4, 200.0)], 13)
        cash_dividends.price(american, paid, engine=engine, points=40, steps=8)
        engine.price(american.replace(dividends=CashDividends.same([(0.2, 2.0)], 13)))
    print("clean")


if __name__ == "__main__":
    main(sys.argv[1])
