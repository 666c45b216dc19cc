"""Parts of an expected shortfall add up, are derivatives, and say what a trade would do; Basel's rules."""

from __future__ import annotations

import numpy as np
import pytest
from scenario_books import random_book, random_scenarios, scipy_pnl

import gpu_kernels as gk
from gpu_kernels import basel, es_components
from gpu_kernels.tail_risk import Tail, tail_scenarios


def weighted(scenarios: gk.Scenarios) -> gk.Scenarios:
    """The same, each less likely than the one after it."""
    columns = (scenarios.spot_return, scenarios.vol_change, scenarios.rate_change, scenarios.elapsed)
    return gk.Scenarios(*columns, weights=0.99 ** np.arange(len(scenarios), 0, -1))


def plain_components(rows: np.ndarray, tail: Tail) -> np.ndarray:
    return -(rows[:, tail.index] @ tail.weight)


@pytest.mark.parametrize("aged", [False, True])
@pytest.mark.parametrize("convention", ["exact_tail", "discrete"])
def test_components_add_up(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, convention: str, aged: bool
) -> None:
    monkeypatch.setattr(es_components, "COMPONENT_BLOCK", 4096)
    engine = gk.engine("cpu")
    book = random_book(rng, 600, 3, groups=5, linear=20)
    scenarios = random_scenarios(rng, 401, 3)
    scenarios = weighted(scenarios) if aged else scenarios
    rows, gross = scipy_pnl(book, scenarios)
    parts = es_components.component_es(engine, book, scenarios, 0.95, convention)
    t = gk.tail_risk(engine.revalue(book, scenarios), 0.95, convention, weights=scenarios.weights)
    assert parts.es == t.es
    assert abs(parts.by_position.sum() - t.es) <= 1e-12 * gross
    assert abs(parts.by_group.sum() - t.es) <= 1e-12 * gross
    tail = tail_scenarios(rows.sum(axis=0), 0.95, convention, weights=scenarios.weights)
    assert tail.es == pytest.approx(t.es, rel=1e-9)
    assert parts.by_position == pytest.approx(plain_components(rows, tail), abs=1e-11 * gross)


def test_a_component_is_a_derivative(rng: np.random.Generator) -> None:
    rows = rng.standard_t(4, (6, 1000))
    parts = plain_components(rows, tail_scenarios(rows.sum(axis=0), 0.973))
    for i in range(6):
        up, down = rows.copy(), rows.copy()
        up[i] *= 1 + 1e-7
        down[i] *= 1 - 1e-7
        slope = (gk.tail_risk(up.sum(0), 0.973).es - gk.tail_risk(down.sum(0), 0.973).es) / 2e-7
        assert slope == pytest.approx(parts[i], abs=1e-6)


@pytest.mark.parametrize("aged", [False, True])
def test_trade_impact(rng: np.random.Generator, aged: bool) -> None:
    engine = gk.engine("cpu")
    book, trade = random_book(rng, 200, 2), random_book(rng, 3, 2)
    scenarios = random_scenarios(rng, 500, 2)
    scenarios = weighted(scenarios) if aged else scenarios
    impact = es_components.trade_impact(engine, book, trade, scenarios)
    held, added = engine.revalue(book, scenarios), engine.revalue(trade, scenarios)

    def risk(pnl: np.ndarray) -> gk.TailRisk:
        return gk.tail_risk(pnl, weights=scenarios.weights)

    assert impact.before == risk(held)
    assert impact.after == risk(held + added)
    assert impact.incremental == impact.after.es - impact.before.es
    slope = (risk(held + 1e-7 * added).es - risk(held - 1e-7 * added).es) / 2e-7
    assert impact.marginal == pytest.approx(slope, rel=1e-4, abs=1e-4)
    # ES is convex: going all the way costs at least what the first step promises.
    assert impact.incremental >= impact.marginal - 1e-9 * abs(impact.marginal)


def test_liquidity_horizons() -> None:
    # One horizon for all: ES grows with the square root of time.
    same = basel.liquidity_horizon_es([1.0] * 5)
    assert same == pytest.approx(np.sqrt(12.0), rel=1e-14)
    by_hand = np.sqrt(10.0**2 + (6.0 * np.sqrt(1.0)) ** 2 + (3.0 * np.sqrt(2.0)) ** 2)
    assert basel.liquidity_horizon_es([10.0, 6.0, 3.0]) == pytest.approx(by_hand, rel=1e-14)
    with pytest.raises(gk.InvalidInput, match=r"es_by_horizon\[1\]"):
        basel.liquidity_horizon_es([1.0, -1.0])
    with pytest.raises(gk.InvalidInput, match="es_by_horizon"):
        basel.liquidity_horizon_es([])


def test_stressed_es() -> None:
    assert basel.stressed_es(10.0, 6.0, 4.0) == 15.0
    assert basel.stressed_es(10.0, 3.0, 4.0) == 10.0
    with pytest.raises(gk.InvalidInput, match="reduced_current"):
        basel.stressed_es(10.0, 3.0, 0.0)


def test_stressed_period_is_the_worst_window(rng: np.random.Generator) -> None:
    pnl = rng.normal(size=900)
    pnl[400:500] *= 6.0
    found = basel.stressed_period(pnl, 250)
    shortfalls = [gk.tail_risk(pnl[start : start + 250]).es for start in range(651)]
    assert found.es == max(shortfalls)
    assert found.start == int(np.argmax(shortfalls))
    assert found.stop == found.start + 250
    with pytest.raises(gk.InvalidInput, match="window"):
        basel.stressed_period(pnl, 901)
