"""Premiums of American options with cash dividends: against a tree, each cell by itself, their bounds."""

from __future__ import annotations

import numpy as np
import pytest
from dividend_tree import american as tree

import gpu_kernels as gk
from gpu_kernels.dividend_points import premium_points
from gpu_kernels.dividend_premiums import dividend_premiums, lasts
from gpu_kernels.dividend_schedules import CashDividends, due
from gpu_kernels.engines.columns import Columns
from gpu_kernels.engines.escrowed_search import searched
from gpu_kernels.formulas.cash_dividends import ESCROWED, Schedule
from gpu_kernels.premium_tables import POINT_FIELDS, SPOT_RANGE, VOL_RANGE, build_premium_table
from gpu_kernels.revaluation import position_pnl

SPOT, RATE, YIELD, DAY = 100.0, 0.045, 0.01, 1.0 / 252
# The first is between today and tomorrow's horizon.
PAID = [(0.5 * DAY, 0.7), (0.24, 0.8), (0.49, 0.8), (0.8, 0.9)]
COUNT = 12


def terms():
    place = np.arange(COUNT)
    return {
        "strike": np.linspace(85.0, 118.0, COUNT),
        "expiry": np.array([0.06, 0.4, 1.1])[place % 3],
        "rate": RATE,
        "dividend_yield": YIELD,
        "is_call": place % 2 == 0,
    }


VOL = np.linspace(0.18, 0.4, COUNT)


def options(*, american=True, spot=SPOT, vol=VOL, paid=PAID):
    return gk.Options(
        spot=spot, vol=vol, american=american, dividends=CashDividends.same(paid, COUNT), **terms()
    )


def scenarios(random):
    history = gk.Scenarios(
        0.015 * random.standard_t(4, (30, 1)), 0.01 * random.standard_normal((30, 1)), elapsed=DAY
    )
    return gk.Scenarios.stacked(
        [history, gk.Scenarios(np.log1p([[-0.2], [0.1]]), np.array([[0.2], [-0.05]]))]
    )


def book(**more):
    return gk.Portfolio(options=options(**more), quantity=np.ones(COUNT))


def test_premiums_are_those_of_a_tree_today_and_past_an_ex_date(cpu, seed):
    given = scenarios(np.random.default_rng(seed))
    made = dividend_premiums(cpu, book(), given, 0.02, 0.02)
    assert 0.0 < made.error < 1e-3
    given_terms = terms()
    for row, scenario in zip(range(COUNT), (0, 30, 31, 1, 2, 3, 30, 31, 4, 5, 6, 7), strict=True):
        elapsed = float(given.elapsed[scenario])
        move, change = given.spot_return[scenario], given.vol_change[scenario]
        found = made.premiums(elapsed, move, change)[row, 0]
        cell = (
            SPOT * np.exp(move[0]), given_terms["strike"][row], given_terms["expiry"][row] - elapsed,
            max(VOL[row] + change[0], 1e-4), RATE, YIELD, given_terms["is_call"][row],
            [(when - elapsed, amount) for when, amount in PAID],
        )  # fmt: skip
        wanted = tree(*cell) - tree(*cell, early=False)
        assert found == pytest.approx(wanted, abs=made.bounds[row] * SPOT + 3e-3), row


@pytest.mark.parametrize("moved", [False, True])
def test_what_premiums_change_by_is_within_the_bounds(cpu, seed, moved):
    random = np.random.default_rng(seed)
    given = scenarios(random)
    made, spot, vol = dividend_premiums(cpu, book(), given, 0.02, 0.02), SPOT, VOL
    if moved:
        spot, vol = SPOT * np.exp(random.uniform(-0.02, 0.02)), VOL + random.uniform(-0.02, 0.02, COUNT)
        made = made.moved([spot], vol)
    both = [position_pnl(cpu, book(american=how, spot=spot, vol=vol), given) for how in (True, False)]
    off = np.abs(made.premium_pnl(given) - (both[0] - both[1])).max(axis=1)
    assert (off <= 2.0 * made.bounds * spot).all()
    assert made.bounds.max() < 1e-3


def test_unknown_horizons_and_moved_rates_are_refused(cpu):
    given = gk.Scenarios([[0.01]], elapsed=DAY)
    made = dividend_premiums(cpu, book(), given, 0.01, 0.01)
    with pytest.raises(gk.InvalidInput, match="elapsed"):
        made.premiums(2.0 * DAY, np.zeros(1), np.zeros(1))
    with pytest.raises(gk.InvalidInput, match="rate_change"):
        dividend_premiums(cpu, book(), gk.Scenarios([[0.01]], rate_change=0.01), 0.01, 0.01)
    with pytest.raises(gk.InvalidInput, match="dividends"):
        dividend_premiums(cpu, book(american=False), given, 0.01, 0.01)


def test_greeks_of_today_are_the_engine_s(cpu):
    paid = [(0.24, 2.5), (0.8, 3.0)]
    found = premium_points(cpu, book(paid=paid), np.array([0.01, 0.0, -0.01]), 0.02)
    # At worst: theta and charm jump at the edge of exercise, volga is a difference of differences.
    allowed = dict(zip(POINT_FIELDS, (2e-3, 5e-4, 3e-4, 0.2, 0.1, 0.4, 0.03, 90.0, 0.05), strict=True))
    for node, move in enumerate((0.01, 0.0, -0.01)):
        for across, change in enumerate((-0.02, 0.0, 0.02)):
            both = [
                cpu.greeks(options(american=how, spot=SPOT * np.exp(move), vol=VOL + change, paid=paid))
                for how in (True, False)
            ]
            for place, name in enumerate(POINT_FIELDS):
                wanted = getattr(both[0], name) - getattr(both[1], name)
                off = np.abs(found[node, across, :, place] - wanted)
                assert off.max() < allowed[name], (name, node, across)
                assert np.median(off) < 0.03 * allowed[name], (name, node, across)


def mixed(american=True, spot=SPOT, vol=VOL):
    """Every other option has no dividends."""
    paid = CashDividends.shared([PAID, []], np.arange(COUNT) % 2)
    return gk.Options(spot=spot, vol=vol, american=american, dividends=paid, **terms())


@pytest.mark.parametrize("part", [0.0, 0.9])
def test_tables_of_options_with_and_without_dividends_are_within_their_error(cpu, seed, part):
    random = np.random.default_rng(seed)
    given = scenarios(random)
    table = build_premium_table(cpu, mixed(), given)
    assert table.lasts == pytest.approx(0.5 * DAY)
    assert table.error < 2e-3
    spot = SPOT * np.exp(part * SPOT_RANGE * random.choice((-1.0, 1.0)))
    vol = VOL + part * VOL_RANGE * random.uniform(-1.0, 1.0, COUNT)
    each = np.eye(COUNT)
    level, slope = table.vol_sums(each, vol)
    premium = np.tensordot(table.spot_weights(spot), table.sums(each), axes=1)
    premium += level + np.log(spot / SPOT) * slope
    now = np.tensordot(table.spot_weights(spot), table.today_at_nodes(vol), axes=1)[:, 0]
    american, european = (mixed(how, spot, vol) for how in (True, False))
    exact = cpu.price(american).price - cpu.price(european).price
    assert np.abs(now - exact).max() <= table.error * spot
    held = [gk.Portfolio(options=one, quantity=np.ones(COUNT)) for one in (american, european)]
    wanted = position_pnl(cpu, held[0], given) - position_pnl(cpu, held[1], given)
    assert np.abs(premium - now[:, None] - wanted).max() <= 2.0 * table.error * spot


def test_how_long_premiums_last_until_an_ex_date_is_passed():
    given = gk.Scenarios([[0.0], [0.0]], elapsed=[0.0, DAY])
    assert lasts(book(), given) == pytest.approx(0.5 * DAY)
    assert lasts(book(paid=[(1.25 * DAY, 1.0)]), given) == pytest.approx(0.25 * DAY)
    assert lasts(book(paid=[(0.5, 0.0)]), given) == np.inf
    assert lasts(book(paid=[]), given) == np.inf


def test_a_row_of_grids_is_the_same_alone_and_among_others_and_tells_moments_on_its_way(cpu):
    module, rows = cpu.module("cash_dividends"), np.arange(11)
    columns = (
        np.full(11, 100.0), 90.0 + 2.0 * rows, np.linspace(0.3, 1.2, 11), np.linspace(0.1, 0.6, 11),
        np.full(11, 0.04), np.full(11, 0.01), rows % 2 == 0,
    )  # fmt: skip
    times = np.tile([0.1, 0.25], 11)
    schedule = Schedule(times, np.ones(22), 2 * np.arange(12))
    spacing, american = np.full(11, 0.02), rows % 3 != 0
    moments = np.array([0.0, 0.1, 0.2])
    whole = module.solve_at(columns, american, schedule, ESCROWED, spacing, 200, 100, 5, moments)
    for row in (0, 7, 10):
        part = tuple(column[row : row + 1] for column in columns)
        own = Schedule(times[2 * row : 2 * row + 2], np.ones(2), np.array([0, 2]))
        one = slice(row, row + 1)
        alone = module.solve_at(part, american[one], own, ESCROWED, spacing[one], 200, 100, 5, moments)
        np.testing.assert_array_equal(alone[:, 0], whole[:, row])
        # At a moment the ex-dates until then are over.
        later = Schedule(times[:2] - 0.1, np.ones(2), np.array([0, 2]))
        shorter = (*part[:2], part[2] - 0.1, *part[3:])
        then = module.solve(shorter, american[one], later, ESCROWED, spacing[one], 200, 100)
        np.testing.assert_allclose(whole[1, row], then[0], atol=5e-3)


def test_vols_of_quotes_out_of_the_money_take_few_evaluations(cpu):
    given = terms() | {"is_call": terms()["strike"] > SPOT}
    paid = CashDividends.same(PAID, COUNT)
    option = gk.Options(spot=SPOT, vol=VOL, american=True, dividends=paid, **given)
    carry = np.full(COUNT, RATE - YIELD)
    left = SPOT - due(paid.within(given["expiry"]), carry)
    columns = Columns(
        left, given["strike"], given["expiry"], np.full(COUNT, np.nan), np.full(COUNT, RATE),
        np.full(COUNT, YIELD), given["is_call"],
    )  # fmt: skip
    asked = []

    def value(rows, vol):
        asked.extend(rows.tolist())
        return cpu.price(option.replace(vol=_placed(vol, rows))).price[rows]

    def _placed(vol, rows):
        every = VOL.copy()
        every[rows] = vol
        return every

    found = searched(columns, cpu.price(option).price, np.full(COUNT, np.nan), value)
    np.testing.assert_allclose(found, VOL, rtol=1e-7)
    assert len(asked) <= 6 * COUNT
    # A price that no vol has is found by nobody.
    assert np.isnan(searched(columns, np.full(COUNT, 1e3), np.full(COUNT, np.nan), value)).all()
