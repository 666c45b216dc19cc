"""Order flow: the stylised facts, honest references to earlier orders, same messages from the same seed."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from market_sim.order_flow import order_flow
from market_sim.order_plan import (
    CANCEL,
    DAY,
    FOK,
    IOC,
    LIMIT,
    MARKET,
    NEW,
    ORDER_DTYPE,
    REPLACE,
    STOP,
    STOP_LIMIT,
    FlowShape,
    plan_block,
)
from market_sim.regimes import REGIMES, SimulatedMiddle, common_move

COUNT = 120_000


@cache
def flow(seed: int, regime: str) -> NDArray[np.void]:
    return order_flow(seed, COUNT, regime)


@cache
def whole_lives(seed: int, regime: str) -> NDArray[np.void]:
    """Every message of some orders, however long they live."""
    return plan_block(FlowShape(REGIMES[regime], (1.0,) * 50), seed, 0, 4.0, 1)[0]


@pytest.mark.parametrize("regime", REGIMES)
def test_the_same_seed_gives_the_same_flow_and_a_longer_one_begins_with_it(regime: str, seed: int) -> None:
    longer = flow(seed, regime)
    assert longer.dtype == ORDER_DTYPE
    assert len(longer) == COUNT
    for shorter in (1, 20_000, 70_000):
        np.testing.assert_array_equal(order_flow(seed, shorter, regime), longer[:shorter])
    assert not np.array_equal(order_flow(seed + 1, 1000, regime), longer[:1000])


@pytest.mark.parametrize("regime", REGIMES)
def test_shares_of_cancels_replaces_and_kinds(regime: str, seed: int) -> None:
    lives = whole_lives(seed, regime)
    new = lives[lives["action"] == NEW]
    assert len(new) > 10_000
    rests = new[(new["kind"] != MARKET) & (new["tif"] != IOC) & (new["tif"] != FOK)]
    cancelled = lives[lives["action"] == CANCEL]
    assert len(cancelled) / len(rests) == pytest.approx(0.95, abs=0.015)
    replaced = np.unique(lives[lives["action"] == REPLACE]["order_id"])
    assert len(replaced) / len(rests) == pytest.approx(0.20, abs=0.02)
    assert np.mean((new["tif"] == IOC) & (new["kind"] == LIMIT)) == pytest.approx(0.15, abs=0.02)
    assert np.mean(new["kind"] == MARKET) == pytest.approx(0.01, abs=0.006)
    assert {STOP, STOP_LIMIT} <= set(new["kind"].tolist())
    assert set(new["stp"].tolist()) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("regime", REGIMES)
def test_cancels_and_replaces_name_live_orders(regime: str, seed: int) -> None:
    messages = order_flow(seed, 15_000, regime, symbols=10)
    open_orders: dict[int, tuple[int, int, int]] = {}
    for row in messages:
        order, who = int(row["order_id"]), (int(row["symbol"]), int(row["account"]), int(row["side"]))
        if row["action"] == NEW:
            assert order not in open_orders
            open_orders[order] = who
        else:
            assert open_orders[order] == who
            if row["action"] == CANCEL:
                del open_orders[order]
    assert open_orders


@pytest.mark.parametrize("regime", REGIMES)
def test_columns_are_well_formed(regime: str, seed: int) -> None:
    messages = flow(seed, regime)
    assert (np.diff(messages["time"]) >= 0).all()
    new, cancel = messages[messages["action"] == NEW], messages[messages["action"] == CANCEL]
    replace = messages[messages["action"] == REPLACE]
    assert (new["quantity"] > 0).all()
    assert (replace["quantity"] > 0).all()
    assert (replace["price"] > 0).all()
    assert (cancel["price"] == 0).all()
    assert (cancel["quantity"] == 0).all()
    priced = (new["kind"] == LIMIT) | (new["kind"] == STOP_LIMIT)
    np.testing.assert_array_equal(new["price"] > 0, priced)
    stops = (new["kind"] == STOP) | (new["kind"] == STOP_LIMIT)
    np.testing.assert_array_equal(new["stop_price"] > 0, stops)
    good_till = new["expire_time"] > 0
    assert (new["expire_time"][good_till] > new["time"][good_till]).all()
    assert messages["symbol"].max() < 100
    assert messages["account"].min() >= 1


def test_a_smaller_order_at_the_same_price_occurs(seed: int) -> None:
    lives = order_flow(seed, 60_000, "normal", symbols=5)
    first = lives[(lives["action"] == NEW) & (lives["tif"] == DAY)]
    placed = dict(zip(first["order_id"].tolist(), zip(first["price"].tolist(), first["quantity"].tolist())))
    replaces = lives[lives["action"] == REPLACE]
    in_place = 0
    moved = 0
    for row in replaces:
        if int(row["order_id"]) not in placed:
            continue
        price, quantity = placed[int(row["order_id"])]
        in_place += int(row["price"]) == price and int(row["quantity"]) <= quantity
        moved += int(row["price"]) != price
    assert in_place > 0.2 * len(replaces)
    assert moved > 0.2 * len(replaces)


@pytest.mark.parametrize("regime", REGIMES)
def test_arrivals_are_clustered(regime: str, seed: int) -> None:
    lives = whole_lives(seed, regime)
    new = lives[lives["action"] == NEW]
    seconds = new["time"] / 1e9
    windows = np.arange(0.5, 3.7, 0.2)
    symbols = np.arange(51)
    counts = np.histogram2d(seconds, new["symbol"].astype(float), bins=[windows, symbols])[0]
    assert (counts.var(axis=0) / counts.mean(axis=0)).mean() > 1.6  # a Poisson process has 1
    at_random = np.random.default_rng(seed).permuted(new["symbol"]).astype(float)
    even = np.random.default_rng(seed).uniform(0.5, 3.5, len(new))
    poisson = np.histogram2d(even, at_random, bins=[windows, symbols])[0]
    assert (poisson.var(axis=0) / poisson.mean(axis=0)).mean() < 1.3


def test_dispersion_over_long_windows_is_that_of_a_hawkes_process(seed: int) -> None:
    regime = REGIMES["normal"]
    shape = FlowShape(regime, (1.0,), orders_per_second=500.0)
    lives = plan_block(shape, seed, 0, 2000.0, 1)[0]
    seconds = lives["time"][lives["action"] == NEW] / 1e9
    counts = np.histogram(seconds, bins=np.arange(2.0, 1998.0, 2.0))[0]
    assert counts.mean() == pytest.approx(1000.0, rel=0.02)
    # The variance of counts over windows much longer than the memory is mean/(1-branching)² (Hawkes 1971).
    assert counts.var() / counts.mean() == pytest.approx(1 / (1 - regime.branching) ** 2, rel=0.35)


@pytest.mark.parametrize("regime", REGIMES)
def test_sizes_and_depths_have_power_law_tails(regime: str, seed: int) -> None:
    lives = whole_lives(seed, regime)
    new = lives[lives["action"] == NEW]
    assert hill(new["quantity"].astype(float)) == pytest.approx(1.6, abs=0.35)
    passive = new[(new["kind"] == LIMIT) & (new["tif"] == DAY)]
    depth = np.where(passive["side"] == 0, -passive["price"], passive["price"] - 1) + 2.0
    assert (depth >= 2).all()
    assert hill(depth) == pytest.approx(REGIMES[regime].depth_tail, abs=0.5)


def hill(values: NDArray[np.float64]) -> float:
    """Hill's estimate of a tail index from the largest 2 %."""
    tail = np.sort(values)[-max(len(values) // 50, 200) :]
    return float(1 / np.mean(np.log(tail[1:] / tail[0])))


def test_regimes_move_as_they_are_called(seed: int) -> None:
    spread = {}
    for name in REGIMES:
        rows = flow(seed, name)
        new = rows[(rows["action"] == NEW) & (rows["tif"] == IOC)]
        half_seconds = (new["time"] // 500_000_000).astype(int)
        medians = [np.median(new["price"][half_seconds == half]) for half in np.unique(half_seconds)]
        spread[name] = (max(medians) - min(medians)) / 10_000
    assert max(spread["calm"], spread["normal"]) < 0.005
    assert 0.012 < spread["swinging_small"] < 0.03
    assert 0.06 < spread["swinging_large"] < 0.13


def test_the_flash_crash_falls_fast_and_rebounds_in_part(seed: int) -> None:
    regime = REGIMES["flash_crash"]
    crash = regime.crash
    assert crash is not None
    times = np.array(
        [
            0.0,
            crash.begins,
            crash.begins + crash.falls_for,
            crash.begins + crash.falls_for + crash.rebounds_for,
        ]
    )
    np.testing.assert_allclose(common_move(regime, times), [0, 0, -0.08, -0.08 * 0.15], atol=1e-12)
    middle = SimulatedMiddle(regime, seed, np.full(3, 10_000.0))
    prices = middle(np.array([1, 1, 2], dtype=np.uint32), np.array([1.0, 15.9, 15.9]))
    assert prices[0] > 9_500 > prices[1]
    assert prices[1] != prices[2]
    rows = order_flow(seed, 900_000, "flash_crash", symbols=20)
    seconds = rows["time"] / 1e9
    rate = np.histogram(seconds, bins=[2, crash.begins, crash.begins + crash.falls_for])[0] / [
        10,
        crash.falls_for,
    ]
    assert rate[1] > 1.8 * rate[0]
    taking = (rows["action"] == NEW) & (rows["kind"] == MARKET)
    falling = taking & (seconds > crash.begins) & (seconds < crash.begins + crash.falls_for)
    assert np.mean(rows["side"][falling]) > 0.65


def test_hostile_messages_leave_the_others_as_they_were(seed: int) -> None:
    mixed = order_flow(seed, 20_000, "normal", hostile=0.1)
    clean = order_flow(seed, 18_000, "normal")
    assert len(mixed) == 20_000
    at = 0
    for row in mixed:
        at += at < len(clean) and row == clean[at]
    assert at == len(clean)
    assert (mixed["quantity"][mixed["action"] == NEW] == 0).any()
    assert (mixed["symbol"] >= 100).any()
    assert (mixed["action"] > 4).any()
    assert (mixed["price"] < 0).any()


def test_bad_settings_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="regime"):
        order_flow(1, 10, "stormy")
    with pytest.raises(ValueError, match="hostile"):
        order_flow(1, 10, hostile=1.0)
    with pytest.raises(ValueError, match="messages"):
        order_flow(1, -1)
    with pytest.raises(ValueError, match="accounts"):
        order_flow(1, 10, accounts=0)
    assert len(order_flow(1, 0)) == 0
