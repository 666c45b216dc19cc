"""orders.incoming in, orders.executed out: one `VenuePartition` for each partition that is held.

A partition that is taken is restored from the newest snapshot that can be trusted and the log after it, or
from the log's beginning; one that is given up is settled and saved first: its next owner starts from there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from book_service.order_events import OrderEvents
from book_service.service_metrics import BookMetrics
from book_service.venue import Listed, warm_up
from book_service.venue_partition import VenuePartition
from protos.book.v1.book_pb2 import Book
from service_kit.errors import Unavailable
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.errors import ConsumerFailed, ProducerFenced
from service_kit.kafka.partitioning import partition_of
from service_kit.kafka.records import Message, Partition
from service_kit.lifecycle import Stop
from service_kit.telemetry.traces import Headers, Traces

LOG = logging.getLogger("gpu_risk.book_service")


@dataclass(slots=True)
class VenueLoop:
    """Runs in one thread; `book` may be called from any."""

    make: Callable[[Partition], VenuePartition]
    listed: tuple[Listed, ...]
    metrics: BookMetrics
    partitions: int
    poll_records_max: int
    poll_wait_s: float
    commit_every_s: float
    snapshot_every_s: float = 60.0
    # Executions become visible, with their offsets, when they are settled: that is then after every round.
    transactional: bool = False
    traces: Traces = field(default_factory=Traces.off)
    consumer: Consumer[OrderEvents] = field(init=False)
    _venues: dict[int, VenuePartition] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _leaving: bool = False
    _settled_at_s: float = 0.0
    _saved_at_s: float = field(default_factory=time.monotonic)

    def taken(self, partitions: list[Partition]) -> Mapping[Partition, int]:
        """New partitions: where each is to be read from."""
        self._close(list(self._venues))
        starts: dict[Partition, int] = {}
        for one in partitions:
            venue = self.make(one)
            try:
                starts[one] = venue.open(partial(self._committed, one))
            except BaseException:
                venue.close()
                raise
            with self._lock:
                self._venues[one.partition] = venue
        return starts

    def _committed(self, partition: Partition) -> int:
        return self.consumer.committed([partition]).get(partition, 0)

    def given_up(self, partitions: list[Partition], lost: bool) -> None:
        """Partitions that another takes over, or (`lost`) has taken over already."""
        if not lost:
            self._leaving = True  # no need to join anew for partitions that go anyhow
            try:
                self._settle()
            finally:
                self._leaving = False
            self._save()
        self._close([one.partition for one in partitions])

    def run(self, stop: Stop) -> None:
        """Until told to stop; what was read is then settled and saved."""
        # The core may have to be compiled first: market data and calls need not wait for that.
        warm_up()
        try:
            while not stop.is_set():
                self.turn()
            self._settle()
            self._save()
        finally:
            self._close(list(self._venues))

    def turn(self) -> None:
        """One round."""
        for message in self.consumer.poll(self.poll_records_max, self.poll_wait_s):
            self._match(message)
        now = time.monotonic()
        if self.transactional or now - self._settled_at_s >= self.commit_every_s:
            self._settle()
        if now - self._saved_at_s >= self.snapshot_every_s:
            self._settle()
            self._save()

    def book(self, symbol: str, levels: int) -> Book | None:
        """Depth of an instrument as its partition has it; None where it is not traded here."""
        if all(symbol != one.symbol for one in self.listed):
            return None
        with self._lock:
            held = self._venues.get(partition_of(symbol, self.partitions))
            if held is None or not held.rebuilt:
                raise Unavailable(f"the book of {symbol} is not held here, or not yet rebuilt", 1.0)
            return held.venue.book(symbol, levels)

    def _match(self, message: Message[OrderEvents]) -> None:
        record = message.record
        held = self._venues.get(record.partition)
        if held is None:
            return  # shut out a moment ago: its next owner reads it
        with self._lock:
            executions = held.apply(record, message.value)
        if not held.is_new(record.offset):
            self._unless_fenced(held, lambda: held.publish(record, executions))
            return
        self.metrics.orders.inc(len(message.value.rows))
        self.metrics.reports.inc(len(executions.kind))
        with self.traces.span("match", record.headers) as span:
            headers: Headers = []
            span.inject(headers)
            self._unless_fenced(held, lambda: held.publish(record, executions, headers))

    def _settle(self) -> None:
        """Everything sent is there for good; then the group's offsets follow."""
        self._settled_at_s = time.monotonic()
        busy = [held for held in self._venues.values() if held.unsettled]
        for held in busy:
            self._unless_fenced(held, held.settle)
        if busy:
            self._commit()
            self.consumer.lag()  # sets the metric

    def _commit(self) -> None:
        # Transactions carry their own offsets.
        if self.transactional:
            return
        # A partition that is still being replayed must not be committed backwards.
        ahead = {
            one: at
            for one, at in self.consumer.position().items()
            if one.partition in self._venues and at >= self._venues[one.partition].published_to
        }
        try:
            self.consumer.commit(ahead)
        except ConsumerFailed as fault:
            # Recovery reads the end of the output; the offsets are for whoever watches the lag.
            LOG.warning("%s", fault)

    def _save(self) -> None:
        self._saved_at_s = time.monotonic()
        for held in self._venues.values():
            held.snapshot()

    def _unless_fenced(self, held: VenuePartition, work: Callable[[], None]) -> None:
        """Another process has taken the partition over while this one was away: join the group anew."""
        try:
            work()
        except ProducerFenced as fault:
            LOG.warning("%s; another process has taken %s[%d] over", fault, *held.home)
            self._close([held.home.partition])
            if not self._leaving:
                self.consumer.rejoin()

    def _close(self, partitions: list[int]) -> None:
        for partition in partitions:
            with self._lock:
                held = self._venues.pop(partition, None)
            if held is not None:
                held.close()
