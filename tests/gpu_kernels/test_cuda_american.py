"""American options and dividends on the CUDA engine without a device: its kernels, run on the processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("cupy", reason="needs CuPy to transpile the kernels")
pytest.importorskip("scipy", reason="needs SciPy for the reference engine")

import cuda_stand_in
from american_cases import random_fields

import gpu_kernels as gk
from gpu_kernels import cash_dividends, dividend_tables
from gpu_kernels.dividend_schedules import CashDividends
from gpu_kernels.engines import escrowed
from gpu_kernels.revaluation import position_pnl


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> tuple[gk.Engine, cuda_stand_in.StandIn]:
    return cuda_stand_in.install(monkeypatch)


@pytest.fixture
def engine(installed: tuple[gk.Engine, cuda_stand_in.StandIn]) -> gk.Engine:
    return installed[0]


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


def stock_options(rng: np.random.Generator, size: int) -> gk.Options:
    return gk.Options(
        spot=rng.uniform(70, 130, size), strike=100.0, expiry=rng.uniform(0.2, 2, size),
        vol=rng.uniform(0.1, 0.5, size), rate=rng.uniform(-0.01, 0.06, size),
        dividend_yield=rng.uniform(0, 0.03, size),
        is_call=rng.random(size) < 0.5, american=rng.random(size) < 0.7,
    )  # fmt: skip


def ex_dates(rng: np.random.Generator, size: int) -> list[list[tuple[float, float]]]:
    """None to four for each: before today, in the option's life, after it."""
    return [[(t, rng.uniform(0.5, 4)) for t in sorted(rng.uniform(-0.1, 2.2, i % 5))] for i in range(size)]


@pytest.mark.parametrize("policy", ["liquidator", "survivor"])
def test_cash_dividends_agree_with_the_processor(
    engine: gk.Engine, rng: np.random.Generator, policy: Any
) -> None:
    options = stock_options(rng, 9)
    # The last dividend takes all that there is.
    paid = CashDividends.per_option([*ex_dates(rng, 8), [(0.1, 500.0)]])
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


def test_options_that_carry_dividends_agree_with_the_processor(
    engine: gk.Engine, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The escrowed model: exercise pays the whole spot, most of all in the moment before an ex-date."""
    monkeypatch.setattr(escrowed, "POINTS", 100)
    monkeypatch.setattr(escrowed, "STEPS", 40)
    random = stock_options(rng, 8).replace(dividends=CashDividends.per_option(ex_dates(rng, 8)))
    last_chance = gk.Options(
        spot=[110.0, 105.0], strike=100.0, expiry=1.0, vol=0.15, rate=0.01, american=True,
        dividends=CashDividends.same([(0.4, 8.0), (0.8, 8.0)], 2),
    )  # fmt: skip
    for options in (random, last_chance):
        found, wanted = engine.greeks(options), gk.engine("cpu").greeks(options)
        np.testing.assert_array_equal(found.status, wanted.status)
        np.testing.assert_allclose(found.price, wanted.price, rtol=0, atol=1e-9)
        for name in wanted.COLUMNS[1:-1]:
            one, other = getattr(found, name), getattr(wanted, name)
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-5, err_msg=name)


def test_books_with_dividends_agree_with_the_processor(
    engine: gk.Engine, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole grids come back from the device here, of a coarser lattice than the product's."""
    monkeypatch.setattr(dividend_tables, "POINTS", 80)
    monkeypatch.setattr(dividend_tables, "STEPS", 24)
    monkeypatch.setattr(dividend_tables, "_kept", dividend_tables._Kept())
    options = stock_options(rng, 5).replace(dividends=CashDividends.per_option(ex_dates(rng, 5)))
    book = gk.Portfolio(options=options, quantity=rng.normal(0, 10, 5), underlying=np.arange(5) % 2)
    scenarios = gk.Scenarios(
        spot_return=rng.normal(0, 0.1, (3, 2)), vol_change=rng.normal(0, 0.02, (3, 2)), elapsed=10 / 252
    )
    wanted = position_pnl(gk.engine("cpu"), book, scenarios)
    np.testing.assert_allclose(position_pnl(engine, book, scenarios), wanted, rtol=1e-8, atol=1e-7)


def test_cash_dividends_in_turns_give_the_same_bits(
    engine: gk.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpu_kernels.engines.cuda import cash_dividends as backend

    options = gk.Options(spot=np.linspace(80, 120, 150), strike=100.0, expiry=1.0, vol=0.2, american=True)
    paid = CashDividends.same([(0.5, 2.0)], 150)
    whole = cash_dividends.price(options, paid, engine=engine, points=40, steps=20).price
    monkeypatch.setattr(backend, "SCRATCH_BYTES", 1)
    np.testing.assert_array_equal(
        cash_dividends.price(options, paid, engine=engine, points=40, steps=20).price, whole
    )
