"""The engines' interface: names, shapes, broadcasting, `out=`, and mistakes that are named."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import accuracy
import numpy as np
import pytest

import gpu_kernels as gk

GOOD: dict[str, Any] = {"spot": 100.0, "strike": 95.0, "expiry": 0.7, "vol": 0.25}


def test_unknown_engine_is_an_error_by_name() -> None:
    with pytest.raises(gk.EngineUnavailable, match="'abacus'"):
        gk.engine("abacus")


def test_auto_is_the_first_engine_present() -> None:
    present = [probe.name for probe in gk.available_engines() if probe.engine is not None]
    assert gk.engine("auto").name == present[0]
    assert gk.engine().name == present[0]
    assert all(probe.engine is not None or probe.reason for probe in gk.available_engines())


def test_what_an_engine_says_it_cannot_do_it_refuses(engine: gk.Engine) -> None:
    if "interpolated American books" in gk.cannot(engine.name):
        with pytest.raises(gk.EngineUnavailable, match="american_interpolant"):
            engine.module("american_interpolant")
    else:
        assert engine.module("american_interpolant")


def test_every_engine_has_cash_dividends(engine: gk.Engine) -> None:
    assert engine.module("cash_dividends")


def test_engine_names_itself_and_its_device(engine: gk.Engine) -> None:
    assert gk.engine(engine.name) is engine
    assert engine.device


@pytest.mark.parametrize(
    "field", ["spot", "strike", "expiry", "vol", "rate", "dividend_yield", "is_call", "american"]
)
def test_options_name_the_field_at_fault(field: str) -> None:
    flag = field in ("is_call", "american")
    wrong: tuple[Any, ...] = (None, "abc", 1j, object(), [[1.0], [1.0, 2.0]], 1.0 if flag else True)
    for value in wrong:
        with pytest.raises(gk.InvalidInput) as caught:
            gk.Options(**(GOOD | {field: value}))
        assert caught.value.field == field
    other = "strike" if field == "spot" else "spot"
    three = np.ones(3, dtype=bool if flag else float)
    with pytest.raises(gk.InvalidInput, match="does not broadcast") as caught:
        gk.Options(**(GOOD | {other: np.ones(2), field: three}))
    assert caught.value.field == (field if field != "spot" else other)


def test_unknown_field_and_missing_field_are_refused() -> None:
    with pytest.raises(TypeError, match="volatility"):
        gk.Options(**GOOD, volatility=0.2)
    with pytest.raises(TypeError, match="expiry"):
        gk.Options(spot=1.0, strike=1.0, vol=0.2)  # type: ignore[call-arg]
    with pytest.raises(gk.InvalidInput, match="volatility"):
        gk.Options(**GOOD).replace(volatility=0.2)


def test_options_cannot_be_changed() -> None:
    options = gk.Options(**GOOD)
    with pytest.raises(AttributeError):
        options.spot = np.ones(3)
    assert options.replace(spot=[1.0, 2.0]).shape == (2,)
    assert options.shape == ()


def test_integers_and_float32_are_taken_as_numbers(engine: gk.Engine) -> None:
    narrow = gk.Options(spot=100, strike=[90, 110], expiry=np.float32(0.5), vol=0.25)
    wide = gk.Options(spot=100.0, strike=[90.0, 110.0], expiry=0.5, vol=0.25)
    assert (accuracy.host(engine.price(narrow).price) == accuracy.host(engine.price(wide).price)).all()


def test_shapes_broadcast_and_rows_keep_their_order(engine: gk.Engine) -> None:
    spot = np.array([[90.0], [100.0], [110.0]])
    strike = np.array([80.0, 100.0, 120.0, 140.0])
    result = engine.price(gk.Options(spot=spot, strike=strike, expiry=1.0, vol=0.2, is_call=strike < 130.0))
    price = accuracy.host(result.price)
    assert price.shape == (3, 4)
    for i in range(3):
        for j in range(4):
            one = engine.price(
                gk.Options(spot=spot[i, 0], strike=strike[j], expiry=1.0, vol=0.2, is_call=strike[j] < 130.0)
            )
            assert price[i, j] == pytest.approx(float(accuracy.host(one.price)), rel=1e-14)


def test_strided_columns_are_read_right(engine: gk.Engine) -> None:
    table = np.random.default_rng(5).uniform(80, 120, (50, 2))
    sliced = engine.price(gk.Options(spot=table[::2, 0], strike=table[::2, 1], expiry=1.0, vol=0.2))
    copied = engine.price(
        gk.Options(spot=table[::2, 0].copy(), strike=table[::2, 1].copy(), expiry=1.0, vol=0.2)
    )
    assert (accuracy.host(sliced.price) == accuracy.host(copied.price)).all()


def test_no_rows(engine: gk.Engine) -> None:
    options = gk.Options(**(GOOD | {"spot": np.empty(0)}))
    assert engine.price(options).price.shape == (0,)
    assert engine.greeks(options).charm.shape == (0,)
    assert engine.implied_vol(options, 1.0).vol.shape == (0,)


def test_price_of_implied_vol_broadcasts(engine: gk.Engine) -> None:
    options = gk.Options(spot=100.0, strike=100.0, expiry=1.0)
    vol = accuracy.host(engine.implied_vol(options, [[5.0, 6.0], [7.0, 8.0]]).vol)
    assert vol.shape == (2, 2)
    again = engine.price(options.replace(vol=vol))
    np.testing.assert_allclose(accuracy.host(again.price), [[5.0, 6.0], [7.0, 8.0]], rtol=1e-14)
    with pytest.raises(gk.InvalidInput) as caught:
        engine.implied_vol(gk.Options(spot=[1.0, 2.0], strike=1.0, expiry=1.0), [1.0, 2.0, 3.0])
    assert caught.value.field == "price"


@pytest.mark.parametrize("call", ["price", "greeks", "implied_vol"])
def test_out_is_written_and_returned(engine: gk.Engine, call: str) -> None:
    rows = np.linspace(80.0, 120.0, 40)
    options = gk.Options(**(GOOD | {"spot": rows}))
    more = (np.full(40, 30.0),) if call == "implied_vol" else ()
    first = getattr(engine, call)(options, *more)
    for column in first.columns():
        column[...] = 77
    again = getattr(engine, call)(options, *more, out=first)
    assert again is first
    fresh = getattr(engine, call)(options, *more)
    for name in type(first).COLUMNS:
        np.testing.assert_array_equal(
            accuracy.host(getattr(first, name)), accuracy.host(getattr(fresh, name))
        )


def test_wrong_out_is_named(engine: gk.Engine) -> None:
    options = gk.Options(**(GOOD | {"spot": np.ones(4)}))
    status = np.zeros(4, dtype=np.uint8)
    for price, field in (
        (np.empty(3), "out.price"),
        (np.empty(4, dtype=np.float32), "out.price"),
        (np.empty(8)[::2], "out.price"),
        ([0.0] * 4, "out.price"),
    ):
        with pytest.raises(gk.InvalidInput) as caught:
            engine.price(options, out=gk.PriceResult(price, status))  # type: ignore[arg-type]
        assert caught.value.field == field
    with pytest.raises(gk.InvalidInput, match="GreeksResult"):
        engine.greeks(options, out=gk.PriceResult(np.empty(4), status))  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["spot", "strike", "expiry", "vol", "rate", "dividend_yield"])
def test_out_apart_from_every_input(engine: gk.Engine, field: str) -> None:
    """A result written over an input would be read again as that input: refused by both names."""
    shared = np.full(6, 1.0)
    options = gk.Options(**(GOOD | {field: shared[:4], "is_call": np.ones(4, dtype=bool)}))
    status = np.zeros(4, dtype=np.uint8)
    for price in (shared[:4], shared[2:]):
        with pytest.raises(gk.InvalidInput, match=f"shares memory with {field}$") as caught:
            engine.price(options, out=gk.PriceResult(price, status))
        assert caught.value.field == "out.price"
    engine.price(options, out=gk.PriceResult(np.empty(4), status))


def test_out_apart_from_flags_quotes_and_itself(engine: gk.Engine) -> None:
    call = np.ones(4, dtype=bool)
    options = gk.Options(**(GOOD | {"is_call": call}))
    with pytest.raises(gk.InvalidInput, match=r"out\.status: shares memory with is_call"):
        engine.price(options, out=gk.PriceResult(np.empty(4), call.view(np.uint8)))
    quotes = np.full(4, 12.0)
    with pytest.raises(gk.InvalidInput, match=r"out\.vol: shares memory with price"):
        engine.implied_vol(options, quotes, out=gk.ImpliedVolResult(quotes, np.zeros(4, dtype=np.uint8)))
    one = np.empty(4)
    nine = gk.GreeksResult(*([one] * 9), np.zeros(4, dtype=np.uint8))
    with pytest.raises(gk.InvalidInput, match=r"out\.\w+: shares memory with out\.\w+"):
        engine.greeks(options, out=nine)


def test_masked_numbers_are_bad_rows_and_masked_flags_are_refused(engine: gk.Engine) -> None:
    strike = np.ma.array([90.0, 100.0, 110.0], mask=[False, True, False])
    status = accuracy.host(engine.price(gk.Options(**(GOOD | {"strike": strike}))).status)
    assert list(status) == [gk.Status.OK, gk.Status.INVALID_INPUT, gk.Status.OK]
    whole = np.ma.array([90, 100], mask=[True, False])
    assert np.isnan(gk.Options(**(GOOD | {"strike": whole})).strike[0])
    with pytest.raises(gk.InvalidInput, match="masked") as caught:
        gk.Options(**(GOOD | {"is_call": np.ma.array([True, False], mask=[False, True])}))
    assert caught.value.field == "is_call"


def test_unknown_american_method_is_refused(engine: gk.Engine) -> None:
    with pytest.raises(gk.InvalidInput, match="american_method"):
        engine.price(gk.Options(**GOOD), american_method="quick")  # type: ignore[arg-type]


def test_large_batches_are_cut_and_agree_with_small_ones(engine: gk.Engine) -> None:
    """More rows than any engine takes at once, scalar fields among them."""
    count = 200_003
    spot = np.linspace(50.0, 150.0, count)
    whole = engine.greeks(gk.Options(**(GOOD | {"spot": spot, "rate": 0.03})))
    picked = np.array([0, 1, 8191, 8192, 65_535, 65_536, 131_071, count - 1])
    part = engine.greeks(gk.Options(**(GOOD | {"spot": spot[picked], "rate": 0.03})))
    for name in type(whole).COLUMNS:
        all_rows = accuracy.host(getattr(whole, name))
        assert all_rows.shape == (count,)
        np.testing.assert_allclose(all_rows[picked], accuracy.host(getattr(part, name)), rtol=1e-12)
    assert (accuracy.host(whole.status) == gk.Status.OK).all()


def test_concurrent_calls_give_the_same_bits(engine: gk.Engine) -> None:
    spot = np.linspace(50.0, 150.0, 40_000)
    options = gk.Options(**(GOOD | {"spot": spot}))
    expected = accuracy.host(engine.price(options).price)
    together = threading.Barrier(6)

    def call(_: int) -> bool:
        together.wait(30)
        return all((accuracy.host(engine.price(options).price) == expected).all() for _ in range(5))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(call, range(6)))


def test_import_needs_no_compiler_and_no_device() -> None:
    """`import gpu_kernels` and the reference engine work with NumPy and SciPy alone."""
    script = """
import sys
for name in ("numba", "llvmlite", "jax", "cupy", "cupyx"):
    sys.modules[name] = None
import gpu_kernels as gk
eng = gk.engine("auto")
assert eng.name == "reference", eng
price = float(eng.price(gk.Options(spot=100.0, strike=100.0, expiry=1.0, vol=0.2)).price)
assert abs(price - 7.965567455405804) < 1e-13, price
for name in ("cpu", "cuda", "xla"):
    try:
        gk.engine(name)
    except gk.EngineUnavailable as error:
        assert name in str(error)
    else:
        raise SystemExit(name)
print("ok")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "ok", done.stderr


def test_a_bare_device_machine_needs_neither_numba_nor_the_services_libraries() -> None:
    """With NumPy, SciPy, JAX and CuPy every module loads, xla runs, and each CUDA kernel has its source."""
    pytest.importorskip("cupy", reason="needs CuPy to transpile the kernels")
    pytest.importorskip("jax", reason="needs JAX")
    script = """
import sys
for name in ("numba", "llvmlite", "grpc", "google", "confluent_kafka", "typer", "rich", "pandas"):
    sys.modules[name] = None
from importlib import import_module
from pkgutil import walk_packages
import gpu_kernels as gk
for module in walk_packages(gk.__path__, "gpu_kernels."):
    if not module.name.startswith("gpu_kernels.engines.cpu"):
        import_module(module.name)
from gpu_kernels.engines.cuda.compile import every_kernel
assert all("__global__" in kernel.source() for kernel in every_kernel())
eng = gk.engine("xla")
options = gk.Options(spot=[100.0, 90.0], strike=100.0, expiry=1.0, vol=0.2)
book = gk.Portfolio(options=options, quantity=[1.0, -2.0])
shocks = gk.simulate_scenarios(256, mean=[0.0], cov=[[0.04]], seed=1, horizon=1 / 252)
pnl = eng.revalue(book, shocks)
assert abs(pnl - gk.engine("reference").revalue(book, shocks)).max() < 1e-11
assert gk.tail_risk(pnl, level=0.9).es > 0.0
print("ok")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "ok", done.stderr


def test_american_rows_of_a_mixed_batch_go_where_they_belong(engine: gk.Engine) -> None:
    """Every second row is American; each gets what a batch of its own kind gets, in its place."""
    spot = np.linspace(85.0, 115.0, 9)
    flags = np.arange(9) % 2 == 1
    options = gk.Options(**(GOOD | {"spot": spot, "rate": 0.05, "is_call": False}))
    try:
        american = engine.price(options.replace(american=True)).price
    except gk.EngineUnavailable as error:
        pytest.skip(str(error))
    expected = np.where(flags, accuracy.host(american), accuracy.host(engine.price(options).price))
    mixed = options.replace(american=flags)
    result = engine.price(mixed)
    np.testing.assert_allclose(accuracy.host(result.price), expected, rtol=1e-12)
    result.price[...] = 0.0
    np.testing.assert_allclose(accuracy.host(engine.price(mixed, out=result).price), expected, rtol=1e-12)
    np.testing.assert_allclose(accuracy.host(engine.greeks(mixed).price), expected, rtol=1e-6)
    vols = engine.implied_vol(mixed, result.price)
    np.testing.assert_allclose(accuracy.host(vols.vol), GOOD["vol"], rtol=1e-6)


def test_a_new_name_on_the_front_door_is_found() -> None:
    """Names are loaded when first used, and a function may bear the name of its module."""
    import gpu_kernels.tail_risk

    assert callable(gk.tail_risk)
    assert gpu_kernels.tail_risk.__module__ == "gpu_kernels.tail_risk"
    assert {"engine", "Portfolio", "simulate_scenarios"} <= set(dir(gk))
    for name in gk.__all__:
        assert getattr(gk, name) is not None
    with pytest.raises(AttributeError, match="abacus"):
        gk.abacus  # noqa: B018
