"""Hedges against brute force, golden section and closed forms; what cannot be done is said."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scenario_books import random_book, random_scenarios
from scipy import optimize

import gpu_kernels as gk
from gpu_kernels.hedging import (
    InfeasibleHedge,
    delta_hedge,
    exposures,
    rebalancing_plan,
    whalley_wilmott_band,
)
from gpu_kernels.optimise import min_es_hedge as min_es
from gpu_kernels.optimise.greek_hedge import greek_hedge
from gpu_kernels.optimise.kelly import kelly_sizes
from gpu_kernels.optimise.min_es_hedge import min_es_hedge
from gpu_kernels.revaluation import position_pnl


def test_exposures_are_sums_of_greeks(rng: np.random.Generator) -> None:
    engine = gk.engine("cpu")
    book = random_book(rng, 200, 4, linear=9)
    found = exposures(engine, book)
    up = engine.revalue(book, gk.Scenarios(np.log1p(np.eye(4) * 1e-5)))
    down = engine.revalue(book, gk.Scenarios(np.log1p(np.eye(4) * -1e-5)))
    # The derivative towards a relative move of an underlying is the sum of delta times each row's own spot.
    held = book.quantity * book.multiplier * book.spot
    live = (book.expiry > 0.0) & (book.vol > 0.0)
    rows = gk.Options(
        **{
            n: getattr(book, n)
            for n in ("spot", "strike", "expiry", "vol", "rate", "dividend_yield", "is_call")
        }
    )
    by_row = held * engine.greeks(rows).delta
    linear = book.linear.quantity * book.linear.spot
    assert book.carry == pytest.approx(book.linear.spot / found.spot[book.linear.underlying])
    for u in range(4):
        if (live | (book.underlying != u)).all():
            slope = by_row[book.underlying == u].sum() + linear[book.linear.underlying == u].sum()
            assert (up[u] - down[u]) / 2e-5 == pytest.approx(slope, rel=1e-4, abs=1e-2)
    expected = (by_row / book.spot).sum() + (book.linear.quantity * book.carry).sum()
    assert found.delta.sum() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_a_future_has_the_delta_of_its_price_over_the_spot(name: str) -> None:
    """Delta times spot is the derivative to a relative move of the underlying, futures included."""
    engine = gk.engine(name)
    options = gk.Options(spot=[100.0, 50.0], strike=[105.0, 50.0], expiry=0.5, vol=0.3, rate=0.06)
    linear = {"underlying": [0, 0, 2], "quantity": [-30.0, 7.0, 4.0], "spot": [103.0, 100.0, 20.0]}
    book = gk.Portfolio(options, [40.0, -10.0], underlying=[0, 1], linear=linear)
    assert book.carry.tolist() == [1.03, 1.0, 1.0]
    held = exposures(engine, book)
    assert held.spot.tolist() == [100.0, 50.0, 20.0]
    up, down = (engine.revalue(book, gk.Scenarios(size * np.eye(3))) for size in (1e-4, -1e-4))
    assert held.delta * held.spot == pytest.approx((up - down) / 2e-4, rel=1e-6)
    # A tick moves the future with its spot.
    moved = book.with_spots([110.0, 50.0, 20.0])
    assert moved.linear.spot == pytest.approx([113.3, 110.0, 20.0])
    assert exposures(engine, moved).delta[0] - exposures(engine, moved.rows([0])).delta[0] == pytest.approx(
        -30.0 * 1.03 + 7.0
    )


def test_delta_hedge_leaves_less_than_a_lot(rng: np.random.Generator) -> None:
    delta, spot = rng.normal(0, 1e4, 50), rng.uniform(10, 500, 50)
    lot = rng.choice([1.0, 10.0, 100.0], 50)
    hedge = delta_hedge(delta, spot=spot, lot_size=lot, cost_per_lot=2.0, cost_rate=1e-4)
    assert (np.abs(delta + hedge.trades) <= 0.5 * lot + 1e-9).all()
    assert np.array_equal(hedge.trades, hedge.lots * lot)
    assert hedge.costs == pytest.approx(2.0 * np.abs(hedge.lots) + 1e-4 * spot * np.abs(hedge.trades))
    assert hedge.risk_after < hedge.risk_before


def test_bands_and_limits_of_a_delta_hedge() -> None:
    hedge = delta_hedge([40.0, -250.0, 90.0], spot=100.0, lot_size=10.0, band=[50.0, 50.0, 0.0], limit=60.0)
    assert hedge.trades.tolist() == [0.0, 60.0, -60.0]
    free = delta_hedge([-250.0], spot=100.0, lot_size=10.0, band=50.0)
    assert free.trades.tolist() == [200.0]
    # 0.3 / 0.1 is a little less than 3 in doubles, and three lots are allowed.
    assert delta_hedge([5.0], spot=100.0, lot_size=0.1, limit=0.3).lots.tolist() == [-3]


def test_whalley_wilmott_band_by_hand() -> None:
    band = whalley_wilmott_band(
        [0.02], spot=100.0, cost_rate=0.002, risk_aversion=0.01, rate=0.05, expiry=0.5
    )
    assert band[0] == pytest.approx(
        (1.5 * np.exp(-0.025) * 0.002 * 100.0 * 0.0004 / 0.01) ** (1 / 3), rel=1e-14
    )
    double = whalley_wilmott_band(
        [0.02], spot=100.0, cost_rate=0.016, risk_aversion=0.01, rate=0.05, expiry=0.5
    )
    assert double[0] == pytest.approx(2.0 * band[0])


def test_rebalancing_plan_keeps_delta_within_the_band() -> None:
    engine = gk.engine("reference")
    options = gk.Options(spot=100.0, strike=100.0, expiry=0.25, vol=0.2)
    book = gk.Portfolio(options, 50.0, 100.0, linear={"underlying": 0, "quantity": -2700.0, "spot": 100.0})
    plan = rebalancing_plan(engine, book, 0, band=300.0, lot_size=100.0)
    assert plan.due_now == 0.0
    assert len(plan.spots_up) > 0
    assert (np.diff(plan.spots_up) > 0.0).all()
    assert (np.diff(plan.spots_down) < 0.0).all()
    for spots, trades in ((plan.spots_up, plan.trades_up), (plan.spots_down, plan.trades_down)):
        done = 0.0
        for spot, trade in zip(spots, trades, strict=True):
            delta = exposures(engine, book.with_spots([spot])).delta[0] + done
            assert abs(delta) > 300.0
            done += trade
            assert abs(delta + trade) <= 300.0 + 50.0


def test_a_plan_says_what_is_due_now_and_counts_it_once() -> None:
    engine = gk.engine("reference")
    options = gk.Options(spot=100.0, strike=100.0, expiry=0.25, vol=0.2)
    book = gk.Portfolio(options, 50.0, 100.0, linear={"underlying": 0, "quantity": -3600.0, "spot": 100.0})
    start = exposures(engine, book).delta[0]
    plan = rebalancing_plan(engine, book, 0, band=300.0, lot_size=100.0)
    assert plan.due_now == delta_hedge([start], spot=100.0, lot_size=100.0, band=300.0).trades[0] > 0.0
    assert abs(start + plan.due_now) <= 350.0
    assert plan.spots_up[0] > 100.0 > plan.spots_down[0]
    traded = book.linear.quantity + plan.due_now
    after = gk.Portfolio(options, 50.0, 100.0, linear={"underlying": 0, "quantity": traded, "spot": 100.0})
    later = rebalancing_plan(engine, after, 0, band=300.0, lot_size=100.0)
    assert np.array_equal(later.spots_up, plan.spots_up)
    assert np.array_equal(later.trades_down, plan.trades_down)


def test_exposures_of_unused_underlyings_need_no_spot() -> None:
    engine = gk.engine("reference")
    book = gk.Portfolio(linear={"underlying": [0, 2], "quantity": [7.0, -3.0], "spot": 100.0})
    held = exposures(engine, book)
    assert np.isnan(held.spot[1])
    assert delta_hedge(held.delta, spot=held.spot).trades.tolist() == [-7.0, 0.0, 3.0]
    with pytest.raises(gk.InvalidInput, match=r"spot\[0\]"):
        delta_hedge([1.0, 0.0], spot=[np.nan, np.nan])


def test_an_instrument_that_does_nothing_is_left_alone(rng: np.random.Generator) -> None:
    assert greek_hedge([100.0], [[0.0]], limit=10.0).trades.tolist() == [0.0]
    assert greek_hedge([100.0], [[0.0, -1.0]], limit=200.0).trades.tolist() == [0.0, 100.0]
    assert greek_hedge([100.0], np.zeros((1, 0))).trades.tolist() == []
    with pytest.raises(InfeasibleHedge, match="residual_limit"):
        greek_hedge([100.0], np.zeros((1, 0)), residual_limit=1.0)
    assert min_es_hedge(rng.normal(size=100), np.zeros((0, 100)), limit=1.0).trades.tolist() == []


def test_greek_hedge_is_the_best_of_all_lots(rng: np.random.Generator) -> None:
    for _ in range(8):
        exposure, greeks = rng.normal(0, 20, 3), rng.normal(0, 5, (3, 3))
        scale, cost = rng.uniform(0.5, 2.0, 3), rng.uniform(0, 2, 3)
        given = {"cost_per_lot": cost, "limit": 6.0, "budget": 9.0, "price_of_cost": 3.0, "scale": scale}
        hedge = greek_hedge(exposure, greeks, **given)

        def value(lots: np.ndarray, e=exposure, g=greeks, s=scale, c=cost) -> float:
            return 0.5 * np.sum((s * (e + g @ lots)) ** 2) + 3.0 * c @ np.abs(lots)

        every = [np.array(lots) for lots in itertools.product(range(-6, 7), repeat=3)]
        best = min(value(lots) for lots in every if cost @ np.abs(lots) <= 9.0)
        assert hedge.cost <= 9.0 + 1e-9
        assert (np.abs(hedge.lots) <= 6).all()
        assert value(hedge.lots) <= best + 1e-9 * max(1.0, best)


def test_greek_hedge_solves_what_can_be_solved() -> None:
    hedge = greek_hedge([10.0, -4.0], [[1.0, 0.5], [0.0, 0.25]], lot_size=0.5)
    assert hedge.trades.tolist() == [-18.0, 16.0]
    assert hedge.risk_after == pytest.approx(0.0, abs=1e-12)


def test_infeasible_limits_are_said() -> None:
    with pytest.raises(InfeasibleHedge, match="residual_limit"):
        greek_hedge([100.0], [[1.0]], limit=10.0, residual_limit=5.0)
    with pytest.raises(InfeasibleHedge, match="whole lots"):
        greek_hedge([5.0], [[10.0]], residual_limit=1.0)
    reached = greek_hedge([100.0], [[1.0]], limit=95.0, residual_limit=5.0)
    assert reached.trades.tolist() == [-95.0]


def golden_es(pnl: np.ndarray, instrument: np.ndarray, limit: float) -> float:
    """The least ES of one instrument by ternary search: ES is convex."""
    low, high = -limit, limit
    for _ in range(200):
        a, b = low + (high - low) / 3, high - (high - low) / 3
        if gk.tail_risk(pnl + a * instrument).es < gk.tail_risk(pnl + b * instrument).es:
            high = b
        else:
            low = a
    return gk.tail_risk(pnl + low * instrument).es


def test_min_es_of_one_instrument(rng: np.random.Generator) -> None:
    market = rng.standard_t(4, 700)
    pnl = 5.0 * market - 0.8 * market**2 + rng.normal(size=700)
    hedge = min_es_hedge(pnl, market[None, :], limit=10.0, lot_size=None)
    assert hedge.risk_after == pytest.approx(golden_es(pnl, market, 10.0), rel=1e-7)
    assert hedge.risk_before == gk.tail_risk(pnl).es


def test_programme_planes_and_a_conic_solver_agree(rng: np.random.Generator) -> None:
    instruments = rng.standard_t(4, (4, 400))
    pnl = rng.normal(size=4) @ instruments * 3.0 + rng.normal(size=400)
    for weights in (None, 0.99 ** np.arange(400)):
        problem = min_es._Problem(
            pnl=pnl,
            per_lot=instruments,
            level=0.95,
            weights=weights,
            cost=np.array([0.0, 0.1, 0.02, 0.05]),
            limit=np.array([2.0, 5.0, 5.0, 5.0]),
            budget=0.3,
        )
        one, other = min_es.whole_programme(problem), min_es.cutting_planes(problem)
        assert problem.allows(one)
        assert problem.allows(other)
        assert problem.value(one) == pytest.approx(problem.value(other), rel=1e-6)
        reference = _conic_value(problem)
        if reference is not None:
            assert problem.value(one) == pytest.approx(reference, rel=1e-6)
        # No feasible point nearby is better: the function is convex, so the minimum is global.
        for _ in range(300):
            near = one + rng.normal(0.0, 0.05, 4)
            if problem.allows(near):
                assert problem.value(near) >= problem.value(one) - 1e-9


def _conic_value(problem: min_es._Problem) -> float | None:
    """The optimum by an interior-point conic solver, where it is installed."""
    clarabel = pytest.importorskip("clarabel") if _has_clarabel() else None
    if clarabel is None:
        return None
    from scipy import sparse

    count, scenarios = problem.per_lot.shape
    share = np.full(scenarios, 1.0 / scenarios) if problem.weights is None else problem.weights
    share = share / share.sum() / (1 - problem.level)
    zero, eye = np.zeros((count, 1 + scenarios)), np.eye(count)
    rows = np.vstack(
        [
            np.hstack([-problem.per_lot.T, problem.per_lot.T, -np.ones((scenarios, 1)), -np.eye(scenarios)]),
            np.hstack([np.zeros((scenarios, 2 * count + 1)), -np.eye(scenarios)]),
            np.hstack([-eye, 0 * eye, zero]),
            np.hstack([0 * eye, -eye, zero]),
            np.hstack([eye, 0 * eye, zero]),
            np.hstack([0 * eye, eye, zero]),
            np.concatenate([problem.cost, problem.cost, np.zeros(1 + scenarios)])[None, :],
        ]
    )
    bound = np.concatenate(
        [
            problem.pnl,
            np.zeros(scenarios + 2 * count),
            problem.limit,
            problem.limit,
            [problem.budget],
        ]
    )
    objective = np.concatenate([problem.cost, problem.cost, [1.0], share])
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    size = len(objective)
    solver = clarabel.DefaultSolver(
        sparse.csc_matrix((size, size)),
        objective,
        sparse.csc_matrix(rows),
        bound,
        [clarabel.NonnegativeConeT(len(bound))],
        settings,
    )
    return float(solver.solve().obj_val)


def _has_clarabel() -> bool:
    import importlib.util

    return importlib.util.find_spec("clarabel") is not None


def test_planes_are_used_for_many_scenarios(rng: np.random.Generator) -> None:
    instruments = rng.standard_t(4, (3, 6000))
    pnl = np.array([3.0, -2.0, 1.0]) @ instruments + rng.normal(size=6000)
    hedge = min_es_hedge(pnl, instruments, limit=10.0, lot_size=None)
    assert hedge.trades == pytest.approx([-3.0, 2.0, -1.0], abs=0.15)
    start = optimize.minimize(
        lambda x: gk.tail_risk(pnl + x @ instruments).es, hedge.trades, method="Nelder-Mead"
    )
    assert hedge.risk_after <= start.fun * (1 + 1e-7)


def test_min_es_hedge_in_lots_is_the_best_lot(rng: np.random.Generator) -> None:
    for _ in range(5):
        instruments = rng.standard_t(4, (2, 500)) + rng.choice([0.0, 2.0]) * rng.standard_t(4, 500)
        pnl = rng.uniform(-8.0, 8.0, 2) @ instruments + rng.normal(size=500)
        hedge = min_es_hedge(pnl, instruments, limit=10.0, lot_size=2.0, cost_per_lot=0.01)

        def value(lots: np.ndarray, p=pnl, x=instruments) -> float:
            return gk.tail_risk(p + 2.0 * lots @ x).es + 0.01 * np.abs(lots).sum()

        best = min(value(np.array(lots)) for lots in itertools.product(range(-5, 6), repeat=2))
        assert value(hedge.lots) == pytest.approx(best, rel=1e-12)
        assert np.array_equal(hedge.trades, 2.0 * hedge.lots)


def test_min_es_hedge_is_never_worse_than_none(rng: np.random.Generator) -> None:
    pnl, noise = rng.normal(size=400), rng.normal(size=(2, 400))
    dear = min_es_hedge(pnl, noise, limit=10.0, cost_per_lot=1e6)
    assert dear.lots.tolist() == [0, 0]
    assert dear.risk_after == dear.risk_before
    for _ in range(5):
        hedge = min_es_hedge(pnl, rng.normal(size=(2, 400)), limit=3.0, cost_per_lot=0.05)
        assert hedge.risk_after + hedge.cost <= hedge.risk_before


def test_a_book_hedged_with_options(rng: np.random.Generator) -> None:
    engine = gk.engine("cpu")
    book = random_book(rng, 100, 2)
    scenarios = random_scenarios(rng, 300, 2)
    choice = gk.Portfolio(
        gk.Options(spot=100.0, strike=[90.0, 110.0], expiry=0.5, vol=0.3, is_call=[False, True]),
        1.0,
        100.0,
        underlying=[0, 1],
        linear={"underlying": [0, 1], "quantity": 1.0, "spot": 100.0},
    )
    hedge = min_es_hedge(
        engine.revalue(book, scenarios), position_pnl(engine, choice, scenarios), limit=1000.0
    )
    assert hedge.risk_after < hedge.risk_before


def test_kelly_without_limits_is_the_closed_form(rng: np.random.Generator) -> None:
    root = rng.normal(size=(3, 3))
    cov, mean = root @ root.T * 0.05 + 0.02 * np.eye(3), rng.normal(0.0, 0.05, 3)
    sizes = kelly_sizes(mean, cov, spot=1e-3, capital=1e6, fraction=0.25, lot_size=1e-3)
    assert sizes.trades * 1e-3 / 1e6 == pytest.approx(0.25 * np.linalg.solve(cov, mean), rel=1e-6, abs=1e-6)


def test_kelly_within_limits_is_the_best_of_a_grid() -> None:
    mean, cov = np.array([0.08, 0.06]), np.array([[0.04, 0.01], [0.01, 0.03]])
    given = {"spot": 1e-3, "capital": 1.0, "fraction": 1.0, "lot_size": 1e-6}
    sizes = kelly_sizes(mean, cov, leverage=1.0, limit=700.0, **given)
    shares = sizes.trades * 1e-3
    grid = np.linspace(0.0, 0.7, 701)
    f = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    f = f[f.sum(axis=1) <= 1.0 + 1e-12]
    growth = f @ mean - 0.5 * np.einsum("ij,jk,ik->i", f, cov, f)
    assert shares @ mean - 0.5 * shares @ cov @ shares >= growth.max() - 1e-8
    assert shares.sum() <= 1.0 + 1e-9


def test_kelly_says_what_cannot_be() -> None:
    dear = {"spot": 10.0, "capital": 1e5, "cost_per_lot": 1.0, "budget": 5.0}
    with pytest.raises(InfeasibleHedge, match="within its limits"):
        kelly_sizes([0.05], [[0.04]], held=2000.0, limit=1000.0, **dear)
    # What the budget pays for is bought.
    assert kelly_sizes([0.05], [[0.04]], **dear).trades.tolist() == [5.0]
    assert kelly_sizes([0.05], [[0.04]], **(dear | {"budget": 0.0})).trades.tolist() == [0.0]
    with pytest.raises(InfeasibleHedge, match="unbounded"):
        kelly_sizes([0.1, 0.0], [[0.04, 0.04], [0.04, 0.04]], spot=1.0, capital=1e5)
    held = kelly_sizes([0.04], [[0.04]], spot=10.0, capital=1e5, fraction=0.5, held=2000.0, cost_per_lot=0.1)
    assert held.trades == pytest.approx([3000.0], abs=1.0)
    assert held.risk_before == pytest.approx(0.2 * 0.2)


def test_kelly_within_a_budget_is_the_best_of_all_lots(rng: np.random.Generator) -> None:
    for _ in range(6):
        root = rng.normal(size=(2, 2))
        cov, mean = root @ root.T * 0.02 + 0.03 * np.eye(2), rng.normal(0.0, 0.06, 2)
        cost, held = rng.uniform(0.5, 3.0, 2), rng.integers(-4, 5, 2).astype(float)
        given = {"spot": 0.05, "capital": 1.0, "fraction": 1.0, "held": held, "cost_per_lot": cost}
        sizes = kelly_sizes(mean, cov, limit=12.0, leverage=1.0, budget=9.0, **given)

        def growth(units: np.ndarray, m=mean, c=cov) -> float:
            return float(0.05 * units @ m - 0.5 * 0.0025 * units @ c @ units)

        every = [np.array(lots) for lots in itertools.product(range(-12, 13), repeat=2)]
        best = max(
            growth(lots)
            for lots in every
            if cost @ np.abs(lots - held) <= 9.0 and np.abs(lots).sum() <= 20 and np.abs(lots).max() <= 12
        )
        after = held + sizes.trades
        assert sizes.cost <= 9.0 + 1e-9
        assert np.abs(after).max() <= 12.0
        # Rounding towards no trade gives away at most what a lot or two of each are worth.
        step = sum(abs(growth(after + 2.0 * sign * e) - growth(after)) for e in np.eye(2) for sign in (1, -1))
        assert growth(after) >= best - step


def test_growth_of_full_kelly_is_greatest() -> None:
    """The formula against expected logarithms under a normal market, by quadrature."""
    mean, vol = 0.05, 0.2
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()

    def growth(f: float) -> float:
        small = 1e-4
        returns = mean * small + vol * np.sqrt(small) * nodes
        return float(weights @ np.log1p(f * returns)) / small

    best = (
        kelly_sizes([mean], [[vol**2]], spot=1e-4, capital=1.0, fraction=1.0, lot_size=1e-6).trades[0] * 1e-4
    )
    assert growth(best) >= max(growth(best - 0.02), growth(best + 0.02))


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_bad_input_is_named() -> None:
    for call, field in (
        (lambda: delta_hedge([np.nan], spot=1.0), "delta"),
        (lambda: delta_hedge([1.0], spot=-1.0), "spot"),
        (lambda: delta_hedge([1.0], spot=1.0, lot_size=0.0), "lot_size"),
        (lambda: delta_hedge([1.0, 1e20], spot=1.0), "delta"),
        (lambda: delta_hedge([1.0], spot=1.0, lot_size=1e-300), "delta"),
        (lambda: delta_hedge([1e200], spot=1e200, lot_size=1e190), "delta"),
        (lambda: delta_hedge([1e8, 1e8], spot=1e300, lot_size=1.0), "delta"),
        (lambda: delta_hedge([1e10], spot=1.0, cost_per_lot=1e305), "cost_per_lot"),
        (lambda: greek_hedge([1.0], [[1.0], [2.0]]), "instrument_greeks"),
        (lambda: greek_hedge([1.0], [[1.0]], budget=-1.0), "budget"),
        (lambda: min_es_hedge(np.ones(100), np.ones((1, 99)), limit=1.0), "instrument_pnl"),
        (lambda: min_es_hedge(np.ones(100), np.ones((1, 100)), limit=np.inf), "limit"),
        (lambda: kelly_sizes([0.1], [[0.04]], spot=1.0, capital=0.0), "capital"),
        (lambda: whalley_wilmott_band([1.0], spot=1.0, cost_rate=0.1, risk_aversion=0.0), "risk_aversion"),
    ):
        with pytest.raises(gk.InvalidInput) as caught:
            call()
        assert caught.value.field == field
