"""The live loop: ticks and portfolios in, risk out. Poll, apply, measure, publish."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from protos.risk.v1.risk_pb2 import RiskAlert, RiskMetrics
from risk_service.catch_up import CatchUp
from risk_service.lateness import Lateness
from risk_service.live_readers import LiveReaders
from risk_service.live_snapshot import LiveSnapshot, SnapshotDesk
from risk_service.live_state import LiveState
from risk_service.silence import Silence
from risk_service.slow_process import SlowProcess
from risk_service.slow_risk import SlowRisk
from risk_service.teller import Teller
from service_kit.kafka.errors import BrokerUnreachable, DeliveryFailed, QueueFull
from service_kit.kafka.records import Message
from service_kit.lifecycle import Stop

LOG = logging.getLogger(__name__)

LAG_EVERY_S = 0.25
# Longest time without numbers while more records wait than one poll takes in.
BEHIND_S_MAX = 0.25
# How long watches stay open while another process has the seat: after a break in the network it may return.
WATCHED_S = 5.0


class Seat(Protocol):
    """Whose work it is to tell numbers: one process's at a time."""

    @property
    def term(self) -> int:
        """0 while it is another's; else the number of our term."""

    @property
    def sure(self) -> bool:
        """False while nobody knows whose it is."""

    @property
    def holder(self) -> str:
        """Whose it is, or was last."""


class NoOtherProcess:
    """The seat of a loop that is alone."""

    term, sure, holder = 1, True, ""


@dataclass(slots=True)
class LiveLoop:
    """Reads, measures and tells in one thread. What others see goes through the board and the store."""

    readers: LiveReaders
    state: LiveState
    teller: Teller
    desk: SnapshotDesk
    seat: Seat = field(default_factory=NoOtherProcess)
    slow: SlowProcess | SlowRisk | None = None
    logged_alerts: Callable[[], Iterable[RiskAlert]] = tuple  # by an earlier life, oldest first
    failure: Exception | None = None
    without_brokers: str = ""  # why nothing can be heard; empty while brokers answer
    lateness: Lateness = field(default_factory=Lateness)
    turned_at: float = field(default_factory=time.monotonic)  # when the last round was over
    _catch_up: CatchUp | None = None
    _caught_up: bool = False
    _term: int = 0  # for which the logs are, or were, caught up with
    _tells: bool = False
    _silence: Silence = field(default_factory=Silence)
    _lag_due: float = 0.0
    _measured_at: float = 0.0
    _watched_until: float = 0.0

    @property
    def caught_up(self) -> bool:
        """Whether everything that the logs held at the start is taken in; no number is told before."""
        return self._caught_up

    @property
    def tells(self) -> bool:
        """Whether this process tells numbers now."""
        return self._tells and self.seat.sure

    @property
    def standing_by(self) -> str:
        """Why this process tells no numbers though it could; empty where none other does."""
        if self._term:
            return ""
        last = self.seat.holder or "not known yet"
        return f"stands by: one risk_service publishes at a time, and the last that did is {last}"

    @property
    def no_changes(self) -> str:
        """Why portfolios cannot be changed through this process now; empty where they can."""
        if self.tells or self.without_brokers:
            return ""
        return self.standing_by or "the logs are still being read after a start"

    @property
    def portfolios(self) -> int:
        """Portfolios whose books are held."""
        return len(self.state.books.books)

    @property
    def unmeasured(self) -> int:
        """Portfolios whose newest number is none: they were not measured, or not yet."""
        return sum(name not in self.teller.last for name in tuple(self.state.books.books))

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
        # Books that wait are told at once.
        messages = self.readers.arrived(self.desk.asked, at_once=bool(self.teller.due))
        self.state.take_market(messages)
        self.state.take_fills(self.readers.filled())
        for name in self.state.take_portfolios(self.readers.put()):
            self.teller.forget(name, self.state.market)
        now = time.monotonic()
        self._take_place()
        if self.tells and self._is_time(messages, now):
            self._measured_at = now
            self._tell(messages, now)
        self._hear(bool(messages), now)
        if self._caught_up:
            self.state.save_when_due(now)
        self.desk.answer(self._snapshot)
        self.teller.producer.poll()
        if now >= self._lag_due:
            self._lag_due = now + LAG_EVERY_S
            self.readers.market.lag()  # sets the metric
        self.turned_at = time.monotonic()

    def _take_place(self) -> None:
        """Tells from when all that was logged before is taken in, and for as long as the seat is ours."""
        before, self._term = self._term, self.seat.term
        if self._tells and self._term != before:
            self._step_down()
        if self.without_brokers and not self.readers.away:
            LOG.info("brokers answer again")
            self.without_brokers, self._tells = "", False
        if self._catch_up is None or (self._term and self._term != before):
            # With all that another process has changed until now.
            self._catch_up = self.readers.catch_up()
        if self._term or not self._caught_up:
            self._watched_until = time.monotonic() + WATCHED_S
        elif time.monotonic() >= self._watched_until:
            self.teller.board.suspend(self.standing_by)
        if not self._tells and self._catch_up.done():
            self._caught_up = True
            self.desk.catching_up = False
            if self._term:
                self._begin()

    def _begin(self) -> None:
        """Numbers are told from now on: all of them, and what stands is what the log of alerts says."""
        with contextlib.suppress(DeliveryFailed):
            self.teller.producer.flush()
        self.teller.restore(self.logged_alerts)
        # Portfolios that were deleted while nobody was there to end what stood for them.
        for name in self.teller.alerts.unknown(self.state.books.books):
            self.teller.end_alerts(name, self.state.market)
        self.state.touch_all()
        self.teller.board.resume()
        self._tells = True

    def _step_down(self) -> None:
        """Another process tells the numbers, or nobody does yet; who watches here is told so."""
        self._tells = False
        LOG.error("%s", self.standing_by or "stood by for a moment: everything is told anew")
        self.teller.step_down(self.standing_by)

    def _is_time(self, messages: Sequence[Message[Any]], now: float) -> bool:
        """Whether to measure.

        A full batch means that more is waiting: an answer now would be old before it is sent. Yet who is
        always behind must say something. Before the first tick there is nothing to say.
        """
        behind = self.readers.is_full(messages) and now - self._measured_at < BEHIND_S_MAX
        return not behind and bool(self.state.market.clocks.source_time_ns)

    def _tell(self, messages: Sequence[Message[Any]], now: float) -> None:
        for book in self.state.measure():
            self.teller.due.add(book.held.name, book.held.owner, now)
        slow = {} if self.slow is None else self.slow.latest
        self.teller.tell_due(self.state.books, self.state.market, slow, self.state.headers)
        # Numbers may be late for records that wait to be read, and for books that wait to be told.
        unread_s = self.readers.unread_s(messages, self.teller.clock_ns())
        self.lateness.note(unread_s, self.teller.due.waited_s(time.monotonic()))
        self.teller.writer.degraded_reason = self.lateness.why

    def _stay(self, why: str, details: str) -> None:
        """Nothing can be heard or told: what is known is answered, and says how old it is and why."""
        if not self.without_brokers:
            LOG.error("%s (%s); answers go on with what is known", why, details)
        self.without_brokers, now = why, time.monotonic()
        self._age(now)
        self.desk.answer(self._snapshot)
        self.turned_at = now

    def _hear(self, heard: bool, now: float) -> None:
        """When nobody says anything any more, watchers are told how old their numbers are; alerts rise."""
        self._silence.note(heard, now)
        for older, hysteresis in self._age(now):
            if self.tells:
                self.teller.alert(older, hysteresis)

    def _age(self, now: float) -> list[tuple[RiskMetrics, float]]:
        """Tells watchers how old their numbers are, where that is due."""
        if not self._silence.is_due(now, self.teller.alerts.stale_after_ns):
            return []
        return self.teller.age(self._silence.ns(now), self.without_brokers or self.standing_by)

    def _snapshot(self) -> LiveSnapshot:
        away = self.without_brokers or self.lateness.why
        silent_ns = self._silence.ns(time.monotonic())
        return self.state.snapshot(self.teller.last, self.teller.due.__contains__, away, silent_ns)
