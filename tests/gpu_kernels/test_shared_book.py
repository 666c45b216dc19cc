"""Books that share their options, against each holder's book revalued by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import gpu_kernels as gk
from gpu_kernels.dividend_schedules import CashDividends
from gpu_kernels.errors import InvalidInput
from gpu_kernels.revaluation import position_pnl
from gpu_kernels.shared_book import (
    ScenarioTable,
    SharedInputs,
    SharedPoints,
    SharedRows,
    cell_pnl,
    cell_points,
)

BLOCKS, CELLS, ROWS = 4, 3, 30


def shared(random: np.random.Generator, held: float = 0.6) -> SharedRows:
    """Rows of calls (some with puts beside them) and of puts alone; most cells hold a part of them."""
    rows, cells = BLOCKS * ROWS, BLOCKS * CELLS
    sign = np.where(random.random(rows) < 0.7, 1.0, -1.0)
    holds = random.random((rows, CELLS)) < held
    row, holder = np.nonzero(holds)
    puts = np.where(sign[row] > 0.0, random.integers(-9, 10, len(row)), 0.0)
    return SharedRows(
        first_row=np.arange(BLOCKS + 1) * ROWS,
        first_cell=np.arange(BLOCKS + 1) * CELLS,
        cell=random.permutation(cells),
        strike=100.0 * np.exp(0.3 * random.standard_normal(rows)),
        sign=sign,
        first_holder=np.concatenate(([0], np.cumsum(holds.sum(axis=1)))),
        holder=holder.astype(np.int32),
        weight=random.integers(-9, 10, len(row)) + puts,
        puts=puts,
    )


def whole(rows: SharedRows, column: np.ndarray) -> np.ndarray:
    """What each cell of an underlying holds of each row, zeros written out: (rows, cells)."""
    written = np.zeros((BLOCKS * ROWS, CELLS))
    written[np.repeat(np.arange(len(written)), np.diff(rows.first_holder)), rows.holder] = column
    return written


def scenarios(random: np.random.Generator, days: int) -> gk.Scenarios:
    """Two horizons: a day, then moves of the moment."""
    return gk.Scenarios(
        spot_return=0.03 * random.standard_normal((days + 6, BLOCKS)),
        vol_change=0.05 * random.standard_normal((days + 6, BLOCKS)),
        elapsed=np.where(np.arange(days + 6) < days, 1 / 252, 0.0),
    )


def inputs(random: np.random.Generator, chosen: list[int], *, dividends: bool = False) -> SharedInputs:
    count = len(chosen)
    expiry = random.uniform(0.0, 2.0, count * ROWS)
    expiry[::7] = 0.0  # expired
    expiry[1::7] = 1 / 1000  # will have expired
    return SharedInputs(
        chosen=np.array(chosen),
        spot=random.uniform(80.0, 120.0, count),
        rate=random.uniform(-0.01, 0.05, count),
        dividend_yield=random.uniform(0.0, 0.03, count),
        expiry=expiry,
        vol=random.uniform(0.05, 0.6, count * ROWS),
        linear=random.integers(-50, 50, BLOCKS * CELLS).astype(float),
        dividends=paid(random, count * ROWS) if dividends else None,
    )


def paid(random: np.random.Generator, rows: int) -> CashDividends:
    """Dividends within a day, between days and beyond expiry; one that takes the whole spot."""
    schedules = [[], [(0.001, 2.0), (0.3, 1.5), (0.9, 1.5)], [(0.5, 4.0)], [(0.2, 500.0)]]
    return CashDividends.shared(schedules, random.integers(0, len(schedules), rows))


def by_hand(rows: SharedRows, moves: gk.Scenarios, now: SharedInputs, out: np.ndarray) -> None:
    """Every holder's calls, puts and shares as positions of its own."""
    engine = gk.engine("cpu")
    weight, put = whole(rows, rows.weight), whole(rows, rows.puts)
    for k, b in enumerate(now.chosen.tolist()):
        mine, own = slice(k * ROWS, (k + 1) * ROWS), slice(b * ROWS, (b + 1) * ROWS)
        known = np.isfinite(now.vol[mine]) & np.isfinite(now.spot[k])
        for c in range(CELLS):
            total = np.zeros(len(moves))
            puts = put[own, c]
            for quantity, is_call in ((weight[own, c] - puts, rows.sign[own] > 0.0), (puts, False)):
                options = gk.Options(
                    spot=now.spot[k] if known.any() else 1.0,
                    strike=rows.strike[own][known],
                    expiry=now.expiry[mine][known],
                    vol=now.vol[mine][known],
                    rate=now.rate[k],
                    dividend_yield=now.dividend_yield[k],
                    is_call=np.broadcast_to(is_call, ROWS)[known],
                    dividends=None
                    if now.dividends is None
                    else now.dividends.rows(np.arange(mine.start, mine.stop)[known], len(now.vol)),
                )
                book = gk.Portfolio(options=options, quantity=quantity[known], underlying=b)
                total += position_pnl(engine, book, moves).sum(axis=0)
            if np.isfinite(now.spot[k]):
                cell = b * CELLS + c
                total += now.linear[cell] * now.spot[k] * np.expm1(moves.spot_return[:, b])
            out[rows.cell[b * CELLS + c]] = total


@pytest.mark.parametrize("name", ["cpu", "reference"])
@pytest.mark.parametrize("days", [5, 100, 1_500])
def test_each_holder_gets_what_its_own_book_would(name, days, seed):
    if name == "reference" and days > 100:
        pytest.skip("the reference is slow")
    random = np.random.default_rng(seed)
    rows, moves = shared(random), scenarios(random, days)
    now = inputs(random, [0, 2, 3])
    wanted, found = np.zeros((2, BLOCKS * CELLS, len(moves)))
    by_hand(rows, moves, now, wanted)
    cell_pnl(gk.engine(name))(rows, ScenarioTable.of(moves), now, found)
    scale = 100.0 * ROWS * 18.0
    np.testing.assert_allclose(found, wanted, rtol=0.0, atol=1e-13 * scale)
    left_out = rows.cell[CELLS : 2 * CELLS]
    assert not found[left_out].any()
    assert found[rows.cell[:CELLS]].all()


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_dividends_to_come_are_no_part_of_what_moves(name, seed):
    random = np.random.default_rng(seed)
    rows, moves = shared(random), scenarios(random, 40)
    rows.puts[:] = 0.0  # a put whose row is a call would need the call's forward to be one of the spot
    now = inputs(random, [0, 1, 3], dividends=True)
    wanted, found, without = np.zeros((3, BLOCKS * CELLS, len(moves)))
    by_hand(rows, moves, now, wanted)
    cell_pnl(gk.engine(name))(rows, ScenarioTable.of(moves), now, found)
    np.testing.assert_allclose(found, wanted, rtol=0.0, atol=1e-8)
    cell_pnl(gk.engine(name))(rows, ScenarioTable.of(moves), replace(now, dividends=None), without)
    assert np.abs(found - without).max() > 1.0


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_what_is_not_known_counts_for_nothing(name, seed):
    random = np.random.default_rng(seed)
    rows, moves = shared(random), scenarios(random, 40)
    now = inputs(random, [0, 1])
    now.vol[3:9] = np.nan
    now.spot[1] = np.nan
    wanted, found = np.zeros((2, BLOCKS * CELLS, len(moves)))
    by_hand(rows, moves, now, wanted)
    cell_pnl(gk.engine(name))(rows, ScenarioTable.of(moves), now, found)
    np.testing.assert_allclose(found, wanted, rtol=0.0, atol=1e-9)
    assert not found[rows.cell[CELLS : 2 * CELLS]].any()


def test_company_changes_no_bit(seed):
    random = np.random.default_rng(seed)
    rows, moves = shared(random), scenarios(random, 700)
    table, now = ScenarioTable.of(moves), inputs(random, [0, 1, 2, 3])
    together, alone = np.zeros((2, BLOCKS * CELLS, len(moves)))
    run = cell_pnl(gk.engine("cpu"))
    run(rows, table, now, together)
    for k in range(BLOCKS):
        mine, one = slice(k * ROWS, (k + 1) * ROWS), slice(k, k + 1)
        few = SharedInputs(
            now.chosen[one],
            now.spot[one],
            now.rate[one],
            now.dividend_yield[one],
            now.expiry[mine],
            now.vol[mine],
            now.linear,
        )
        run(rows, table, few, alone)
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_values_and_greeks_are_summed_over_what_each_holds(name, seed):
    random = np.random.default_rng(seed)
    rows = shared(random)
    chosen, weight = np.array([1, 3]), whole(rows, rows.weight)
    fields = random.standard_normal((2 * ROWS, 9))
    spot, owned = np.array([90.0, np.nan]), random.integers(-50, 50, BLOCKS * CELLS).astype(float)
    linear, gross_linear = 1.5 * owned, 2.0 * np.abs(owned)
    pairs = rows.first_holder, rows.holder, rows.weight, np.abs(rows.weight)
    now = SharedPoints(chosen, spot, rows.first_row, *pairs, owned, linear, gross_linear)
    out = np.full((BLOCKS * CELLS, 10), 7.0)
    cell_points(gk.engine(name))(rows, now, fields, out)
    for place, b in enumerate(chosen):
        own = fields[place * ROWS : (place + 1) * ROWS]
        for c in range(CELLS):
            at, mine = b * CELLS + c, weight[b * ROWS : (b + 1) * ROWS, c]
            wanted = mine @ own
            gross = np.abs(mine) @ np.abs(own[:, 0])
            if place == 0:
                wanted[0] += owned[at] * 90.0
                wanted[1] += linear[at]
                gross += gross_linear[at] * 90.0
            expected = [wanted[0], gross, *wanted[1:]]
            np.testing.assert_allclose(out[rows.cell[at]], expected, rtol=0.0, atol=1e-10)
    assert (out[rows.cell[:CELLS]] == 7.0).all()


def test_rates_and_surfaces_are_refused():
    moves = np.zeros((3, 1))
    with pytest.raises(InvalidInput, match="rate_change"):
        ScenarioTable.of(gk.Scenarios(spot_return=moves, rate_change=0.01))
