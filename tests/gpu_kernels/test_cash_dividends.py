"""Cash dividends on the grid: against QuantLib's grids, closed forms where there are any, and laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpu_kernels as gk
from gpu_kernels import cash_dividends
from gpu_kernels.cash_dividends import CashDividends


@pytest.fixture(params=["reference", "cpu"])
def name(request: Any) -> str:
    return str(request.param)


def quantlib_grid(
    spot: float, vol: float, rate: float, is_call: bool, days: list[int], american: bool
) -> float:
    """One year, strike 100, dividends of 3: QuantLib's spot model, extrapolated from two of its grids."""
    ql = pytest.importorskip("QuantLib")
    today = ql.Date(1, 1, 2025)
    ql.Settings.instance().evaluationDate = today
    count = ql.Actual365Fixed()
    process = ql.BlackScholesMertonProcess(
        ql.QuoteHandle(ql.SimpleQuote(spot)),
        ql.YieldTermStructureHandle(ql.FlatForward(today, 0.0, count)),
        ql.YieldTermStructureHandle(ql.FlatForward(today, rate, count)),
        ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, ql.NullCalendar(), vol, count)),
    )
    payoff = ql.PlainVanillaPayoff(ql.Option.Call if is_call else ql.Option.Put, 100.0)
    exercise = ql.AmericanExercise(today, today + 365) if american else ql.EuropeanExercise(today + 365)
    option = ql.VanillaOption(payoff, exercise)
    paid = ql.DividendVector([today + day for day in days], [3.0] * len(days))
    values = []
    for size in (400, 800):
        option.setPricingEngine(
            ql.FdBlackScholesVanillaEngine(
                process,
                paid,
                size,
                size,
                0,
                ql.FdmSchemeDesc.TrBDF2(),
                False,
                0.0,
                ql.FdBlackScholesVanillaEngine.Spot,
            )
        )
        values.append(option.NPV())
    # Early exercise makes QuantLib's grid one of first order in time.
    return float(2.0 * values[1] - values[0])


@pytest.mark.parametrize("american", [True, False])
def test_against_quantlib(name: str, american: bool) -> None:
    rows = [
        (80.0, 0.3, 0.05, True),
        (100.0, 0.2, 0.03, True),
        (100.0, 0.2, 0.03, False),
        (110.0, 0.4, 0.05, False),
    ]
    days = [91, 274]
    spot, vol, rate, is_call = (np.array(column) for column in zip(*rows, strict=True))
    options = gk.Options(
        spot=spot, strike=100.0, expiry=1.0, vol=vol, rate=rate, is_call=is_call, american=american
    )
    paid = CashDividends.same([(day / 365.0, 3.0) for day in days], len(rows))
    result = cash_dividends.price(options, paid, engine=name)
    assert (result.status == gk.Status.OK).all()
    assert (result.error < 2e-3).all()
    for i, row in enumerate(rows):
        assert result.price[i] == pytest.approx(quantlib_grid(*row, days, american), abs=1.5e-3), row


def test_no_dividends_is_the_ordinary_option(name: str) -> None:
    spot = np.array([85.0, 100.0, 115.0, 100.0])
    for american in (True, False):
        options = gk.Options(
            spot=spot, strike=100.0, expiry=0.8, vol=0.25, rate=0.06, dividend_yield=0.02,
            is_call=[False, False, False, True], american=american,
        )  # fmt: skip
        got = cash_dividends.greeks(options, CashDividends.same([], 4), engine=name)
        want = gk.engine("reference").greeks(options)
        assert got.greeks is not None
        assert (np.abs(got.price - want.price) <= got.error + 3e-4).all()
        for greek, limit in (
            ("delta", 2e-4), ("gamma", 2e-4), ("vega", 0.05), ("theta", 0.01),
            ("rho", 0.05), ("vanna", 0.02), ("volga", 6.0), ("charm", 0.01),
        ):  # fmt: skip
            np.testing.assert_allclose(getattr(got.greeks, greek), getattr(want, greek), rtol=0, atol=limit)


def test_the_grid_converges_at_second_order_and_states_its_error() -> None:
    options = gk.Options(
        spot=[90.0, 100.0, 110.0], strike=100.0, expiry=1.0, vol=0.3, rate=0.05, is_call=[False, True, False],
        american=True,
    )  # fmt: skip
    paid = CashDividends.per_option([[(0.2, 2.0), (0.7, 2.0)], [(0.5, 4.0)], [(0.01, 1.0)]])
    best = cash_dividends.price(options, paid, points=1600, steps=800)
    for points in (200, 400, 800):
        result = cash_dividends.price(options, paid, points=points, steps=points // 2)
        assert (np.abs(result.price - best.price) <= result.error + 3e-4).all()
        assert (result.error <= 60.0 / points**2 * 10.0 + 2e-4).all()


def test_a_deterministic_european_forward(name: str) -> None:
    # Put minus call is strike less forward, whatever the dividends.
    options = gk.Options(spot=100.0, strike=95.0, expiry=1.0, vol=0.2, rate=0.04, is_call=[True, False])
    dividends = [(0.1, 1.0), (0.35, 1.5), (0.6, 1.0), (0.85, 2.0)]
    result = cash_dividends.price(options, CashDividends.same(dividends, 2), engine=name)
    worth = 100.0 - sum(amount * np.exp(-0.04 * time) for time, amount in dividends)
    assert result.price[0] - result.price[1] == pytest.approx(worth - 95.0 * np.exp(-0.04), abs=1e-3)


def test_dividends_help_puts_and_hurt_calls(name: str) -> None:
    options = gk.Options(
        spot=np.full(4, 100.0), strike=100.0, expiry=1.0, vol=0.25, rate=0.03,
        is_call=[True, True, False, False], american=True,
    )  # fmt: skip
    paid = CashDividends.per_option([[], [(0.5, 5.0)], [], [(0.5, 5.0)]])
    price = cash_dividends.price(options, paid, engine=name).price
    assert price[1] < price[0] - 0.5
    assert price[3] > price[2] + 0.5


def test_a_dividend_larger_than_the_spot(name: str) -> None:
    options = gk.Options(
        spot=10.0,
        strike=10.0,
        expiry=1.0,
        vol=0.3,
        rate=0.05,
        is_call=[True, False, False],
        american=[False, False, True],
    )
    paid = CashDividends.same([(0.5, 1000.0)], 3)
    gone = cash_dividends.price(options, paid, engine=name).price
    # The stock is worth nothing from half a year on.
    np.testing.assert_allclose(gone[:2], [0.0, 10.0 * np.exp(-0.05)], atol=2e-3)
    assert gone[2] >= 10.0 * np.exp(-0.05 * 0.5) - 1e-3
    stays = cash_dividends.price(options, paid, engine=name, policy="survivor").price
    plain = cash_dividends.price(options, CashDividends.same([], 3), engine=name).price
    np.testing.assert_allclose(stays, plain, atol=1e-3)


def test_dividends_outside_the_option_s_life_do_not_matter() -> None:
    options = gk.Options(spot=100.0, strike=100.0, expiry=[0.5, 0.5], vol=0.2, rate=0.05, american=True)
    paid = CashDividends.per_option([[(-0.1, 5.0), (0.5, 5.0), (2.0, 9.0)], []])
    price = cash_dividends.price(options, paid).price
    assert price[0] == price[1]


def test_engines_agree() -> None:
    options = gk.Options(
        spot=[95.0, 105.0],
        strike=100.0,
        expiry=1.0,
        vol=0.25,
        rate=0.04,
        is_call=[True, False],
        american=True,
    )
    paid = CashDividends.same([(0.3, 2.0), (0.8, 2.0)], 2)
    ours, plain = (cash_dividends.price(options, paid, engine=name).price for name in ("cpu", "reference"))
    np.testing.assert_allclose(ours, plain, atol=1e-5)


@pytest.mark.parametrize("policy", ["liquidator", "survivor"])
def test_xla_marches_as_the_cpu_does(seed: int, policy: Any) -> None:
    try:
        engine = gk.engine("xla")
    except gk.EngineUnavailable as error:
        pytest.skip(str(error))
    rng = np.random.default_rng(seed)
    size = 9
    options = gk.Options(
        spot=rng.uniform(70, 130, size), strike=100.0, expiry=rng.uniform(0.2, 2, size),
        vol=rng.uniform(0.1, 0.5, size), rate=rng.uniform(-0.01, 0.06, size),
        dividend_yield=rng.uniform(0, 0.03, size), is_call=rng.random(size) < 0.5,
        american=rng.random(size) < 0.7,
    )  # fmt: skip
    lists = [
        [(t, rng.uniform(0.5, 4)) for t in sorted(rng.uniform(-0.1, 2.2, i % 5))] for i in range(size - 1)
    ]
    paid = CashDividends.per_option([*lists, [(0.1, 500.0)]])
    found, wanted = (
        cash_dividends.greeks(options, paid, engine=one, policy=policy, points=80, steps=40)
        for one in (engine, "cpu")
    )
    np.testing.assert_array_equal(found.status, wanted.status)
    np.testing.assert_allclose(found.price, wanted.price, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.error, wanted.error, rtol=0, atol=1e-9)
    assert found.greeks is not None
    assert wanted.greeks is not None
    for name in wanted.greeks.COLUMNS[:-1]:
        np.testing.assert_allclose(
            getattr(found.greeks, name), getattr(wanted.greeks, name), rtol=1e-6, atol=1e-6
        )


def test_statuses_and_refusals() -> None:
    options = gk.Options(
        spot=[100.0, float("nan"), 90.0], strike=100.0, expiry=[1.0, 1.0, 0.0], vol=0.2, is_call=False
    )
    result = cash_dividends.price(options, CashDividends.same([], 3))
    assert list(result.status) == [gk.Status.OK, gk.Status.INVALID_INPUT, gk.Status.EXPIRED]
    assert np.isnan(result.price[1])
    assert result.price[2] == 10.0
    with pytest.raises(gk.InvalidInput, match="dividends"):
        cash_dividends.price(options, CashDividends.same([], 2))
    with pytest.raises(gk.InvalidInput, match=r"amounts\[1\]"):
        CashDividends.per_option([[(0.1, 1.0), (0.2, -1.0)]])
    with pytest.raises(gk.InvalidInput, match=r"times\[1\]"):
        CashDividends.per_option([[(0.5, 1.0), (0.2, 1.0)]])
    with pytest.raises(gk.InvalidInput, match="offsets"):
        CashDividends(np.array([0.1]), np.array([1.0]), np.array([0, 2]))
    with pytest.raises(gk.InvalidInput, match="policy"):
        cash_dividends.price(options, CashDividends.same([], 3), policy="other")  # type: ignore[arg-type]
    with pytest.raises(gk.InvalidInput, match="points"):
        cash_dividends.price(options, CashDividends.same([], 3), points=41)


@pytest.mark.parametrize("policy", ["liquidator", "survivor"])
@pytest.mark.parametrize("american", [True, False])
def test_a_certain_path_is_worth_its_best_moment(policy: Any, american: bool) -> None:
    """Without volatility: against a walk along the path in many small steps."""
    rng = np.random.default_rng(8)
    count = 60
    spot, is_call = rng.uniform(0.0, 150.0, count), rng.random(count) < 0.5
    spot[:6] = 0.0
    rate, carried = rng.uniform(-0.05, 0.1, (2, count))
    expiry = rng.uniform(0.1, 2.0, count)
    lists = [sorted(zip(rng.uniform(0.01, 2.2, 3), rng.uniform(0.0, 60.0, 3), strict=True)) for _ in spot]
    options = gk.Options(
        spot=spot,
        strike=100.0,
        expiry=expiry,
        vol=0.0,
        rate=rate,
        dividend_yield=carried,
        is_call=is_call,
        american=american,
    )
    result = cash_dividends.price(options, CashDividends.per_option(lists), policy=policy)
    assert (result.status == gk.Status.OK).all()
    assert (result.error == 0.0).all()
    for row in range(count):
        sign = 1.0 if is_call[row] else -1.0
        worths, at, stock = [], 0.0, spot[row]
        for date, amount in (*(one for one in lists[row] if one[0] < expiry[row]), (expiry[row], 0.0)):
            times = np.linspace(at, date, 20_001)
            path = stock * np.exp((rate[row] - carried[row]) * (times - at))
            worths.append(np.exp(-rate[row] * times) * sign * (path - 100.0))
            stock = path[-1] - amount if amount <= path[-1] else (0.0 if policy == "liquidator" else path[-1])
            at = date
        best = max(float(one.max()) for one in worths) if american else float(worths[-1][-1])
        assert result.price[row] == pytest.approx(max(0.0, best), abs=1e-6, rel=1e-9), row


def test_a_little_volatility_adds_no_more_than_is_said() -> None:
    spot = np.linspace(95.0, 110.0, 16)
    dividends = CashDividends.same([(0.3, 2.0)], 16)

    def at(vol: float) -> cash_dividends.CashDividendResult:
        options = gk.Options(spot=spot, strike=100.0, expiry=0.5, vol=vol, rate=0.03, american=True)
        return cash_dividends.price(options, dividends, points=4_000, steps=400)

    still, moving = at(1.3e-4), at(1.6e-4)  # on both sides of the border
    assert (still.error > 0.0).all()
    np.testing.assert_allclose(still.price, moving.price, atol=float(still.error.max() + moving.error.max()))
