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


def controlled_flow(rng: np.random.Generator, count: int, mix: str, symbols: int = 2) -> Any:
    """A random flow with control commands in it and time that crosses seconds, buckets and pauses."""
    m = random_flow(rng, count, mix, symbols)
    pace = rng.choice([10**6, 10**8, 3 * 10**9])
    steps = rng.integers(0, 2 * pace, count) * (rng.random(count) < 0.5)
    time = np.cumsum(steps)
    m["expire_time"] = np.where(m["expire_time"] > m["time"], time + rng.integers(0, 400, count) * pace, 0)
    m["time"] = np.where(m["time"] < 0, m["time"], time) if mix == "hostile" else time
    where = rng.random(count) < 0.04
    commands = int(where.sum())
    c = np.zeros(commands, ORDER_DTYPE)
    c["action"] = 4
    # Kill, halt and breaker seldom, and what undoes them often, or nothing else would be seen.
    weights = np.array([60, 6, 0.2, 0.3, 14, 0.3, 10, 0.3, 10, 0.5, 8, 0.2, 8, 4, 6, 10, 12, 12, 1])
    c["kind"] = rng.choice(19, commands, p=weights / weights.sum())
    c["tif"] = rng.choice(16, commands)
    c["flags"] = rng.choice([0, 2, 4, 6], commands, p=(0.6, 0.15, 0.15, 0.1))
    c["flags"] = np.where((c["kind"] == 3) & (rng.random(commands) < 0.8), 0, c["flags"])
    c["symbol"] = rng.integers(0, symbols + (rng.random(commands) < 0.05), commands)
    c["account"] = rng.integers(0, 7, commands)
    c["price"] = _command_values(rng, c)
    c["stop_price"] = 1000 + rng.integers(-20, 21, commands)
    # Turns mostly go up, so that some are late and some raise what their own turn has lowered.
    turns = np.maximum(0, np.arange(commands) // 4 + rng.integers(-1, 2, commands))
    c["stop_price"] = np.where((c["kind"] == 16) | (c["kind"] == 17), turns, c["stop_price"])
    c["time"] = m["time"][where]
    # Some orders come again at once under another id, as a client that resends would do.
    again = np.flatnonzero((rng.random(count - 1) < 0.03) & (m["action"][:-1] == 0)) + 1
    ids = m["order_id"][again].copy()
    m[again] = m[again - 1]
    m["order_id"][again] = ids
    m[where] = c
    return m


def _command_values(rng: np.random.Generator, c: Any) -> Any:
    """Values near the edge of what the flow does, so that every limit is reached from both sides."""
    # In the order of Limit; the last is no limit.
    scale = np.array(
        [30_000, 30_000, 40, 60_000, 60, 10_000, 10**11, 60, 6, 60, 5_000_000, 20_000, 2_000, 10**9, 10**5, 1]
    )
    value = (scale[c["tif"]] * rng.random(len(c)) ** 0.5 * 2).astype(np.int64)
    value = np.where(rng.random(len(c)) < 0.5, -1, value)
    value = np.where(c["kind"] == 1, 1000 + rng.integers(-30, 31, len(c)), value)
    value = np.where(c["kind"] == 13, rng.integers(-1, 200_000, len(c)), value)
    value = np.where(c["kind"] == 14, rng.integers(-100, 101, len(c)), value)
    return np.where(rng.random(len(c)) < 0.01, rng.choice([2**63 - 1, -(2**63), 2**40]), value)
