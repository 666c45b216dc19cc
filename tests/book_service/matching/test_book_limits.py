"""Sizes: random bytes by the million, a million open orders, pools and reports that must grow."""

from __future__ import annotations

import numpy as np
import pytest

from book_service.matching import ORDER_DTYPE, Controls, Instrument, MatchingEngine
from tests.book_service.matching.messages import BUY, MARKET, SELL, order

MILLION = 1_000_000


@pytest.mark.parametrize("controls", [False, True])
def test_a_million_random_messages(seed: int, controls: bool) -> None:
    """Random bytes; half of them with small codes, so that they get past the first check."""
    rng = np.random.default_rng(seed)
    engine = MatchingEngine(
        [Instrument(reference=5)] * 8, Controls(strict_reference=False) if controls else None
    )
    for _ in range(10):
        flow = np.frombuffer(rng.bytes(MILLION // 20 * ORDER_DTYPE.itemsize), ORDER_DTYPE).copy()
        tame = rng.random(len(flow)) < 0.7
        for name, bound in (("action", 5), ("side", 2), ("kind", 4), ("tif", 5), ("flags", 2), ("stp", 5)):
            flow[name] = np.where(tame, flow[name] % bound, flow[name])
        flow["symbol"] = np.where(tame, flow["symbol"] % 8, flow["symbol"])
        flow["account"] = np.where(tame, flow["account"] % 50, flow["account"])
        flow["order_id"] = np.where(tame, flow["order_id"] % 3000, flow["order_id"])
        for name in ("price", "stop_price"):
            flow[name] = np.where(rng.random(len(flow)) < 0.8, flow[name] % 11, flow[name])
        reports = np.concatenate((engine.process(flow), engine.process(flow[::-1])))
        answered = np.unique(reports["sequence"])
        quiet = (flow["action"] == 3).sum() * 2  # a mass cancel with nothing to cancel says nothing
        assert len(answered) >= 2 * len(flow) - quiet
        assert MatchingEngine.restore(engine.snapshot()).state_hash() == engine.state_hash()
    assert engine.sequence == MILLION


@pytest.mark.parametrize("spread", [1, 1_000_003])
def test_a_million_open_orders(spread: int) -> None:
    """All rest, near each other or each far from all others; then one market order takes them all."""
    count = MILLION
    engine = MatchingEngine(1)
    flow = np.zeros(count, ORDER_DTYPE)
    flow["order_id"] = np.arange(count)
    flow["price"] = np.random.default_rng(1).permutation(count) % 50_000 * spread
    flow["side"], flow["quantity"], flow["account"] = SELL, 1 + np.arange(count) % 7, 1
    for start in range(0, count, 5_000):
        engine.process(flow[start : start + 5_000])
    assert engine.open_orders == count
    asks = engine.depth(0, count)[1]
    assert asks["quantity"].sum() == flow["quantity"].sum()
    assert (np.diff(asks["price"]) > 0).all()
    again = MatchingEngine.restore(engine.snapshot())
    assert again.state_hash() == engine.state_hash()
    total = int(flow["quantity"].sum())
    reports = engine.process(order(count, BUY, 0, total, 2, kind=MARKET))
    assert len(reports) == count + 1
    wanted = np.lexsort((flow["order_id"], flow["price"]))
    assert np.array_equal(reports["maker_id"][1:], flow["order_id"][wanted])
    assert reports["leaves"][-1] == 0
    assert engine.open_orders == 0
    gone = flow.copy()
    gone["action"] = 1
    assert (again.process(gone)["kind"] == 2).all()
    assert again.best(0) == (None, None)


def test_memory_does_not_grow_when_the_book_does_not() -> None:
    engine = MatchingEngine(1)
    flow = np.zeros(20_000, ORDER_DTYPE)
    flow["order_id"] = np.arange(20_000) // 2
    flow["action"] = np.arange(20_000) % 2
    flow["price"], flow["quantity"] = np.arange(20_000) // 2 * 977 % 30_011, 5
    sizes = []
    for _ in range(20):
        engine.process(flow)
        sizes.append(sum(array.nbytes for array in engine._storage.arrays.values()))
    assert len(set(sizes)) == 1
