"""The live loop: ticks and portfolios in, risk out. Poll, apply, measure, publish."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from protos.risk.v1.risk_pb2 import Portfolio, RiskAlert, RiskMetrics
from risk_service.alerts import AlertBook
from risk_service.analytics_bars import BarBook
from risk_service.board import RiskBoard
from risk_service.catch_up import CatchUp
from risk_service.desk_books import DeskBooks
from risk_service.executions import Executions
from risk_service.lateness import Lateness
from risk_service.live_metrics import MetricsWriter
from risk_service.live_snapshot import LiveSnapshot, SnapshotDesk
from risk_service.market_events import MarketEvents, Tick
from risk_service.market_file import MarketFile
from risk_service.market_state import LOGGED_AT_ANY_TIME, MarketState
from risk_service.portfolios import PortfolioStore
from risk_service.positions import Positions
from risk_service.service_metrics import ServiceMetrics
from risk_service.silence import Silence
from risk_service.slow_process import SlowProcess
from risk_service.slow_risk import SlowRisk
from risk_service.teller import Teller
from risk_service.vol_marks import VolMarks
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.errors import BrokerUnreachable, DeliveryFailed, QueueFull
from service_kit.kafka.producer import Producer
from service_kit.kafka.records import Message
from service_kit.lifecycle import Stop
from service_kit.telemetry.traces import Traces

LOG = logging.getLogger(__name__)

# Longest wait for records while nobody asks for anything: how late a call may find the loop to be.
WAIT_SLICE_S = 0.005
LAG_EVERY_S = 0.25
# Longest time without numbers while more records wait than one poll takes in.
BEHIND_S_MAX = 0.25


@dataclass(slots=True)
class LiveLoop:
    """Owns the live state; runs in one thread. What others see goes through the board and the store."""

    market_consumer: Consumer[MarketEvents | Tick]
    portfolio_consumer: Consumer[Portfolio | None]
    fill_consumer: Consumer[Executions]
    producer: Producer
    store: PortfolioStore
    board: RiskBoard
    desk_books: DeskBooks
    writer: MetricsWriter
    positions: Positions
    alerts: AlertBook
    metrics: ServiceMetrics
    desk: SnapshotDesk
    poll_records_max: int
    poll_wait_s: float
    traces: Traces = field(default_factory=Traces.off)
    clock_ns: Callable[[], int] = time.time_ns
    market: MarketState = field(default_factory=MarketState)
    market_file: MarketFile | None = None
    logged_alerts: Callable[[], Iterable[RiskAlert]] | None = None  # by an earlier life, oldest first
    slow: SlowProcess | SlowRisk | None = None
    bars: BarBook = field(default_factory=BarBook)
    failure: Exception | None = None
    without_brokers: str = ""  # why nothing can be heard; empty while brokers answer
    lateness: Lateness = field(default_factory=Lateness)
    _headers: tuple[tuple[str, bytes], ...] = ()
    _marks: VolMarks = field(default_factory=VolMarks)
    _ticks: int = 0
    _lag_due: float = 0.0
    _measured_at: float = 0.0
    _silence: Silence = field(default_factory=Silence)
    _teller: Teller = field(init=False)
    _catch_up: CatchUp | None = None
    _caught_up: bool = False
    turned_at: float = field(default_factory=time.monotonic)  # when the last round was over

    @property
    def caught_up(self) -> bool:
        """Whether everything that the logs held at the start is taken in; no number is told before."""
        return self._caught_up

    @property
    def portfolios(self) -> int:
        """Portfolios whose books are held."""
        return len(self.desk_books.books)

    @property
    def unmeasured(self) -> int:
        """Portfolios whose newest number is none: they were not measured, or not yet."""
        return sum(name not in self._teller.last for name in tuple(self.desk_books.books))

    def __post_init__(self) -> None:
        self._teller = Teller(
            *(self.producer, self.board, self.writer, self.positions),
            *(self.alerts, self.metrics, self.traces, self.clock_ns),
        )

    def run_until_failure(self, stop: Stop) -> None:
        """Until told to stop. A failure is kept for the process to end with, and stops the service."""
        try:
            while not stop.is_set():
                try:
                    self.turn()
                except BrokerUnreachable as away:
                    self._stay(f"no Kafka broker answers at {away.bootstrap}", away.why)
                except (DeliveryFailed, QueueFull) as lost:
                    # What was sent before they went away; what is lost of it is told anew when they are back.
                    if not self.without_brokers:
                        raise
                    LOG.warning("without brokers: %s", lost)
        except Exception as failure:  # noqa: BLE001 - the thread's edge; the process ends with it
            self.failure = failure
            stop.set("the live loop failed")
        finally:
            self.desk.close()

    def turn(self) -> None:
        """One round: everything that has arrived is applied before anything is measured (latest wins)."""
        messages = self._arrived()
        for message in messages:
            self._apply(message)
        self.metrics.took(self._ticks)
        self._ticks = 0
        self._take_fills()
        self._take_portfolios()
        now = time.monotonic()
        if self._catch_up is None:
            self._catch_up = CatchUp.of((self.market_consumer, self.portfolio_consumer, self.fill_consumer))
            if self.logged_alerts is not None:
                self._teller.restore(self.logged_alerts)
        if self.without_brokers and not self.market_consumer.away:
            self._return()
        if not self._caught_up and self._catch_up.done():
            self._begin()
        # A full batch means that more is waiting: an answer now would be old before it is sent. Yet who is
        # always behind must say something. Before the first tick there is nothing to say.
        behind = len(messages) >= self.poll_records_max and now - self._measured_at < BEHIND_S_MAX
        if self._caught_up and not behind and self.market.clocks.source_time_ns:
            self._measured_at = now
            self._measure_dirty(now)
            slow = {} if self.slow is None else self.slow.latest
            self._teller.tell_due(self.desk_books, self.market, slow, self._headers)
            self._note_lateness(messages, time.monotonic())
        self._hear(bool(messages), now)
        if self.market_file is not None and self._caught_up:
            self.market_file.save_when_due(self.market, now)
        self.desk.answer(self._snapshot)
        self.producer.poll()
        if now >= self._lag_due:
            self._lag_due = now + LAG_EVERY_S
            self.market_consumer.lag()  # sets the metric
        self.turned_at = time.monotonic()

    def _begin(self) -> None:
        """The logs are taken in as far as they went: numbers are told from now on."""
        self._caught_up = True
        self.desk.catching_up = False
        # Portfolios that were deleted while nobody was there to end what stood for them.
        for name in self.alerts.unknown(self.desk_books.books):
            self._teller.end_alerts(name, self.market)

    def _stay(self, why: str, details: str) -> None:
        """Nothing can be heard or told: what is known is answered, and says how old it is and why."""
        if not self.without_brokers:
            LOG.error("%s (%s); answers go on with what is known", why, details)
        self.without_brokers, now = why, time.monotonic()
        self._age(now)
        self.desk.answer(self._snapshot)
        self.turned_at = now

    def _return(self) -> None:
        """Brokers answer again: every book is told anew, and what stands is what their log says."""
        LOG.info("brokers answer again")
        self.without_brokers = ""
        if self.logged_alerts is not None:
            with contextlib.suppress(DeliveryFailed):
                self.producer.flush()
            self._teller.restore(self.logged_alerts)
        for book in self.desk_books.books.values():
            for name in book.held.underlyings:
                self.desk_books.touch(name)

    def _arrived(self) -> list[Message[MarketEvents | Tick]]:
        """What the market says next; nothing once the wait is over, or as soon as a call asks for us."""
        # Books that wait are told at once.
        ends = time.monotonic() + (0.0 if self._teller.due else self.poll_wait_s)
        while True:
            left = ends - time.monotonic()
            messages = self.market_consumer.poll(self.poll_records_max, min(WAIT_SLICE_S, max(0.0, left)))
            if messages or left <= 0.0 or self.desk.asked():
                return messages

    def _hear(self, heard: bool, now: float) -> None:
        """When nobody says anything any more, watchers are told how old their numbers are; alerts rise."""
        self._silence.note(heard, now)
        for older, hysteresis in self._age(now):
            self._teller.alert(older, hysteresis)

    def _age(self, now: float) -> list[tuple[RiskMetrics, float]]:
        """Tells watchers how old their numbers are, where that is due."""
        if not self._silence.is_due(now, self.alerts.stale_after_ns):
            return []
        return self._teller.age(self._silence.ns(now), self.without_brokers)

    def _snapshot(self) -> LiveSnapshot:
        market = self.market.copy()
        market.away = self.without_brokers or self.lateness.why
        market.silent_ns = self._silence.ns(time.monotonic())
        marks, books, source = self._marks.copy(), self.desk_books, self.desk_books.risk.scenarios
        measured = {
            name: last.at(market, marks, historical, self.writer.engine)
            for name, last in self._teller.last.items()
            if (historical := source.historical(last.book.held.underlyings)) is not None
            and not books.is_dirty(last.book)
            and name not in self._teller.due
        }
        fills = self.positions.all_quantities()
        return LiveSnapshot(
            *(market, marks, dict(books.books), measured, fills, self.positions.snapshot_id()),
            bars=self.bars.history(),
        )

    def _apply(self, message: Message[MarketEvents | Tick]) -> None:
        record = message.record
        if self.market_file is not None:
            if self.market_file.is_known(record):
                return
            self.market_file.note(record)
        # A number is the work of many ticks; its trace goes on from the newest of them.
        self._headers = record.headers
        # Milliseconds since 1970, below 0 where the broker tells none.
        logged = record.timestamp_ms * 1_000_000 if record.timestamp_ms >= 0 else LOGGED_AT_ANY_TIME
        passed_over = self.market.from_the_future
        changed = self.market.apply(message.value, record.key, record.partition, record.offset, logged)
        if self.market.from_the_future > passed_over:
            self.metrics.from_the_future.inc()
            LOG.warning("%s[%d] at %d is of the future", record.topic, record.partition, record.offset)
            return
        self._ticks += len(message.value)
        self.bars.take(record.key, message.value)
        if changed:
            self.desk_books.touch(record.key)

    def _take_fills(self) -> None:
        for message in self.fill_consumer.poll(self.poll_records_max, 0.0):
            record = message.record
            self.desk_books.filled(self.positions.apply(message.value, record.partition, record.offset))

    def _take_portfolios(self) -> None:
        messages = self.portfolio_consumer.poll(self.poll_records_max, 0.0)
        for message in messages:
            if message.value is None:
                self.store.apply_delete(message.record.key, message.record.offset)
            else:
                self.store.apply(message.value, message.record.offset)
        for name in self.desk_books.take(self.store.all(), self.positions, self.market):
            self._teller.forget(name, self.market)

    def _measure_dirty(self, now: float) -> None:
        with self.metrics.measure_seconds.time():
            changed = self.desk_books.measure(self.market, self._marks)
        for book in changed:
            self._teller.due.add(book.held.name, book.held.owner, now)

    def _note_lateness(self, messages: Sequence[Message[MarketEvents | Tick]], now: float) -> None:
        """Numbers may be late for records that wait to be read, and for books that wait to be told."""
        unread_s = 0.0
        if len(messages) >= self.poll_records_max and messages[-1].record.timestamp_ms >= 0:
            unread_s = self.clock_ns() / 1e9 - messages[-1].record.timestamp_ms / 1e3
        self.lateness.note(unread_s, self._teller.due.waited_s(now))
        self.writer.degraded_reason = self.lateness.why
