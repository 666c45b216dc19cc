"""Greeks next to the exercise boundary, at expiry, and of rows of hardly any volatility."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpu_kernels as gk
from gpu_kernels.engines.engine import Columns
from gpu_kernels.formulas.american_edge import LEAST_DISTANCE


@pytest.fixture(params=["reference", "cpu", "xla"])
def engine(request: Any) -> gk.Engine:
    try:
        return gk.engine(request.param)
    except gk.EngineUnavailable as error:
        pytest.skip(str(error))


def rows_at_the_boundary(rng: np.random.Generator, size: int) -> tuple[dict[str, Any], Any]:
    """Fields of rows whose spot is on their boundary, and the way out of it, 1 for puts and -1 for calls."""
    from gpu_kernels.engines.reference import american as backend

    fields = {
        "spot": np.full(size, 100.0),
        "strike": np.full(size, 100.0),
        "expiry": rng.uniform(0.1, 2.0, size),
        "vol": rng.uniform(0.1, 0.6, size),
        "rate": rng.uniform(0.01, 0.1, size),
        "dividend_yield": rng.uniform(0.01, 0.1, size),
        "is_call": rng.random(size) < 0.5,
    }
    with np.errstate(all="ignore"):
        edge = backend.boundaries(Columns(**fields), "accurate", (32, 1)).edge
    fields["spot"] = np.where(fields["is_call"], 100.0 * np.exp(-edge), 100.0 * np.exp(edge))
    return fields, np.where(fields["is_call"], -1.0, 1.0)


def greeks_at(engine: gk.Engine, fields: dict[str, Any], outward: Any, distance: float) -> gk.GreeksResult:
    """Greeks so many deviations away from the boundary."""
    spread = fields["vol"] * np.sqrt(fields["expiry"])
    moved = {**fields, "spot": fields["spot"] * np.exp(outward * distance * spread)}
    result = engine.greeks(gk.Options(**moved, american=True))
    assert (result.status == gk.Status.OK).all()
    return result


def test_the_boundary_s_own_greeks_are_approached(engine: gk.Engine, seed: int) -> None:
    fields, outward = rows_at_the_boundary(np.random.default_rng(seed), 40)
    at, strike, vol = fields["spot"], fields["strike"], fields["vol"]
    found = greeks_at(engine, fields, outward, 1e-4)
    # The pricing equation on the boundary, where theta is 0.
    pull = -outward * (fields["dividend_yield"] * at - fields["rate"] * strike)
    gamma = 2.0 * pull / (vol * at) ** 2
    np.testing.assert_allclose(found.gamma, gamma, rtol=5e-3)
    np.testing.assert_allclose(found.delta, -outward, atol=2e-3)
    assert (np.abs(found.theta) <= 1e-2 * strike * np.abs(gamma * at)).all()
    assert (np.abs(found.vega) <= 1e-2 * strike).all()
    assert (np.abs(found.charm) < 100.0).all()


def test_no_jump_where_the_way_of_computing_changes(engine: gk.Engine, seed: int) -> None:
    fields, outward = rows_at_the_boundary(np.random.default_rng(seed), 40)
    near = greeks_at(engine, fields, outward, 0.999 * LEAST_DISTANCE)
    far = greeks_at(engine, fields, outward, 1.001 * LEAST_DISTANCE)
    for name, limit in (("delta", 1e-4), ("gamma", 2e-3), ("vanna", 5e-3), ("volga", 2e-2), ("charm", 1e-1)):
        one, other = getattr(near, name), getattr(far, name)
        # Charm is a small difference of large terms there: it is held to 0.025 a year.
        least = 0.25 if name == "charm" else 1e-7
        assert (np.abs(one - other) <= limit * np.maximum(np.abs(other), least)).all(), name


@pytest.mark.parametrize("distance", [3e-3, 2e-2, 1e-1])
def test_gamma_and_vanna_are_slopes_of_delta(engine: gk.Engine, seed: int, distance: float) -> None:
    fields, outward = rows_at_the_boundary(np.random.default_rng(seed), 40)
    here = greeks_at(engine, fields, outward, distance)
    less, more = (greeks_at(engine, fields, outward, factor * distance) for factor in (0.8, 1.2))
    spread = fields["vol"] * np.sqrt(fields["expiry"])
    spots = [fields["spot"] * np.exp(outward * factor * distance * spread) for factor in (0.8, 1.2)]
    # The error of delta, some 1e-6, is divided by the step.
    noise = 4e-6 / np.abs(spots[1] - spots[0])
    slope = (more.delta - less.delta) / (spots[1] - spots[0])
    assert (np.abs(slope - here.gamma) <= 5e-3 * here.gamma + noise).all()
    step = 0.02 * distance * np.sqrt(fields["expiry"]) * fields["vol"] ** 2
    options = gk.Options(
        **{**fields, "spot": fields["spot"] * np.exp(outward * distance * spread)}, american=True
    )
    up, down = (engine.greeks(options.replace(vol=fields["vol"] + sign * step)).delta for sign in (1.0, -1.0))
    slope = (up - down) / (2.0 * step)
    assert (np.abs(slope - here.vanna) <= 2e-2 * np.abs(here.vanna) + 1e-6 / step).all()


def test_an_expired_option_that_has_been_exercised_does_not_decay(engine: gk.Engine) -> None:
    options = gk.Options(
        spot=[90.0, 110.0, 98.0, 90.0], strike=100.0, expiry=[[0.0], [1e-9]], vol=0.2,
        rate=[0.05, 0.0, 0.02, -0.01], dividend_yield=[0.0, 0.05, 0.05, 0.0],
        is_call=[False, True, False, False],        american=True,
    )  # fmt: skip
    result = engine.greeks(options)
    for name in ("price", "delta", "theta", "charm"):
        at, before = getattr(result, name)
        np.testing.assert_allclose(at, before, rtol=0, atol=1e-5, err_msg=name)
    assert list(result.theta[0] == 0.0) == [True, True, False, False]


def test_two_boundaries_and_hardly_any_volatility(engine: gk.Engine) -> None:
    # Where the grid sees no spread, the path is certain.
    vol = np.array([0.0, 1e-6, 9e-5, 1.1e-4, 1e-3])
    options = gk.Options(
        spot=93.35, strike=100.0, expiry=1.0, vol=vol, rate=-0.01, dividend_yield=-0.04, is_call=False,
        american=True,
    )  # fmt: skip
    result, values = engine.greeks(options), engine.price(options)
    times = np.linspace(0.0, 1.0, 100_001)
    best = np.max(100.0 * np.exp(0.01 * times) - 93.35 * np.exp(0.04 * times))
    for found in (result, values):
        assert (found.status == gk.Status.OK).all()
        np.testing.assert_allclose(found.price, best, atol=2e-2)
    assert (values.price >= engine.price(options.replace(american=False)).price - 1e-9).all()
