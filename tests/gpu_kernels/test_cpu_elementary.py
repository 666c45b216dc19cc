"""The CPU engine's elementary functions against 50 digits: a few units in the last place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("numba", reason="the CPU engine needs numba")
mp = pytest.importorskip("mpmath", reason="exact values need mpmath")

from numba import njit  # noqa: E402

from gpu_kernels.engines.cpu import ops  # noqa: E402

FLAGS = {"contract", "nsz"}


def _applied(function: Any, arguments: int) -> Callable[..., NDArray[np.float64]]:
    if arguments == 1:

        @njit(fastmath=FLAGS)
        def apply(x, out):  # type: ignore[no-untyped-def]
            for i in range(x.size):
                out[i] = function(x[i])

        def call_one(x: Any) -> NDArray[np.float64]:
            out = np.empty_like(x)
            apply(x, out)
            return out

        return call_one

    @njit(fastmath=FLAGS)
    def apply_two(a, b, out):  # type: ignore[no-untyped-def]
        for i in range(a.size):
            out[i] = function(a[i], b[i])

    def call_two(a: Any, b: Any) -> NDArray[np.float64]:
        out = np.empty_like(a)
        apply_two(a, b, out)
        return out

    return call_two


def _ulps(got: Any, exact: list[Any]) -> float:
    worst = 0.0
    for value, truth in zip(got, exact, strict=True):
        unit = np.spacing(abs(float(truth)))
        worst = max(worst, float(abs(mp.mpf(float(value)) - truth) / mp.mpf(float(unit))))
    return worst


def _signed_magnitudes(rng: np.random.Generator, least: float, most: float, size: int) -> Any:
    return np.exp(rng.uniform(np.log(least), np.log(most), size)) * rng.choice([-1.0, 1.0], size)


@pytest.fixture(autouse=True)
def _fifty_digits() -> Any:
    with mp.workdps(50):
        yield


def test_exp(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.concatenate(
        [rng.uniform(-707.9, 708.9, 1500), _signed_magnitudes(rng, 1e-20, 1.0, 500), [0.0, -708.0]]
    )
    got = _applied(ops.exp, 1)(x)
    assert _ulps(got, [mp.exp(mp.mpf(float(v))) for v in x]) < 1.0
    assert _applied(ops.exp, 1)(np.array([0.0, -0.0]))[0] == 1.0
    low, lowest, nan = _applied(ops.exp, 1)(np.array([-708.1, -np.inf, np.nan]))
    assert (low, lowest) == (0.0, 0.0)
    assert np.isnan(nan)


def test_expm1(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.concatenate([_signed_magnitudes(rng, 1e-300, 1.0, 1000), rng.uniform(-40.0, 700.0, 1000)])
    got = _applied(ops.expm1, 1)(x)
    with mp.workdps(350):
        exact = [mp.expm1(mp.mpf(float(v))) for v in x]
    assert _ulps(got, exact) < 3.0


def test_expm1_parts_add_up_beyond_float64(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.concatenate([_signed_magnitudes(rng, 1e-18, 1.0, 500), rng.uniform(-20.0, 20.0, 1000), [0.0]])

    @njit(fastmath=FLAGS)
    def apply(x, high, low):  # type: ignore[no-untyped-def]
        for i in range(x.size):
            high[i], low[i] = ops.expm1_parts(x[i])

    high, low = np.empty_like(x), np.empty_like(x)
    apply(x, high, low)
    for value, above, below in zip(x, high, low, strict=True):
        exact = mp.expm1(mp.mpf(float(value)))
        error = abs(mp.mpf(float(above)) + mp.mpf(float(below)) - exact)
        assert error < 2e-17 * max(1.0, float(mp.exp(float(value))))
        assert error < 4e-16 * abs(exact) or exact == 0
        assert above + below == above


def test_log(seed: int) -> None:
    rng = np.random.default_rng(seed)
    near_one = 1.0 + _signed_magnitudes(rng, 1e-15, 0.3, 700)
    x = np.concatenate([np.exp(rng.uniform(-708, 709, 1000)), near_one, rng.uniform(0.5, 2.0, 500)])
    got = _applied(ops.log, 1)(x)
    assert _ulps(got, [mp.log(mp.mpf(float(v))) for v in x]) < 2.0
    assert _applied(ops.log, 1)(np.array([1.0]))[0] == 0.0


def test_log_ratio_keeps_the_digits_of_close_numbers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    b = np.exp(rng.uniform(-300, 300, 1500))
    a = b * np.concatenate(
        [1.0 + _signed_magnitudes(rng, 1e-15, 0.5, 1000), np.exp(rng.uniform(-300, 300, 500))]
    )
    exact = [mp.log(mp.mpf(float(p)) / mp.mpf(float(q))) for p, q in zip(a, b, strict=True)]
    exact = [one if one else mp.mpf(0) for one in exact]
    assert _ulps(_applied(ops.log_ratio, 2)(a, b), exact) < 2.5


def test_log_ratio_parts_add_up_beyond_float64(seed: int) -> None:
    rng = np.random.default_rng(seed)
    b = np.exp(rng.uniform(-6, 6, 1000))
    a = np.exp(rng.uniform(-6, 6, 1000))

    high_of = njit(lambda p, q: ops.log_ratio_parts(p, q)[0])
    low_of = njit(lambda p, q: ops.log_ratio_parts(p, q)[1])
    for p, q in zip(a, b, strict=True):
        exact = mp.log(mp.mpf(float(p)) / mp.mpf(float(q)))
        total = mp.mpf(float(high_of(p, q))) + mp.mpf(float(low_of(p, q)))
        assert abs(total - exact) < 3e-18


def test_ndtr_and_npdf_in_the_tails(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.uniform(-37.0, 8.0, 1500), _signed_magnitudes(rng, 1e-10, 1.0, 300)])
    ndtr = _applied(ops.ndtr, 1)(x)
    npdf = _applied(ops.npdf, 1)(x)
    for value, low, dense in zip(x, ndtr, npdf, strict=True):
        z = mp.mpf(float(value))
        # exp(-z^2/2) feels the rounding of z^2: that is all that may show.
        allowed = 1e-15 + 1.2e-16 * float(value) ** 2
        assert abs(mp.mpf(float(low)) / (mp.erfc(-z / mp.sqrt(2)) / 2) - 1) < allowed
        assert abs(mp.mpf(float(dense)) / mp.npdf(z) - 1) < allowed
    assert list(_applied(ops.ndtr, 1)(np.array([-60.0, 60.0]))) == [0.0, 1.0]


def test_fma_rounds_once() -> None:
    tiny = 2.0**-30
    got = njit(lambda a, b, c: ops.fma(a, b, c))(1.0 + tiny, 1.0 - tiny, -1.0)
    assert got == -(tiny**2)
