"""Chains and quotes: listed forms, no arbitrage in the surface, prices that hold up."""

from __future__ import annotations

import math
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr

import gpu_kernels as gk
from market_sim.chains import STRIKE_STEPS, build_chain, build_chains, osi_symbol, strike_ladder
from market_sim.listing import Listing, listing_of
from market_sim.model import Market
from market_sim.quotes import QUOTE_UNIFORMS, fair_values, option_quotes, quotes, spot_quotes
from market_sim.smile import INDEX_SMILE, STOCK_SMILE, Smile, total_variance
from market_sim.trading_days import expiry_dates, expiry_time_ns, is_trading_day, trading_days
from market_sim.universe import UNIVERSE, Underlying

START = date(2026, 1, 5)
NOW = expiry_time_ns(START)


def test_osi_symbols_have_the_published_form() -> None:
    assert osi_symbol("SPX", date(2026, 12, 18), is_call=True, strike=5000.0) == "SPX   261218C05000000"
    assert osi_symbol("BAC", date(2027, 1, 15), is_call=False, strike=37.5) == "BAC   270115P00037500"
    for strike in (0.0, -1.0, 100_000.0, 1.00005):
        with pytest.raises(ValueError, match="strike"):
            osi_symbol("SPX", START, is_call=True, strike=strike)
    with pytest.raises(ValueError, match="root"):
        osi_symbol("TOOLONG", START, is_call=True, strike=1.0)


def test_expiries_are_the_fridays_of_the_calendar() -> None:
    assert expiry_dates(START, 2) == (date(2026, 1, 16), date(2026, 3, 20))
    assert expiry_dates(START, 4) == (
        date(2026, 1, 9),
        date(2026, 1, 16),
        date(2026, 2, 20),
        date(2026, 3, 20),
    )
    # 2027-01-01 is a Friday and a holiday: the week's options expire a day earlier.
    assert date(2026, 12, 31) in expiry_dates(date(2026, 12, 21), 8)


@given(st.dates(date(2000, 1, 1), date(2060, 1, 1)), st.integers(1, 14))
def test_expiries_rise_and_lie_ahead_on_trading_days(start: date, count: int) -> None:
    days = expiry_dates(start, count)
    assert len(days) == count
    assert list(days) == sorted(set(days))
    assert days[0] > start
    assert all(is_trading_day(day) for day in days)


def test_trading_days_leave_out_weekends_and_holidays() -> None:
    days = trading_days(date(2026, 12, 24), 6).astype(object).tolist()
    assert days[:2] == [date(2026, 12, 24), date(2026, 12, 28)]
    assert date(2027, 1, 1) not in days


@given(st.floats(5.0, 20_000.0), st.floats(0.1, 0.9), st.floats(0.01, 2.0), st.integers(1, 25))
def test_strikes_are_listed_steps_around_spot(spot: float, vol: float, years: float, count: int) -> None:
    strikes = np.array(strike_ladder(spot, vol, years, count))
    assert len(strikes) == count
    assert strikes[0] > 0
    if count > 2:
        step = strikes[1] - strikes[0]
        assert step in STRIKE_STEPS
        np.testing.assert_allclose(np.diff(strikes), step)
        assert strikes[0] <= spot + step
        assert strikes[-1] >= spot - step


def test_every_listed_option_has_a_symbol_of_its_own() -> None:
    for underlying in UNIVERSE:
        chain = build_chain(underlying, START, expiries=7, strikes=15)
        assert len(set(chain.symbols)) == len(chain) == 7 * 15 * 2
        assert {len(symbol) for symbol in chain.symbols} == {21}
        assert chain.american.all() == underlying.american
        assert (chain.expiry_time_ns > NOW).all()
        spelled = [int(symbol[13:]) / 1000 for symbol in chain.symbols]
        np.testing.assert_array_equal(spelled, chain.strike)
        assert [symbol[12] == "C" for symbol in chain.symbols] == chain.is_call.tolist()


@pytest.mark.parametrize("smile", [INDEX_SMILE, STOCK_SMILE])
@pytest.mark.parametrize("atm", [1e-5, 1e-3, 0.02, 0.2, 1.0])
def test_the_surface_has_no_butterfly_arbitrage(smile: Smile, atm: float) -> None:
    strike = np.exp(np.linspace(-6, 6, 4001) * math.sqrt(atm))
    k = np.log(strike)
    sd = np.sqrt(total_variance(smile, k, atm))
    put = strike * ndtr(k / sd + sd / 2) - ndtr(k / sd - sd / 2)
    slope = np.diff(put) / np.diff(strike)
    # A put's price is convex in its strike, and its slope lies between 0 and 1.
    assert (np.diff(slope) > -1e-9).all()
    assert slope[0] > -1e-9
    assert slope[-1] < 1 + 1e-9


@pytest.mark.parametrize("smile", [INDEX_SMILE, STOCK_SMILE])
def test_the_surface_has_no_calendar_arbitrage(smile: Smile, seed: int) -> None:
    random = np.random.default_rng(seed)
    years = np.linspace(1e-3, 2.0, 200)
    k = np.linspace(-1.5, 1.5, 101)
    for _ in range(20):
        market = Market(UNIVERSE[:1], 1)
        market.variance = market.variance * random.lognormal(0, 1.5)
        atm = market.average_variance(0, years) * years
        total = total_variance(smile, k[:, None], atm[None, :])
        assert (np.diff(total, axis=1) > 0).all()


def test_a_smile_that_allows_arbitrage_is_refused() -> None:
    with pytest.raises(ValueError, match="eta"):
        Smile(rho=-0.7, eta=1.3)
    with pytest.raises(ValueError, match="rho"):
        Smile(rho=-1.0, eta=0.5)


def listed(expiries: int, strikes: int, *underlyings: Underlying) -> tuple[Listing, Market]:
    chains = build_chains(underlyings, START, expiries, strikes)
    return listing_of(chains), Market(underlyings, 3)


def test_fair_values_agree_with_a_plain_formula() -> None:
    u = UNIVERSE[0]
    listing, market = listed(3, 9, u)
    market.variance = market.variance * 1.7
    rows = listing.options_of(0)
    fair = fair_values(listing, rows, market, NOW, gk.engine("reference"))
    for at, row in enumerate(rows):
        t, strike = (listing.expiry_time_ns[row] - NOW) / (365 * 86_400e9), listing.strike[row]
        k = math.log(strike / u.spot) - (u.rate - u.dividend_yield) * t
        atm = float(market.average_variance(0, t)) * t
        sd = math.sqrt(float(total_variance(INDEX_SMILE, k, atm)))
        assert fair.vol[at] == pytest.approx(sd / math.sqrt(t), rel=1e-12)
        assert fair.deviations[at] == pytest.approx(k / sd, rel=1e-9, abs=1e-12)
        d1 = -k / sd + sd / 2
        sign = 1 if listing.is_call[row] else -1
        spot_leg = u.spot * math.exp(-u.dividend_yield * t) * 0.5 * math.erfc(-sign * d1 / math.sqrt(2))
        strike_leg = strike * math.exp(-u.rate * t) * 0.5 * math.erfc(-sign * (d1 - sd) / math.sqrt(2))
        assert fair.price[at] == pytest.approx(sign * (spot_leg - strike_leg), rel=1e-9, abs=1e-9)


def test_quotes_stand_on_ticks_around_fair_value(seed: int) -> None:
    random = np.random.default_rng(seed)
    listing, market = listed(4, 15, *UNIVERSE)
    rows = np.flatnonzero(listing.is_option)
    fair = fair_values(listing, rows, market, NOW, gk.engine("reference"))
    made = option_quotes(fair, random.random((len(rows), QUOTE_UNIFORMS)))
    assert (made.bid < made.ask).all()
    assert (made.bid <= fair.price + 1e-9).all()
    assert (made.ask >= fair.price - 1e-9).all()
    assert ((made.bid_quantity > 0) == (made.bid > 0)).all()
    assert (made.ask_quantity > 0).all()
    cents = np.concatenate([made.bid, made.ask]) * 100
    np.testing.assert_allclose(cents, np.rint(cents), atol=1e-6)
    exercise = np.where(listing.is_call[rows], 1, -1) * (
        market.spot[listing.owner[rows]] - listing.strike[rows]
    )
    assert (fair.price >= np.where(listing.american[rows], exercise, 0) - 1e-9).all()


def test_spreads_are_wider_away_from_the_money() -> None:
    listing, market = listed(1, 9, UNIVERSE[0])
    rows = listing.options_of(0)[::2]  # calls
    fair = fair_values(listing, rows, market, NOW, gk.engine("reference"))
    random = np.random.default_rng(1)
    drawn = [option_quotes(fair, random.random((len(rows), QUOTE_UNIFORMS))) for _ in range(200)]
    spread = np.mean([(q.ask - q.bid) / fair.price for q in drawn], axis=0)
    size = np.mean([q.ask_quantity for q in drawn], axis=0)
    assert spread[-1] > 3 * spread[4]
    assert size[-1] < size[4]


def test_spot_quotes_are_narrow_and_on_ticks(seed: int) -> None:
    spot = np.array([u.spot for u in UNIVERSE])
    uniforms = np.random.default_rng(seed).random((len(spot), QUOTE_UNIFORMS))
    quotes = spot_quotes(spot, np.full(len(spot), 0.01), uniforms)
    assert (quotes.bid < quotes.ask).all()
    assert (quotes.ask - quotes.bid <= spot * 2e-4 + 0.02).all()
    np.testing.assert_array_equal(quotes.bid, np.round(quotes.bid, 2))


def test_quotes_of_mixed_rows_keep_their_places(seed: int) -> None:
    listing, market = listed(2, 5, *UNIVERSE[:3])
    rows = np.random.default_rng(seed).integers(0, len(listing), 50)
    uniforms = np.random.default_rng(seed).random((50, QUOTE_UNIFORMS))
    engine = gk.engine("reference")
    together = quotes(listing, rows, market, NOW, uniforms, engine)
    for at in range(50):
        alone = quotes(listing, rows[at : at + 1], market, NOW, uniforms[at : at + 1], engine)
        assert (together.bid[at], together.ask[at]) == (alone.bid[0], alone.ask[0])
        assert together.bid_quantity[at] == alone.bid_quantity[0]


def test_expired_options_are_worth_their_intrinsic_value() -> None:
    listing, market = listed(1, 5, UNIVERSE[0])
    rows = listing.options_of(0)
    after = int(listing.expiry_time_ns[rows[0]]) + 1
    market.log_spot = np.log([5030.0])
    fair = fair_values(listing, rows, market, after, gk.engine("reference"))
    payoff = np.maximum(np.where(listing.is_call[rows], 1, -1) * (5030.0 - listing.strike[rows]), 0)
    np.testing.assert_allclose(fair.price, payoff, atol=1e-2)
