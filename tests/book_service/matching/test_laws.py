"""Laws that hold for every flow of messages."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from book_service.matching import ORDER_DTYPE, Controls, Instrument, MatchingEngine
from tests.book_service.matching.flows import MIXES, controlled_flow, random_flow

relaxed = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 2**32 - 1)
mixes = st.sampled_from(MIXES)


def an_engine(controls: bool) -> MatchingEngine:
    if not controls:
        return MatchingEngine(2)
    return MatchingEngine([Instrument(reference=1000), Instrument()], Controls(strict_reference=False))


def a_flow(seed: int, mix: str, controls: bool, count: int = 1_500) -> Any:
    make = controlled_flow if controls else random_flow
    return make(np.random.default_rng(seed), count, mix)


@relaxed
@given(seeds, mixes, st.booleans())
def test_quantity_is_conserved(seed: int, mix: str, controls: bool) -> None:
    """Submitted = filled + cancelled + decremented + resting, for every order; replaces submit anew."""
    engine = an_engine(controls)
    open_now: dict[tuple[int, int], int] = {}
    for report in engine.process(a_flow(seed, mix, controls)):
        kind, key, quantity = (
            int(report["kind"]),
            (int(report["symbol"]), int(report["order_id"])),
            int(report["quantity"]),
        )
        if kind == 0 and quantity:  # not the answer to a control command
            assert key not in open_now
            open_now[key] = quantity
        elif kind == 3:
            assert key in open_now
            open_now[key] = quantity
        elif kind == 1:
            maker = (key[0], int(report["maker_id"]))
            for one, left in ((key, "leaves"), (maker, "maker_leaves")):
                open_now[one] -= quantity
                assert open_now[one] == int(report[left])
        elif kind == 9:
            open_now[key] -= quantity
            assert open_now[key] == int(report["leaves"])
        elif kind in (2, 8):
            assert open_now.pop(key) == quantity
        open_now = {one: left for one, left in open_now.items() if left} if kind == 1 else open_now
    rest = {one: left for one, left in open_now.items() if left}
    assert len(rest) == engine.open_orders


@relaxed
@given(seeds, mixes, st.booleans())
def test_the_book_is_never_crossed(seed: int, mix: str, controls: bool) -> None:
    engine = an_engine(controls)
    flow = a_flow(seed, mix, controls, 400)
    for i in range(len(flow)):
        engine.process(flow[i : i + 1])
        for symbol in range(engine.symbols):
            bid, ask = engine.best(symbol)
            assert bid is None or ask is None or bid < ask


@relaxed
@given(seeds, mixes)
def test_price_then_time_decides_who_trades(seed: int, mix: str) -> None:
    """Every trade of an incoming order takes the best price.

    And at a price the one that has waited longest.
    """
    flow = a_flow(seed, mix, False)
    flow["stp"], flow["kind"] = 0, np.where(flow["kind"] > 1, 0, flow["kind"])
    engine = MatchingEngine(3)
    queues: dict[tuple[int, int], list[tuple[int, int, int]]] = {}  # (symbol, side): (price, arrival, id)

    def drop(symbol: int, side: int, order_id: int) -> None:
        queue = queues.setdefault((symbol, side), [])
        queue[:] = [entry for entry in queue if entry[2] != order_id]

    places: dict[tuple[int, int], tuple[int, int]] = {}  # (symbol, id): (price, quantity)
    for arrival, r in enumerate(engine.process(flow)):
        kind, symbol, order_id = int(r["kind"]), int(r["symbol"]), int(r["order_id"])
        side, price, quantity = int(r["side"]), int(r["price"]), int(r["quantity"])
        if kind == 1:
            maker = int(r["maker_id"])
            better = min if side == 0 else max
            queue = queues[symbol, 1 - side]
            best = better(entry[0] for entry in queue)
            assert price == best
            assert maker == min((entry[1], entry[2]) for entry in queue if entry[0] == best)[1]
            if r["maker_leaves"] == 0:
                drop(symbol, 1 - side, maker)
            else:
                places[symbol, maker] = (price, int(r["maker_leaves"]))
            if r["leaves"] == 0:
                drop(symbol, side, order_id)
        elif kind == 0:
            queues.setdefault((symbol, side), []).append((price, arrival, order_id))
            places[symbol, order_id] = (price, quantity)
        elif kind == 3:
            old_price, old_quantity = places[symbol, order_id]
            if price != old_price or quantity > old_quantity:
                drop(symbol, side, order_id)
                queues[symbol, side].append((price, arrival, order_id))
            places[symbol, order_id] = (price, quantity)
        elif kind in (2, 8):
            drop(symbol, side, order_id)
        if kind == 1 and r["leaves"]:
            places[symbol, order_id] = (places[symbol, order_id][0], int(r["leaves"]))


@relaxed
@given(seeds, mixes)
def test_buy_and_sell_are_mirror_images(seed: int, mix: str) -> None:
    flow = a_flow(seed, mix if mix != "hostile" else "calm", False)
    mirrored = flow.copy()
    mirrored["side"] = 1 - flow["side"]
    mirrored["price"], mirrored["stop_price"] = -flow["price"], -flow["stop_price"]
    here, there = MatchingEngine(2), MatchingEngine(2)
    left, right = here.process(flow), there.process(mirrored)
    assert len(left) == len(right)
    for name in left.dtype.names or ():
        if name == "price":
            assert np.array_equal(left[name], -right[name])
        elif name == "side":
            sided = ~np.isin(left["kind"], (4, 5)) & ~((left["kind"] == 6) & (left["reason"] == 59))
            assert np.array_equal(left[name][sided], 1 - right[name][sided])
        else:
            assert np.array_equal(left[name], right[name])


@relaxed
@given(seeds, mixes, st.booleans(), st.lists(st.integers(0, 400), min_size=1, max_size=12))
def test_cuts_into_batches_do_not_matter(seed: int, mix: str, controls: bool, cuts: list[int]) -> None:
    flow = a_flow(seed, mix, controls)
    whole, parts = an_engine(controls), an_engine(controls)
    wanted = whole.process(flow)
    edges = [0, *np.minimum(np.cumsum(cuts), len(flow)).tolist(), len(flow)]
    got = [parts.process(flow[start:stop]) for start, stop in itertools.pairwise(edges)]
    assert np.array_equal(np.concatenate(got), wanted)
    assert parts.state_hash() == whole.state_hash()


@relaxed
@given(seeds, mixes, st.booleans(), st.integers(0, 1_500))
def test_snapshot_and_tail_are_a_full_replay(seed: int, mix: str, controls: bool, cut: int) -> None:
    flow = a_flow(seed, mix, controls)
    whole, first = an_engine(controls), an_engine(controls)
    wanted = whole.process(flow)
    before = first.process(flow[:cut])
    second = MatchingEngine.restore(first.snapshot())
    after = second.process(flow[cut:])
    assert np.array_equal(np.concatenate((before, after)), wanted)
    assert second.state_hash() == whole.state_hash()
    assert second.snapshot() == whole.snapshot()


@relaxed
@given(st.binary(min_size=62, max_size=62 * 50), st.booleans())
def test_any_bytes_are_messages(raw: bytes, controls: bool) -> None:
    engine = an_engine(controls)
    flow = np.frombuffer(raw[: len(raw) // 62 * 62], ORDER_DTYPE)
    reports = engine.process(flow)
    assert engine.sequence == len(flow)
    assert (np.diff(reports["sequence"].astype(np.int64)) >= 0).all()
