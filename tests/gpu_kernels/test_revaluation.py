"""Full revaluation on every engine against a plain SciPy loop, and the laws it has to keep."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scenario_books import random_book, random_options, random_scenarios, scipy_pnl

import gpu_kernels as gk
from gpu_kernels.live_book import LiveBook
from gpu_kernels.revaluation import position_pnl
from gpu_kernels.scenarios import VolShockSurface

TOLERANCE_OF_GROSS = 1e-11


@pytest.mark.parametrize(("vols", "rates"), [(True, True), (True, False), (False, False), (False, True)])
def test_agrees_with_a_plain_loop(
    engine: gk.Engine, rng: np.random.Generator, vols: bool, rates: bool
) -> None:
    book = random_book(rng, 1500, 7, linear=20)
    scenarios = random_scenarios(rng, 53, 7, vols=vols, rates=rates)
    rows, gross = scipy_pnl(book, scenarios)
    assert np.abs(engine.revalue(book, scenarios) - rows.sum(axis=0)).max() <= TOLERANCE_OF_GROSS * gross


def test_groups_agree_and_add_up(engine: gk.Engine, rng: np.random.Generator) -> None:
    book = random_book(rng, 900, 3, groups=11, linear=30)
    scenarios = random_scenarios(rng, 40, 3)
    rows, gross = scipy_pnl(book, scenarios)
    by_group = engine.revalue(book, scenarios, by="group")
    assert by_group.shape == (book.groups, 40)
    expected = np.array([rows[book.group == g].sum(axis=0) for g in range(book.groups)])
    assert np.abs(by_group - expected).max() <= TOLERANCE_OF_GROSS * gross
    total = engine.revalue(book, scenarios)
    assert np.abs(by_group.sum(axis=0) - total).max() <= 1e-14 * gross


def test_every_position_in_every_scenario(engine: gk.Engine, rng: np.random.Generator) -> None:
    book = random_book(rng, 400, 3, linear=10)
    scenarios = random_scenarios(rng, 9, 3)
    rows, gross = scipy_pnl(book, scenarios)
    assert np.abs(position_pnl(engine, book, scenarios) - rows).max() <= TOLERANCE_OF_GROSS * gross


def test_vol_shock_surface(engine: gk.Engine, rng: np.random.Generator) -> None:
    book = random_book(rng, 300, 2)
    plain = random_scenarios(rng, 21, 2)
    surface = VolShockSurface.factors(
        parallel=rng.normal(0, 0.05, 21), skew=rng.normal(0, 0.2, 21), term_twist=rng.normal(0, 0.05, 21)
    )
    scenarios = gk.Scenarios(
        plain.spot_return, plain.vol_change, plain.rate_change, plain.elapsed, vol_shock_surface=surface
    )
    shock = np.empty((300, 21))
    for p in range(300):
        x = np.clip(np.log(book.strike[p] / book.spot[p]), -0.5, 0.5)
        t = np.clip(book.expiry[p], surface.tenor[0], surface.tenor[-1])
        for s in range(21):
            along = [np.interp(t, surface.tenor, line) for line in surface.shock[s, 0]]
            shock[p, s] = np.interp(x, surface.log_moneyness, along)
    rows, gross = scipy_pnl(book, scenarios, shock)
    assert np.abs(engine.revalue(book, scenarios) - rows.sum(axis=0)).max() <= TOLERANCE_OF_GROSS * gross


def test_a_surface_per_underlying(engine: gk.Engine, rng: np.random.Generator) -> None:
    book = random_book(rng, 200, 2)
    shock = rng.normal(0.0, 0.05, (6, 2, 1, 1))
    surface = VolShockSurface.of(log_moneyness=[0.0], tenor=[1.0], shock=shock)
    moves = np.zeros((6, 2))
    with_surface = engine.revalue(book, gk.Scenarios(moves, vol_shock_surface=surface))
    with_changes = engine.revalue(book, gk.Scenarios(moves, shock[:, :, 0, 0]))
    assert with_surface == pytest.approx(with_changes, rel=1e-10, abs=1e-7)


def test_horizons_may_differ_by_scenario(engine: gk.Engine, rng: np.random.Generator) -> None:
    book = random_book(rng, 200, 2, groups=3, linear=4)
    elapsed = rng.choice([0.0, 1 / 252, 0.5, 10.0], 30)
    scenarios = gk.Scenarios(rng.normal(0, 0.1, (30, 2)), elapsed=elapsed)
    rows, gross = scipy_pnl(book, scenarios)
    assert np.abs(engine.revalue(book, scenarios) - rows.sum(axis=0)).max() <= TOLERANCE_OF_GROSS * gross
    by_group = engine.revalue(book, scenarios, by="group")
    assert np.abs(by_group.sum(axis=0) - rows.sum(axis=0)).max() <= TOLERANCE_OF_GROSS * gross


def test_two_halves_are_twice_one_half(engine: gk.Engine, rng: np.random.Generator) -> None:
    options = random_options(rng, 333)
    twice = gk.Options(
        **{name: np.tile(options.column(name), 2) for name in ("spot", "strike", "expiry", "vol", "rate")},
        dividend_yield=np.tile(options.dividend_yield, 2),
        is_call=np.tile(options.is_call, 2),
    )
    scenarios = random_scenarios(rng, 25, 1)
    one = engine.revalue(gk.Portfolio(options, 3.0), scenarios)
    two = engine.revalue(gk.Portfolio(twice, 3.0), scenarios)
    assert two == pytest.approx(2.0 * one, rel=1e-12, abs=1e-9)


def test_repeats_to_the_bit(engine: gk.Engine, rng: np.random.Generator) -> None:
    book = random_book(rng, 1100, 4, groups=5, linear=7)
    scenarios = random_scenarios(rng, 70, 4)
    first = engine.revalue(book, scenarios, by="group")
    with ThreadPoolExecutor(4) as callers:
        again = list(callers.map(lambda _: engine.revalue(book, scenarios, by="group"), range(4)))
    for answer in again:
        assert np.array_equal(answer, first)


def test_no_move_is_no_pnl(engine: gk.Engine, rng: np.random.Generator) -> None:
    options = random_options(rng, 100)
    book = gk.Portfolio(options.replace(vol=np.maximum(options.vol, 0.01)), 1.0)
    assert np.abs(engine.revalue(book, gk.Scenarios([[0.0]]))).max() < 1e-11


def test_expiry_inside_the_horizon_is_intrinsic_at_the_shocked_spot(engine: gk.Engine) -> None:
    options = gk.Options(
        spot=100.0, strike=[90.0, 110.0, 100.0], expiry=0.01, vol=0.2, is_call=[True, False, True]
    )
    scenarios = gk.Scenarios([[0.0], [0.1], [-0.1]], elapsed=0.02)
    spot = 100.0 * np.exp([0.0, 0.1, -0.1])
    value = np.maximum([spot - 90.0, 110.0 - spot, spot - 100.0], 0.0).sum(axis=0)
    today = engine.price(options).price.sum()
    assert engine.revalue(gk.Portfolio(options, 1.0), scenarios) == pytest.approx(value - today, abs=1e-12)


def test_edges_of_size(engine: gk.Engine, rng: np.random.Generator) -> None:
    scenarios = random_scenarios(rng, 3, 2)
    empty = gk.Portfolio()
    assert np.array_equal(engine.revalue(empty, scenarios), np.zeros(3))
    stocks = gk.Portfolio(linear={"underlying": [0, 1], "quantity": [1.0, -2.0], "spot": [10.0, 20.0]})
    expected = 10.0 * np.expm1(scenarios.spot_return[:, 0]) - 40.0 * np.expm1(scenarios.spot_return[:, 1])
    assert engine.revalue(stocks, scenarios) == pytest.approx(expected, rel=1e-14)
    book = random_book(rng, 5, 2)
    assert engine.revalue(book, scenarios.select([])).shape == (0,)


def test_out_is_used(engine: gk.Engine, rng: np.random.Generator) -> None:
    book, scenarios = random_book(rng, 50, 2), random_scenarios(rng, 8, 2)
    out = np.empty(8)
    assert engine.revalue(book, scenarios, out=out) is out
    assert np.array_equal(out, engine.revalue(book, scenarios))
    with pytest.raises(gk.InvalidInput, match="out"):
        engine.revalue(book, scenarios, out=np.empty(9))


def test_a_live_book_is_a_fresh_one_after_any_ticks(engine: gk.Engine, rng: np.random.Generator) -> None:
    book, scenarios = random_book(rng, 240, 6, linear=12), random_scenarios(rng, 33, 6)
    spots = rng.uniform(50.0, 150.0, 6)
    live = LiveBook(engine, book.with_spots(spots), scenarios)
    for _ in range(5):
        u = int(rng.integers(6))
        spots[u] *= np.exp(rng.normal(0.0, 0.02))
        pnl = live.move({u: float(spots[u])})
    fresh = book.with_spots(spots)
    assert np.array_equal(pnl, LiveBook(engine, fresh, scenarios).pnl())
    _, gross = scipy_pnl(fresh, scenarios)
    assert np.abs(pnl - engine.revalue(fresh, scenarios)).max() <= 1e-14 * gross


def test_a_live_book_takes_new_positions(rng: np.random.Generator) -> None:
    engine = gk.engine("reference")
    book, scenarios = random_book(rng, 60, 4), random_scenarios(rng, 5, 4)
    live = LiveBook(engine, book.rows(book.underlying != 2), scenarios)
    assert 2 not in live.underlyings
    live.replace(2, book.rows(book.underlying == 2))
    assert np.array_equal(live.pnl(), LiveBook(engine, book, scenarios).pnl())
    with pytest.raises(gk.InvalidInput, match="underlying 1 only"):
        live.replace(1, book)


def test_a_missing_underlying_is_named(engine: gk.Engine, rng: np.random.Generator) -> None:
    book = gk.Portfolio(random_options(rng, 3), 1.0, underlying=[0, 2, 1])
    with pytest.raises(gk.InvalidInput) as caught:
        engine.revalue(book, random_scenarios(rng, 4, 2))
    assert (caught.value.field, caught.value.row) == ("underlying", 1)
    with pytest.raises(gk.InvalidInput, match="by"):
        engine.revalue(book, random_scenarios(rng, 4, 3), by="desk")
    with pytest.raises(gk.InvalidInput, match="group"):
        engine.revalue(book, random_scenarios(rng, 4, 3), by="group")


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_absurd_shocks_are_refused_and_absurd_books_are_infinite(engine: gk.Engine) -> None:
    options = gk.Options(spot=100.0, strike=100.0, expiry=0.5, vol=0.2, rate=0.03)
    linear = {"underlying": 0, "quantity": 1e300, "spot": 1e20}
    for given, field in (
        ({"spot_return": [[0.0], [101.0]]}, "spot_return"),
        ({"spot_return": [[0.0], [0.0]], "rate_change": [0.0, -11.0]}, "rate_change"),
    ):
        with pytest.raises(gk.InvalidInput, match=rf"{field}\[1\].*further than any market goes"):
            gk.Scenarios(**given)
    far = gk.Scenarios([[90.0], [-800.0]], vol_change=[[1e300], [-1e300]], rate_change=[9.0, -9.0])
    assert np.isfinite(engine.revalue(gk.Portfolio(options, 1.0), far)).all()
    total = engine.revalue(gk.Portfolio(options, 1.0, linear=linear), far)
    assert np.isinf(total).all()
