"""orders.executed and orders.incoming on Kafka, as one partition of the venue uses them.

The executions of a partition go to the partition of the same number, so that its end tells how far they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from book_service.audit import MARK_HEADER, Mark
from book_service.venue_partition import VENUE_HEADER, Headers, Output, OutputFailed, Published
from protos import topics
from protos.orders.v1.orders_pb2 import ExecutionBatch
from service_kit.kafka.errors import DeliveryFailed, QueueFull
from service_kit.kafka.lookup import LogLookup
from service_kit.kafka.metrics import KafkaMetrics
from service_kit.kafka.producer import Producer
from service_kit.kafka.records import Partition, Record
from service_kit.kafka.settings import KafkaSettings
from service_kit.kafka.transactions import TransactionalProducer


@dataclass(frozen=True, slots=True)
class KafkaInputLog:
    """One partition of orders.incoming."""

    lookup: LogLookup
    home: Partition

    def bounds(self) -> tuple[int, int]:
        """The first offset that is still there, and the end."""
        return self.lookup.bounds(self.home)

    def record_at(self, offset: int) -> Record | None:
        """The record at an offset."""
        return self.lookup.record_at(self.home, offset)


def last_published(lookup: LogLookup, partition: int) -> Published | None:
    """The last batch on a partition of orders.executed that the venue of that partition has made."""

    def ours(record: Record) -> Published | None:
        try:
            origin = ExecutionBatch.FromString(record.value).origin
        except DecodeError:
            return None
        if (origin.topic, origin.partition) != (topics.ORDERS_INCOMING, partition):
            return None
        venue = dict(record.headers).get(VENUE_HEADER, b"").decode("ascii", "replace")
        return Published(origin.offset, record.value, venue)

    return lookup.last(Partition(topics.ORDERS_EXECUTED, partition), ours)


def audit_mark(lookup: LogLookup, partition: int) -> Mark | None:
    """The latest mark of a partition's audit log that was published."""

    def marked(record: Record) -> Mark | None:
        value = dict(record.headers).get(MARK_HEADER)
        return None if value is None else Mark.from_bytes(value)

    return lookup.last(Partition(topics.ORDERS_EXECUTED, partition), marked)


@dataclass(slots=True)
class PlainOutput(Output):
    """Idempotent sends in order, without transactions. Writers that were declared dead are not shut out."""

    settings: KafkaSettings
    lookup: LogLookup
    partition: int
    metrics: KafkaMetrics | None = None
    _producer: Producer | None = None

    def open(self) -> Published | None:
        """A new client: what the old one had not delivered is given up."""
        self.close()
        self._producer = Producer(self.settings, metrics=self.metrics, gapless=True)
        return last_published(self.lookup, self.partition)

    def send(self, key: str, value: bytes, headers: Headers) -> None:
        """Queues a batch."""
        try:
            self._opened().send(topics.ORDERS_EXECUTED, key, value, headers, partition=self.partition)
        except (DeliveryFailed, QueueFull) as fault:
            raise OutputFailed(str(fault)) from fault

    def settle(self, next_offset: int) -> None:
        """Returns when every in-sync replica has all that was sent."""
        try:
            self._opened().flush()
        except DeliveryFailed as fault:
            raise OutputFailed(str(fault)) from fault

    def close(self) -> None:
        """Gives up what is not delivered."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(DeliveryFailed):
                producer.close(0.0)

    def _opened(self) -> Producer:
        if self._producer is None:
            raise OutputFailed("the output is not open")
        return self._producer


@dataclass(slots=True)
class TransactionalOutput(Output):
    """Executions and the offset of their orders in one transaction; a later owner shuts out an earlier."""

    settings: KafkaSettings
    lookup: LogLookup
    home: Partition
    transactional_id: str
    group: Callable[[], object]  # the consumer's group metadata, asked anew for each transaction
    _producer: TransactionalProducer = field(init=False)

    def __post_init__(self) -> None:
        self._producer = TransactionalProducer(self.settings, self.transactional_id)

    def open(self) -> Published | None:
        """Ends what an earlier owner left open, then reads."""
        try:
            self._producer.open()
        except DeliveryFailed as fault:
            raise OutputFailed(str(fault)) from fault
        return last_published(self.lookup, self.home.partition)

    def send(self, key: str, value: bytes, headers: Headers) -> None:
        """Adds a batch to the transaction."""
        try:
            self._producer.send(topics.ORDERS_EXECUTED, key, value, headers, partition=self.home.partition)
        except DeliveryFailed as fault:
            raise OutputFailed(str(fault)) from fault

    def settle(self, next_offset: int) -> None:
        """Commits."""
        try:
            self._producer.commit({self.home: next_offset}, self.group())
        except DeliveryFailed as fault:
            raise OutputFailed(str(fault)) from fault

    def close(self) -> None:
        """Aborts what is not committed."""
        self._producer.close()
