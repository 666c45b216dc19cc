"""Order flow to test and time an order book with: any number of messages, five regimes, any rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from market_sim.hostile_orders import with_hostile
from market_sim.order_plan import NO_PRICE, ORDER_DTYPE, PLAN_DTYPE, FlowShape, plan_block
from market_sim.regimes import REGIMES, MiddlePrice, Regime, SimulatedMiddle

ORDERS_PER_BLOCK = 50_000
"""Orders planned at a time: more take memory, fewer take time."""


class OrderPlanner:
    """Plans in order of time: each call of `until` gives the messages that the last one did not."""

    def __init__(self, shape: FlowShape, seed: int, block_seconds: float | None = None) -> None:
        self._shape = shape
        self._seed = seed
        self._block_seconds = block_seconds or ORDERS_PER_BLOCK / shape.orders_per_second
        self._blocks = 0
        self._next_id = 1
        self._pending: list[NDArray[np.void]] = []

    @property
    def settled_seconds(self) -> float:
        """Later blocks hold nothing that is older than this."""
        return self._blocks * self._block_seconds

    def until(self, seconds: float) -> NDArray[np.void]:
        """All messages not given yet with a time before `seconds`, sorted by time."""
        while self.settled_seconds < seconds:
            block, orders = plan_block(
                self._shape, self._seed, self._blocks, self._block_seconds, self._next_id
            )
            self._pending.append(block)
            self._next_id += orders
            self._blocks += 1
        limit = int(seconds * 1e9)
        due: list[NDArray[np.void]] = []
        later: list[NDArray[np.void]] = []
        for block in self._pending:
            cut = int(np.searchsorted(block["time"], limit))
            due.append(block[:cut])
            if cut < len(block):
                later.append(block[cut:])
        self._pending = later
        messages = np.concatenate(due) if due else np.empty(0, dtype=PLAN_DTYPE)
        return messages[np.argsort(messages["time"], kind="stable")]

    def next_block(self) -> NDArray[np.void]:
        """The messages of one more block of time."""
        return self.until(self.settled_seconds + self._block_seconds * (1 - 1e-9))


def priced(
    plan: NDArray[np.void], middle: MiddlePrice, step_ticks: NDArray[np.int64], start_time_ns: int = 0
) -> NDArray[np.void]:
    """The plan's messages as ORDER_DTYPE: prices in ticks, multiples of the symbol's `step_ticks`."""
    orders = np.empty(len(plan), dtype=ORDER_DTYPE)
    for name in ORDER_DTYPE.names or ():
        orders[name] = plan[name]
    step = step_ticks[plan["symbol"]]
    here = np.floor(middle(plan["symbol"], plan["anchor"]) / step).astype(np.int64)
    for name in ("price", "stop_price"):
        away = plan[name]
        given = away != NO_PRICE
        orders[name] = np.where(given, np.maximum(here + np.where(given, away, 0), 1) * step, 0)
    orders["time"] += start_time_ns
    orders["expire_time"][plan["expire_time"] != 0] += start_time_ns
    return orders


def order_flow(
    seed: int,
    messages: int,
    regime: str | Regime = "normal",
    *,
    symbols: int = 100,
    accounts: int = 64,
    orders_per_second: float = 10_000.0,
    opening_ticks: int = 10_000,
    start_time_ns: int = 0,
    hostile: float = 0.0,
) -> NDArray[np.void]:
    """The first `messages` messages of this seed's flow; `hostile` of them (a share) are to be refused.

    A cancel or a replace names an order that was sent and has not been cancelled; it may have been filled.
    Nothing hostile changes the other messages.
    """
    if messages < 0:
        raise ValueError(f"messages: must not be negative, got {messages}")
    if not 0 <= hostile < 1:
        raise ValueError(f"hostile: must lie in [0, 1), got {hostile}")
    kind = regime_named(regime)
    # Some symbols trade a lot and most a little.
    weights = tuple(float(weight) for weight in 1 / np.arange(1, symbols + 1) ** 0.8)
    shape = FlowShape(
        kind, weights, accounts=accounts, orders_per_second=orders_per_second, opening_steps=opening_ticks
    )
    planner = OrderPlanner(shape, seed)
    clean = messages - int(messages * hostile)
    blocks: list[NDArray[np.void]] = []
    while sum(len(block) for block in blocks) < clean:
        blocks.append(planner.next_block())
    plan = np.concatenate(blocks)[:clean] if blocks else np.empty(0, dtype=PLAN_DTYPE)
    middle = SimulatedMiddle(kind, seed, np.full(symbols, float(opening_ticks)))
    orders = priced(plan, middle, np.ones(symbols, dtype=np.int64), start_time_ns)
    return with_hostile(orders, messages - clean, seed, symbols)


def regime_named(regime: str | Regime) -> Regime:
    """The regime of this name."""
    if isinstance(regime, Regime):
        return regime
    if regime not in REGIMES:
        raise ValueError(f"regime: {regime!r} is none of {', '.join(REGIMES)}")
    return REGIMES[regime]
