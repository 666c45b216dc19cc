"""Books on the CUDA engine without a device: its own kernels, run on the processor."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cupy", reason="needs CuPy to transpile the kernels")
pytest.importorskip("scipy", reason="needs SciPy for the reference engine")

import agreement
import cuda_stand_in
from scenario_books import random_book, random_scenarios

import gpu_kernels as gk
from gpu_kernels.engines.cuda import revaluation, revaluation_kernels
from gpu_kernels.scenarios import VolShockSurface


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> tuple[gk.Engine, cuda_stand_in.StandIn]:
    return cuda_stand_in.install(monkeypatch)


@pytest.fixture
def engine(installed: tuple[gk.Engine, cuda_stand_in.StandIn]) -> gk.Engine:
    return installed[0]


@pytest.mark.parametrize(("vols", "rates"), [(True, True), (True, False), (False, False), (False, True)])
def test_revaluation(engine: gk.Engine, rng: np.random.Generator, vols: bool, rates: bool) -> None:
    book = random_book(rng, 300, 5, groups=3, linear=8)
    agreement.revaluation(engine, book, random_scenarios(rng, 37, 5, vols=vols, rates=rates))


def test_revaluation_in_turns_gives_the_same_bits(
    engine: gk.Engine, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_american_books_are_repriced(engine: gk.Engine) -> None:
    options = gk.Options(
        spot=100.0, strike=[95.0, 105.0], expiry=1.0, vol=0.2, rate=0.03, is_call=False, american=True
    )
    book = gk.Portfolio(options, quantity=1.0)
    scenarios = gk.Scenarios(spot_return=[[0.1], [-0.1]])
    wanted = gk.engine("reference").revalue(book, scenarios)
    np.testing.assert_allclose(engine.revalue(book, scenarios), wanted, rtol=0, atol=1e-9)


def test_scenarios_fill_whole_blocks() -> None:
    assert revaluation_kernels.strip_pnl.threads == revaluation_kernels.WIDTH
