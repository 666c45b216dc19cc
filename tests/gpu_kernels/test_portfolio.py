"""What a portfolio and scenarios take, and what they refuse, by field and row."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gpu_kernels as gk
from gpu_kernels.scenarios import VolShockSurface

OPTIONS = {"spot": [100.0, 101.0, 102.0], "strike": 100.0, "expiry": 0.5, "vol": 0.2}


def book(**changes: object) -> gk.Portfolio:
    given = {"quantity": [1.0, -2.0, 3.0], "underlying": [0, 1, 0]}
    options = gk.Options(**(OPTIONS | {k: v for k, v in changes.items() if k in OPTIONS}))
    given |= {k: v for k, v in changes.items() if k not in OPTIONS}
    return gk.Portfolio(options=options, **given)


def test_columns_are_broadcast() -> None:
    one = book(multiplier=100.0, group=2)
    assert len(one) == 3
    assert one.strike.tolist() == [100.0] * 3
    assert one.multiplier.tolist() == [100.0] * 3
    assert one.groups == 3
    assert one.underlyings == 2
    spread = gk.Portfolio(gk.Options(spot=1.0, strike=1.0, expiry=1.0, vol=0.1), quantity=np.ones(4))
    assert len(spread) == 4


def test_the_callers_arrays_stay_writable() -> None:
    quantity = np.ones(3)
    held = book(quantity=quantity)
    quantity[0] = 2.0
    with pytest.raises(ValueError, match="read-only"):
        held.quantity[0] = 5.0


@pytest.mark.parametrize(
    ("changes", "field", "row"),
    [
        ({"quantity": [1.0, math.nan, 2.0]}, "quantity", 1),
        ({"quantity": [1.0, 2.0]}, "quantity", None),
        ({"quantity": ["a", "b", "c"]}, "quantity", None),
        ({"multiplier": [1.0, 1.0, math.inf]}, "multiplier", 2),
        ({"underlying": [0, -1, 0]}, "underlying", 1),
        ({"underlying": [0.0, 1.0, 0.0]}, "underlying", None),
        ({"group": [0, 0]}, "group", None),
        ({"group": [0, 0, -3]}, "group", 2),
        ({"spot": [100.0, -1.0, 1.0]}, "spot", 1),
        ({"strike": [1.0, math.nan, 1.0]}, "strike", 1),
        ({"expiry": [1.0, 1.0, -0.1]}, "expiry", 2),
        ({"vol": math.nan}, "vol", 0),
        ({"linear": {"underlying": 0, "quantity": 1.0}}, "linear", None),
        ({"linear": {"underlying": 0, "quantity": 1.0, "spot": 1.0, "delta": 1.0}}, "linear", None),
        ({"linear": {"underlying": 0, "quantity": [1.0, math.nan], "spot": 1.0}}, "linear.quantity", 1),
        ({"linear": {"underlying": 0, "quantity": 1.0, "spot": -1.0}}, "linear.spot", 0),
        ({"linear": {"underlying": 0, "quantity": 1.0, "spot": 1.0}, "group": 0}, "linear.group", None),
        ({"linear": 5.0}, "linear", None),
    ],
)
def test_bad_positions_are_named(changes: dict[str, object], field: str, row: int | None) -> None:
    with pytest.raises(gk.InvalidInput) as caught:
        book(**changes)
    assert (caught.value.field, caught.value.row) == (field, row)


def test_groups_of_linear_positions() -> None:
    stocks = {"underlying": [0, 1], "quantity": 1.0, "spot": 100.0}
    in_one_column = book(linear=stocks, group=[0, 1, 0, 2, 1])
    of_their_own = book(linear=stocks | {"group": [2, 1]}, group=[0, 1, 0])
    assert in_one_column.group.tolist() == of_their_own.group.tolist() == [0, 1, 0, 2, 1]


def test_rows_and_new_spots() -> None:
    held = book(linear={"underlying": [0, 1], "quantity": 1.0, "spot": 100.0})
    part = held.rows(held.position_underlying == 1)
    assert part.quantity.tolist() == [-2.0]
    assert len(part.linear) == 1
    moved = held.with_spots([50.0, 60.0])
    assert moved.spot.tolist() == [50.0, 60.0, 50.0]
    assert held.carry.tolist() == [100.0 / 102.0, 100.0 / 101.0]
    assert moved.linear.spot.tolist() == [50.0 * held.carry[0], 60.0 * held.carry[1]]
    assert held.spot.tolist() == [100.0, 101.0, 102.0]
    with pytest.raises(gk.InvalidInput, match="spots"):
        held.with_spots([50.0])


def test_scenarios_are_broadcast() -> None:
    one = gk.Scenarios(np.zeros((4, 2)), vol_change=0.1, rate_change=0.01, elapsed=0.5)
    assert len(one) == 4
    assert one.vol_change.shape == (4, 1)
    assert one.rate_change.tolist() == [0.01] * 4
    assert one.elapsed.tolist() == [0.5] * 4


@pytest.mark.parametrize(
    ("changes", "field", "row"),
    [
        ({"spot_return": [[0.0, math.nan], [0.0, 0.0]]}, "spot_return", 0),
        ({"spot_return": [0.0, 0.0]}, "spot_return", None),
        ({"spot_return": [["a", "b"], ["c", "d"]]}, "spot_return", None),
        ({"vol_change": np.zeros((2, 3))}, "vol_change", None),
        ({"vol_change": [[0.0], [math.inf]]}, "vol_change", 1),
        ({"rate_change": [0.0, 0.0, 0.0]}, "rate_change", None),
        ({"elapsed": -1.0}, "elapsed", 0),
        ({"elapsed": [0.0, math.nan]}, "elapsed", 1),
        ({"weights": [1.0, -1.0]}, "weights", 1),
        ({"names": ["one"]}, "names", None),
    ],
)
def test_bad_scenarios_are_named(changes: dict[str, object], field: str, row: int | None) -> None:
    with pytest.raises(gk.InvalidInput) as caught:
        gk.Scenarios(**({"spot_return": np.zeros((2, 2))} | changes))
    assert (caught.value.field, caught.value.row) == (field, row)


def test_bad_surfaces_are_named() -> None:
    with pytest.raises(gk.InvalidInput, match=r"log_moneyness\[1\]"):
        VolShockSurface.of(log_moneyness=[0.0, 0.0], tenor=[1.0], shock=np.zeros((1, 2, 1)))
    with pytest.raises(gk.InvalidInput, match=r"vol_shock_surface\.shock"):
        VolShockSurface.of(log_moneyness=[0.0, 1.0], tenor=[1.0], shock=np.zeros((1, 3, 1)))
    surface = VolShockSurface.of(log_moneyness=[0.0], tenor=[1.0], shock=np.zeros((3, 1, 1)))
    with pytest.raises(gk.InvalidInput, match=r"vol_shock_surface\.shock"):
        gk.Scenarios(np.zeros((2, 1)), vol_shock_surface=surface)


def test_selecting_and_stacking_scenarios() -> None:
    one = gk.Scenarios(np.arange(6.0).reshape(3, 2), names=["a", "b", "c"], elapsed=0.1)
    two = gk.Scenarios(np.ones((1, 2)), vol_change=[[0.1, 0.2]], names=["d"])
    both = gk.Scenarios.stacked([one.select([2, 0]), two])
    assert both.names == ("c", "a", "d")
    assert both.spot_return.tolist() == [[4.0, 5.0], [0.0, 1.0], [1.0, 1.0]]
    assert both.vol_change.tolist() == [[0.0, 0.0], [0.0, 0.0], [0.1, 0.2]]
    assert both.elapsed.tolist() == [0.1, 0.1, 0.0]
    with pytest.raises(gk.InvalidInput, match=r"parts\[1\]"):
        gk.Scenarios.stacked([one, gk.Scenarios([[0.0]])])


def test_selected_scenarios_keep_their_probabilities() -> None:
    part = gk.Scenarios(np.zeros((3, 1)), weights=[1.0, 2.0, 5.0]).select([2, 0])
    assert part.weights is not None
    assert part.weights.tolist() == [0.625, 0.125]


def test_a_surface_of_factors_by_hand_and_none_is_no_shock() -> None:
    surface = gk.VolShockSurface.factors(
        parallel=0.1, skew=-0.2, term_twist=0.05, log_moneyness=[-0.1, 0.2], tenor=[0.25, 1.0, 4.0]
    )
    by_hand = [[0.12 + 0.05, 0.12, 0.12 - 0.025], [0.06 + 0.05, 0.06, 0.06 - 0.025]]
    np.testing.assert_allclose(surface.shock.reshape(2, 3), by_hand, rtol=1e-14)
    plain = gk.Scenarios([[0.1]])
    both = gk.Scenarios.stacked([plain, gk.Scenarios([[0.2]], vol_shock_surface=surface)])
    assert both.vol_shock_surface is not None
    shock = both.vol_shock_surface.shock.reshape(2, 6)
    assert not shock[0].any()
    np.testing.assert_array_equal(shock[1], surface.shock.reshape(6))


def test_what_was_checked_does_not_change_with_the_callers_arrays() -> None:
    columns = {
        name: np.array([one, one])
        for name, one in {"spot": 100.0, "strike": 90.0, "expiry": 0.5, "vol": 0.2, "rate": 0.01}.items()
    }
    quantity, spot, returns = np.array([1.0, 2.0]), np.array([50.0]), np.zeros((2, 1))
    changes, elapsed, shock = np.zeros((2, 1)), np.zeros(2), np.zeros((2, 1, 1))
    surface = VolShockSurface.of(log_moneyness=[0.0], tenor=[1.0], shock=shock)
    book = gk.Portfolio(
        gk.Options(**columns), quantity, linear={"underlying": 0, "quantity": 1.0, "spot": spot}
    )
    scenarios = gk.Scenarios(returns, changes, elapsed=elapsed, vol_shock_surface=surface)
    engine = gk.engine("reference")
    before = engine.revalue(book, scenarios)
    for array in (*columns.values(), quantity, spot, returns, changes, elapsed, shock):
        array[:] = np.nan
    assert np.array_equal(engine.revalue(book, scenarios), before)
    for held in (book.quantity, book.strike, scenarios.spot_return, scenarios.vol_change, scenarios.elapsed):
        with pytest.raises(ValueError, match="read-only"):
            held[0] = 1.0


def test_a_group_number_beyond_all_rows_is_named() -> None:
    options = gk.Options(spot=100.0, strike=[90.0, 100.0], expiry=0.5, vol=0.2)
    with pytest.raises(gk.InvalidInput, match=r"group\[1\].*below 65538"):
        gk.Portfolio(options, 1.0, group=[0, 2**40])
    assert gk.Portfolio(options, 1.0, group=[0, 9]).groups == 10
