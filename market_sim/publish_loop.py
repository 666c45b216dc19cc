"""The simulated market on Kafka: one step of the market per turn, in step with the host's clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from market_sim.feed import MarketFeed
from protos import topics
from service_kit.kafka.producer import Producer
from service_kit.lifecycle import Stop


@dataclass(slots=True)
class PublishLoop:
    """Sends ticks and orders until told to stop."""

    feed: MarketFeed
    producer: Producer
    step_s: float
    refresh_every_s: float
    clock_ns: Callable[[], int] = time.time_ns
    _refreshed_at_s: float = float("-inf")

    def run(self, stop: Stop) -> None:
        """One step after another; a late step is not made up for, the market just moves on from it."""
        next_at = time.monotonic()
        while not stop.wait(max(0.0, next_at - time.monotonic())):
            self.turn(time.monotonic())
            next_at = max(next_at + self.step_s, time.monotonic())
        self.producer.flush()

    def turn(self, now_s: float) -> None:
        """One step of the market, and a full set of quotes when it is time for one."""
        if now_s - self._refreshed_at_s >= self.refresh_every_s:
            self._refreshed_at_s = now_s
            for key, batch in self.feed.reference_batches(self.clock_ns()):
                self.producer.send(topics.MARKET_DATA_RAW, key, batch.SerializeToString())
        now_ns = self.clock_ns()
        for key, batch in self.feed.step(self.step_s, now_ns):
            self.producer.send(topics.MARKET_DATA_RAW, key, batch.SerializeToString())
        for key, orders in self.feed.orders(self.step_s, now_ns):
            self.producer.send(topics.ORDERS_INCOMING, key, orders.SerializeToString())
        self.producer.poll()
