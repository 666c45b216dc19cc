"""Every CUDA kernel, without a device: compiled for sm_90, and its own source run on the processor."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cupy", reason="needs CuPy to transpile the kernels")
pytest.importorskip("scipy", reason="needs SciPy for the reference engine")

import accuracy
import agreement
import cuda_stand_in
import cuda_toolchain
import grids
from agreement import random_rows
from cuda_on_host import HostKernel
from cupyx import jit

import gpu_kernels as gk
from gpu_kernels.engines.cuda import compile as cuda_compile
from gpu_kernels.engines.cuda import european, ops, rows

KERNELS = cuda_compile.every_kernel()

# Registers a thread may take so that `blocks` of its blocks are on a multiprocessor at once.
REGISTERS_OF_MULTIPROCESSOR = 65_536


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> tuple[gk.Engine, cuda_stand_in.StandIn]:
    return cuda_stand_in.install(monkeypatch)


@pytest.fixture
def engine(installed: tuple[gk.Engine, cuda_stand_in.StandIn]) -> gk.Engine:
    return installed[0]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_compiles_for_hopper_and_its_blocks_fit_a_multiprocessor(
    kernel: cuda_compile.Kernel,
) -> None:
    built = cuda_toolchain.cubin(kernel.source(), cuda_compile.OPTIONS)
    print(kernel.name, built.registers, "registers,", built.shared_bytes, "bytes shared,", len(built.code))
    assert built.code.startswith(b"\x7fELF")
    assert kernel.name.encode() in built.code
    assert built.spilled_bytes == 0
    assert built.stack_bytes == 0
    resident = REGISTERS_OF_MULTIPROCESSOR // (-(-built.registers // 8) * 8 * kernel.threads)
    assert resident >= kernel.blocks, f"{resident} blocks of {built.registers} registers"


def test_the_kernels_that_the_engine_needs_are_among_them() -> None:
    names = {kernel.name for kernel in KERNELS}
    assert names >= {
        "price_rows",
        "greeks_rows",
        "implied_vol_rows",
        "american_price_rows",
        "american_slopes_rows",
        "strip_pnl",
        "add_strips",
    }


def test_two_kernels_of_one_name_are_refused() -> None:
    cuda_compile.kernel(cuda_compile.COUNT)(logarithms)
    with pytest.raises(ValueError, match="logarithms"):
        cuda_compile.kernel(cuda_compile.COUNT)(logarithms)
    del cuda_compile._kernels["logarithms"]


def test_bytes_of_an_option() -> None:
    assert cuda_compile.bytes_per_row(european.greeks_rows) == (6 * 8 + 1, 9 * 8 + 1)
    assert cuda_compile.bytes_per_row(european.price_rows) == (6 * 8 + 1, 8 + 1)


def test_no_python_float_became_a_float32() -> None:
    for kernel in KERNELS:
        assert "float " not in kernel.source().replace("__float", "")


def test_greeks_agree_with_the_reference(engine: gk.Engine, rng: np.random.Generator) -> None:
    options = random_rows(rng, 40_000)
    found = engine.greeks(options)
    wanted = gk.engine("reference").greeks(options)
    scale = np.maximum(options.spot, options.strike)
    assert (np.abs(found.price - wanted.price) <= 4e-15 * scale).all()
    for name in ("delta", "gamma", "vega", "theta", "rho", "vanna", "volga", "charm"):
        one, other = getattr(found, name), getattr(wanted, name)
        assert (np.abs(one - other) <= 1e-10 * np.abs(other) + 1e-14 * scale_of(name, options)).all(), name
    np.testing.assert_array_equal(found.status, wanted.status)


def scale_of(name: str, options: gk.Options) -> np.ndarray:
    """What one unit of rounding in a Greek is measured in."""
    root = np.sqrt(options.expiry)
    scale = np.maximum(options.spot, options.strike)
    per_spot = scale / options.spot
    return {
        "delta": per_spot,
        "gamma": per_spot / (options.spot * options.vol * root),
        "vega": scale * root,
        "theta": scale * (1.0 + options.vol / root),
        "rho": scale * options.expiry,
        "vanna": per_spot / options.vol,
        "volga": scale * root / options.vol,
        "charm": per_spot / options.expiry,
    }[name]


def test_price_agrees_relatively_far_out_of_the_money(engine: gk.Engine, rng: np.random.Generator) -> None:
    options = random_rows(rng, 40_000)
    found, wanted = engine.price(options).price, gk.engine("reference").price(options).price
    seen = wanted > 1e-30 * options.spot
    assert (np.abs(found - wanted) <= 1e-11 * wanted)[seen].all()


def test_against_sixty_digits(engine: gk.Engine, rng: np.random.Generator) -> None:
    mp = pytest.importorskip("mpmath", reason="the exact formula needs mpmath")
    truth = pytest.importorskip("mpmath_truth")
    grid = grids.everything(rng, 600)
    found = engine.greeks(accuracy.options(grid))
    for i, row in enumerate(zip(*grid, strict=True)):
        exact, scale = truth.values(truth.Option(*row))
        error = abs(mp.mpf(float(found.price[i])) - exact["price"])
        assert error <= accuracy.PRICE_ABSOLUTE * max(grid.spot[i], grid.strike[i]), row
        if exact["price"] > accuracy.LEAST_PRICE * grid.spot[i]:
            assert error <= accuracy.PRICE_RELATIVE_FUSED * exact["price"], row
        for name in accuracy.GREEKS:
            if scale[name] > accuracy.LEAST_GREEK:
                error = abs(mp.mpf(float(getattr(found, name)[i])) - exact[name])
                assert error <= accuracy.GREEK_RELATIVE * scale[name], (name, row)


def logarithms(size, a, b, whole, high, low):  # type: ignore[no-untyped-def]
    for i in range(jit.grid(1), size, jit.gridsize(1)):
        whole[i] = ops.log_ratio(a[i], b[i])
        above, below = ops.log_ratio_parts(a[i], b[i])
        high[i] = above
        low[i] = below


def test_logarithm_of_a_ratio_near_one_and_far_away(rng: np.random.Generator) -> None:
    mp = pytest.importorskip("mpmath")
    types = (cuda_compile.COUNT, *[cuda_compile.FLOATS] * 2, *[cuda_compile.FLOATS_OUT] * 3)
    kernel = HostKernel(cuda_compile.Kernel(logarithms, types, threads=32, blocks=1))
    near = 1.0 + rng.choice([-1, 1], 500) * 10.0 ** rng.uniform(-15, -0.3, 500)
    a = np.concatenate([near, 10.0 ** rng.uniform(-300, 300, 500)])
    b = np.concatenate([np.ones(500), 10.0 ** rng.uniform(-5, 5, 500)])
    whole, high, low = np.empty(1000), np.empty(1000), np.empty(1000)
    kernel(3, 32, np.int64(1000), a, b, whole, high, low)
    with mp.workdps(50):
        for i in range(1000):
            exact = mp.log(mp.mpf(float(a[i])) / mp.mpf(float(b[i])))
            assert abs(whole[i] - exact) <= 4e-16 * abs(exact), (a[i], b[i])
            parts = mp.mpf(float(high[i])) + mp.mpf(float(low[i]))
            assert abs(parts - exact) <= 2e-17 * abs(exact), (a[i], b[i])


def test_rows_without_a_value(engine: gk.Engine) -> None:
    agreement.rows_without_a_value(engine)


def test_one_value_for_all_rows(engine: gk.Engine, rng: np.random.Generator) -> None:
    spot = rng.uniform(50, 150, 1000)
    one = gk.Options(spot=spot, strike=100.0, expiry=0.5, vol=0.2, rate=0.03, is_call=False)
    each = gk.Options(
        spot=spot,
        strike=np.full(1000, 100.0),
        expiry=np.full(1000, 0.5),
        vol=np.full(1000, 0.2),
        rate=np.full(1000, 0.03),
        dividend_yield=np.zeros(1000),
        is_call=np.zeros(1000, bool),
    )
    np.testing.assert_array_equal(engine.price(one).price, engine.price(each).price)
    single = engine.price(one.rows(np.array([7])))
    assert single.price[0] == engine.price(one).price[7]


def test_chunks_give_the_same_bits(
    engine: gk.Engine, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = random_rows(rng, 4000)
    whole = engine.greeks(options)
    monkeypatch.setattr(rows, "CHUNK_ROWS", 331)
    out = gk.GreeksResult(*(np.full(4000, 7.0) for _ in range(9)), np.full(4000, 9, np.uint8))
    parts = engine.greeks(options, out=out)
    assert parts is out
    for one, other in zip(whole.columns(), parts.columns(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_smaller_chunks_when_the_device_is_full(
    installed: tuple[gk.Engine, cuda_stand_in.StandIn], rng: np.random.Generator
) -> None:
    engine, device = installed
    options = random_rows(rng, 60_000)
    wanted = engine.price(options).price
    rows._pipelines._idle.clear()
    device.largest_block = 1 << 20
    np.testing.assert_array_equal(engine.price(options).price, wanted)
    rows._pipelines._idle.clear()
    device.largest_block = 1 << 10
    with pytest.raises(MemoryError, match="CUDA device"):
        engine.price(options)


def test_device_columns_are_neither_copied_nor_brought_back(
    installed: tuple[gk.Engine, cuda_stand_in.StandIn], rng: np.random.Generator
) -> None:
    engine, device = installed
    options = random_rows(rng, 1000)
    names = ("spot", "strike", "expiry", "vol", "rate", "dividend_yield", "is_call")
    there = gk.Options(**{name: cuda_stand_in.on_device(getattr(options, name)) for name in names})
    out = gk.PriceResult(device.empty(1000), device.empty(1000, np.uint8))
    engine.price(there, out=out)
    assert device.uploads == 0
    np.testing.assert_array_equal(np.asarray(out.price), engine.price(options).price)
    # From the device into host memory.
    np.testing.assert_array_equal(
        engine.price(there, out=gk.PriceResult(np.empty(1000), np.empty(1000, np.uint8))).price,
        engine.price(options).price,
    )
    half = gk.PriceResult(device.empty(1000), np.empty(1000, np.uint8))
    with pytest.raises(gk.InvalidInput, match="out"):
        engine.price(there, out=half)


def test_implied_vol_agrees_with_the_reference(engine: gk.Engine, rng: np.random.Generator) -> None:
    options = random_rows(rng, 40_000)
    prices = gk.engine("reference").greeks(options)
    found = engine.implied_vol(options, prices.price)
    wanted = gk.engine("reference").implied_vol(options, prices.price)
    # A price in its last digits above intrinsic value may fall on either side of a status.
    intrinsic = np.maximum(
        options.spot * np.exp(-options.dividend_yield * options.expiry)
        - options.strike * np.exp(-options.rate * options.expiry),
        0.0,
    )
    time_value = prices.price - np.where(options.is_call, intrinsic, 0.0)
    clear = (prices.vega * options.vol > 1e-3 * prices.price) & (time_value > 1e-10 * options.spot)
    np.testing.assert_array_equal(found.status[clear], wanted.status[clear])
    assert (found.status == wanted.status).mean() > 0.999
    solved = clear & (found.status == gk.Status.OK)
    assert solved.sum() > 5000
    error = np.abs(found.vol - options.vol)[solved] / options.vol[solved]
    bound = 2e-12 + 8e-16 * (prices.price / np.maximum(prices.vega * options.vol, 1e-300))[solved]
    assert (error <= bound).all()


def test_warm_up_calls_every_function(engine: gk.Engine) -> None:
    engine.warm_up()
    assert cuda_stand_in.compiled.cache_info().currsize >= 3
