"""Books of options with cash dividends under scenarios: against every cell priced by itself, and laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scenario_books import black_scholes, fresh_rng

import gpu_kernels as gk
from gpu_kernels import dividend_tables
from gpu_kernels.american_book import AmericanBook
from gpu_kernels.dividend_schedules import CashDividends, joined
from gpu_kernels.hedging import exposures
from gpu_kernels.live_book import LiveBook
from gpu_kernels.premium_tables import build_premium_table
from gpu_kernels.revaluation import position_pnl, shocks
from gpu_kernels.shocked_options import options_of, repriced_pnl

SCHEDULES = [[(0.1, 1.0), (0.35, 1.0), (0.6, 1.2), (1.2, 3.0)], [], [(0.02, 2.0)]]


def book(rng: np.random.Generator, count: int, american: Any, **more: Any) -> gk.Portfolio:
    """Options on three underlyings: one pays often, one never, one in a week."""
    underlying = np.arange(count) % 3
    spot = np.array([100.0, 60.0, 140.0])[underlying]
    return gk.Portfolio(
        options=gk.Options(
            spot=spot, strike=spot * rng.uniform(0.8, 1.25, count), expiry=rng.uniform(0.05, 1.5, count),
            vol=rng.uniform(0.15, 0.6, count), rate=rng.uniform(0.0, 0.06, count),
            dividend_yield=rng.choice([0.0, 0.01], count), is_call=rng.random(count) < 0.5,
            american=american, dividends=CashDividends.shared(SCHEDULES, underlying),
        ),
        quantity=rng.normal(0.0, 10.0, count), multiplier=100.0, underlying=underlying, **more,
    )  # fmt: skip


def scenarios(
    rng: np.random.Generator, count: int, *, vols: bool = True, rates: bool = True, elapsed: Any = 0.0
) -> gk.Scenarios:
    return gk.Scenarios(
        spot_return=rng.standard_t(4, (count, 3)) * 0.05,
        vol_change=rng.normal(0.0, 0.06, (count, 3)) if vols else 0.0,
        rate_change=rng.normal(0.0, 0.004, count) if rates else 0.0,
        elapsed=elapsed,
    )


def cell_by_cell(engine: gk.Engine, held: gk.Portfolio, given: gk.Scenarios) -> np.ndarray:
    """Every cell an option of its own; one horizon."""
    out = np.empty((held.options, len(given)))
    repriced_pnl(engine, held, shocks(held, given), out)
    return out


@pytest.mark.parametrize("elapsed", [0.0, 10 / 252])
def test_european_rows_are_those_of_a_plain_recomputation(engine: gk.Engine, elapsed: float) -> None:
    rng = fresh_rng()
    held, given = book(rng, 12, False), scenarios(rng, 40, elapsed=elapsed)
    found = position_pnl(engine, held, given)

    def left(row: int, spot: Any, carry: Any, passed: float) -> Any:
        alive = [(when - passed, amount) for when, amount in SCHEDULES[row % 3]
                 if passed < when < held.expiry[row]]  # fmt: skip
        return np.maximum(spot - sum(amount * np.exp(-carry * when) for when, amount in alive), 0.0)

    for row in range(12):
        terms = (held.strike[row], held.expiry[row], held.vol[row], held.rate[row], held.dividend_yield[row])
        strike, expiry, vol, rate, carried = terms
        call, spot = held.is_call[row], held.spot[row]
        today = black_scholes(left(row, spot, rate - carried, 0.0), strike, expiry, vol, rate, carried, call)
        moved_rate = rate + given.rate_change
        moved = left(row, spot * np.exp(given.spot_return[:, row % 3]), moved_rate - carried, elapsed)
        moved_vol = np.maximum(vol + given.vol_change[:, row % 3], 1e-4)
        time = max(expiry - elapsed, 0.0)
        then = black_scholes(moved, strike, time, moved_vol, moved_rate, carried, call)
        size = held.quantity[row] * held.multiplier[row]
        np.testing.assert_allclose(found[row], size * (then - today), rtol=1e-9, atol=1e-9 * abs(size) * spot)


@pytest.mark.parametrize(("vols", "rates"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("elapsed", [0.0, 10 / 252])
def test_american_rows_are_those_priced_cell_by_cell(vols: bool, rates: bool, elapsed: float) -> None:
    rng, engine = fresh_rng(), gk.engine("cpu")
    held = book(rng, 12, True)
    given = scenarios(rng, 30, vols=vols, rates=rates, elapsed=elapsed)
    found, want = position_pnl(engine, held, given), cell_by_cell(engine, held, given)
    size = np.abs(held.quantity * held.multiplier * held.spot)[:, None]
    # A deep put waits for the next dividend or not; where it stops waiting its value has a kink in the rate.
    limit = 1e-3 if rates else 2e-4
    assert (np.abs(found - want) <= limit * size).all(), np.abs(found - want).max(axis=1) / size[:, 0]


def test_engines_agree_on_american_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = fresh_rng()
    held, given = book(rng, 3, [True, False, True]), scenarios(rng, 2, rates=False)
    want = position_pnl(gk.engine("cpu"), held, given)
    size = np.abs(held.quantity * held.multiplier * held.spot)[:, None]
    assert (np.abs(position_pnl(gk.engine("reference"), held, given) - want) <= 2e-4 * size).all()
    try:
        engine = gk.engine("xla")
    except gk.EngineUnavailable as error:
        pytest.skip(str(error))
    # Coarse grids: XLA takes its time to compile fine ones.
    monkeypatch.setattr(dividend_tables, "POINTS", 80)
    monkeypatch.setattr(dividend_tables, "STEPS", 24)
    monkeypatch.setattr(dividend_tables, "_kept", dividend_tables._Kept())
    rows = held.rows(np.flatnonzero(held.american & held.paying))
    one, other = (position_pnl(e, rows, given) for e in (engine, gk.engine("cpu")))
    np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-8)


def test_wild_cells_are_priced_by_themselves() -> None:
    """No vol left, no spot left, expired at the horizon: as cell by cell, and never a NaN."""
    rng, engine = fresh_rng(), gk.engine("cpu")
    held = book(rng, 9, True)
    given = gk.Scenarios(
        spot_return=np.array([[0.0], [-0.2], [-6.0], [-4.5], [1.5]]) * np.ones((1, 3)),
        vol_change=np.array([[-1.0], [0.0], [0.0], [0.3], [3.0]]) * np.ones((1, 3)),
        elapsed=0.3,
    )
    found, want = position_pnl(engine, held, given), cell_by_cell(engine, held, given)
    size = np.abs(held.quantity * held.multiplier * held.spot)[:, None]
    assert np.isfinite(found).all()
    assert (np.abs(found - want) <= 5e-4 * size).all()


@pytest.mark.parametrize("american", [False, True])
def test_no_move_is_no_pnl(american: bool) -> None:
    held = book(fresh_rng(), 9, american)
    nothing = gk.Scenarios(spot_return=np.zeros((3, 3)))
    found = position_pnl(gk.engine("cpu"), held, nothing)
    # European rows are valued by another formula under scenarios, as without dividends: to rounding.
    worth = np.abs(held.quantity * held.multiplier * held.spot)[:, None]
    assert (np.abs(found) <= (0.0 if american else 1e-12) * worth)[held.paying].all()


def test_schedules_that_pay_nothing_are_the_plain_book_bit_for_bit(engine: gk.Engine) -> None:
    rng = fresh_rng()
    held, given = book(rng, 9, False), scenarios(rng, 20)
    fields = {name: getattr(held, name) for name in
              ("spot", "strike", "expiry", "vol", "rate", "dividend_yield", "is_call")}  # fmt: skip
    places = {"quantity": held.quantity, "multiplier": 100.0, "underlying": held.underlying}
    none = CashDividends.shared([[(0.2, 0.0), (9.0, 1.0)], [], [(-0.1, 3.0)]], held.underlying)
    plain = gk.Portfolio(options=gk.Options(**fields), **places)
    same = gk.Portfolio(options=gk.Options(**fields, dividends=none), **places)
    assert same.dividends is None
    np.testing.assert_array_equal(engine.revalue(same, given), engine.revalue(plain, given))


def test_sums_by_group_are_sums_of_positions() -> None:
    rng, engine = fresh_rng(), gk.engine("cpu")
    linear = {"underlying": [0, 2], "quantity": [50.0, -20.0], "spot": [100.0, 140.0], "group": [0, 1]}
    flags = np.arange(12) % 2 == 0
    held = book(rng, 12, flags, group=np.arange(12) // 6, linear=linear)
    given = scenarios(rng, 15, elapsed=np.where(np.arange(15) < 7, 0.0, 5 / 252))
    rows = position_pnl(engine, held, given)
    by_group = engine.revalue(held, given, by="group")
    for group in (0, 1):
        np.testing.assert_allclose(by_group[group], rows[held.group == group].sum(axis=0), rtol=1e-9)
    np.testing.assert_allclose(engine.revalue(held, given), rows.sum(axis=0), rtol=1e-9, atol=1e-6)


def test_a_cut_of_the_scenarios_changes_no_bit() -> None:
    rng, engine = fresh_rng(), gk.engine("cpu")
    held, given = book(rng, 9, np.arange(9) % 2 == 0), scenarios(rng, 24, elapsed=1 / 252)
    whole = engine.revalue(held, given)
    parts = [engine.revalue(held, given.select(slice(start, start + 5))) for start in range(0, 24, 5)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_kept_grids_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, engine = fresh_rng(), gk.engine("cpu")
    held, given = book(rng, 6, True), scenarios(rng, 8, rates=False)
    kept = [engine.revalue(held, given) for _ in range(2)]
    monkeypatch.setattr(dividend_tables, "GRIDS_KEPT", 0)
    monkeypatch.setattr(dividend_tables, "GRIDS_AT_ONCE", 3)
    monkeypatch.setattr(dividend_tables, "_kept", dividend_tables._Kept())
    for one in (*kept, engine.revalue(held, given)):
        np.testing.assert_array_equal(one, kept[0])


def test_a_dividend_within_the_horizon_is_gone() -> None:
    """The third underlying goes ex in a week: after two it is an option without dividends."""
    engine = gk.engine("cpu")
    fields: dict[str, Any] = {"spot": 140.0, "strike": 140.0, "expiry": 0.5, "vol": 0.3, "rate": 0.03}
    given = gk.Scenarios(spot_return=[[0.0], [0.1]], elapsed=14 / 365)
    for american in (False, True):
        paid = CashDividends.same([(7 / 365, 2.0)], 1)
        options = gk.Options(**fields, american=american, is_call=False, dividends=paid)
        held = gk.Portfolio(options=options, quantity=[1.0])
        then = gk.Options(
            **fields | {"spot": [140.0, 140.0 * np.exp(0.1)], "expiry": 0.5 - 14 / 365},
            american=american, is_call=False,
        )  # fmt: skip
        want = engine.price(then).price - engine.price(options).price
        np.testing.assert_allclose(engine.revalue(held, given), want, atol=1e-7)


def test_parts_of_a_book_keep_their_dividends() -> None:
    rng, engine = fresh_rng(), gk.engine("cpu")
    held, given = book(rng, 9, np.arange(9) % 2 == 0), scenarios(rng, 6, rates=False)
    rows = position_pnl(engine, held, given)
    for chosen in (np.array([0, 4, 8]), np.arange(9) % 3 == 1):
        np.testing.assert_array_equal(position_pnl(engine, held.rows(chosen), given), rows[chosen])
    live = LiveBook(engine, held, given)
    np.testing.assert_allclose(live.pnl(), rows.sum(axis=0), rtol=1e-9, atol=1e-6)
    spots = {0: 104.0, 2: 133.0}
    moved = held.with_spots([104.0, 60.0, 133.0])
    np.testing.assert_allclose(live.move(spots), engine.revalue(moved, given), rtol=1e-9, atol=1e-6)


def test_interpolated_american_books_price_paying_rows_in_full() -> None:
    rng, engine = fresh_rng(), gk.engine("cpu")
    held, given = book(rng, 9, True), scenarios(rng, 12, rates=False)
    fast = AmericanBook(engine, held, given)
    assert not np.isin(np.flatnonzero(held.paying), fast.interpolated).any()
    np.testing.assert_allclose(
        fast.position_pnl(given)[held.paying], position_pnl(engine, held, given)[held.paying], rtol=1e-12
    )


def test_premium_tables_know_dividends() -> None:
    engine = gk.engine("cpu")
    options = gk.Options(
        spot=100.0, strike=[95.0, 105.0], expiry=0.4, vol=[0.25, 0.22], rate=0.04, is_call=[True, False],
        american=True, dividends=CashDividends.same([(0.1, 1.5)], 2),
    )  # fmt: skip
    table = build_premium_table(engine, options, gk.Scenarios(spot_return=[[-0.05], [0.04]]))
    moved = options.replace(spot=100.4)
    premium = engine.price(moved).price - engine.price(moved.replace(american=False)).price
    at_nodes = table.today_at_nodes(np.array([0.25, 0.22]))
    found = np.tensordot(table.spot_weights(100.4), at_nodes, axes=1)[:, 0]
    np.testing.assert_allclose(found, premium, atol=100.0 * table.error + 1e-3)


def test_exposures_have_dividends() -> None:
    engine, held = gk.engine("cpu"), book(fresh_rng(), 9, False)
    found = exposures(engine, held)
    greeks = engine.greeks(options_of(held))
    size = held.quantity * held.multiplier
    np.testing.assert_allclose(found.delta, np.bincount(held.underlying, size * greeks.delta), rtol=1e-12)
    without = exposures(engine, held.without_dividends())
    assert (found.delta[[0, 2]] != without.delta[[0, 2]]).all()
    assert found.delta[1] == without.delta[1]


def test_lots_of_dividends_are_joined() -> None:
    one = CashDividends.shared([[(0.1, 1.0)], [(0.2, 2.0), (0.3, 3.0)]], [1, 0])
    both = joined([(one, 2), (None, 1), (CashDividends.same([(0.4, 4.0)], 1), 2)])
    paid = both.within(np.full(5, 1.0))
    assert paid.times.tolist() == [0.2, 0.3, 0.1, 0.4, 0.4]
    assert np.diff(paid.offsets).tolist() == [2, 1, 0, 1, 1]
