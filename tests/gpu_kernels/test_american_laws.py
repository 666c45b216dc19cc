"""What must hold for every American option, whatever the numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpu_kernels as gk
from tests.gpu_kernels.american_cases import random_fields

TOLERANCE = 2e-4  # of the strike of 100: beyond the box the collocation is right to about this


@pytest.fixture(params=["reference", "cpu", "xla"])
def engine(request: Any) -> gk.Engine:
    try:
        return gk.engine(request.param)
    except gk.EngineUnavailable as error:
        pytest.skip(str(error))


def american(engine: gk.Engine, fields: dict[str, Any], method: Any = "accurate") -> Any:
    result = engine.price(gk.Options(**fields, american=True), american_method=method)
    assert (result.status == gk.Status.OK).all()
    return result.price


@pytest.mark.parametrize("method", ["fast", "accurate"])
def test_never_below_exercise_nor_european(engine: gk.Engine, method: Any, seed: int) -> None:
    fields = random_fields(np.random.default_rng(seed), 1000)
    value = american(engine, fields, method)
    gain = np.where(fields["is_call"], 1.0, -1.0) * (fields["spot"] - fields["strike"])
    europe = engine.price(gk.Options(**fields)).price
    assert (value >= np.maximum(gain, 0.0)).all()
    assert (value >= europe - 1e-9).all()
    # Worth at most the strike or the spot, where money or the stock does not cost to be held.
    top = np.where(fields["is_call"], fields["spot"], fields["strike"])
    cost = np.where(fields["is_call"], fields["dividend_yield"], fields["rate"])
    assert (value <= top * np.exp(np.maximum(-cost, 0.0) * fields["expiry"]) + 1e-9).all()


def test_monotone_and_convex_in_spot(engine: gk.Engine, seed: int) -> None:
    rng = np.random.default_rng(seed)
    fields = random_fields(rng, 60)
    rows = len(fields["spot"])
    ladder = np.linspace(40.0, 220.0, 181)
    wide = {name: np.repeat(values, ladder.size) for name, values in fields.items()}
    wide["spot"] = np.tile(ladder, rows)
    value = american(engine, wide).reshape(rows, -1)
    slope = np.diff(value, axis=1) * np.where(fields["is_call"], 1.0, -1.0)[:, None]
    assert (slope >= -TOLERANCE).all()
    assert (np.diff(value, n=2, axis=1) >= -TOLERANCE).all()


def test_monotone_in_expiry_and_vol(engine: gk.Engine, seed: int) -> None:
    fields = random_fields(np.random.default_rng(seed), 400)
    value = american(engine, fields)
    assert (american(engine, {**fields, "expiry": 1.2 * fields["expiry"]}) >= value - TOLERANCE).all()
    assert (american(engine, {**fields, "vol": 1.1 * fields["vol"]}) >= value - TOLERANCE).all()


def test_put_call_symmetry_and_homogeneity(engine: gk.Engine, seed: int) -> None:
    fields = random_fields(np.random.default_rng(seed), 200)
    mirrored = {
        **fields,
        "spot": fields["strike"],
        "strike": fields["spot"],
        "rate": fields["dividend_yield"],
        "dividend_yield": fields["rate"],
        "is_call": ~fields["is_call"],
    }
    value = american(engine, fields)
    np.testing.assert_allclose(american(engine, mirrored), value, rtol=1e-11, atol=1e-10)
    scaled = {**fields, "spot": 7.0 * fields["spot"], "strike": 7.0 * fields["strike"]}
    np.testing.assert_allclose(american(engine, scaled), 7.0 * value, rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize(
    ("rate", "dividend_yield", "is_call"),
    [(0.05, 0.0, True), (0.05, -0.02, True), (0.0, 0.03, False), (0.0, 0.0, False), (-0.02, -0.01, False)],
)
def test_no_early_exercise_is_european(
    engine: gk.Engine, rate: float, dividend_yield: float, is_call: bool
) -> None:
    spot = np.linspace(50.0, 150.0, 21)
    fields = {"spot": spot, "strike": 100.0, "expiry": 1.5, "vol": 0.3}
    fields |= {"rate": rate, "dividend_yield": dividend_yield, "is_call": is_call}
    europe = engine.price(gk.Options(**fields)).price
    # Of the same formula, but another program may round its last digit differently.
    np.testing.assert_array_max_ulp(american(engine, fields), europe, 0 if engine.name != "xla" else 4)


def test_zero_volatility_takes_the_best_time(engine: gk.Engine) -> None:
    rows = [
        (100.0, 100.0, 0.05, 0.02, False),
        (80.0, 100.0, 0.05, 0.02, False),
        (103.0, 100.0, 0.02, 0.08, False),
        (97.0, 100.0, 0.08, 0.02, True),
        (120.0, 100.0, -0.02, 0.03, True),
    ]
    times = np.linspace(0.0, 2.0, 200_001)
    spot, strike, rate, dividend_yield, is_call = (np.array(column) for column in zip(*rows, strict=True))
    options = gk.Options(
        spot=spot, strike=strike, expiry=2.0, vol=0.0, rate=rate, dividend_yield=dividend_yield,
        is_call=is_call, american=True,
    )  # fmt: skip
    result = engine.greeks(options)
    for i, (s, k, r, q, call) in enumerate(rows):
        best = np.max((1.0 if call else -1.0) * (s * np.exp(-q * times) - k * np.exp(-r * times)))
        assert result.price[i] == pytest.approx(max(best, 0.0), abs=1e-8)
    assert (result.vega == 0.0).all()
    nearly = engine.price(options.replace(vol=1e-3))
    np.testing.assert_allclose(nearly.price, result.price, atol=0.06)


def test_expired_and_bad_rows(engine: gk.Engine) -> None:
    nan = float("nan")
    spot = np.array([90.0, 90.0, nan, -1.0, 90.0, 0.0])
    expiry = np.array([0.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    vol = np.array([0.2, 0.2, 0.2, 0.2, nan, 0.2])
    options = gk.Options(
        spot=spot, strike=100.0, expiry=expiry, vol=vol, rate=0.05, is_call=False, american=True
    )
    for result in (engine.price(options), engine.greeks(options)):
        bad, good = gk.Status.INVALID_INPUT, gk.Status.OK
        assert list(result.status) == [gk.Status.EXPIRED, good, bad, bad, bad, good]
        assert result.price[0] == 10.0
        assert np.isnan(result.price[2:5]).all()
        assert result.price[5] == 100.0


@pytest.mark.parametrize("method", ["fast", "accurate"])
def test_a_row_does_not_depend_on_its_batch(seed: int, method: Any) -> None:
    # Few rows are computed in another way than many, to the same last bit.
    engine = gk.engine("cpu")
    fields = random_fields(np.random.default_rng(seed), 700)
    whole = american(engine, fields, method)

    def of(rows: slice) -> Any:
        return american(engine, {name: values[rows] for name, values in fields.items()}, method)

    for row in range(200):
        assert of(slice(row, row + 1))[0] == whole[row]
    for count in range(2, 36):
        assert np.array_equal(of(slice(count)), whole[:count])
    assert np.array_equal(of(slice(300, None)), whole[300:])


def test_kernels_close_over_nothing() -> None:
    from gpu_kernels.engines.cpu import american_rows

    # A compiled function in a closure changes the key of the disk cache in every process.
    for name in ("fast_boundaries", "accurate_boundaries", "price_rows", "slopes_rows", "move_spots"):
        assert getattr(american_rows, name).py_func.__closure__ is None


def test_exercised_rows_have_the_greeks_of_the_payoff(engine: gk.Engine) -> None:
    options = gk.Options(
        spot=[50.0, 200.0], strike=100.0, expiry=0.5, vol=0.2, rate=[0.05, 0.0], dividend_yield=[0.0, 0.06],
        is_call=[False, True], american=True,
    )  # fmt: skip
    result = engine.greeks(options)
    assert list(result.price) == [50.0, 100.0]
    assert list(result.delta) == [-1.0, 1.0]
    for greek in (
        result.gamma,
        result.vega,
        result.theta,
        result.rho,
        result.vanna,
        result.volga,
        result.charm,
    ):
        assert (greek == 0.0).all()


def test_boundaries_serve_other_spots_and_strikes(seed: int) -> None:
    from gpu_kernels.engines.cpu import american as backend
    from gpu_kernels.engines.engine import Columns
    from gpu_kernels.results import PriceResult

    fields = random_fields(np.random.default_rng(seed), 500)
    rows = len(fields["spot"])
    kept = backend.solve_boundaries(Columns(**fields), "accurate", rows)
    out = PriceResult(np.empty(rows), np.empty(rows, dtype=np.uint8))
    backend.price_from_boundaries(kept, 1.07 * fields["spot"], 0.9 * fields["strike"], out)
    again = {**fields, "spot": 1.07 * fields["spot"], "strike": 0.9 * fields["strike"]}
    np.testing.assert_allclose(out.price, american(gk.engine("cpu"), again), rtol=1e-12, atol=1e-11)


def test_implied_vol_comes_back(engine: gk.Engine, seed: int) -> None:
    rng = np.random.default_rng(seed)
    fields = random_fields(rng, 80, lowest_rate=0.0)
    fields["vol"] = rng.uniform(0.08, 0.9, len(fields["spot"]))
    fields["spot"] = 100.0 * np.exp(rng.normal(0.0, 0.15, len(fields["spot"])))
    options = gk.Options(**fields, american=True)
    vega = engine.greeks(options).vega
    priced = engine.price(options)
    result = engine.implied_vol(options, priced.price)
    clear = (vega > 0.05) & (priced.price < 0.98 * np.where(fields["is_call"], fields["spot"], 100.0))
    assert clear.sum() > 20
    assert (result.status[clear] == gk.Status.OK).all()
    again = engine.price(options.replace(vol=np.where(clear, result.vol, 0.2))).price
    np.testing.assert_allclose(again[clear], priced.price[clear], rtol=0, atol=1e-10)
    np.testing.assert_allclose(result.vol[clear], fields["vol"][clear], rtol=0, atol=1e-7)


@pytest.mark.parametrize("method", ["fast", "accurate"])
def test_implied_vol_reprices_wherever_the_price_tells_a_vol(seed: int, method: Any) -> None:
    # In the wings, next to exercise, and with two boundaries.
    engine = gk.engine("cpu")
    rng = np.random.default_rng(seed)
    fields = random_fields(rng, 400)
    fields["rate"][:8], fields["dividend_yield"][:8], fields["is_call"][:8] = -0.01, -0.04, False
    fields["vol"][:8], fields["expiry"][:8], fields["spot"][:8] = 0.2, 1.0, np.linspace(85.0, 115.0, 8)
    options = gk.Options(**fields, american=True)
    price = engine.price(options, american_method=method).price
    result = engine.implied_vol(options, price, american_method=method)
    found = result.status == gk.Status.OK
    assert found[:8].all()
    assert found.mean() > 0.5
    assert set(result.status[~found]) <= {
        gk.Status.NO_TIME_VALUE,
        gk.Status.ABOVE_MAXIMUM,
        gk.Status.BELOW_INTRINSIC,
    }
    again = engine.price(options.replace(vol=np.where(found, result.vol, 0.2)), american_method=method).price
    scale = np.maximum(fields["spot"], fields["strike"])
    assert (np.abs(again - price)[found] <= 1e-12 * scale[found]).all()
    # Alone or in a batch.
    for row in range(0, len(price), 37):
        one = engine.implied_vol(options.rows([row]), price[row], american_method=method)
        assert one.status[0] == result.status[row]
        np.testing.assert_array_equal(one.vol[0], result.vol[row])


def test_implied_vol_statuses(engine: gk.Engine) -> None:
    options = gk.Options(spot=90.0, strike=100.0, expiry=1.0, rate=0.05, is_call=False, american=True)
    prices = np.array([5.0, 10.0, 100.0, float("nan"), 12.0])
    result = engine.implied_vol(options, prices)
    S = gk.Status
    assert list(result.status) == [S.BELOW_INTRINSIC, S.NO_TIME_VALUE, S.ABOVE_MAXIMUM, S.INVALID_INPUT, S.OK]
    assert np.isnan(result.vol[:4]).all()
