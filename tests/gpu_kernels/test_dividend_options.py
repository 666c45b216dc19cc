"""Options that carry cash dividends (escrowed model): QuantLib, a slow tree, mpmath, and laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scenario_books import fresh_rng

import gpu_kernels as gk
from gpu_kernels import cash_dividends
from gpu_kernels.dividend_schedules import CashDividends

Dividends = list[tuple[float, float]]


def tree(options: gk.Options, row: int, dividends: Dividends, american: bool, steps: int = 1500) -> float:
    """A binomial tree of what is left of the spot, exercised at the whole spot; two sizes, averaged."""
    names = ("spot", "strike", "expiry", "vol", "rate", "dividend_yield")
    spot, strike, expiry, vol, rate, carried = (float(options.column(name)[row]) for name in names)
    sign = 1.0 if options.column("is_call")[row] else -1.0
    carry = rate - carried
    alive = [(when, amount) for when, amount in dividends if 0.0 < when < expiry]
    left = spot - sum(amount * np.exp(-carry * when) for when, amount in alive)
    found = []
    for count in (steps, steps + 1):
        dt = expiry / count
        up = np.exp(vol * np.sqrt(dt))
        chance = (np.exp(carry * dt) - 1.0 / up) / (up - 1.0 / up)
        value = np.maximum(sign * (left * up ** (2.0 * np.arange(count + 1) - count) - strike), 0.0)
        for step in range(count - 1, -1, -1):
            value = np.exp(-rate * dt) * (chance * value[1:] + (1.0 - chance) * value[:-1])
            if american:
                now = step * dt
                ahead = sum(amount * np.exp(-carry * (when - now)) for when, amount in alive if when > now)
                stock = left * up ** (2.0 * np.arange(step + 1) - step) + ahead
                value = np.maximum(value, sign * (stock - strike))
        found.append(float(value[0]))
    return 0.5 * sum(found)


def random_rows(rng: np.random.Generator, count: int, american: Any) -> tuple[gk.Options, list[Dividends]]:
    """Options with none to four dividends, some of them paid already or after expiry."""
    lists = [
        sorted((float(when), float(rng.uniform(0.2, 2.5))) for when in rng.uniform(-0.1, 2.0, number % 5))
        for number in range(count)
    ]
    options = gk.Options(
        spot=rng.uniform(80.0, 120.0, count),
        strike=100.0,
        expiry=rng.uniform(0.1, 1.8, count),
        vol=rng.uniform(0.1, 0.5, count),
        rate=rng.uniform(-0.01, 0.08, count),
        dividend_yield=rng.choice([0.0, 0.02], count),
        is_call=rng.random(count) < 0.5,
        american=american,
        dividends=CashDividends.per_option(lists),
    )
    return options, lists


def quantlib(options: gk.Options, row: int, days: list[tuple[int, float]], american: bool) -> float:
    ql = pytest.importorskip("QuantLib")
    today = ql.Date(1, 1, 2025)
    ql.Settings.instance().evaluationDate = today
    count = ql.Actual365Fixed()
    names = ("spot", "strike", "expiry", "vol", "rate", "dividend_yield")
    spot, strike, expiry, vol, rate, carried = (float(options.column(name)[row]) for name in names)
    process = ql.BlackScholesMertonProcess(
        ql.QuoteHandle(ql.SimpleQuote(spot)),
        ql.YieldTermStructureHandle(ql.FlatForward(today, carried, count)),
        ql.YieldTermStructureHandle(ql.FlatForward(today, rate, count)),
        ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, ql.NullCalendar(), vol, count)),
    )
    end = today + round(expiry * 365)
    payoff = ql.PlainVanillaPayoff(
        ql.Option.Call if options.column("is_call")[row] else ql.Option.Put, strike
    )
    option = ql.VanillaOption(
        payoff, ql.AmericanExercise(today, end) if american else ql.EuropeanExercise(end)
    )
    paid = ql.DividendVector([today + day for day, _ in days], [amount for _, amount in days])
    if not american:
        option.setPricingEngine(ql.AnalyticDividendEuropeanEngine(process, paid))
        return float(option.NPV())
    values = []
    for size in (300, 600):
        scheme, escrowed = ql.FdmSchemeDesc.TrBDF2(), ql.FdBlackScholesVanillaEngine.Escrowed
        option.setPricingEngine(
            ql.FdBlackScholesVanillaEngine(process, paid, size, size, 0, scheme, False, 0.0, escrowed)
        )
        values.append(option.NPV())
    # Early exercise makes QuantLib's grid one of first order in time.
    return float(2.0 * values[1] - values[0])


@pytest.mark.parametrize("american", [False, True])
def test_against_quantlib_s_escrowed_model(american: bool) -> None:
    rng = fresh_rng()
    count = 6
    lives = rng.integers(80, 500, count)
    days = [
        [(int(day), float(rng.uniform(0.3, 3.0))) for day in sorted(rng.choice(np.arange(2, life), 3, False))]
        for life in lives
    ]
    options = gk.Options(
        spot=rng.uniform(80.0, 120.0, count), strike=100.0, expiry=lives / 365.0,
        vol=rng.uniform(0.1, 0.5, count), rate=rng.uniform(0.0, 0.08, count),
        dividend_yield=rng.choice([0.0, 0.02], count), is_call=rng.random(count) < 0.5, american=american,
        dividends=CashDividends.per_option([[(day / 365.0, amount) for day, amount in one] for one in days]),
    )  # fmt: skip
    found = gk.engine("cpu").price(options)
    assert (found.status == gk.Status.OK).all()
    limit = 2e-3 if american else 1e-10
    for row in range(count):
        assert found.price[row] == pytest.approx(quantlib(options, row, days[row], american), abs=limit), row


@pytest.mark.parametrize("american", [False, True])
def test_against_a_slow_tree(american: bool) -> None:
    options, lists = random_rows(fresh_rng(), 8, american)
    found = gk.engine("cpu").price(options)
    for row, own in enumerate(lists):
        want = tree(options, row, own, american)
        assert found.price[row] == pytest.approx(want, abs=8e-3), (row, own)


def test_european_greeks_against_mpmath() -> None:
    """Differences at 40 digits of the escrowed formula written anew; dates stand still as time passes."""
    mp = pytest.importorskip("mpmath")
    rng = fresh_rng()
    options, lists = random_rows(rng, 10, False)
    found = gk.engine("cpu").greeks(options)
    names = ("spot", "strike", "expiry", "vol", "rate", "dividend_yield")
    with mp.workdps(40):
        for row, own in enumerate(lists):
            inputs = [mp.mpf(float(options.column(name)[row])) for name in names]
            sign = 1 if options.column("is_call")[row] else -1

            def value(spot: Any, vol: Any, rate: Any, now: Any, inputs: Any = inputs, own: Any = own,
                      sign: int = sign) -> Any:  # fmt: skip
                _, strike, expiry, _, _, carried = inputs
                alive = [(when, amount) for when, amount in own if 0.0 < when < expiry]
                left = spot - sum(amount * mp.exp(-(rate - carried) * (when - now)) for when, amount in alive)
                time = expiry - now
                spread = vol * mp.sqrt(time)
                plus = (mp.log(left / strike) + (rate - carried) * time) / spread + spread / 2
                both = left * mp.exp(-carried * time) * mp.ncdf(sign * plus)
                return sign * (both - strike * mp.exp(-rate * time) * mp.ncdf(sign * (plus - spread)))

            at = (inputs[0], inputs[3], inputs[4], mp.mpf(0))
            for name, orders in (
                ("price", (0, 0, 0, 0)), ("delta", (1, 0, 0, 0)), ("gamma", (2, 0, 0, 0)),
                ("vega", (0, 1, 0, 0)), ("rho", (0, 0, 1, 0)), ("theta", (0, 0, 0, 1)),
                ("vanna", (1, 1, 0, 0)), ("volga", (0, 2, 0, 0)), ("charm", (1, 0, 0, 1)),
            ):  # fmt: skip
                want = float(value(*at) if not any(orders) else mp.diff(value, at, orders))
                assert getattr(found, name)[row] == pytest.approx(want, rel=1e-9, abs=1e-9), (row, name)


def test_american_greeks_are_differences_of_values() -> None:
    options, lists = random_rows(fresh_rng(), 10, True)
    engine = gk.engine("cpu")
    found = engine.greeks(options)
    assert (found.status == gk.Status.OK).all()

    def moved(**changes: Any) -> Any:
        return engine.price(options.replace(**changes)).price

    spot, rate, vol, expiry = (options.column(name) for name in ("spot", "rate", "vol", "expiry"))
    day = 0.5 / 365.0
    later, sooner = (
        moved(expiry=expiry - step, dividends=CashDividends.per_option(
            [[(when - step, amount) for when, amount in one] for one in lists]))
        for step in (day, -day)
    )  # fmt: skip
    # A date that passes between the two is no derivative.
    near = np.array([any(abs(when) < 2 * day or abs(when - end) < 2 * day for when, _ in one)
                     for one, end in zip(lists, expiry, strict=True)])  # fmt: skip
    for name, up, down, step, limit in (
        ("delta", moved(spot=spot + 0.5), moved(spot=spot - 0.5), 0.5, 0.02),
        ("vega", moved(vol=vol + 0.005), moved(vol=vol - 0.005), 0.005, 0.5),
        ("rho", moved(rate=rate + 0.002), moved(rate=rate - 0.002), 0.002, 0.6),
        ("theta", later, sooner, day, 0.3),
    ):
        wrong = np.abs(getattr(found, name) - (up - down) / (2.0 * step))[~near]
        assert (wrong <= limit).all(), (name, wrong)


def test_no_dividend_that_counts_is_the_plain_option_bit_for_bit(engine: gk.Engine) -> None:
    rng = fresh_rng()
    spot = rng.uniform(80.0, 120.0, 6)
    fields: dict[str, Any] = {
        "spot": spot, "strike": 100.0, "expiry": 0.7, "vol": 0.3, "rate": 0.03, "dividend_yield": 0.01,
        "is_call": [True, False] * 3, "american": [False, False, True, True, False, True],
    }  # fmt: skip
    paid = CashDividends.shared([[], [(0.3, 0.0)], [(-0.2, 5.0), (0.7, 5.0), (0.9, 5.0)]], [0, 1, 2, 0, 2, 1])
    if engine.name == "xla":
        # It takes a minute to compile American Greeks.
        fields["american"] = False
    plain, same = gk.Options(**fields), gk.Options(**fields, dividends=paid)
    for call in (engine.price,) if engine.name == "xla" else (engine.price, engine.greeks):
        for name, one, other in zip(
            call(plain).COLUMNS, call(plain).columns(), call(same).columns(), strict=True
        ):
            np.testing.assert_array_equal(one, other, err_msg=name)
    prices = engine.price(plain).price
    np.testing.assert_array_equal(engine.implied_vol(plain, prices).vol, engine.implied_vol(same, prices).vol)


def test_the_engines_agree(engine: gk.Engine) -> None:
    options, _ = random_rows(fresh_rng(), 7, [False, True, True, False, True, True, False])
    if engine.name == "xla":
        # Rows with dividends only: XLA takes its time to compile the plain American ones.
        some = options.rows(np.array([2, 3, 6]))
        np.testing.assert_allclose(
            engine.price(some).price, gk.engine("cpu").price(some).price, rtol=1e-9, atol=1e-9
        )
        return
    found, want = engine.greeks(options), gk.engine("reference").greeks(options)
    np.testing.assert_array_equal(found.status, want.status)
    european = ~options.column("american")
    for name in gk.GreeksResult.COLUMNS[:-1]:
        one, other = getattr(found, name), getattr(want, name)
        np.testing.assert_allclose(one[european], other[european], rtol=1e-9, atol=1e-9, err_msg=name)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4, err_msg=name)


def test_put_less_call_is_strike_less_forward(engine: gk.Engine) -> None:
    options, lists = random_rows(fresh_rng(), 9, False)
    call, put = (engine.price(options.replace(is_call=flag)).price for flag in (True, False))
    columns = (options.column(name) for name in ("spot", "strike", "expiry", "rate", "dividend_yield"))
    for row, (spot, strike, expiry, rate, carried) in enumerate(zip(*columns, strict=True)):
        worth = sum(
            amount * np.exp(-(rate - carried) * when) for when, amount in lists[row] if 0.0 < when < expiry
        )
        forward = (spot - worth) * np.exp(-carried * expiry)
        wanted = strike * np.exp(-rate * expiry) - forward
        assert put[row] - call[row] == pytest.approx(wanted, abs=1e-11 * strike)


def test_money_has_no_unit(engine: gk.Engine) -> None:
    """Twice the spot, strike and dividends are twice the value; a power of two is exact but for the logs."""
    options, lists = random_rows(fresh_rng(), 6, [True, False] * 3)
    double = options.replace(
        spot=2.0 * options.column("spot"),
        strike=200.0,
        dividends=CashDividends.per_option([[(when, 2.0 * amount) for when, amount in one] for one in lists]),
    )
    np.testing.assert_allclose(
        engine.price(double).price, 2.0 * engine.price(options).price, rtol=1e-10, atol=1e-10
    )


def test_american_values_are_bounded() -> None:
    options, _ = random_rows(fresh_rng(), 40, True)
    engine = gk.engine("cpu")
    american, european = engine.price(options), engine.price(options.replace(american=False))
    spot, strike = options.column("spot"), options.column("strike")
    payoff = np.where(options.column("is_call"), spot - strike, strike - spot)
    assert (american.price >= np.maximum(european.price, payoff) - 1e-12).all()


def test_more_dividends_than_spot_leave_nothing() -> None:
    for american in (False, True):
        options = gk.Options(
            spot=10.0, strike=12.0, expiry=1.0, vol=0.3, rate=0.05, is_call=[True, False, False],
            american=american, dividends=CashDividends.same([(0.5, 100.0)], 3),
        )  # fmt: skip
        for name in ("cpu", "reference"):
            found = gk.engine(name).price(options)
            assert (found.status == gk.Status.OK).all()
            # Bought now and sold before the dividend, or not at all; put to the writer after it.
            carried = max(0.0, 10.0 - 12.0 * np.exp(-0.05 * 0.5))
            assert found.price[0] == (carried if american else 0.0)
            kept = 12.0 * np.exp(-0.05 * (0.5 if american else 1.0))
            np.testing.assert_allclose(found.price[1:], kept, rtol=1e-12)
    greeks = gk.engine("cpu").greeks(options.replace(american=False))
    assert (greeks.delta == 0.0).all()


@pytest.mark.parametrize("american", [False, True])
def test_vols_are_implied_again(engine: gk.Engine, american: bool) -> None:
    options, _ = random_rows(fresh_rng(), 5, american)
    spot, strike = options.column("spot"), options.column("strike")
    prices = engine.price(options).price
    found = engine.implied_vol(options, prices)
    payoff = np.where(options.column("is_call"), spot - strike, strike - spot)
    told = found.status == gk.Status.OK
    # An American option exercised at once tells no vol.
    assert (told | (american & (prices <= payoff + 1e-6))).all(), (found.status, prices - payoff)
    again = engine.price(options.replace(vol=np.where(told, found.vol, 0.2))).price
    np.testing.assert_allclose(again[told], prices[told], rtol=0, atol=1e-8)


def test_prices_that_tell_no_vol_say_why() -> None:
    options = gk.Options(
        spot=100.0, strike=[90.0, 90.0, 110.0, 90.0], expiry=1.0, rate=0.05,
        is_call=[True, True, False, True], american=True, dividends=CashDividends.same([(0.3, 2.0)], 4),
    )  # fmt: skip
    found = gk.engine("cpu").implied_vol(options, [5.0, 101.0, 9.0, np.nan])
    below, above, bad = gk.Status.BELOW_INTRINSIC, gk.Status.ABOVE_MAXIMUM, gk.Status.INVALID_INPUT
    assert found.status.tolist() == [below, above, below, bad]
    assert np.isnan(found.vol).all()


def test_bad_rows_have_their_status_and_bad_schedules_are_refused() -> None:
    paid = CashDividends.same([(0.3, 2.0)], 4)
    options = gk.Options(
        spot=[np.nan, -1.0, 100.0, 100.0], strike=100.0, expiry=[1.0, 1.0, 0.0, 1.0], vol=0.2,
        american=[True, True, True, False], dividends=paid,
    )  # fmt: skip
    for name in ("cpu", "reference"):
        found = gk.engine(name).greeks(options)
        assert found.status.tolist() == [2, 2, 1, 0]
    with pytest.raises(gk.InvalidInput, match="dividends: for 3 options, but there are 4"):
        options.replace(dividends=CashDividends.same([], 3))
    with pytest.raises(gk.InvalidInput, match="dividends: expected CashDividends"):
        options.replace(dividends=[(0.1, 1.0)])
    with pytest.raises(gk.InvalidInput, match=r"index\[1\]: is 2: there are 2 schedules"):
        CashDividends.shared([[], [(0.1, 1.0)]], [0, 2])
    with pytest.raises(gk.InvalidInput, match=r"options\.dividends"):
        cash_dividends.price(options, paid)


@pytest.mark.filterwarnings("error")
def test_numbers_beyond_floats_are_the_status_of_their_row_and_no_warning() -> None:
    engine = gk.engine("reference")
    options = gk.Options(
        spot=[np.inf, 100.0, 100.0, 100.0, 100.0],
        strike=100.0,
        expiry=[1.0, 1.0, 1.0, 1e6, 1.0],
        vol=0.2,
        rate=[0.02, 1e307, np.inf, -1.0, 0.02],
        dividend_yield=[0.0, 0.0, 1e299, 0.0, 0.0],
        dividends=CashDividends.per_option([[(0.5, 1.0)]] * 3 + [[(9e5, 1.0)]] + [[(0.5, 1.0)]]),
    )
    for result in (engine.price(options), engine.greeks(options), engine.implied_vol(options, 9.0)):
        assert (result.status[[0, 2]] == gk.Status.INVALID_INPUT).all()
        assert result.status[-1] == gk.Status.OK


def test_options_keep_their_dividends_when_cut_and_spread() -> None:
    engine = gk.engine("cpu")
    options, _ = random_rows(fresh_rng(), 6, False)
    whole = engine.price(options).price
    for index in (slice(2, 5), np.array([5, 0, 3]), np.arange(6) % 2 == 0):
        np.testing.assert_array_equal(engine.price(options.rows(index)).price, whole[index])
    two_prices = np.stack((whole, whole))
    vols = engine.implied_vol(options, two_prices).vol
    np.testing.assert_allclose(vols, np.broadcast_to(options.column("vol"), (2, 6)), rtol=1e-6)
    one = gk.Options(spot=100.0, strike=[90.0, 110.0], expiry=1.0, vol=0.2,
                     dividends=CashDividends.same([(0.5, 3.0)], 1))  # fmt: skip
    each = one.replace(dividends=CashDividends.same([(0.5, 3.0)], 2))
    np.testing.assert_array_equal(engine.price(one).price, engine.price(each).price)


def test_out_is_filled_and_inputs_are_left_alone(engine: gk.Engine) -> None:
    options, _ = random_rows(fresh_rng(), 4, engine.name == "cpu")
    before = options.column("spot").copy()
    out = gk.PriceResult(np.empty(4), np.empty(4, np.uint8))
    assert engine.price(options, out=out) is out
    np.testing.assert_array_equal(out.price, engine.price(options).price)
    np.testing.assert_array_equal(options.column("spot"), before)
