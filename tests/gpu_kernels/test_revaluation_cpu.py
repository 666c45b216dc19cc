"""The CPU engine's sums do not depend on how the work is cut, and its formula holds in the far tails."""

# What follows the skips needs them.
# ruff: noqa: E402

from __future__ import annotations

import numpy as np
import pytest

# A bare CUDA machine has neither.
mpmath = pytest.importorskip("mpmath")
pytest.importorskip("numba")

from scenario_books import random_book, random_scenarios

import gpu_kernels as gk
from gpu_kernels.engines.cpu import revaluation as cpu
from gpu_kernels.engines.cpu import threads
from gpu_kernels.engines.reference import ops
from gpu_kernels.formulas.revaluation import mills_fraction, shocked_value


@pytest.mark.parametrize("moves", ["spot", "vol", "rate"])
def test_any_cut_gives_the_same_bits(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, moves: str
) -> None:
    book = random_book(rng, 5000, 3, groups=4)
    scenarios = random_scenarios(rng, 301, 3, vols=moves != "spot", rates=moves == "rate")
    engine = gk.engine("cpu")
    whole = engine.revalue(book, scenarios)
    groups = engine.revalue(book, scenarios, by="group")
    for workers, least, tile, partial in ((1, 32, 32, 1), (3, 32, 64, 64), (2, 256, 1024, 1 << 23)):
        pool = threads.Workers(workers)
        monkeypatch.setattr(cpu, "workers", lambda pool=pool: pool)
        monkeypatch.setattr(cpu, "TILE_MIN", least)
        monkeypatch.setattr(cpu, "TILE_MAX", tile)
        monkeypatch.setattr(cpu, "PARTIAL_MAX", partial)
        assert np.array_equal(engine.revalue(book, scenarios), whole)
        assert np.array_equal(engine.revalue(book, scenarios, by="group"), groups)
        pool.close()


def test_any_number_of_scenarios_gives_the_same_bits(rng: np.random.Generator) -> None:
    book, scenarios = random_book(rng, 300, 2), random_scenarios(rng, 70, 2)
    engine = gk.engine("cpu")
    whole = engine.revalue(book, scenarios)
    for count in (1, 2, 7, 31, 32, 33, 64, 69):
        assert np.array_equal(engine.revalue(book, scenarios.select(slice(count))), whole[:count])


def test_many_groups_and_lone_positions(rng: np.random.Generator) -> None:
    book = random_book(rng, 700, 2, groups=699)
    scenarios = random_scenarios(rng, 5, 2)
    by_group = gk.engine("cpu").revalue(book, scenarios, by="group")
    assert by_group.shape == (book.groups, 5)
    unused = np.setdiff1d(np.arange(book.groups), book.group)
    assert not by_group[unused].any()


def test_mills_ratio_against_60_digits() -> None:
    fraction = mills_fraction(ops)
    y = np.concatenate([np.linspace(0.0, 5.0, 101), np.linspace(5.0, 40.0, 71)])
    top, bottom = fraction(y)
    with mpmath.workdps(60):
        for at, found in zip(y, top / bottom, strict=True):
            exact = mpmath.sqrt(mpmath.pi / 2) * mpmath.erfc(mpmath.mpf(at) / mpmath.sqrt(2))
            exact *= mpmath.exp(mpmath.mpf(at) ** 2 / 2)
            assert abs(found / exact - 1) < 4e-15


def test_far_out_of_the_money_keeps_relative_accuracy() -> None:
    value = shocked_value(ops)
    with mpmath.workdps(60):
        for strike, sign in ((300.0, 1.0), (500.0, 1.0), (20.0, -1.0), (110.0, 1.0)):
            deviation = 0.15
            found = value(sign, 100.0, strike, np.log(100.0 / strike), deviation, 1.0 / deviation)
            d = mpmath.mpf(deviation)
            plus = mpmath.log(mpmath.mpf(100) / strike) / d + d / 2
            exact = sign * (100 * mpmath.ncdf(sign * plus) - strike * mpmath.ncdf(sign * (plus - d)))
            assert abs(found / exact - 1) < 2e-13
