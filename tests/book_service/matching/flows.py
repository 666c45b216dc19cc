"""Random message flows that reach every rule: small ranges, so that ids, prices and accounts meet often."""

from __future__ import annotations

from typing import Any

import numpy as np

from book_service.matching import ORDER_DTYPE

MIXES = ("calm", "aggressive", "stops", "self-trade", "runaway", "hostile")


def random_flow(rng: np.random.Generator, count: int, mix: str, symbols: int = 2) -> Any:
    """`count` random messages of a named mix."""
    m = np.zeros(count, ORDER_DTYPE)
    weights = {"hostile": (0.5, 0.2, 0.2, 0.05, 0.05)}.get(mix, (0.6, 0.22, 0.17, 0.002, 0.008))
    m["action"] = rng.choice(5, count, p=weights)
    m["symbol"] = rng.integers(0, symbols + (mix == "hostile"), count)
    m["order_id"] = rng.integers(0, 60 if mix != "calm" else 400, count)
    # Fewer accounts than ids: an id belongs to one account, mostly, so that cancels find their order.
    accounts = 2 if mix == "self-trade" else 5
    m["account"] = np.where(
        rng.random(count) < 0.95, m["order_id"] % accounts, rng.integers(0, accounts, count)
    )
    m["side"] = rng.integers(0, 2, count)
    kinds = (0.3, 0.1, 0.3, 0.3) if mix == "stops" else (0.86, 0.06, 0.04, 0.04)
    m["kind"] = rng.choice(4, count, p=kinds)
    m["tif"] = rng.choice(5, count, p=(0.5, 0.15, 0.1, 0.1, 0.15))
    m["flags"] = (rng.random(count) < 0.05) + 2 * ((m["action"] == 3) & (rng.random(count) < 0.3))
    width = {"calm": 12, "aggressive": 3, "runaway": 8}.get(mix, 6)
    centre = np.full(count, 1000)
    if mix == "runaway":
        centre = 1000 + np.cumsum(rng.integers(-60, 61, count) * (rng.random(count) < 0.2)) * 40
    m["price"] = centre + rng.integers(-width, width + 1, count)
    m["stop_price"] = np.where(rng.random(count) < 0.9, centre + rng.integers(-width, width + 1, count), 0)
    m["quantity"] = rng.integers(1, 30, count)
    m["time"] = np.cumsum(rng.integers(0, 10, count))
    m["expire_time"] = m["time"] + rng.integers(-5, 400, count)
    m["stp"] = (
        rng.choice(5, count, p=(0.6, 0.1, 0.1, 0.1, 0.1))
        if mix != "self-trade"
        else rng.integers(0, 5, count)
    )
    if mix == "hostile":
        _spoil(rng, m)
    return m


def _spoil(rng: np.random.Generator, m: Any) -> None:
    """Bad codes, extreme numbers, zero quantities, time running backwards."""
    count = len(m)
    for field in ("action", "side", "kind", "tif", "flags", "stp"):
        m[field] = np.where(rng.random(count) < 0.03, rng.integers(0, 256, count), m[field])
    extremes = np.array([0, 1, -1, 2**63 - 1, -(2**63), 2**62, -(2**62), 63, 64, -64], np.int64)
    for field in ("price", "stop_price", "time", "expire_time"):
        m[field] = np.where(rng.random(count) < 0.06, rng.choice(extremes, count), m[field])
    large = np.array([0, 2**64 - 1, 2**63, 2**63 - 1, 2**62, 1], np.uint64)
    m["quantity"] = np.where(rng.random(count) < 0.06, rng.choice(large, count), m["quantity"])
    ids = np.array([0, 2**64 - 1, 2**63], np.uint64)
    m["order_id"] = np.where(rng.random(count) < 0.05, rng.choice(ids, count), m["order_id"])
