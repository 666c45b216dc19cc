"""American values against QuantLib's most accurate scheme, its own fast scheme, and a plain grid."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import gpu_kernels as gk
from tests.gpu_kernels.american_cases import GREEKS, TABLES, grid_price, options_of, random_fields, table

ENGINES = ("reference", "cpu", "xla")
RECORDED = json.loads((TABLES / "recorded_errors.json").read_text())


@pytest.fixture(scope="module")
def box() -> dict[str, Any]:
    return table("box.csv")


def engine_of(name: str) -> gk.Engine:
    try:
        return gk.engine(name)
    except gk.EngineUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("method", ["fast", "accurate"])
def test_prices_of_the_box(name: str, method: Any, box: dict[str, Any]) -> None:
    result = engine_of(name).price(options_of(box), american_method=method)
    error = np.abs(result.price - box["price"])
    recorded = RECORDED["price"][method]
    assert (result.status == gk.Status.OK).all()
    assert error.max() <= recorded["allowed_max"]
    assert error.max() <= 1.05 * recorded["max"] + 1e-9
    assert np.sqrt((error**2).mean()) <= 1.05 * recorded["rms"] + 1e-9


def test_fast_is_no_worse_than_quantlib_fast(box: dict[str, Any]) -> None:
    ql = pytest.importorskip("QuantLib")
    from tests.reference_tables.american.generate import quantlib_price

    fields = ("spot", "strike", "days", "vol", "rate", "dividend_yield")
    rows = zip(*(box[f] for f in fields), box["is_call"] > 0.5, strict=True)
    scheme = ql.QdFpAmericanEngine.fastScheme()
    theirs = (
        np.array([quantlib_price(scheme, *row[:2], int(row[2]), *row[3:]) for row in rows]) - box["price"]
    )
    ours = gk.engine("cpu").price(options_of(box), american_method="fast").price - box["price"]
    assert np.abs(ours).max() <= np.abs(theirs).max()
    assert np.sqrt((ours**2).mean()) <= np.sqrt((theirs**2).mean())


@pytest.mark.parametrize("name", ENGINES)
def test_greeks_of_the_table(name: str) -> None:
    rows = table("greeks.csv")
    result = engine_of(name).greeks(options_of(rows))
    for greek in GREEKS:
        error = np.abs(getattr(result, greek) - rows[greek]).max()
        assert error <= RECORDED["greeks"][greek]["allowed"], greek


@pytest.mark.parametrize("name", ["cpu", "xla"])
def test_engines_agree_with_the_reference(name: str, seed: int) -> None:
    engine, reference = engine_of(name), gk.engine("reference")
    every = gk.Options(**random_fields(np.random.default_rng(seed), 400), american=True)
    # Lots as large as the table of Greeks: XLA compiles for a size, and takes half a minute for it.
    for start in range(0, 300, 60):
        options = every.rows(np.arange(start, start + 60))
        ours, plain = engine.greeks(options), reference.greeks(options)
        assert np.array_equal(ours.status, plain.status)
        np.testing.assert_allclose(ours.price, plain.price, rtol=0, atol=1e-10)
        np.testing.assert_allclose(ours.delta, plain.delta, rtol=0, atol=1e-9)


def test_beyond_the_box_against_a_plain_grid(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fields = random_fields(rng, 60)
    keep = (
        (fields["vol"] > 0.08) & (fields["vol"] < 1.0) & (fields["expiry"] > 0.02) & (fields["expiry"] < 5.0)
    )
    fields = {name: values[keep][:6] for name, values in fields.items()}
    result = gk.engine("cpu").price(gk.Options(**fields, american=True))
    for i, price in enumerate(result.price):
        row = {name: values[i] for name, values in fields.items()}
        assert price == pytest.approx(grid_price(**row), abs=0.03), row


@pytest.mark.parametrize("name", ["reference", "cpu", "xla"])
def test_two_boundaries_against_a_plain_grid(name: str) -> None:
    fields = {
        "spot": np.array([90.0, 104.0, 95.0, 111.0]),
        "strike": np.full(4, 100.0),
        "expiry": np.array([1.0, 0.7, 2.0, 1.5]),
        "vol": np.array([0.2, 0.15, 0.06, 0.2]),
        "rate": np.array([-0.01, -0.02, -0.01, -0.05]),
        "dividend_yield": np.array([-0.04, -0.05, -0.04, -0.01]),
        "is_call": np.array([False, False, False, True]),
    }
    result = engine_of(name).price(gk.Options(**fields, american=True))
    europe = engine_of(name).price(gk.Options(**fields))
    assert (result.status == gk.Status.OK).all()
    assert (result.price >= europe.price).all()
    for i, price in enumerate(result.price):
        row = {key: values[i] for key, values in fields.items()}
        assert price == pytest.approx(grid_price(**row), abs=5e-3), row


def two_boundaries() -> gk.Options:
    """The second row has them once the rate has been cut."""
    return gk.Options(
        spot=90.0, strike=100.0, expiry=[1.0, 1.0], vol=0.2, rate=[-0.01, 0.005], dividend_yield=-0.04,
        is_call=False, american=True,
    )  # fmt: skip


def test_two_boundaries_have_greeks_on_xla() -> None:
    options = two_boundaries()
    wanted = gk.engine("cpu").greeks(options)
    found = engine_of("xla").greeks(options)
    assert list(found.status) == [gk.Status.OK, gk.Status.OK]
    for name in GREEKS:
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-6, atol=1e-6)


def test_two_boundaries_are_revalued_on_xla() -> None:
    book = gk.Portfolio(two_boundaries(), quantity=1.0)
    scenarios = gk.Scenarios(spot_return=[[-0.05]], rate_change=-0.01)
    ours, theirs = (engine_of(name).revalue(book, scenarios) for name in ("xla", "cpu"))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
