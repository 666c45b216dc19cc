"""Order flow that follows a live market, a slice of time at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from market_sim.order_batches import order_batch
from market_sim.order_flow import ORDERS_PER_BLOCK, OrderPlanner, priced, regime_named
from market_sim.order_plan import FlowShape
from market_sim.universe import Underlying
from protos.orders.v1.orders_pb2 import OrderBatch

CLIENT = "sim"
_BLOCK_SECONDS = 30.0
_STEP_RELATIVE = 0.5e-4  # of the price: the distance between prices that live orders use
_RESTING_PER_SYMBOL = 150.0  # wanted depth of a live book: slow flows live longer
_HISTORY = 20_000  # slices remembered, for modifications that keep an old price


class _FollowedMiddle:
    """The middle prices that the caller showed, slice by slice."""

    def __init__(self, symbols: int) -> None:
        self._ends = np.empty(2 * _HISTORY)
        self._ticks = np.empty((2 * _HISTORY, symbols))
        self._count = 0

    def add(self, end_seconds: float, ticks: NDArray[np.float64]) -> None:
        """Notes the price of the slice that ends at `end_seconds`; the oldest half makes room."""
        if self._count == len(self._ends):
            self._ends[:_HISTORY], self._ticks[:_HISTORY] = self._ends[_HISTORY:], self._ticks[_HISTORY:]
            self._count = _HISTORY
        self._ends[self._count], self._ticks[self._count] = end_seconds, ticks
        self._count += 1

    def __call__(self, symbol: NDArray[np.uint32], seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        """The price of the slice that holds each time."""
        slices = np.searchsorted(self._ends[: self._count], seconds, side="left")
        return np.asarray(self._ticks[np.minimum(slices, self._count - 1), symbol])


class LiveOrders:
    """Orders in the underlyings themselves; each underlying's form one batch."""

    def __init__(
        self, underlyings: Sequence[Underlying], seed: int, orders_per_second: float, regime: str
    ) -> None:
        self._symbols = tuple(u.symbol for u in underlyings)
        self._tick = np.array([u.tick for u in underlyings])
        spot = np.array([u.spot for u in underlyings])
        self._step = np.maximum(np.round(spot * _STEP_RELATIVE / self._tick), 1).astype(np.int64)
        self._seconds = 0.0
        self._middle = _FollowedMiddle(len(underlyings))
        self._planner: OrderPlanner | None = None
        if orders_per_second > 0:
            kind = regime_named(regime)
            mean_life = kind.lifetime_median * 5.0  # of the lognormal lifetimes that the plan draws
            scale = max(1.0, _RESTING_PER_SYMBOL * len(underlyings) / (0.8 * orders_per_second * mean_life))
            shape = FlowShape(
                kind,
                tuple(u.activity for u in underlyings),
                orders_per_second=orders_per_second,
                lifetime_scale=scale,
            )
            block_seconds = min(_BLOCK_SECONDS, ORDERS_PER_BLOCK / orders_per_second)
            self._planner = OrderPlanner(shape, seed, block_seconds)

    def advance(
        self, dt_seconds: float, spot: NDArray[np.float64], time_ns: int
    ) -> list[tuple[str, OrderBatch]]:
        """Orders of the next `dt_seconds`, which end at `time_ns`, placed around `spot`."""
        if not dt_seconds > 0 or self._planner is None:
            return []
        self._seconds += dt_seconds
        self._middle.add(self._seconds, spot / self._tick)
        plan = self._planner.until(self._seconds)
        if not len(plan):
            return []
        start_ns = time_ns - round(self._seconds * 1e9)
        orders = priced(plan, self._middle, self._step, start_ns)
        batches: list[tuple[str, OrderBatch]] = []
        for place in np.unique(orders["symbol"]):
            rows = orders[orders["symbol"] == place]
            batches.append((self._symbols[place], order_batch(rows, self._symbols, CLIENT)))
        return batches
