"""Matching core: messages per second on five order flows, and cycles per message inside the core.

    python -m benchmarks.matching            # all flows, five rounds, into benchmarks/results/matching.json

Every flow has about two million messages for one symbol: 15 % of orders are immediate-or-cancel; of the others
20 % are modified once and 95 % get a cancel (which is refused when the order is already filled). The answers are
checked: quantities are conserved, the book is not crossed.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from book_service.matching import ORDER_DTYPE, MatchingEngine

ORDERS = 1_000_000
BATCH = 5_000
FLOWS = ("calm", "normal", "swinging", "swinging wide", "flash crash")
MEAN_LIFE = 4_000  # orders that arrive between an order and its cancel, on average


def centre_of(flow: str, when: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """The middle of the market (ticks) at each moment, 0 to 1, of a flow."""
    walk = np.cumsum(rng.standard_normal(len(when)))
    if flow == "calm":
        return 100_000 + 0.01 * walk
    if flow == "normal":
        return 100_000 + 0.2 * walk
    if flow == "swinging":
        return 100_000 + 2_000 * np.sin(2 * np.pi * 20 * when) + 0.2 * walk
    if flow == "swinging wide":
        return 100_000 + 30_000 * np.sin(2 * np.pi * 6 * when) + walk
    fall = np.interp(when, (0, 0.5, 0.51, 0.53, 0.6, 1), (0, 0, -60_000, -60_000, -10_000, 0))
    return 100_000 + fall + 0.2 * walk


def order_flow(flow: str, orders: int, seed: int) -> Any:
    """Messages of a flow, in order of time."""
    rng = np.random.default_rng(seed)
    when = np.arange(orders) / orders
    centre = centre_of(flow, when, rng)
    side = rng.integers(0, 2, orders)
    away = rng.exponential(10.0, orders) - 2.0  # ticks from the middle; a few cross it
    price = np.rint(centre + np.where(side == 0, -away, away)).astype(np.int64)
    immediate = rng.random(orders) < 0.15
    born = np.arange(orders, dtype=np.float64)
    life = rng.exponential(MEAN_LIFE, orders) + 1
    new = np.zeros(orders, ORDER_DTYPE)
    new["order_id"] = rng.permutation(orders) + 1
    new["account"] = rng.integers(1, 200, orders)
    new["side"], new["price"] = side, price
    new["quantity"] = rng.integers(1, 100, orders)
    new["tif"] = immediate
    pick = np.flatnonzero(~immediate & (rng.random(orders) < 0.20))
    changed = new[pick].copy()
    changed["action"] = 2
    moment = born[pick] + rng.random(len(pick)) * life[pick]
    at = np.minimum(moment.astype(np.int64), orders - 1)
    shift = rng.exponential(10.0, len(pick))
    moved = np.rint(centre[at] + np.where(side[pick] == 0, -shift, shift)).astype(np.int64)
    # Half of the changes only take quantity off and keep their place.
    keep = rng.random(len(pick)) < 0.5
    changed["price"] = np.where(keep, changed["price"], moved)
    changed["quantity"] = np.where(
        keep, (changed["quantity"] + np.uint64(1)) // np.uint64(2), changed["quantity"]
    )
    gone = np.flatnonzero(~immediate & (rng.random(orders) < 0.95))
    cancels = new[gone].copy()
    cancels["action"] = 1
    messages = np.concatenate((new, changed, cancels))
    order = np.argsort(np.concatenate((born, moment, born[gone] + life[gone])), kind="stable")
    messages = messages[order]
    messages["time"] = np.arange(len(messages)) * 1_000
    return messages


def run(engine: MatchingEngine, messages: Any, batch: int) -> tuple[float, int]:
    """Seconds for all messages in batches, and the number of reports."""
    reports = 0
    start = time.perf_counter()
    for i in range(0, len(messages), batch):
        reports += len(engine.process(messages[i : i + batch]))
    return time.perf_counter() - start, reports
