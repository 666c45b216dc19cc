"""Every CUDA kernel, without a device: compiled for sm_90, and its own source run on the processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("cupy", reason="needs CuPy to transpile the kernels")
pytest.importorskip("scipy", reason="needs SciPy for the reference engine")

import accuracy
import cuda_stand_in
import cuda_toolchain
import grids
from american_cases import random_fields
from cuda_on_host import HostKernel
from cupyx import jit
from scenario_books import fresh_rng, random_book, random_scenarios, scipy_pnl

import gpu_kernels as gk
from gpu_kernels import cash_dividends
from gpu_kernels.engines.cuda import compile as cuda_compile
from gpu_kernels.engines.cuda import european, ops, revaluation_kernels, rows
from gpu_kernels.revaluation import position_pnl
from gpu_kernels.scenarios import VolShockSurface

KERNELS = cuda_compile.every_kernel()

# Registers a thread may take so that `blocks` of its blocks are on a multiprocessor at once.
REGISTERS_OF_MULTIPROCESSOR = 65_536


@pytest.fixture
def rng() -> np.random.Generator:
    return fresh_rng()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> tuple[gk.Engine, cuda_stand_in.StandIn]:
    return cuda_stand_in.install(monkeypatch)


@pytest.fixture
def engine(installed: tuple[gk.Engine, cuda_stand_in.StandIn]) -> gk.Engine:
    return installed[0]


def random_rows(rng: np.random.Generator, size: int) -> gk.Options:
    return gk.Options(**grids.everything(rng, size)._asdict())


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_compiles_for_hopper_and_stays_in_registers(kernel: cuda_compile.Kernel) -> None:
    built = cuda_toolchain.cubin(kernel.source(), cuda_compile.OPTIONS)
    print(kernel.name, built.registers, "registers,", built.shared_bytes, "bytes shared,", len(built.code))
    assert built.code.startswith(b"\x7fELF")
    assert kernel.name.encode() in built.code
    assert built.spilled_bytes == 0
    assert built.stack_bytes == 0


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


def test_bad_and_expired_rows(engine: gk.Engine) -> None:
    options = gk.Options(
        spot=[100.0, np.nan, 100.0, -1.0, 100.0, np.inf, 0.0, 100.0],
        strike=[100.0, 100.0, 100.0, 100.0, 90.0, 100.0, 100.0, 100.0],
        expiry=[1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0],
        vol=[0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.0],
        rate=0.01,
    )
    found, wanted = engine.greeks(options), gk.engine("reference").greeks(options)
    for name in found.COLUMNS:
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-12, atol=1e-300)


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


def test_impossible_prices(engine: gk.Engine) -> None:
    prices = np.array([np.nan, -1.0, 0.0, 200.0, 10.0, np.inf, 1e-312])
    found = engine.implied_vol(gk.Options(spot=100.0, strike=100.0, expiry=np.ones(7)), prices)
    wanted = gk.engine("reference").implied_vol(
        gk.Options(spot=100.0, strike=100.0, expiry=np.ones(7)), prices
    )
    np.testing.assert_array_equal(found.status, wanted.status)
    assert np.isnan(found.vol[found.status != 0]).all()


@pytest.mark.parametrize(("vols", "rates"), [(True, True), (True, False), (False, False), (False, True)])
def test_revaluation(engine: gk.Engine, rng: np.random.Generator, vols: bool, rates: bool) -> None:
    book = random_book(rng, 300, 5, groups=3, linear=8)
    scenarios = random_scenarios(rng, 37, 5, vols=vols, rates=rates)
    each, gross = scipy_pnl(book, scenarios)
    found = engine.revalue(book, scenarios)
    assert np.abs(found - each.sum(axis=0)).max() <= 1e-11 * gross
    np.testing.assert_array_equal(found, engine.revalue(book, scenarios))
    by_group = engine.revalue(book, scenarios, by="group")
    expected = np.array([each[book.group == group].sum(axis=0) for group in range(book.groups)])
    assert np.abs(by_group - expected).max() <= 1e-11 * gross
    assert np.abs(position_pnl(engine, book, scenarios) - each).max() <= 1e-11 * gross


def test_revaluation_in_turns_gives_the_same_bits(
    engine: gk.Engine, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpu_kernels.engines.cuda import revaluation

    book = random_book(rng, 200, 3)
    scenarios = random_scenarios(rng, 300, 3)
    wanted = engine.revalue(book, scenarios)
    monkeypatch.setattr(revaluation, "DOUBLES_MAX", 1)
    np.testing.assert_array_equal(engine.revalue(book, scenarios), wanted)


def test_revaluation_with_a_vol_surface(engine: gk.Engine, rng: np.random.Generator) -> None:
    book = random_book(rng, 100, 2)
    plain = random_scenarios(rng, 11, 2)
    surface = VolShockSurface.factors(parallel=rng.normal(0, 0.05, 11), skew=rng.normal(0, 0.2, 11))
    scenarios = gk.Scenarios(
        plain.spot_return, plain.vol_change, plain.rate_change, plain.elapsed, vol_shock_surface=surface
    )
    wanted = gk.engine("reference").revalue(book, scenarios)
    gross = np.abs(book.quantity * book.multiplier * book.spot).sum()
    assert np.abs(engine.revalue(book, scenarios) - wanted).max() <= 1e-11 * gross


def test_a_tick_sends_spots_only(
    installed: tuple[gk.Engine, cuda_stand_in.StandIn], rng: np.random.Generator
) -> None:
    engine, device = installed
    book = random_book(rng, 50, 2)
    scenarios = random_scenarios(rng, 5, 2, vols=False, rates=False)
    engine.revalue(book, scenarios)
    device.uploads = 0
    engine.revalue(book, scenarios)
    without = device.uploads
    device.uploads = 0
    moved = book.with_spots(np.array([101.0, 57.0]))
    found = engine.revalue(moved, scenarios)
    assert device.uploads == without + 1
    wanted = gk.engine("reference").revalue(moved, scenarios)
    assert np.abs(found - wanted).max() <= 1e-11 * np.abs(book.quantity * book.multiplier * 101.0).sum()


def american_rows(rng: np.random.Generator, size: int) -> gk.Options:
    # Rows with two boundaries are left out, so that more must be drawn.
    return gk.Options(**random_fields(rng, 2 * size), american=True).rows(np.arange(size))


@pytest.mark.parametrize("method", ["fast", "accurate"])
def test_american_prices_agree_with_the_reference(
    engine: gk.Engine, rng: np.random.Generator, method: Any
) -> None:
    options = american_rows(rng, 101)
    found = engine.price(options, american_method=method)
    wanted = gk.engine("reference").price(options, american_method=method)
    np.testing.assert_array_equal(found.status, wanted.status)
    np.testing.assert_allclose(found.price, wanted.price, rtol=0, atol=1e-10)
    # A row's place in its block does not matter, nor what else is in it.
    some = np.array([7, 50, 51, 96])
    np.testing.assert_array_equal(
        engine.price(options.rows(some), american_method=method).price, found.price[some]
    )


def test_american_greeks_and_implied_vol_agree_with_the_reference(
    engine: gk.Engine, rng: np.random.Generator
) -> None:
    options = american_rows(rng, 21).replace(vol=0.3)
    found = engine.greeks(options, american_method="fast")
    wanted = gk.engine("reference").greeks(options, american_method="fast")
    np.testing.assert_array_equal(found.status, wanted.status)
    for name in found.COLUMNS[:-1]:
        # Second differences of the premium magnify rounding errors.
        size = 1.0 + np.abs(getattr(wanted, name))
        assert (np.abs(getattr(found, name) - getattr(wanted, name)) <= 1e-6 * size).all(), name
    few = options.rows(np.arange(4)).replace(spot=np.array([92.0, 97.0, 102.0, 108.0]))
    priced = gk.engine("reference").price(few, american_method="fast").price
    vols = engine.implied_vol(few, priced, american_method="fast")
    again = gk.engine("reference").implied_vol(few, priced, american_method="fast")
    np.testing.assert_array_equal(vols.status, again.status)
    np.testing.assert_allclose(vols.vol, again.vol, rtol=0, atol=1e-7)


def test_american_rows_that_have_no_collocation(engine: gk.Engine) -> None:
    nan = float("nan")
    options = gk.Options(
        spot=[90.0, 90.0, nan, 90.0, 0.0, 90.0, 50.0],
        strike=100.0,
        expiry=[1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        vol=[0.2, 0.2, 0.2, 0.0, 0.2, 0.2, 0.2],
        rate=[-0.01, 0.05, 0.05, 0.05, 0.05, 0.0, 0.05],
        dividend_yield=[-0.04, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        is_call=False,
        american=True,
    )
    for result in (engine.price(options, american_method="fast"), engine.greeks(options)):
        # The first has two boundaries: from the grid.
        assert list(result.status[:3]) == [0, 1, 2]
        assert np.isnan(result.price[2])
        plain = gk.engine("reference").price(options, american_method="fast")
        np.testing.assert_array_equal(result.status, plain.status)
        np.testing.assert_allclose(result.price, plain.price, rtol=0, atol=1e-5)


@pytest.mark.parametrize("policy", ["liquidator", "survivor"])
def test_cash_dividends_agree_with_the_processor(
    engine: gk.Engine, rng: np.random.Generator, policy: Any
) -> None:
    size = 9
    options = gk.Options(
        spot=rng.uniform(70, 130, size), strike=100.0, expiry=rng.uniform(0.2, 2, size),
        vol=rng.uniform(0.1, 0.5, size), rate=rng.uniform(-0.01, 0.06, size),
        dividend_yield=rng.uniform(0, 0.03, size),
        is_call=rng.random(size) < 0.5, american=rng.random(size) < 0.7,
    )  # fmt: skip
    # Before today, in the option's life, after it; one takes all that there is.
    lists = [
        [(t, rng.uniform(0.5, 4)) for t in sorted(rng.uniform(-0.1, 2.2, i % 5))] for i in range(size - 1)
    ]
    paid = cash_dividends.CashDividends.per_option([*lists, [(0.1, 500.0)]])
    for call in (cash_dividends.price, cash_dividends.greeks):
        found = call(options, paid, engine=engine, policy=policy, points=80, steps=40)
        wanted = call(options, paid, engine="cpu", policy=policy, points=80, steps=40)
        np.testing.assert_array_equal(found.status, wanted.status)
        np.testing.assert_allclose(found.price, wanted.price, rtol=0, atol=1e-9)
        np.testing.assert_allclose(found.error, wanted.error, rtol=0, atol=1e-9)
        if wanted.greeks is not None:
            for name in wanted.greeks.COLUMNS[:-1]:
                one, other = getattr(found.greeks, name), getattr(wanted.greeks, name)
                np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


def test_cash_dividends_in_turns_give_the_same_bits(
    engine: gk.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpu_kernels.engines.cuda import cash_dividends as backend

    options = gk.Options(spot=np.linspace(80, 120, 150), strike=100.0, expiry=1.0, vol=0.2, american=True)
    paid = cash_dividends.CashDividends.same([(0.5, 2.0)], 150)
    whole = cash_dividends.price(options, paid, engine=engine, points=40, steps=20).price
    monkeypatch.setattr(backend, "SCRATCH_BYTES", 1)
    np.testing.assert_array_equal(
        cash_dividends.price(options, paid, engine=engine, points=40, steps=20).price, whole
    )


def test_american_columns_on_the_device(
    installed: tuple[gk.Engine, cuda_stand_in.StandIn], rng: np.random.Generator
) -> None:
    engine, device = installed
    options = american_rows(rng, 9)
    wanted = engine.price(options, american_method="fast")
    names = ("spot", "strike", "expiry", "vol", "rate", "dividend_yield", "is_call")
    there = gk.Options(
        **{name: cuda_stand_in.on_device(getattr(options, name)) for name in names}, american=True
    )
    device.uploads = 0
    out = gk.PriceResult(device.empty(9), device.empty(9, np.uint8))
    engine.price(there, american_method="fast", out=out)
    assert device.uploads == 0
    np.testing.assert_array_equal(np.asarray(out.price), wanted.price)
    nine = gk.GreeksResult(*(device.empty(9) for _ in range(9)), device.empty(9, np.uint8))
    engine.greeks(there, american_method="fast", out=nine)
    np.testing.assert_array_equal(
        np.asarray(nine.delta), engine.greeks(options, american_method="fast").delta
    )


def test_american_books_are_repriced(engine: gk.Engine) -> None:
    options = gk.Options(
        spot=100.0, strike=[95.0, 105.0], expiry=1.0, vol=0.2, rate=0.03, is_call=False, american=True
    )
    book = gk.Portfolio(options, quantity=1.0)
    scenarios = gk.Scenarios(spot_return=[[0.1], [-0.1]])
    wanted = gk.engine("reference").revalue(book, scenarios)
    np.testing.assert_allclose(engine.revalue(book, scenarios), wanted, rtol=0, atol=1e-9)


def test_warm_up_calls_every_function(engine: gk.Engine) -> None:
    engine.warm_up()
    assert cuda_stand_in.compiled.cache_info().currsize >= 3


def test_blocks_fit_a_multiprocessor() -> None:
    for kernel in KERNELS:
        registers = cuda_toolchain.cubin(kernel.source(), cuda_compile.OPTIONS).registers
        resident = REGISTERS_OF_MULTIPROCESSOR // (-(-registers // 8) * 8 * kernel.threads)
        assert resident >= kernel.blocks, f"{kernel.name}: {resident} blocks of {registers} registers"


def test_scenarios_fill_whole_blocks() -> None:
    assert revaluation_kernels.strip_pnl.threads == revaluation_kernels.WIDTH
