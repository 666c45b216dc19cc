"""The XLA engine: accuracy where JAX's own functions are weak, no needless compilation, derivatives."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jax", reason="needs JAX")
pytest.importorskip("scipy", reason="needs SciPy for the reference engine")

import agreement
import grids
import jax
import jax.numpy as jnp
from agreement import random_rows
from scenario_books import random_book, random_scenarios

import gpu_kernels as gk

NUMERIC = ("spot", "strike", "expiry", "vol", "rate", "dividend_yield")


@pytest.fixture(scope="module")
def engine() -> gk.Engine:
    try:
        return gk.engine("xla")
    except gk.EngineUnavailable as error:
        pytest.skip(str(error))


def test_values_and_greeks_agree_with_the_reference(engine: gk.Engine, rng: np.random.Generator) -> None:
    agreement.values_and_greeks(engine, random_rows(rng, 20_000))


def test_implied_vol_agrees_with_the_reference(engine: gk.Engine, rng: np.random.Generator) -> None:
    agreement.implied_vols(engine, random_rows(rng, 20_000))


def test_bad_and_expired_rows(engine: gk.Engine) -> None:
    agreement.rows_without_a_value(engine)


def test_sizes_of_one_bucket_share_a_program(engine: gk.Engine) -> None:
    from gpu_kernels.engines.xla import european
    from gpu_kernels.engines.xla.compile import bucket

    def price(size: int) -> None:
        engine.price(gk.Options(spot=np.linspace(90, 110, size), strike=100.0, expiry=1.0, vol=0.2))

    price(6_145)
    before = european.price_rows.traces
    for size in (6_146, 7_000, 8_000, 8_192):
        assert bucket(size) == 8_192
        price(size)
    assert european.price_rows.traces == before
    # Neither does it matter which fields are the same in every row.
    engine.price(
        gk.Options(spot=100.0, strike=100.0, expiry=np.ones(8_000), vol=0.2, is_call=np.ones(8_000, bool))
    )
    assert european.price_rows.traces == before
    price(8_193)
    assert european.price_rows.traces == before + 1


def test_american_batches_of_any_size_share_a_few_programs(engine: gk.Engine) -> None:
    from gpu_kernels.engines.xla import american
    from gpu_kernels.engines.xla.compile import coarse_bucket

    assert [coarse_bucket(size) for size in (1, 16, 17, 64, 65, 1025, 4096)] == [
        16,
        16,
        64,
        64,
        256,
        4096,
        4096,
    ]
    assert coarse_bucket(american.CHUNK_ROWS) == american.CHUNK_ROWS

    def price(size: int) -> Any:
        options = gk.Options(
            spot=np.linspace(90, 110, size), strike=100.0, expiry=1.0, vol=0.2, is_call=False, rate=0.03,
            american=True,
        )  # fmt: skip
        return engine.price(options, american_method="fast").price

    first = price(70)
    before = american.PRICE_ROWS["fast"].traces
    for size in (65, 100, 256):
        assert price(size)[0] == first[0]
    assert american.PRICE_ROWS["fast"].traces == before


def test_what_it_lacks_is_refused_by_name(engine: gk.Engine) -> None:
    with pytest.raises(gk.EngineUnavailable, match="american_interpolant"):
        engine.module("american_interpolant")


def test_buckets_are_few_and_not_much_larger_than_the_batch() -> None:
    from gpu_kernels.engines.xla.compile import CHUNK_ROWS, LEAST_BUCKET, bucket

    sizes = np.unique(np.geomspace(1, CHUNK_ROWS, 4000).astype(int))
    buckets = [bucket(int(size)) for size in sizes]
    assert all(b >= size for b, size in zip(buckets, sizes, strict=True))
    assert all(b <= max(LEAST_BUCKET, 1.5 * size) for b, size in zip(buckets, sizes, strict=True))
    assert len(set(buckets)) <= 30
    assert max(buckets) == CHUNK_ROWS


def test_scenarios_and_books_of_one_bucket_share_a_program(
    engine: gk.Engine, rng: np.random.Generator
) -> None:
    from gpu_kernels.engines.xla import revaluation

    engine.revalue(random_book(rng, 700, 4), random_scenarios(rng, 50, 4))
    before = revaluation.block_sums.traces
    for count, scenarios in ((900, 50), (700, 64), (1500, 60)):
        engine.revalue(random_book(rng, count, 4), random_scenarios(rng, scenarios, 4))
    assert revaluation.block_sums.traces == before


def test_a_tick_sends_spots_only(engine: gk.Engine, rng: np.random.Generator) -> None:
    from gpu_kernels.engines.xla import revaluation
    from gpu_kernels.revaluation import shocks

    book, scenarios = random_book(rng, 700, 4, groups=3), random_scenarios(rng, 50, 4)
    engine.revalue(book, scenarios)
    before = revaluation._books.of(book).rows(book, shocks(book, scenarios))
    moved = book.with_spots(np.array([50.0, 80.0, 100.0, 120.0]))
    found = engine.revalue(moved, scenarios)
    after = revaluation._books.of(moved).rows(moved, shocks(moved, scenarios))
    kept = [name for name in before._fields[:-2] if getattr(after, name) is getattr(before, name)]
    assert kept == [name for name in before._fields[:-2] if name != "spot"]
    gross = np.abs(moved.quantity * moved.multiplier * moved.spot[: moved.options]).sum()
    assert np.abs(found - gk.engine("reference").revalue(moved, scenarios)).max() <= 1e-11 * gross


def test_larger_batches_go_in_chunks(
    engine: gk.Engine, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    from gpu_kernels.engines.xla import european

    options = random_rows(rng, 2000)
    whole = engine.price(options)
    monkeypatch.setattr(european, "CHUNK_ROWS", 512)
    out = gk.PriceResult(np.full(2000, 7.0), np.full(2000, 9, np.uint8))
    parts = engine.price(options, out=out)
    assert parts is out
    for one, other in zip(whole.columns(), parts.columns(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_gradients_are_the_closed_forms(engine: gk.Engine, rng: np.random.Generator) -> None:
    from gpu_kernels.engines.xla.compile import float64
    from gpu_kernels.engines.xla.european import traceable_price

    size = 500
    spot = rng.uniform(20, 200, size)
    options = gk.Options(
        spot=spot,
        strike=spot * np.exp(rng.normal(0, 0.3, size)),
        expiry=rng.uniform(0.05, 5, size),
        vol=rng.uniform(0.1, 0.8, size),
        rate=rng.uniform(-0.02, 0.08, size),
        dividend_yield=rng.uniform(0, 0.05, size),
        is_call=rng.random(size) < 0.5,
    )
    closed = engine.greeks(options)

    def of_one(is_call: Any, *numbers: Any) -> Any:
        """Reverse mode for the first derivatives, forward mode over it for the second."""

        def value(*inner: Any) -> Any:
            return traceable_price(*inner, is_call)

        def delta_and_vega(*inner: Any) -> Any:
            return jax.grad(value, argnums=(0, 3))(*inner)

        def along(direction: Any) -> Any:
            return jax.jvp(delta_and_vega, numbers, tuple(direction[i] for i in range(6)))[1]

        delta, theta, vega, rho = jax.grad(value, argnums=(0, 2, 3, 4))(*numbers)
        of_delta, of_vega = jax.vmap(along)(jnp.eye(6)[jnp.array([0, 2, 3])])
        return delta, of_delta[0], vega, -theta, rho, of_delta[2], of_vega[2], -of_delta[1]

    with float64():
        numbers = [jnp.asarray(getattr(options, name)) for name in NUMERIC]
        found = jax.jit(jax.vmap(of_one))(jnp.asarray(options.is_call), *numbers)
    names = ("delta", "gamma", "vega", "theta", "rho", "vanna", "volga", "charm")
    for name, one in zip(names, found, strict=True):
        assert_close(one, getattr(closed, name), name)


def assert_close(found: Any, wanted: Any, name: str) -> None:
    scale = np.maximum(np.abs(wanted), 1e-3 * np.abs(wanted).max())
    assert (np.abs(np.asarray(found) - wanted) <= 1e-9 * scale).all(), name


def test_the_callers_precision_is_left_alone(engine: gk.Engine) -> None:
    engine.price(gk.Options(spot=100.0, strike=100.0, expiry=1.0, vol=0.2))
    assert jnp.ones(3).dtype == jnp.float32
    assert not jax.config.jax_enable_x64


def test_logarithm_near_one(rng: np.random.Generator) -> None:
    mpmath = pytest.importorskip("mpmath")
    from gpu_kernels.engines.xla import ops
    from gpu_kernels.engines.xla.compile import float64

    a = np.concatenate(
        [1.0 + rng.normal(0, 1, 200) * 10.0 ** rng.uniform(-15, 0, 200), 10 ** rng.uniform(-300, 300, 200)]
    )
    a = np.abs(a) + 1e-300
    b = np.concatenate([np.ones(200), 10 ** rng.uniform(-5, 5, 200)])
    with float64():
        found = np.asarray(jax.jit(ops.log_ratio)(a, b))
        high, low = (np.asarray(part) for part in jax.jit(ops.log_ratio_parts)(a, b))
    with mpmath.workdps(50):
        for one, other, x, y, z in zip(a, b, found, high, low, strict=True):
            exact = mpmath.log(mpmath.mpf(float(one)) / mpmath.mpf(float(other)))
            assert abs(x - exact) <= 6e-16 * abs(exact)
            assert abs(mpmath.mpf(float(y)) + mpmath.mpf(float(z)) - exact) <= 1e-17 * abs(exact) + 1e-17


def test_expm1_parts_add_up_beyond_float64(rng: np.random.Generator) -> None:
    mpmath = pytest.importorskip("mpmath")
    from gpu_kernels.engines.xla import ops
    from gpu_kernels.engines.xla.compile import float64

    x = np.concatenate([rng.uniform(-20, 20, 400), rng.normal(0, 1, 200) * 10.0 ** rng.uniform(-15, 0, 200)])
    with float64():
        high, low = (np.asarray(part) for part in jax.jit(ops.expm1_parts)(x))
    with mpmath.workdps(50):
        for one, above, below in zip(x, high, low, strict=True):
            exact = mpmath.expm1(mpmath.mpf(float(one)))
            error = abs(mpmath.mpf(float(above)) + mpmath.mpf(float(below)) - exact)
            assert error < 2e-17 * max(1.0, float(np.exp(one)))


def test_a_decision_is_the_same_wherever_it_is_used(engine: gk.Engine, rng: np.random.Generator) -> None:
    """XLA computes z1 anew in each of its loops: one other rounding, and a price was off by its spot."""
    grid = grids.at_the_switch(rng, 100_000)
    options = gk.Options(**grid._asdict())
    found, wanted = engine.greeks(options), gk.engine("reference").greeks(options)
    scale = np.maximum(grid.spot, grid.strike)
    for price in (found.price, engine.price(options).price):
        assert (np.abs(price - wanted.price) <= 2e-14 * scale).all()
    for name in ("delta", "gamma", "vega", "theta", "rho", "vanna", "volga", "charm"):
        one, other = getattr(found, name), getattr(wanted, name)
        assert (np.abs(one - other) <= 1e-9 * np.maximum(np.abs(other), 1e-3 * np.abs(other).max())).all(), (
            name
        )


def test_exponentials(rng: np.random.Generator) -> None:
    mpmath = pytest.importorskip("mpmath")
    from gpu_kernels.engines.xla import ops
    from gpu_kernels.engines.xla.compile import float64

    x = np.concatenate(
        [rng.uniform(-5, 5, 300), rng.uniform(-700, 700, 100), 10.0 ** rng.uniform(-12, 0, 100)]
    )
    with float64():
        power, less_one = np.asarray(jax.jit(ops.exp)(x)), np.asarray(jax.jit(ops.expm1)(x))
        ends = np.asarray(jax.jit(ops.exp)(np.array([0.0, -709.0, -np.inf, np.nan])))
    np.testing.assert_array_equal(ends, [1.0, 0.0, 0.0, np.nan])
    with mpmath.workdps(40):
        for one, a, b in zip(x, power, less_one, strict=True):
            exact = mpmath.exp(mpmath.mpf(float(one)))
            assert abs(a - exact) <= 1.2 * np.spacing(float(exact))
            exact = mpmath.expm1(mpmath.mpf(float(one)))
            assert abs(b - exact) <= 2.5 * np.spacing(abs(float(exact)))


def test_memory_is_not_taken_in_advance() -> None:
    code = (
        "import gpu_kernels as gk, os; gk.engine('xla'); print(os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "false"
