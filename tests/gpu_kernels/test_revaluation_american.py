"""American options under scenarios: the same as pricing each shocked option, whatever is reused."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import gpu_kernels as gk
from gpu_kernels import revaluation
from gpu_kernels.american_book import AmericanBook
from gpu_kernels.dividend_schedules import CashDividends
from gpu_kernels.revaluation import position_pnl, shocks
from gpu_kernels.scenarios import VolShockSurface
from gpu_kernels.shocked_options import repriced_pnl


def mixed_options(rng: np.random.Generator, count: int) -> gk.Options:
    expiry = rng.uniform(0.05, 2.0, count)
    expiry[0] = 1 / 252
    return gk.Options(
        spot=rng.uniform(80.0, 120.0, count),
        strike=100.0,
        expiry=expiry,
        vol=rng.uniform(0.1, 0.6, count),
        rate=rng.uniform(0.0, 0.06, count),
        dividend_yield=rng.uniform(0.0, 0.06, count),
        is_call=rng.random(count) < 0.5,
        american=rng.random(count) < 0.6,
    )


def plainly(engine: gk.Engine, options: gk.Options, book: gk.Portfolio, sc: gk.Scenarios) -> np.ndarray:
    """P&L per position, each scenario priced in a call of its own."""
    today = engine.price(options).price
    rows = np.empty((len(book), len(sc)))
    for s in range(len(sc)):
        shocked = options.replace(
            spot=book.spot * np.exp(sc.spot_return[s][book.underlying]),
            expiry=np.maximum(book.expiry - sc.elapsed[s], 0.0),
            vol=np.maximum(book.vol + sc.vol_change[s][0], 1e-4),
            rate=book.rate + sc.rate_change[s],
        )
        rows[:, s] = book.quantity * book.multiplier * (engine.price(shocked).price - today)
    return rows


@pytest.mark.parametrize("moves", ["spot", "vol", "rate"])
def test_agrees_with_pricing_every_shocked_option(
    engine: gk.Engine, rng: np.random.Generator, moves: str
) -> None:
    if engine.name == "reference" and moves != "spot":
        pytest.skip("the reference prices every option anew in any case")
    options = mixed_options(rng, 40)
    book = gk.Portfolio(
        options,
        rng.normal(size=40),
        100.0,
        underlying=rng.integers(0, 2, 40),
        group=rng.integers(0, 3, 40),
    )
    sc = gk.Scenarios(
        rng.normal(0.0, 0.1, (7, 2)),
        vol_change=rng.normal(0, 0.05, (7, 1)) if moves == "vol" else 0.0,
        rate_change=rng.uniform(0.0, 0.01, 7) if moves == "rate" else 0.0,
        elapsed=2 / 252,
    )
    rows = plainly(engine, options, book, sc)
    gross = np.abs(book.quantity * book.multiplier * engine.price(options).price).sum()
    assert np.abs(position_pnl(engine, book, sc) - rows).max() <= 1e-11 * gross
    total = engine.revalue(book, sc)
    assert np.abs(total - rows.sum(axis=0)).max() <= 1e-11 * gross
    groups = engine.revalue(book, sc, by="group")
    for g in range(3):
        assert np.abs(groups[g] - rows[book.group == g].sum(axis=0)).max() <= 1e-11 * gross
    assert np.array_equal(engine.revalue(book, sc), total)


@pytest.mark.parametrize("moves", ["vol", "rate", "both", "surface"])
def test_interpolated_boundaries_are_as_exact_as_stated(rng: np.random.Generator, moves: str) -> None:
    """Enough scenarios that boundaries are interpolated: 1e-6 of spot for any row, far less for most."""
    engine = _cpu()
    moved_pnl = engine.module("american_revaluation").moved_pnl
    options = mixed_options(rng, 40)
    book = gk.Portfolio(options, rng.normal(size=40), 100.0, underlying=rng.integers(0, 2, 40))
    count = 160
    surface = VolShockSurface.factors(parallel=rng.normal(0, 0.01, count), skew=rng.normal(0, 0.02, count))
    sc = gk.Scenarios(
        rng.normal(0.0, 0.1, (count, 2)),
        vol_change=rng.normal(0, 0.02, (count, 2)) if moves in ("vol", "both") else 0.0,
        rate_change=rng.uniform(-0.003, 0.003, count) if moves in ("rate", "both") else 0.0,
        elapsed=2 / 252,
        vol_shock_surface=surface if moves == "surface" else None,
    )
    moved = shocks(book, sc)
    wanted, found = np.empty((40, count)), np.empty((40, count))
    repriced_pnl(engine, book, moved, wanted)
    some = np.flatnonzero(book.american)
    lost = moved_pnl(engine, book.rows(some), moved.of_rows(some), found[: len(some)])
    assert len(lost) < len(some)
    rows = position_pnl(engine, book, sc)
    size = (np.abs(book.quantity * book.multiplier) * book.spot)[:, None]
    error = (np.abs(rows - wanted) / size).max(axis=1)
    assert error.max() <= 1e-6
    assert np.median(error) <= 1e-8
    assert np.array_equal(position_pnl(engine, book, sc), rows)
    # A row's P&L is its own: the rows beside it do not enter it.
    alone = np.flatnonzero(book.american)[-3:]
    assert np.array_equal(position_pnl(engine, book.rows(alone), sc), rows[alone])


def test_many_scenarios_hold_fewer_rows_and_add_up_to_the_same_bits(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = _cpu()
    book = gk.Portfolio(mixed_options(rng, 70), rng.normal(size=70), 100.0, group=rng.integers(0, 3, 70))
    sc = gk.Scenarios(rng.normal(0.0, 0.1, (40, 1)))
    total, groups = engine.revalue(book, sc), engine.revalue(book, sc, by="group")
    for numbers in (1, 40 * 20, 40 * 35):
        monkeypatch.setattr(revaluation, "AMERICAN_NUMBERS", numbers)
        assert np.array_equal(engine.revalue(book, sc), total)
        assert np.array_equal(engine.revalue(book, sc, by="group"), groups)


def test_two_boundaries_are_priced_as_by_themselves() -> None:
    """Yield below a negative rate: no boundary is reused, every scenario is priced anew."""
    engine = _cpu()
    options = gk.Options(
        spot=100.0,
        strike=100.0,
        expiry=1.0,
        vol=0.1,
        rate=[0.01, -0.02],
        dividend_yield=[0.0, -0.04],
        is_call=False,
        american=True,
    )
    book = gk.Portfolio(options, [1.0, 2.0])
    sc = gk.Scenarios([[0.0], [0.1]])
    assert np.abs(position_pnl(engine, book, sc) - plainly(engine, options, book, sc)).max() <= 1e-9


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"vol": 40.0, "rate": -0.02, "dividend_yield": -0.04}, "two exercise boundaries"),
        ({"vol": 9.0, "dividends": CashDividends.per_option([[], [(0.5, 2.0)]])}, "dividends and a wild vol"),
    ],
)
def test_an_option_without_a_price_is_named(cpu: gk.Engine, fields: dict[str, Any], why: str) -> None:
    first = {"vol": 0.2, "rate": 0.01, "dividend_yield": 0.0}
    columns = {name: [value, fields.get(name, value)] for name, value in first.items()}
    options = gk.Options(
        spot=100.0, strike=100.0, expiry=1.0, is_call=False, american=True,
        dividends=fields.get("dividends"), **columns,
    )  # fmt: skip
    book, scenarios = gk.Portfolio(options, 1.0), gk.Scenarios([[0.0], [0.1]])
    for revalue in (cpu.revalue, partial(position_pnl, cpu)):
        with pytest.raises(gk.InvalidInput, match=rf"options\[1\]: has no price in scenario 0: it has {why}"):
            revalue(book, scenarios)


@pytest.mark.parametrize("moves", ["spot", "vol", "rate"])
def test_interpolated_book_is_as_close_as_it_says(rng: np.random.Generator, moves: str) -> None:
    engine = _cpu()
    options = mixed_options(rng, 30)
    book = gk.Portfolio(
        options,
        rng.normal(size=30),
        100.0,
        underlying=rng.integers(0, 2, 30),
        linear={"underlying": [0, 1], "quantity": [10.0, -5.0], "spot": 100.0},
    )
    sc = gk.Scenarios(
        rng.uniform(-0.12, 0.12, (6, 2)),
        vol_change=rng.uniform(-0.04, 0.06, (6, 2)) if moves != "spot" else 0.0,
        rate_change=rng.uniform(-0.001, 0.001, 6) if moves == "rate" else 0.0,
        elapsed=1 / 252,
    )
    held = AmericanBook(engine, book, sc)
    assert held.error <= 1e-5
    assert len(held.exact) < max(1, book.american.sum())
    bounds = np.zeros(book.options)
    bounds[held.interpolated] = held.bounds
    size = np.abs(book.quantity * book.multiplier) * book.spot
    assert np.abs(held.revalue(sc) - engine.revalue(book, sc)).max() <= (bounds * size).sum() + 1e-9
    # And at points that it has not seen, position by position.
    shape = (150, sc.underlyings)
    fresh = gk.Scenarios(
        rng.uniform(sc.spot_return.min(axis=0), sc.spot_return.max(axis=0), shape),
        vol_change=rng.uniform(sc.vol_change.min(axis=0), sc.vol_change.max(axis=0), shape),
        rate_change=rng.uniform(sc.rate_change.min(), sc.rate_change.max(), 150),
        elapsed=1 / 252,
    )
    rows = held.position_pnl(fresh)
    exact = position_pnl(engine, book, fresh)
    assert (np.abs(rows - exact)[: len(size)] <= (bounds * size)[:, None] + 1e-9).all()
    gross = np.abs(rows).sum(axis=0).max()
    total = held.revalue(fresh)
    assert np.abs(total - rows.sum(axis=0)).max() <= 1e-12 * gross
    assert np.array_equal(held.revalue(fresh), total)


def test_a_tighter_tolerance_keeps_more_of_the_interpolant(rng: np.random.Generator) -> None:
    engine = _cpu()
    book = gk.Portfolio(mixed_options(rng, 20), 1.0, underlying=0)
    sc = gk.Scenarios([[-0.2], [0.2]], vol_change=[[-0.02], [0.03]])
    loose, tight = (AmericanBook(engine, book, sc, tolerance=size) for size in (1e-4, 1e-6))
    assert tight.error <= 1e-6
    assert loose.error <= 1e-4
    wanted = engine.revalue(book, sc)
    spots = (book.spot * book.american).sum()
    assert np.abs(tight.revalue(sc) - wanted).max() <= 1e-6 * spots
    assert np.abs(loose.revalue(sc) - wanted).max() <= 1e-4 * spots


def test_interpolated_book_refuses_what_it_was_not_built_for(rng: np.random.Generator) -> None:
    engine = _cpu()
    book = gk.Portfolio(
        gk.Options(
            spot=100.0, strike=[95.0, 105.0], expiry=0.5, vol=0.3, rate=0.04, is_call=False, american=True
        ),
        1.0,
    )
    held = AmericanBook(engine, book, gk.Scenarios([[-0.1], [0.1]], [[-0.01], [0.01]]))
    inside = gk.Scenarios([[0.03]], 0.005)
    assert held.revalue(inside) == pytest.approx(engine.revalue(book, inside), abs=1e-4)
    for scenario, field in (
        (gk.Scenarios([[0.2]]), "spot_return"),
        (gk.Scenarios([[0.0]], 0.5), "vol_change"),
        (gk.Scenarios([[0.0]], rate_change=0.01), "rate_change"),
        (gk.Scenarios([[0.0]], elapsed=0.1), "elapsed"),
    ):
        with pytest.raises(gk.InvalidInput) as caught:
            held.revalue(scenario)
        assert caught.value.field == field
    with pytest.raises(gk.EngineUnavailable, match="american_interpolant"):
        AmericanBook(gk.engine("reference"), book, inside)


def _cpu() -> gk.Engine:
    try:
        return gk.engine("cpu")
    except gk.EngineUnavailable as error:
        pytest.skip(str(error))
