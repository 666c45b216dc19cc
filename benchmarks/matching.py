"""Matching core: messages per second on five order flows, and time per message inside the core.

    python -m benchmarks.matching [--rounds N] [--orders N]     # writes benchmarks/results/matching.json

Every flow has about two million messages for one symbol: 15 % of the orders are immediate-or-cancel, 20 % of
the others are modified once, 95 % of them get a cancel (refused when the order has been filled before).
Engines without and with all controls take turns, round by round. The answers are checked: quantities are
conserved, the book is not crossed. `cpu` is the time of this thread alone, which is what counts on a machine
that others use as well.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from book_service.matching import ORDER_DTYPE, ControlCommand, Controls, Instrument, MatchingEngine
from book_service.matching.kernel import fingerprint
from book_service.matching.storage import address
from book_service.matching.timing import Timers, build_timers

ORDERS, BATCH, ACCOUNTS = 1_000_000, 5_000, 200
# Orders that arrive between an order and its cancel, on average: fewer when prices run, or nothing is left to
# cancel.
FLOWS = {"calm": 4_000, "normal": 2_000, "swinging": 400, "swinging wide": 100, "flash crash": 1_000}
RESULT = Path(__file__).parent / "results" / "matching.json"


def centre_of(flow: str, when: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """The middle of the market (ticks) at each moment, 0 to 1, of a flow."""
    walk = np.cumsum(rng.standard_normal(len(when)))
    if flow == "calm":
        return 100_000 + 0.01 * walk
    if flow == "normal":
        return 100_000 + 0.2 * walk
    if flow == "swinging":
        return 100_000 + 2_000 * np.sin(2 * np.pi * 3 * when) + 0.2 * walk
    if flow == "swinging wide":
        return 100_000 + 30_000 * np.sin(2 * np.pi * when) + walk
    fall = np.interp(when, (0, 0.5, 0.51, 0.53, 0.6, 1), (0, 0, -60_000, -60_000, -10_000, 0))
    return 100_000 + fall + 0.2 * walk


def order_flow(flow: str, orders: int, seed: int) -> Any:
    """Messages of a flow, in order of time."""
    rng = np.random.default_rng(seed)
    centre = centre_of(flow, np.arange(orders) / orders, rng)
    side = rng.integers(0, 2, orders)
    immediate = rng.random(orders) < 0.15
    # Ticks from the middle: immediate orders reach across it.
    away = np.where(immediate, -rng.exponential(3.0, orders), 1.0 + rng.exponential(10.0, orders))
    born, life = np.arange(orders, dtype=np.float64), rng.exponential(FLOWS[flow], orders) + 1
    new = np.zeros(orders, ORDER_DTYPE)
    new["order_id"] = rng.permutation(orders) + 1
    new["account"] = rng.integers(0, ACCOUNTS, orders)
    new["side"], new["tif"] = side, immediate
    new["price"] = np.rint(centre + np.where(side == 0, -away, away))
    new["quantity"] = rng.integers(1, 100, orders)
    pick = np.flatnonzero(~immediate & (rng.random(orders) < 0.20))
    moment = born[pick] + rng.random(len(pick)) * life[pick]
    changed = new[pick].copy()
    changed["action"] = 2
    # Half of the changes take quantity off and keep their place, half move to the market as it is then.
    there = centre[np.minimum(moment.astype(np.int64), orders - 1)]
    shift = 1.0 + rng.exponential(10.0, len(pick))
    moved = np.rint(there + np.where(side[pick] == 0, -shift, shift))
    keep = rng.random(len(pick)) < 0.5
    changed["price"] = np.where(keep, changed["price"], moved)
    changed["quantity"] = np.where(keep, (changed["quantity"] + 1) // 2, changed["quantity"])
    gone = np.flatnonzero(~immediate & (rng.random(orders) < 0.95))
    cancels = new[gone].copy()
    cancels["action"] = 1
    order = np.argsort(np.concatenate((born, moment, born[gone] + life[gone])), kind="stable")
    messages = np.concatenate((new, changed, cancels))[order]
    messages["time"] = np.arange(len(messages)) * 100_000  # 10,000 messages a second of market time
    return messages


def new_engine(controlled: bool) -> MatchingEngine:
    """An engine without controls, or with all of them, so wide that orders pass and every check is made."""
    if not controlled:
        return MatchingEngine(1)
    controls = Controls(
        static_collar_ppm=900_000, moving_collar_ppm=900_000, volatility_band_ppm=900_000,
        concentration_ppm=10**9,
        loss=10**15, duplicate_window_ns=1_000, message_rate=10**9, execution_rate=10**9,
    )  # fmt: skip
    engine = MatchingEngine([Instrument(reference=100_000)], controls)
    capital = np.zeros(ACCOUNTS, ORDER_DTYPE)
    capital["action"], capital["kind"] = 4, ControlCommand.SET_CAPITAL
    capital["account"], capital["price"] = np.arange(ACCOUNTS), 10**15
    engine.process(capital)
    return engine


def run(controlled: bool, messages: Any) -> tuple[float, float]:
    """Messages per second of wall clock and of this thread's own time, in batches."""
    engine = new_engine(controlled)
    wall, own = time.perf_counter(), time.thread_time()
    for i in range(0, len(messages), BATCH):
        engine.process(messages[i : i + BATCH])
    return len(messages) / (time.perf_counter() - wall), len(messages) / (time.thread_time() - own)


def check(messages: Any, controlled: bool) -> dict[str, int]:
    """Conservation and an uncrossed book after a whole flow, and what happened in it."""
    engine = new_engine(controlled)
    reports = engine.process(messages)
    kind = reports["kind"]
    open_now: dict[int, int] = {}
    columns = (reports[name].tolist() for name in ("kind", "order_id", "maker_id", "quantity"))
    for what, order, maker, quantity in zip(*columns):
        if what in (0, 3):
            open_now[order] = quantity
        elif what in (1, 2):
            open_now[order] -= quantity
            if what == 1:
                open_now[maker] -= quantity
    bids, asks = engine.depth(0, 1 << 30)
    assert min(open_now.values()) == 0
    assert sum(open_now.values()) == int(bids["quantity"].sum() + asks["quantity"].sum())
    assert not len(bids) or not len(asks) or bids["price"][0] < asks["price"][0]
    return {
        "messages": len(messages),
        "trades": int((kind == 1).sum()),
        "cancelled": int((kind == 2).sum()),
        "replaced": int((kind == 3).sum()),
        "cancels and replaces refused": int(((kind == 4) | (kind == 5)).sum()),
        "orders refused by controls": int((kind == 6).sum()),
        "open at the end": engine.open_orders,
    }


@cache
def timers() -> Timers:
    return build_timers(fingerprint())


@cache
def cycles_per_ns() -> float:
    """The rate of the cycle counter, against the wall clock over a fifth of a second."""
    start, first = time.perf_counter_ns(), timers().now()
    while time.perf_counter_ns() - start < 200_000_000:
        pass
    return float(timers().now() - first) / (time.perf_counter_ns() - start)


def latency(messages: Any, controlled: bool) -> dict[str, float]:
    """Nanoseconds per message inside the core, the counter's own cost taken off."""
    engine = new_engine(controlled)
    storage = engine._storage
    spent, idle = np.zeros(len(messages), np.int64), np.zeros(100_000, np.int64)
    for i in range(0, len(messages), BATCH):
        stop, at = min(i + BATCH, len(messages)), i
        while at < stop:
            at = timers().run(storage.address, address(messages), at, stop, address(spent))
            storage.take_reports()
            if storage.is_full():
                storage.grow()
                engine._kernels.reindex(storage.address)
    timers().idle(address(idle), len(idle))
    cost = float(np.median(idle))
    ns = (spent - cost) / cycles_per_ns()
    return {"mean": float(ns.mean())} | {f"p{q}": float(np.percentile(ns, q)) for q in (50, 90, 99, 99.9)}


def a_million_open() -> dict[str, float]:
    """Adds, then cancels, a million orders that all rest; messages per second of this thread."""
    count = 1_000_000
    new = np.zeros(count, ORDER_DTYPE)
    rng = np.random.default_rng(1)
    new["order_id"], new["quantity"] = rng.permutation(count), 1
    new["price"], new["side"] = rng.integers(0, 50_000, count), 1
    gone = new[rng.permutation(count)]
    gone["action"] = 1
    engine, rates = MatchingEngine(1), []
    for messages in (new, gone):
        own = time.thread_time()
        for i in range(0, count, BATCH):
            engine.process(messages[i : i + BATCH])
        rates.append(count / (time.thread_time() - own))
        if messages is new:
            assert engine.open_orders == count
    assert engine.open_orders == 0
    return {"added per second": rates[0], "cancelled per second": rates[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--orders", type=int, default=ORDERS)
    options = parser.parse_args()
    result: dict[str, Any] = {
        "command": f"python -m benchmarks.matching --rounds {options.rounds} --orders {options.orders}",
        "machine": {"processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
                    "numba": numba.__version__, "numpy": np.__version__},
        "batch": BATCH,
        "flows": {},
    }  # fmt: skip
    for flow in FLOWS:
        messages = order_flow(flow, options.orders, seed=1)
        found: dict[str, Any] = {"what": check(messages, True)}
        rates: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
        for _ in range(options.rounds):
            for controlled, kept in rates.items():
                kept.append(run(controlled, messages))
        for controlled, kept in rates.items():
            wall, own = zip(*kept)
            found["with all controls" if controlled else "without controls"] = {
                "messages_per_second_cpu": {
                    "median": float(np.median(own)),
                    "least": min(own),
                    "most": max(own),
                },
                "messages_per_second_wall": {"median": float(np.median(wall)), "most": max(wall)},
                "latency_ns": latency(messages, controlled),
            }
        result["flows"][flow] = found
        print(json.dumps({flow: found}, indent=1))
    result["a million open orders"] = a_million_open()
    for kind in ("without controls", "with all controls"):
        medians = [flow[kind]["messages_per_second_cpu"]["median"] for flow in result["flows"].values()]
        result[f"worst flow, {kind}, messages_per_second_cpu"] = min(medians)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "flows"}, indent=1))


if __name__ == "__main__":
    main()
