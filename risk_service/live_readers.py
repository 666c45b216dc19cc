"""What the live loop reads: the market, portfolios and fills, each log from where the state at hand ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from protos.risk.v1.risk_pb2 import Portfolio
from risk_service.catch_up import CatchUp
from risk_service.executions import Executions
from risk_service.market_events import MarketEvents, Tick
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.records import Message

# Longest wait for records while nobody asks for anything: how late a call may find the loop to be.
WAIT_SLICE_S = 0.005


@dataclass(slots=True)
class LiveReaders:
    """A reader of each log; used by the live loop's thread."""

    market: Consumer[MarketEvents | Tick]
    portfolios: Consumer[Portfolio | None]
    fills: Consumer[Executions]
    records_max: int  # of one poll
    wait_s: float

    def arrived(self, asked: Callable[[], bool], *, at_once: bool) -> list[Message[MarketEvents | Tick]]:
        """What the market says next; nothing once the wait is over, or as soon as somebody has `asked`."""
        ends = time.monotonic() + (0.0 if at_once else self.wait_s)
        while True:
            left = ends - time.monotonic()
            messages = self.market.poll(self.records_max, min(WAIT_SLICE_S, max(0.0, left)))
            if messages or left <= 0.0 or asked():
                return messages

    def filled(self) -> list[Message[Executions]]:
        """The fills that have come."""
        return self.fills.poll(self.records_max, 0.0)

    def put(self) -> list[Message[Portfolio | None]]:
        """The portfolios that were put, or deleted."""
        return self.portfolios.poll(self.records_max, 0.0)

    def unread_s(self, messages: Sequence[Message[MarketEvents | Tick]], clock_ns: int) -> float:
        """How old the last of these records is, where a full batch means that more is waiting."""
        if not self.is_full(messages) or messages[-1].record.timestamp_ms < 0:
            return 0.0
        return clock_ns / 1e9 - messages[-1].record.timestamp_ms / 1e3

    def is_full(self, messages: Sequence[Message[MarketEvents | Tick]]) -> bool:
        """Whether more is waiting."""
        return len(messages) >= self.records_max

    @property
    def away(self) -> bool:
        """Whether no broker has answered lately."""
        return self.market.away

    def catch_up(self) -> CatchUp:
        """Whether all is read that the logs hold now."""
        return CatchUp.of((self.market, self.portfolios, self.fills))

    def close(self) -> None:
        """Lets go of the connections."""
        for one in (self.market, self.portfolios, self.fills):
            one.close()
