"""orders.incoming in, orders.executed out. The books are rebuilt from the log whenever a partition is taken.

A partition is read from its beginning, so that its venue is a function of the whole log; what lies before the
committed offset was published by whoever held the partition then, and is not published again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from book_service.matching import Controls
from book_service.order_events import OrderEvents
from book_service.service_metrics import BookMetrics
from book_service.venue import Listed, Venue, warm_up
from protos import topics
from protos.book.v1.book_pb2 import Book
from protos.market.v1.market_pb2 import Origin
from protos.orders.v1.orders_pb2 import ACTION_CONTROL, REPORT_KIND_CANCELLED, ExecutionBatch
from service_kit.errors import Unavailable
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.partitioning import partition_of
from service_kit.kafka.producer import Producer
from service_kit.kafka.records import BEGINNING, Message, Partition
from service_kit.lifecycle import Stop
from service_kit.telemetry.traces import Headers, Traces

COMMANDS_REMEMBERED = 1_000


@dataclass(slots=True)
class VenueLoop:
    """Runs in one thread; `book` may be called from any."""

    producer: Producer
    listed: tuple[Listed, ...]
    controls: Controls | None
    metrics: BookMetrics
    partitions: int
    poll_records_max: int
    poll_wait_s: float
    commit_every_s: float
    traces: Traces = field(default_factory=Traces.off)
    consumer: Consumer[OrderEvents] = field(init=False)
    _venues: dict[int, Venue] = field(default_factory=dict)
    _published_to: dict[int, int] = field(default_factory=dict)
    _lock: threading.Condition = field(default_factory=threading.Condition)
    # Orders that each recent control command cancelled, for the calls that wait for it.
    _commands: dict[tuple[int, int], int] = field(default_factory=dict)
    _uncommitted: bool = False
    _committed_at_s: float = 0.0

    def taken(self, partitions: list[Partition]) -> Mapping[Partition, int]:
        """New partitions: their venues begin empty, at the beginning of their logs."""
        committed = self.consumer.committed(partitions)
        with self._lock:
            for one in partitions:
                self._venues[one.partition] = Venue(self.listed, self.controls)
                self._published_to[one.partition] = committed.get(one, 0)
        return dict.fromkeys(partitions, BEGINNING)

    def given_up(self, partitions: list[Partition], lost: bool) -> None:
        """Partitions that another takes over."""
        if not lost:
            self._commit()
        with self._lock:
            for one in partitions:
                self._venues.pop(one.partition, None)

    def run(self, stop: Stop) -> None:
        """Until told to stop; what was read is then sent and committed."""
        # The core may have to be compiled first: market data and calls need not wait for that.
        warm_up()
        while not stop.is_set():
            self.turn()
        self._commit()

    def turn(self) -> None:
        """One round."""
        for message in self.consumer.poll(self.poll_records_max, self.poll_wait_s):
            self._match(message)
        self.producer.poll()
        if self._uncommitted and time.monotonic() - self._committed_at_s >= self.commit_every_s:
            self._commit()

    def book(self, symbol: str, levels: int) -> Book | None:
        """Depth of an instrument as its partition has it; None where it is not traded here."""
        if all(symbol != one.symbol for one in self.listed):
            return None
        with self._lock:
            venue = self._venues.get(partition_of(symbol, self.partitions))
            if venue is None:
                raise Unavailable(f"the book of {symbol} is not held here, or not yet rebuilt", 1.0)
            return venue.book(symbol, levels)

    def wait_for_command(self, origin: Origin, within_s: float) -> int:
        """Orders that a logged command cancelled, once its partition has applied it."""
        place = (origin.partition, origin.offset)
        with self._lock:
            if not self._lock.wait_for(lambda: place in self._commands, within_s):
                raise Unavailable(
                    f"the command is logged (partition {place[0]}, offset {place[1]}), not yet applied here"
                )
            return self._commands[place]

    def _match(self, message: Message[OrderEvents]) -> None:
        record = message.record
        origin = Origin(topic=record.topic, partition=record.partition, offset=record.offset)
        with self._lock:
            executions = self._venues[record.partition].apply(message.value, origin)
            if (message.value.rows["action"] == ACTION_CONTROL).any():
                self._note_command(origin, executions)
        if record.offset < self._published_to[record.partition]:
            return
        self.metrics.orders.inc(len(message.value.rows))
        self.metrics.reports.inc(len(executions.kind))
        with self.traces.span("match", record.headers) as span:
            headers: Headers = []
            span.inject(headers)
            self.producer.send(topics.ORDERS_EXECUTED, record.key, executions.SerializeToString(), headers)
        self._uncommitted = True

    def _note_command(self, origin: Origin, executions: ExecutionBatch) -> None:
        cancelled = sum(kind == REPORT_KIND_CANCELLED for kind in executions.kind)
        self._commands[origin.partition, origin.offset] = cancelled
        while len(self._commands) > COMMANDS_REMEMBERED:
            del self._commands[next(iter(self._commands))]
        self._lock.notify_all()

    def _published(self, partition: Partition) -> int:
        return self._published_to.get(partition.partition, 0)

    def _commit(self) -> None:
        if self._uncommitted:
            self.producer.flush()
            # A partition that is still being replayed must not be committed backwards.
            ahead = {one: at for one, at in self.consumer.position().items() if at > self._published(one)}
            self.consumer.commit(ahead)
            self.consumer.lag()  # sets the metric
        self._uncommitted = False
        self._committed_at_s = time.monotonic()
