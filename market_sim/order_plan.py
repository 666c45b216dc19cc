"""Whole lives of orders, drawn at once: arrival, placement, size, modifications and end.

A plan says where orders are placed relative to the middle price, not at which price: it can be priced against
a simulated middle or against a live market. Plans come in blocks of time, each from its own random stream, so
that a longer flow begins with the shorter one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from market_sim.arrivals import Arrivals, arrivals
from market_sim.regimes import Regime, common_move, crash_phase
from market_sim.streams import stream

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

# The columns of ORDER_DTYPE in book_service.matching, in its order; siblings cannot import each other.
_ORDER_FIELDS: list[tuple[str, str]] = [
    ("action", "u1"),
    ("symbol", "<u4"),
    ("order_id", "<u8"),
    ("account", "<u4"),
    ("side", "u1"),
    ("kind", "u1"),
    ("tif", "u1"),
    ("flags", "u1"),
    ("price", "<i8"),
    ("stop_price", "<i8"),
    ("quantity", "<u8"),
    ("time", "<i8"),
    ("expire_time", "<i8"),
    ("stp", "u1"),
]
ORDER_DTYPE = np.dtype(_ORDER_FIELDS)
PLAN_DTYPE = np.dtype([*_ORDER_FIELDS, ("anchor", "<f8")])
"""`price` and `stop_price` are steps from the middle price at `anchor` seconds, `time` is in ns."""

NEW, CANCEL, REPLACE = 0, 1, 2
LIMIT, MARKET, STOP, STOP_LIMIT = 0, 1, 2, 3
DAY, IOC, FOK, POST_ONLY, GTD = 0, 1, 2, 3, 4
POST_ONLY_FLAG = 1

NO_PRICE = np.iinfo(np.int64).min
"""Marks a price of a plan that the message does not carry."""

# Shares of new orders by what they are; what remains are plain day orders.
_SHARES: list[tuple[int, int, float]] = [  # kind, tif, share
    (MARKET, DAY, 0.01),
    (LIMIT, IOC, 0.15),
    (LIMIT, FOK, 0.005),
    (LIMIT, POST_ONLY, 0.08),
    (LIMIT, GTD, 0.01),
    (STOP, DAY, 0.002),
    (STOP_LIMIT, DAY, 0.002),
]
CANCELLED_SHARE = 0.95  # of orders that may rest; the others are at the touch and wait for a fill
REPLACED_SHARE = 0.20  # of orders that may rest; the same share of these are modified twice
SIZE_TAIL = 1.6
_SMALLEST_SIZE, _LARGEST_SIZE = 10, 100_000
_DEPTH_SCALE = 2.0
_DEEPEST = 5_000
_TAKING_SHARE = 0.15  # of IOC and FOK orders that are priced through the middle; the others fish
_LIFETIME_SPREAD = 1.8  # sd of log lifetime
_SHORTEST_LIFE = 1e-3
_WATCHED_SHARE = 0.95  # of resting orders: taken back before a swing or a crash runs over them
_WATCH_AT = np.concatenate([0.002 * 2.0 ** np.arange(9), np.arange(1.0, 12.1, 0.5)])  # seconds after birth
_REPRICE_SHARE = 0.6  # of first modifications; all others make the order smaller in place


@dataclass(frozen=True, slots=True)
class FlowShape:
    """Who trades what and how much. `orders_per_second` is the long-run mean over all symbols."""

    regime: Regime
    weights: tuple[float, ...]  # share of orders per symbol, in any unit
    accounts: int = 64
    orders_per_second: float = 10_000.0
    lifetime_scale: float = 1.0  # stretches lifetimes, for slow markets
    self_trade_prevention: float = 0.3  # share of orders that ask for one of its kinds
    opening_steps: float = (
        0.0  # price level, for makers who see the regime's own moves coming; 0: they do not
    )

    def __post_init__(self) -> None:
        if not self.weights or min(self.weights) < 0 or not sum(self.weights) > 0:
            raise ValueError("weights: need at least one symbol, none negative, some positive")
        for name in ("accounts", "orders_per_second", "lifetime_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: must be positive, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class _Orders:
    """New orders of a block, column by column, oldest first."""

    born: Array
    symbol: NDArray[np.uint32]
    side: NDArray[np.uint8]
    kind: NDArray[np.uint8]
    tif: NDArray[np.uint8]
    depth: Integers  # steps behind the touch of its own side; below 0: through the other side's
    quantity: Integers
    life: Array  # seconds
    account: NDArray[np.uint32]
    stp: NDArray[np.uint8]

    @property
    def may_rest(self) -> NDArray[np.bool_]:
        return np.asarray((self.kind != MARKET) & (self.tif != IOC) & (self.tif != FOK))


def plan_block(
    shape: FlowShape, seed: int, block: int, block_seconds: float, first_id: int
) -> tuple[NDArray[np.void], int]:
    """Messages of the orders of block `block`, sorted by time, and the number of orders (from `first_id`)."""
    random = stream(seed, "orders", shape.regime.name, block)
    begins = block * block_seconds
    came = arrivals(
        random,
        shape.regime,
        begins=begins,
        ends=begins + block_seconds,
        orders_per_second=shape.orders_per_second,
        weights=np.array(shape.weights),
    )
    orders = _draw_orders(random, shape, came)
    ids = np.arange(first_id, first_id + len(orders.born), dtype=np.uint64)
    messages = _messages(random, orders, ids)
    return messages[np.argsort(messages["time"], kind="stable")], len(ids)


def _draw_orders(random: np.random.Generator, shape: FlowShape, came: Arrivals) -> _Orders:
    order = np.argsort(came.seconds, kind="stable")
    born, side = came.seconds[order], came.side[order]
    count = len(born)
    falls, turmoil = crash_phase(shape.regime, born)
    kind, tif = _kinds(random, count)
    takes = ((tif == IOC) | (tif == FOK)) & (random.random(count) < _TAKING_SHARE)
    if shape.regime.crash is not None:
        rush = falls & (takes | (kind == MARKET))
        side = np.where(rush, random.random(count) < shape.regime.crash.sells, side).astype(np.uint8)
    # In turmoil orders stand further back and are gone sooner.
    scale = _DEPTH_SCALE * np.where(turmoil, 3.0, 1.0)
    behind = scale * (random.random(count) ** (-1 / shape.regime.depth_tail) - 1)
    depth = np.minimum(behind, _DEEPEST).astype(np.int64)
    depth = np.where(takes, -random.geometric(0.4, count), depth)
    median = shape.regime.lifetime_median * shape.lifetime_scale * np.where(turmoil, 0.3, 1.0)
    life = (
        median * np.exp(_LIFETIME_SPREAD * random.standard_normal(count)) * (1 + np.maximum(depth, 0)) ** 0.2
    )
    watched = (random.random(count) < _WATCHED_SHARE) & (depth >= 0)
    life = np.where(watched, _until_run_over(shape, born, side, depth, life), life)
    size = np.ceil(_SMALLEST_SIZE * random.random(count) ** (-1 / SIZE_TAIL))
    protected = random.random(count) < shape.self_trade_prevention
    return _Orders(
        born=born,
        symbol=came.symbol[order],
        side=side,
        kind=kind,
        tif=tif,
        depth=depth,
        quantity=np.minimum(size, _LARGEST_SIZE).astype(np.int64),
        life=np.maximum(life, _SHORTEST_LIFE),
        account=_accounts(random, shape.accounts, count),
        stp=np.where(protected, random.integers(1, 5, count), 0).astype(np.uint8),
    )


def _until_run_over(
    shape: FlowShape, born: Array, side: NDArray[np.uint8], depth: Integers, life: Array
) -> Array:
    """Lives cut short just before the regime's common move brings the market to the order's price."""
    if not shape.opening_steps or not (shape.regime.swing or shape.regime.crash):
        return life
    start = common_move(shape.regime, born)
    towards = np.where(side == 0, -1.0, 1.0) * shape.opening_steps
    cut = np.full(len(life), _SHORTEST_LIFE)
    safe = np.ones(len(life), dtype=np.bool_)
    for seconds in _WATCH_AT:
        came = (common_move(shape.regime, born + seconds) - start) * towards
        safe &= came < depth + 0.5
        cut[safe] = seconds
    return np.where(safe, life, np.minimum(life, cut))


def _kinds(random: np.random.Generator, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    edges = np.cumsum([share for _, _, share in _SHARES])
    drawn = np.searchsorted(edges, random.random(count), side="right")
    kinds = np.array([kind for kind, _, _ in _SHARES] + [LIMIT], dtype=np.uint8)
    tifs = np.array([tif for _, tif, _ in _SHARES] + [DAY], dtype=np.uint8)
    return kinds[drawn], tifs[drawn]


def _accounts(random: np.random.Generator, accounts: int, count: int) -> NDArray[np.uint32]:
    """Accounts 1 to `accounts`: a few send most orders (Zipf)."""
    cumulative = np.cumsum(1 / np.arange(1, accounts + 1))
    drawn = np.searchsorted(cumulative / cumulative[-1], random.random(count), side="right")
    return (np.minimum(drawn, accounts - 1) + 1).astype(np.uint32)


def _messages(random: np.random.Generator, orders: _Orders, ids: NDArray[np.uint64]) -> NDArray[np.void]:
    """New orders, their modifications and their cancels, unsorted."""
    count = len(ids)
    rests = orders.may_rest
    new = _rows(orders, ids, np.arange(count), NEW, orders.born)
    signed = _signed(orders.side, orders.depth)
    _place(new, orders, signed)
    new["quantity"], new["stp"] = orders.quantity, orders.stp
    new["flags"] = np.where((orders.tif == GTD) & (random.random(count) < 0.3), POST_ONLY_FLAG, 0)
    late = _ns(orders.born + 1.5 * orders.life)
    new["expire_time"] = np.where(orders.tif == GTD, late, 0)

    replaced = np.flatnonzero(rests & (orders.kind != STOP) & (random.random(count) < REPLACED_SHARE))
    first, second = _modifications(random, orders, ids, replaced, new)

    # Those who wait for a fill stand at the touch; far away they would pile up for ever.
    at_touch = orders.depth <= 0
    chance = (1 - CANCELLED_SHARE) * np.count_nonzero(rests) / max(int(np.count_nonzero(rests & at_touch)), 1)
    waits = at_touch & (random.random(count) < chance)
    dropped = np.flatnonzero(rests & ~waits)
    cancel = _rows(orders, ids, dropped, CANCEL, orders.born[dropped] + orders.life[dropped])
    return np.concatenate([new, first, second, cancel])


def _modifications(
    random: np.random.Generator,
    orders: _Orders,
    ids: NDArray[np.uint64],
    rows: NDArray[np.intp],
    new: NDArray[np.void],
) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """First and second replaces of the orders `rows`, each while the order lives."""
    count = len(rows)
    when = np.sort(random.random((2, count)), axis=0)
    first_time = orders.born[rows] + orders.life[rows] * when[0]
    first = _rows(orders, ids, rows, REPLACE, first_time)
    moves = random.random(count) < _REPRICE_SHARE
    nearer = (np.maximum(orders.depth[rows], 0) * random.random(count) * 1.5).astype(np.int64)
    first["price"] = np.where(moves, _signed(orders.side[rows], nearer), new["price"][rows])
    first["anchor"] = np.where(moves, first_time, new["anchor"][rows])
    # Moved orders may grow; a smaller quantity at the old price keeps its place in the queue.
    fraction = np.where(moves, random.uniform(0.5, 1.5, count), random.uniform(0.3, 1.0, count))
    first["quantity"] = np.maximum(orders.quantity[rows] * fraction, 1).astype(np.uint64)

    again = np.flatnonzero(random.random(count) < REPLACED_SHARE)
    second = first[again].copy()
    second["time"] = _ns(orders.born[rows[again]] + orders.life[rows[again]] * when[1, again])
    second["quantity"] = np.maximum(second["quantity"] * random.uniform(0.3, 1.0, len(again)), 1).astype(
        np.uint64
    )
    return first, second


def _rows(
    orders: _Orders, ids: NDArray[np.uint64], rows: NDArray[np.intp], action: int, seconds: Array
) -> NDArray[np.void]:
    messages = np.zeros(len(rows), dtype=PLAN_DTYPE)
    messages["action"] = action
    messages["order_id"] = ids[rows]
    messages["price"] = messages["stop_price"] = NO_PRICE
    for name in ("symbol", "account", "side", "kind", "tif"):
        messages[name] = (getattr(orders, name))[rows]
    messages["anchor"] = seconds
    messages["time"] = _ns(seconds)
    return messages


def _place(new: NDArray[np.void], orders: _Orders, signed: Integers) -> None:
    """Prices of new orders. Stops wait on the far side of the market; their limit is three steps further."""
    limit = orders.kind == LIMIT
    stop = (orders.kind == STOP) | (orders.kind == STOP_LIMIT)
    away = np.where(orders.side == 0, 1, -1)
    trigger = away * (5 + np.maximum(orders.depth, 0))
    new["price"] = np.where(limit, signed, NO_PRICE)
    new["stop_price"] = np.where(stop, trigger, NO_PRICE)
    new["price"] = np.where(orders.kind == STOP_LIMIT, trigger + 3 * away, new["price"])


def _signed(side: NDArray[np.uint8], depth: Integers) -> Integers:
    """Steps from the middle's own step: buys below it, sells one above and up."""
    return np.where(side == 0, -depth, depth + 1).astype(np.int64)


def _ns(seconds: Array) -> Integers:
    return np.rint(seconds * 1e9).astype(np.int64)
