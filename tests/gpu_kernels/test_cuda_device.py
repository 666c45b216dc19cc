"""The CUDA engine on a real device. Needs no more than NumPy, SciPy and CuPy beside this package."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy", reason="needs SciPy for the reference engine")

import agreement
from agreement import random_rows
from american_cases import random_fields
from scenario_books import random_book, random_scenarios

import gpu_kernels as gk

pytestmark = pytest.mark.gpu

try:
    CUDA = gk.engine("cuda")
except gk.EngineUnavailable as error:
    pytest.skip(str(error), allow_module_level=True)

cupy = pytest.importorskip("cupy")

NUMERIC = ("spot", "strike", "expiry", "vol", "rate", "dividend_yield")


def on_device(options: gk.Options) -> gk.Options:
    return gk.Options(**{name: cupy.asarray(getattr(options, name)) for name in (*NUMERIC, "is_call")})


def same_bits(one: Any, other: Any) -> None:
    for a, b in zip(one.columns(), other.columns(), strict=True):
        np.testing.assert_array_equal(cupy.asnumpy(a), cupy.asnumpy(b))


def test_price_and_greeks_agree_with_the_reference(rng: np.random.Generator) -> None:
    agreement.values_and_greeks(CUDA, random_rows(rng, 400_000))


def test_implied_vol_agrees_with_the_reference(rng: np.random.Generator) -> None:
    agreement.implied_vols(CUDA, random_rows(rng, 200_000))


@pytest.mark.parametrize("method", ["fast", "accurate"])
def test_american_values_agree_with_the_reference(rng: np.random.Generator, method: Any) -> None:
    options = gk.Options(**random_fields(rng, 20_000), american=True)
    found = CUDA.price(options, american_method=method)
    wanted = gk.engine("reference").price(options, american_method=method)
    np.testing.assert_array_equal(found.status, wanted.status)
    np.testing.assert_allclose(found.price, wanted.price, rtol=0, atol=1e-10)
    there = options.replace(**{name: cupy.asarray(getattr(options, name)) for name in NUMERIC})
    same_bits(CUDA.price(there, american_method=method), found)
    few = options.rows(np.arange(500))
    delta = CUDA.greeks(few, american_method=method).delta
    np.testing.assert_allclose(
        delta, gk.engine("reference").greeks(few, american_method=method).delta, rtol=0, atol=1e-9
    )


def test_bad_rows_have_their_status() -> None:
    agreement.rows_without_a_value(CUDA)


def test_device_columns_stay_on_the_device(rng: np.random.Generator) -> None:
    options = random_rows(rng, 10_000)
    there = on_device(options)
    host = CUDA.greeks(options)
    for one in (CUDA.greeks(there), CUDA.greeks(there.replace(rate=0.03).replace(rate=there.rate))):
        assert all(isinstance(array, cupy.ndarray) for array in one.columns())
        same_bits(one, host)
    assert isinstance(CUDA.implied_vol(there, cupy.asarray(host.price)).vol, cupy.ndarray)


def test_out_is_filled_in_place(rng: np.random.Generator) -> None:
    options = random_rows(rng, 5000)
    there = on_device(options)
    out = gk.PriceResult(cupy.full(5000, 7.0), cupy.full(5000, 9, cupy.uint8))
    assert CUDA.price(there, out=out) is out
    same_bits(out, CUDA.price(options))
    # From device columns into host memory, too.
    host = gk.PriceResult(np.full(5000, 7.0), np.full(5000, 9, np.uint8))
    same_bits(CUDA.price(there, out=host), out)


def test_the_same_bits_each_time_and_in_any_cut(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpu_kernels.engines.cuda import rows

    options = random_rows(rng, 100_000)
    first = CUDA.greeks(options)
    same_bits(first, CUDA.greeks(options))
    monkeypatch.setattr(rows, "CHUNK_ROWS", 3331)
    same_bits(first, CUDA.greeks(options))


def test_ten_million_rows_in_bounded_memory() -> None:
    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    before = pool.total_bytes()
    size = 10_000_000
    spot = np.linspace(50.0, 150.0, size)
    found = CUDA.greeks(gk.Options(spot=spot, strike=100.0, expiry=0.5, vol=0.2))
    assert (found.status == 0).all()
    assert (np.diff(found.price) > 0).all()
    assert pool.total_bytes() - before < 1 << 30


def test_concurrent_calls(rng: np.random.Generator) -> None:
    batches = [random_rows(rng, 30_000) for _ in range(8)]
    alone = [CUDA.greeks(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        for one, other in zip(alone, pool.map(CUDA.greeks, batches), strict=True):
            same_bits(one, other)


def test_the_callers_stream_is_respected(rng: np.random.Generator) -> None:
    options = random_rows(rng, 50_000)
    wanted = CUDA.price(options)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        there = on_device(options)
        found = CUDA.price(there)
        # Columns that are still in the making when a host result is asked for.
        later = gk.Options(
            **{name: getattr(there, name) + 0.0 for name in NUMERIC}, is_call=there.is_call.copy()
        )
        host = CUDA.price(later, out=gk.PriceResult(np.empty(50_000), np.empty(50_000, np.uint8)))
    stream.synchronize()
    same_bits(found, wanted)
    same_bits(host, wanted)


@pytest.mark.parametrize(("vols", "rates"), [(True, True), (False, False)])
def test_revaluation(rng: np.random.Generator, vols: bool, rates: bool) -> None:
    book = random_book(rng, 3000, 5, groups=7, linear=20)
    agreement.revaluation(CUDA, book, random_scenarios(rng, 211, 5, vols=vols, rates=rates))


def test_revaluation_of_many_scenarios_in_turns(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpu_kernels.engines.cuda import revaluation

    book = random_book(rng, 2000, 3)
    scenarios = random_scenarios(rng, 5000, 3)
    whole = CUDA.revalue(book, scenarios)
    monkeypatch.setattr(revaluation, "DOUBLES_MAX", 1 << 14)
    np.testing.assert_array_equal(CUDA.revalue(book, scenarios), whole)


def test_warm_up_compiles_every_kernel() -> None:
    from gpu_kernels.engines.cuda.compile import every_kernel

    CUDA.warm_up()
    for kernel in every_kernel():
        # What the assembler promised for sm_90 need not hold elsewhere, but blocks have to fit.
        assert 0 < kernel.registers() <= 65_536 // kernel.threads


def test_jax_and_cupy_share_the_device(rng: np.random.Generator) -> None:
    try:
        xla = gk.engine("xla")
    except gk.EngineUnavailable as error:
        pytest.skip(str(error))
    options = random_rows(rng, 20_000)
    one, other = xla.price(options), CUDA.price(options)
    scale = np.maximum(options.spot, options.strike)
    assert (np.abs(one.price - other.price) <= 4e-15 * scale).all()
