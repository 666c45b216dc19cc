"""The search for large errors in 113-bit arithmetic agrees with the 60-digit formula, and sees errors."""

from __future__ import annotations

import shutil
from typing import Any

import accuracy
import accuracy_search
import numpy as np
import pytest

import gpu_kernels as gk

mp = pytest.importorskip("mpmath", reason="the exact formula needs mpmath")
mpmath_truth = pytest.importorskip("mpmath_truth")

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc: no 113-bit arithmetic")


@pytest.fixture(scope="module")
def exact() -> Any:
    return accuracy_search.library()


def test_prices_are_those_of_the_60_digit_formula(exact: Any, seed: int) -> None:
    grid = accuracy_search.drawn(seed, 400)
    found = np.empty(grid.spot.size)
    accuracy_search.called(exact.exact_prices, found.size, *grid, found)
    for row, price in zip(zip(*grid, strict=True), found, strict=True):
        wanted = float(mpmath_truth.price(mpmath_truth.Option(*row)))
        assert abs(price - wanted) <= 2.3e-16 * wanted + 1e-300, row


def test_search_on_the_reference_engine(exact: Any, seed: int) -> None:
    engine = gk.engine("reference")
    grid = accuracy_search.drawn(seed, 20_000)
    for measure in (accuracy_search.value_errors, accuracy_search.vol_errors):
        for name, errors in measure(exact, engine, grid).items():
            assert errors.max() <= accuracy_search.ALLOWED[name], (name, int(errors.argmax()))


def test_search_sees_a_wrong_digit(exact: Any, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = accuracy_search.drawn(seed, 800)
    engine = gk.engine("reference")
    right = engine.greeks(accuracy.options(grid))
    right.vanna[:] *= 1.0 + 1e-9
    monkeypatch.setattr(type(engine), "greeks", lambda self, options: right)
    errors = accuracy_search.value_errors(exact, engine, grid)
    wrong = [name for name in accuracy.GREEKS if errors[name].max() > accuracy_search.ALLOWED[name]]
    assert wrong == ["vanna"]
