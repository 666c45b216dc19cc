"""A real risk_service in this process: the real servicer over the real live loop, its topics in memory."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry
from worlds import SPOT, black_scholes, osi, quotes, reference, smile

import gpu_kernels as gk
from protos import topics
from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import add_RiskServiceServicer_to_server
from risk_service.alerts import AlertBook
from risk_service.api.servicer import RiskServicer
from risk_service.board import RiskBoard
from risk_service.desk_books import DeskBooks
from risk_service.desk_premiums import DeskPremiums
from risk_service.desk_risk import DeskRisk
from risk_service.engines import Engines
from risk_service.live_loop import LiveLoop
from risk_service.live_metrics import MetricsWriter
from risk_service.live_readers import LiveReaders
from risk_service.live_risk import ScenarioSource
from risk_service.live_snapshot import SnapshotDesk
from risk_service.live_state import LiveState
from risk_service.market_events import MarketEvents, Tick
from risk_service.portfolios import PortfolioStore
from risk_service.positions import AccountRule, Positions
from risk_service.price_history import PriceHistory
from risk_service.service_metrics import ServiceMetrics
from risk_service.settings import RiskServiceSettings, RiskSettings
from risk_service.teller import Teller
from risk_service.wiring import SERVICE, risk_servicer, translate
from service_kit.grpc_server import GrpcServer, GrpcSettings
from service_kit.kafka.records import Headers, Message, Record
from service_kit.lifecycle import Stop
from service_kit.telemetry.traces import Traces

PATIENCE_S = 120.0  # a cold cache of compiled kernels on a busy machine
UNDERLYINGS = ("IDX", "ABC")
STRIKES = (80.0, 90.0, 100.0, 110.0, 120.0)


class TopicInMemory:
    """What a consumer of one partition sees."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._waiting: deque[Message[Any]] = deque()
        self._offset = 0
        self._arrived = threading.Condition()

    def send(self, key: str, value: Any, logged_ms: int = -1) -> int:
        """Appends a decoded record; its offset."""
        with self._arrived:
            record = Record(self.name, 0, self._offset, key, b"", Headers(), logged_ms)
            self._waiting.append(Message(value, record))
            self._offset += 1
            self._arrived.notify_all()
            return record.offset

    def poll(self, max_records: int, timeout_s: float) -> list[Message[Any]]:
        """As Consumer.poll."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._waiting, timeout_s)
            count = min(max_records, len(self._waiting))
            return [self._waiting.popleft() for _ in range(count)]

    def assignment(self) -> set[Any]:
        """As Consumer.assignment; a log that begins with the service has no past."""
        return set()

    def ends(self, partitions: Any) -> dict[Any, int]:
        """As Consumer.ends."""
        return {}

    def position(self) -> dict[Any, int]:
        """As Consumer.position."""
        return {}

    def lag(self) -> dict[Any, int]:
        """As Consumer.lag; whatever there is has been read."""
        return {}


@dataclass
class ProducerInMemory:
    """Keeps what was sent last, by topic and key."""

    sent: dict[tuple[str, str], bytes] = field(default_factory=dict)

    def send(self, topic: str, key: str, value: bytes, headers: Any = ()) -> None:
        """As Producer.send."""
        self.sent[topic, key] = value

    def poll(self) -> None:
        """As Producer.poll."""

    def flush(self) -> None:
        """As Producer.flush."""


@dataclass
class LogInMemory:
    """A portfolio log that the live loop reads like the real one."""

    topic: TopicInMemory

    def put(self, portfolio: wire.Portfolio) -> int:
        """Logs a portfolio."""
        return self.topic.send(portfolio.portfolio, portfolio)

    def delete(self, name: str) -> int:
        """Logs a deletion."""
        return self.topic.send(name, None)


def price_history(days: int = 500, seed: int = 3, underlyings: tuple[str, ...] = UNDERLYINGS) -> PriceHistory:
    """Heavy-tailed closes and their vols."""
    random = np.random.default_rng(seed)
    shape = (days + 1, len(underlyings))
    closes = SPOT * np.exp(np.cumsum(0.01 * random.standard_t(4, shape), axis=0))
    return PriceHistory(underlyings, closes, 0.2 * np.exp(0.05 * random.standard_normal(shape)))


def market_records(underlying: str = "IDX", spot: float = SPOT) -> Iterator[MarketEvents | Tick]:
    """The underlying, and a call and a put at each strike at their values."""
    yield reference(underlying)
    yield quotes([underlying], [spot])
    for right, is_call in (("C", True), ("P", False)):
        values = black_scholes(spot, np.array(STRIKES), 0.5, smile(np.array(STRIKES)), is_call)
        yield quotes([osi(underlying, right, strike) for strike in STRIKES], values)


class Service:
    """The live loop in its thread, and servicers over it."""

    def __init__(
        self,
        history: PriceHistory | None = None,
        engine: gk.Engine | None = None,
        risk: RiskSettings | None = None,
    ) -> None:
        probed = Engines.probe("auto")
        serving = engine or probed.serving
        self.engines = Engines(serving, probed.chosen_because)
        # As `risk serve` does: no call may wait for a compiler.
        serving.warm_up()
        self.history = history
        self.risk = risk or RiskSettings(poll_wait_s=0.05)
        self.market = TopicInMemory(topics.MARKET_DATA_NORMALIZED)
        self.portfolios = TopicInMemory(topics.RISK_PORTFOLIOS)
        self.producer = ProducerInMemory()
        self.executor = ThreadPoolExecutor(2)
        self.stop = Stop()
        self.last_server: GrpcServer | None = None
        consumer: Any = self.market
        portfolios: Any = self.portfolios
        producer: Any = self.producer
        self.fills = TopicInMemory(topics.ORDERS_EXECUTED)
        fills: Any = self.fills
        source = ScenarioSource(history, self.risk.history_days_max)
        positions = Positions(AccountRule.of(["7=desk"]))
        metrics = ServiceMetrics.on(CollectorRegistry())
        self.loop = LiveLoop(
            readers=LiveReaders(
                consumer, portfolios, fills, self.risk.poll_records_max, self.risk.poll_wait_s
            ),
            state=LiveState(
                store=PortfolioStore(),
                positions=positions,
                books=DeskBooks(DeskRisk(serving, source, DeskPremiums(gk.engine("cpu")))),
                metrics=metrics,
            ),
            teller=Teller(
                producer=producer,
                board=RiskBoard(self.risk.watchers_max),
                writer=MetricsWriter(serving, self.risk.es_level),
                positions=positions,
                alerts=AlertBook(round(self.risk.stale_after_s * 1e9)),
                metrics=metrics,
                traces=Traces.off(),
                clock_ns=time.time_ns,
            ),
            desk=SnapshotDesk(self.risk.snapshots_waiting_max),
        )
        self.thread = threading.Thread(target=self.loop.run_until_failure, args=(self.stop,))

    def __enter__(self) -> Service:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(PATIENCE_S)
        self.executor.shutdown(wait=True, cancel_futures=True)
        if self.loop.failure is not None:
            raise self.loop.failure

    def open_market(self, underlying: str = "IDX", spot: float = SPOT) -> None:
        """Sends prices of an underlying and its options; returns when the loop has taken them in."""
        for record in market_records(underlying, spot):
            last = self.market.send(underlying, record)
        while self.loop.desk.ask().result(PATIENCE_S).market.snapshot_id() != f"0:{last + 1}":
            assert self.thread.is_alive()

    def open_by_hand(self) -> None:
        """As `open_market` where the test takes the loop's turns, of which the next takes it in."""
        for record in market_records():
            self.market.send("IDX", record)

    def servicer(self, settings: GrpcSettings) -> RiskServicer:
        """A servicer over this loop; call it in the event loop that serves it."""
        return risk_servicer(
            RiskServiceSettings(grpc=settings, risk=self.risk),
            self.engines,
            self.loop,
            LogInMemory(self.portfolios),
            self.executor,
            self.history,
        )

    def server(self, settings: GrpcSettings, servicer: RiskServicer | None = None) -> GrpcServer:
        """A server of a new servicer over this loop, or of the given one."""
        added = (add_RiskServiceServicer_to_server, servicer or self.servicer(settings), SERVICE)
        self.last_server = GrpcServer(settings, [added], translate=translate)
        return self.last_server

    def computing(self) -> bool:
        """Whether a call of the last server is open that is not the asking one."""
        return any(one.call.method.endswith("ExpectedShortfall") for one in self.last_server.guard.open)


@contextmanager
def serving(make: Callable[[], GrpcServer]) -> Iterator[GrpcServer]:
    """A server in a thread of its own, so that tests call it as clients do."""
    started: list[GrpcServer] = []
    ready, stop = threading.Event(), Stop()

    async def run() -> None:
        try:
            async with make() as server:
                started.append(server)
                ready.set()
                await stop.wait_async()
        finally:
            ready.set()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert ready.wait(PATIENCE_S)
        assert started
        yield started[0]
    finally:
        stop.set()
        thread.join(PATIENCE_S)
