"""Named events, own shocks, ladders and reverse stress."""

from __future__ import annotations

import numpy as np
import pytest
from scenario_books import fresh_rng, random_book

import gpu_kernels as gk
from gpu_kernels.reverse_stress import reverse_stress
from gpu_kernels.stress_library import EVENTS, ladder, shock_scenario, stress_event, stress_scenarios


def test_events_are_known_by_name_and_say_what_is_illustrative() -> None:
    for event in EVENTS:
        assert stress_event(event.name) is event
        assert -1.0 < event.spot.value < 0.0
        assert not event.spot.illustrative
    sc = stress_scenarios(["2008-10", "1987-10-19"], 2, beta=[1.0, 2.0])
    assert sc.names == ("2008-10", "1987-10-19")
    assert np.expm1(sc.spot_return) == pytest.approx(np.array([[-0.0904, -0.1808], [-0.2047, -0.4094]]))
    assert sc.notes == ("1987-10-19: vol change is illustrative",)
    with pytest.raises(gk.InvalidInput, match=r"unknown event '2042'.*2008-10"):
        stress_scenarios(["2042"], 1)


def test_own_shocks_by_symbol() -> None:
    sc = shock_scenario(
        "tech crash",
        ["AAPL", "NVDA"],
        spot={"default": -0.10, "NVDA": -0.25},
        vol={"default": 0.15},
        rate=-0.005,
    )
    assert np.expm1(sc.spot_return[0]) == pytest.approx([-0.10, -0.25])
    assert sc.vol_change.tolist() == [[0.15, 0.15]]
    assert sc.rate_change.tolist() == [-0.005]
    with pytest.raises(gk.InvalidInput, match="spot: names 'TSLA'"):
        shock_scenario("x", ["AAPL"], spot={"TSLA": -0.1})


def test_a_ladder_is_every_spot_with_every_vol() -> None:
    sc = ladder([-0.3, 0.0, 0.2], [-0.1, 0.3], 2)
    assert len(sc) == 6
    assert sc.names[0] == "ladder: spot -30.0%, vol -10.0%"
    assert np.expm1(sc.spot_return[:, 1]) == pytest.approx([-0.3, -0.3, 0.0, 0.0, 0.2, 0.2])
    assert sc.vol_change[:, 0].tolist() == [-0.1, 0.3] * 3
    with pytest.raises(gk.InvalidInput, match="vol"):
        ladder([0.1], [], 1)


def test_reverse_stress_of_a_linear_book_is_known() -> None:
    """The nearest loss of a linear book in log returns of small size is along cov·weights."""
    cov = np.array([[0.04, 0.01], [0.01, 0.09]])
    worth = np.array([1000.0, -500.0])
    book = gk.Portfolio(linear={"underlying": [0, 1], "quantity": worth, "spot": 1.0})
    found = reverse_stress(gk.engine("reference"), book, 1e-2, cov=cov, horizon=1 / 252)
    deviation = np.sqrt(worth @ cov @ worth / 252)
    assert found.deviations == pytest.approx(1e-2 / deviation, rel=1e-4)
    direction = -(cov / 252) @ worth / deviation * found.deviations
    assert found.spot_return == pytest.approx(direction, rel=1e-3)
    assert found.pnl <= -1e-2


def test_reverse_stress_is_no_further_than_a_dense_search() -> None:
    rng = fresh_rng()
    engine = gk.engine("cpu")
    book = random_book(rng, 60, 2)
    cov = np.array([[0.06, 0.02], [0.02, 0.09]])
    horizon = 10 / 252
    grid = np.linspace(-5.0, 5.0, 301)
    z = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    returns = z @ (np.linalg.cholesky(cov) * np.sqrt(horizon)).T
    pnl = engine.revalue(book, gk.Scenarios(returns, vol_change=-0.5 * returns, elapsed=horizon))
    loss = -float(np.quantile(pnl, 0.02))
    if loss <= 0.0:
        pytest.skip("this random book does not lose")
    nearest = np.sqrt(np.square(z[pnl <= -loss]).sum(axis=1).min())
    found = reverse_stress(engine, book, loss, cov=cov, horizon=horizon, vol_beta=-0.5)
    assert found.pnl <= -loss
    assert found.deviations <= nearest + 1e-6
    assert engine.revalue(book, found.scenario)[0] == found.pnl


def test_a_loss_out_of_reach_is_said() -> None:
    book = gk.Portfolio(linear={"underlying": 0, "quantity": 1.0, "spot": 100.0})
    with pytest.raises(gk.InvalidInput, match="no scenario within 12 standard deviations"):
        reverse_stress(gk.engine("reference"), book, 200.0, cov=[[0.04]], horizon=1 / 252)
