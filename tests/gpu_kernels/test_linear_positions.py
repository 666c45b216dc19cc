"""Futures move with spot, rate and time as their price of carry does; spot positions with the spot alone."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

import gpu_kernels as gk
from gpu_kernels.dividend_schedules import CashDividends
from gpu_kernels.es_components import component_es
from gpu_kernels.hedging import exposures
from gpu_kernels.revaluation import position_pnl

PAID = ((0.1, 1.5), (0.4, 2.0), (1.2, 3.0))  # years, amount


def price(spot, rate, dividend_yield, expiry, paid=(), now=0.0):
    """A spot carried from ex-date to ex-date to the expiry; times are the calendar's."""
    carry, at = mpmath.mpf(rate) - mpmath.mpf(dividend_yield), mpmath.mpf(now)
    worth = mpmath.mpf(spot)
    for when, amount in paid:
        if now < when < expiry:
            worth = worth * mpmath.exp(carry * (when - at)) - amount
            at = mpmath.mpf(when)
    return worth * mpmath.exp(carry * (mpmath.mpf(expiry) - at))


def slopes(spot, rate, dividend_yield, expiry, paid):
    """Delta, rho, theta and charm by central differences of 60 digits."""

    def at(s=0.0, r=0.0, t=0.0):
        return price(mpmath.mpf(spot) + s, mpmath.mpf(rate) + r, dividend_yield, expiry, paid, t)

    with mpmath.workdps(60):
        h = mpmath.mpf(10) ** -15
        delta, rho, theta = ((at(**{name: h}) - at(**{name: -h})) / (2 * h) for name in ("s", "r", "t"))
        charm = (at(h, t=h) - at(-h, t=h) - at(h, t=-h) + at(-h, t=-h)) / (4 * h * h)
    return float(delta), float(rho), float(theta), float(charm)


@pytest.fixture
def book(seed):
    """Futures of three underlyings, two of which pay dividends, and their terms."""
    random = np.random.default_rng(seed)
    count = 12
    terms = {
        "spot": random.uniform(50.0, 150.0, count),
        "rate": random.uniform(-0.02, 0.08, count),
        "dividend_yield": random.uniform(0.0, 0.05, count),
        "expiry": random.uniform(0.02, 2.0, count),
    }
    schedule = random.integers(0, 2, count)
    paid = [PAID[: 3 * one] for one in schedule]
    prices = [
        float(price(*row, own))
        for *row, own in zip(
            *(terms[n] for n in ("spot", "rate", "dividend_yield", "expiry")), paid, strict=True
        )
    ]
    linear = gk.LinearPositions.of(
        underlying=random.integers(0, 3, count),
        quantity=random.uniform(-5.0, 5.0, count),
        multiplier=random.uniform(1.0, 50.0, count),
        spot=prices,
        rate=terms["rate"],
        dividend_yield=terms["dividend_yield"],
        expiry=terms["expiry"],
        dividends=CashDividends.shared([[], PAID], schedule),
    )
    return linear, terms, paid


def test_pnl_is_that_of_the_price_under_every_shock(book, seed):
    linear, terms, paid = book
    random = np.random.default_rng(seed + 1)
    returns = random.normal(0.0, 0.2, (8, 3))
    rates, elapsed = random.normal(0.0, 0.02, 8), random.choice([0.0, 0.05, 0.3, 3.0], 8)
    found = linear.pnl(gk.Scenarios(returns, rate_change=rates, elapsed=elapsed))
    for row in range(len(linear)):
        spot, rate, dividend_yield, expiry = (
            terms[name][row] for name in ("spot", "rate", "dividend_yield", "expiry")
        )
        for s in range(8):
            moved = mpmath.mpf(spot) * mpmath.exp(returns[s, linear.underlying[row]])
            # What has expired stands at the spot.
            end = max(expiry, elapsed[s])
            then = (
                price(moved, rate + rates[s], dividend_yield, end, paid[row], elapsed[s])
                if end > elapsed[s]
                else moved
            )
            wanted = linear.size[row] * (then - price(spot, rate, dividend_yield, expiry, paid[row]))
            assert found[row, s] == pytest.approx(float(wanted), rel=1e-11, abs=1e-10)


def test_pnl_is_that_of_calls_less_puts(engine, seed):
    """By parity: C − P is worth e^(−rT) (F − K), whatever the engine thinks of options."""
    random = np.random.default_rng(seed)
    spot, rate, dividend_yield, expiry, strike = 100.0, 0.04, 0.015, 0.75, 95.0
    options = gk.Options(
        spot=spot, strike=strike, expiry=expiry, vol=0.25, rate=rate, dividend_yield=dividend_yield,
        is_call=[True, False], dividends=CashDividends.same(PAID, 2),
    )  # fmt: skip
    future = {
        "underlying": 0, "quantity": 1.0, "rate": rate, "dividend_yield": dividend_yield, "expiry": expiry,
        "spot": float(price(spot, rate, dividend_yield, expiry, PAID)),
        "dividends": CashDividends.same(PAID, 1),
    }  # fmt: skip
    portfolio = gk.Portfolio(options=options, quantity=[1.0, -1.0], linear=future)
    scenarios = gk.Scenarios(
        random.normal(0.0, 0.1, (40, 1)),
        vol_change=random.normal(0.0, 0.03, (40, 1)),
        rate_change=random.normal(0.0, 0.01, 40),
        elapsed=np.repeat([0.0, 0.02, 0.25, 0.5], 10),
    )
    pnl = position_pnl(engine, portfolio, scenarios)
    today = engine.price(options).price @ [1.0, -1.0]
    left = (rate + scenarios.rate_change) * (expiry - scenarios.elapsed)
    wanted = np.exp(left) * (today + pnl[0] + pnl[1]) - np.exp(rate * expiry) * today
    np.testing.assert_allclose(pnl[2], wanted, rtol=1e-9, atol=1e-8)
    np.testing.assert_allclose(engine.revalue(portfolio, scenarios), pnl.sum(axis=0), rtol=1e-9, atol=1e-8)


def test_greeks_are_derivatives_of_the_price(book):
    linear, terms, paid = book
    greeks = linear.greeks()
    for row in range(len(linear)):
        names = ("spot", "rate", "dividend_yield", "expiry")
        delta, rho, theta, charm = slopes(*(terms[name][row] for name in names), paid[row])
        assert linear.growth[row] == pytest.approx(delta, rel=1e-12)
        assert greeks.rho[row] == pytest.approx(rho, rel=1e-11)
        assert greeks.theta[row] == pytest.approx(theta, rel=1e-9, abs=1e-9)
        assert greeks.charm[row] == pytest.approx(charm, rel=1e-9, abs=1e-12)
        assert linear.underlying_spot[row] == pytest.approx(terms["spot"][row], rel=1e-13)


def test_other_spots_make_other_prices(book):
    linear, terms, paid = book
    spots = terms["spot"] * 1.1
    moved = linear.at_spots(spots, np.ones(len(linear)))
    for row in range(len(linear)):
        wanted = price(spots[row], *(terms[n][row] for n in ("rate", "dividend_yield", "expiry")), paid[row])
        assert moved.spot[row] == pytest.approx(float(wanted), rel=1e-13)


def test_a_spot_position_knows_neither_rate_nor_time():
    linear = gk.LinearPositions.of(underlying=0, quantity=3.0, spot=100.0, rate=0.05, dividend_yield=0.01)
    scenarios = gk.Scenarios([[0.1], [0.0]], rate_change=0.02, elapsed=0.5)
    np.testing.assert_array_equal(linear.pnl(scenarios), 300.0 * np.expm1([[0.1, 0.0]]))
    assert [float(one[0]) for one in linear.greeks()] == [0.0, 0.0, 0.0]
    assert (linear.growth[0], linear.underlying_spot[0]) == (1.0, 100.0)


def test_a_price_that_the_dividends_eat_up_stays_at_nought():
    eaten = gk.LinearPositions.of(
        underlying=0, quantity=1.0, spot=0.0, expiry=1.0, dividends=CashDividends.same([(0.5, 120.0)], 1)
    )
    pnl = eaten.pnl(gk.Scenarios([[-0.3], [0.0], [0.5]]))
    assert (pnl[0, :2] == 0.0).all()
    assert (eaten.growth[0], eaten.greeks().rho[0], eaten.greeks().charm[0]) == (0.0, 0.0, 0.0)


def test_sums_components_and_exposures_have_the_futures_in(engine, book, seed):
    linear, terms, _ = book
    groups = np.arange(len(linear)) % 3
    grouped = gk.Portfolio(
        linear={name: getattr(linear, name) for name in vars(linear) if name != "group"} | {"group": groups}
    )
    random = np.random.default_rng(seed + 2)
    scenarios = gk.Scenarios(
        random.normal(0.0, 0.1, (100, 3)), rate_change=random.normal(0.0, 0.01, 100), elapsed=0.01
    )
    single = linear.pnl(scenarios)
    np.testing.assert_allclose(engine.revalue(grouped, scenarios), single.sum(axis=0), rtol=1e-12, atol=1e-9)
    by_group = engine.revalue(grouped, scenarios, by="group")
    for group in range(3):
        np.testing.assert_allclose(
            by_group[group], single[groups == group].sum(axis=0), rtol=1e-12, atol=1e-9
        )
    parts = component_es(engine, grouped, scenarios)
    assert parts.by_group.sum() == pytest.approx(parts.es, rel=1e-12)
    at = exposures(engine, gk.Portfolio(linear=linear))
    wanted = np.bincount(
        linear.underlying,
        linear.size * np.exp((terms["rate"] - terms["dividend_yield"]) * terms["expiry"]),
        3,
    )
    np.testing.assert_allclose(at.delta, wanted[: len(at.delta)], rtol=1e-12)


@pytest.mark.parametrize(
    ("column", "value", "where"),
    [
        ("expiry", [1.0, -0.1], "linear.expiry[1]"),
        ("rate", [np.nan, 0.1], "linear.rate[0]"),
        ("dividend_yield", [0.0, np.inf], "linear.dividend_yield[1]"),
        ("dividends", CashDividends.same(PAID, 3), "linear.dividends"),
    ],
)
def test_what_is_wrong_is_named_with_its_row(column, value, where):
    with pytest.raises(gk.InvalidInput) as refused:
        gk.Portfolio(linear={"underlying": [0, 0], "quantity": 1.0, "spot": 100.0, column: value})
    assert str(refused.value).startswith(where)
