"""A consumer of decoded records: explicit commits, poison records set aside, exact positions and lag."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Generic, Literal, TypeVar

import confluent_kafka
from confluent_kafka import KafkaError as ClientError
from confluent_kafka import KafkaException, TopicPartition
from google.protobuf.message import DecodeError

from service_kit.kafka.assignment import Assignment, OnAssign, OnRevoke
from service_kit.kafka.connection import LOG, BrokerWatch, member_config
from service_kit.kafka.dead_letters import DeadLetters
from service_kit.kafka.errors import ConsumerFailed
from service_kit.kafka.metrics import KafkaMetrics
from service_kit.kafka.producer import Producer
from service_kit.kafka.records import COMMITTED, Message, Partition, Record
from service_kit.kafka.settings import KafkaSettings

T = TypeVar("T")
Start = Literal["earliest", "latest"]
Accept = Callable[[T, Record], None]

# The client library's own message: its stubs type every field as optional.
_Raw = Any

# A wait for records is cut into slices, so that Ctrl-C and a silent cluster are noticed.
_SLICE_S = 0.25
_REQUEST_S = 10.0


class Consumer(Generic[T]):
    """Reads topics as a member of a group, or fixed partitions after `assign`; connects on first use.

    `decode` turns a value into a T and raises ValueError or protobuf's DecodeError for bytes that it cannot
    read; such a record goes to the dead letters (only logged and counted when there is no producer for
    them) and reading goes on. Offsets are committed only by `commit`. Not to be shared between threads.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topics: Iterable[str],
        group: str,
        decode: Callable[[bytes], T],
        dead_letters: Producer | None = None,
        *,
        start: Start = "earliest",
        on_assign: OnAssign | None = None,
        on_revoke: OnRevoke | None = None,
        accept: Accept[T] | None = None,
        read_committed: bool = True,
        metrics: KafkaMetrics | None = None,
    ) -> None:
        """`accept` raises ValueError for a record that is readable and yet must not be taken."""
        self._settings = settings.validate()
        self._topics = list(topics)
        self._group = group
        self._decode = decode
        self._accept = accept
        self._metrics = KafkaMetrics() if metrics is None else metrics
        self._dead_letters = DeadLetters(settings, group, dead_letters, self._metrics)
        self._start = start
        self._assignment = Assignment(on_assign, on_revoke)
        self._read_committed = read_committed
        self._watch = BrokerWatch(settings, self._metrics)
        self._client: confluent_kafka.Consumer | None = None
        self._closed = False

    def assign(self, partitions: Mapping[Partition, int] | Iterable[Partition]) -> None:
        """Read exactly these partitions, each from its offset (a number, BEGINNING, END or COMMITTED)."""
        if not isinstance(partitions, Mapping):
            partitions = dict.fromkeys(partitions, COMMITTED)
        self._assignment.fix(self._connected(subscribe=False), partitions)

    def poll(self, max_records: int = 500, timeout_s: float = 0.1) -> list[Message[T]]:
        """Up to `max_records` messages; returns as soon as there is any, or empty after `timeout_s`.

        Either the whole batch is returned or, on any error, the position stays before it.
        """
        client = self._connected(subscribe=True)
        deadline = time.monotonic() + timeout_s
        while True:
            left = max(0.0, deadline - time.monotonic())
            records = self._fetch(client, max_records, min(left, _SLICE_S))
            if records:
                messages = self._decoded(records)
                # A batch of nothing but poison is no reason to return early.
                if messages:
                    return messages
            self._watch.check(client.list_topics)
            if time.monotonic() >= deadline:
                return []

    @property
    def away(self) -> bool:
        """Whether no broker has answered lately."""
        return self._watch.down

    def commit(self, positions: Mapping[Partition, int] | None = None) -> None:
        """Commit the given offsets, or everything that `poll` has returned; waits for the broker."""
        chosen = self.position() if positions is None else positions
        if not chosen:
            return
        offsets = [TopicPartition(one.topic, one.partition, at) for one, at in chosen.items()]
        try:
            results = self._connected(subscribe=True).commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            raise ConsumerFailed(f"group {self._group}: commit failed: {error.args[0].str()}") from error
        for result in results or ():
            if result.error is not None:
                raise ConsumerFailed(
                    f"group {self._group}: commit of {result.topic}[{result.partition}] "
                    f"at {result.offset} failed: {result.error.str()}"
                )

    def rejoin(self) -> None:
        """Gives every partition up and joins the group anew, in the next calls of `poll`."""
        client = self._connected(subscribe=True)
        try:
            client.unsubscribe()
            self._assignment.subscribe(client, self._topics)
        except KafkaException as error:
            raise ConsumerFailed(f"group {self._group}: {error.args[0].str()}") from error

    def position(self) -> dict[Partition, int]:
        """The next offset of each assigned partition from which something was read."""
        return self._assignment.position()

    def assignment(self) -> set[Partition]:
        """The partitions that this consumer reads now."""
        return set(self._assignment.partitions)

    def committed(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The group's committed offsets; partitions without one are left out."""
        asked = [TopicPartition(one.topic, one.partition) for one in partitions]
        try:
            found = self._connected(subscribe=True).committed(asked, timeout=_REQUEST_S)
        except KafkaException as error:
            raise ConsumerFailed(f"group {self._group}: {error.args[0].str()}") from error
        return {Partition(one.topic, one.partition): one.offset for one in found if one.offset >= 0}

    def ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The end offset of each partition (next to be written), asked of the broker."""
        return {one: end for one, (_, end) in self.bounds(partitions).items()}

    def bounds(self, partitions: Iterable[Partition]) -> dict[Partition, tuple[int, int]]:
        """The first offset that each partition still holds and its end, asked of the broker."""
        client = self._connected(subscribe=bool(self._topics))
        out: dict[Partition, tuple[int, int]] = {}
        for one in partitions:
            try:
                out[one] = client.get_watermark_offsets(
                    TopicPartition(one.topic, one.partition), timeout=_REQUEST_S
                )
            except KafkaException as error:
                raise ConsumerFailed(f"{one.topic}[{one.partition}]: {error.args[0].str()}") from error
        return out

    def group_metadata(self) -> object:
        """Who this member is now, for a transaction that commits its offsets; ask anew for each."""
        return self._connected(subscribe=True).consumer_group_metadata()

    def lag(self) -> dict[Partition, int]:
        """Records still to read, as far as the last fetch told; partitions not yet read from are left out."""
        out: dict[Partition, int] = {}
        if self._client is None:
            return out
        for one, at in self.position().items():
            _, end = self._client.get_watermark_offsets(TopicPartition(one.topic, one.partition), cached=True)
            if end >= 0:
                out[one] = max(0, end - at)
                self._metrics.lag.labels(self._group, one.topic, str(one.partition)).set(out[one])
        return out

    def seek(self, partition: Partition, offset: int) -> None:
        """Go on reading an assigned partition at that offset (or BEGINNING or END)."""
        client = self._connected(subscribe=True)
        try:
            client.seek(TopicPartition(partition.topic, partition.partition, offset))
        except KafkaException as error:
            raise ConsumerFailed(
                f"cannot seek {partition.topic}[{partition.partition}] to {offset}: {error.args[0].str()}"
            ) from error
        self._assignment.sought(partition, offset)

    def close(self) -> None:
        """Leave the group; nothing is committed."""
        self._closed = True
        client, self._client = self._client, None
        self._assignment.clear()
        if client is not None:
            client.close()

    def __enter__(self) -> Consumer[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connected(self, *, subscribe: bool) -> confluent_kafka.Consumer:
        if self._client is None:
            if self._closed:
                raise ConsumerFailed("the consumer is closed")
            self._client = confluent_kafka.Consumer(self._config(), logger=LOG)
            if subscribe:
                if not self._topics:
                    raise ConsumerFailed("no topics to subscribe to; give topics or call assign()")
                self._assignment.subscribe(self._client, self._topics)
        return self._client

    def _config(self) -> dict[str, Any]:
        return member_config(self._settings, self._group) | {
            "auto.offset.reset": self._start,
            "enable.auto.offset.store": False,
            "isolation.level": "read_committed" if self._read_committed else "read_uncommitted",
            # Equal partition numbers of two topics go to the same member: book_service joins by them.
            "partition.assignment.strategy": "range",
            # The end of a partition is reported, so that control records do not look like lag.
            "enable.partition.eof": True,
            "error_cb": self._watch.on_error,
        }

    def _fetch(self, client: confluent_kafka.Consumer, max_records: int, timeout_s: float) -> list[_Raw]:
        # `consume(n)` waits for n records; so wait for one, then take what has arrived with it.
        self._assignment.begin_poll()
        raw = client.consume(1, timeout_s)
        if raw and max_records > 1:
            raw += client.consume(max_records - 1, 0)
        return [one for one in self._assignment.in_order(client, raw) if self._is_record(one)]

    def _is_record(self, message: _Raw) -> bool:
        error = message.error()
        if error is None:
            return True
        if error.code() == ClientError._PARTITION_EOF:
            self._watch.heard()
            self._assignment.reached_end(Partition(message.topic(), message.partition()), message.offset())
        elif error.fatal() or error.code() in REFUSALS:
            raise ConsumerFailed(f"group {self._group}: {error.str()}")
        else:
            self._metrics.client_errors.labels(error.name()).inc()
            LOG.warning("kafka consumer of group %s: %s", self._group, error.str())
        return False

    def _decoded(self, raw: list[_Raw]) -> list[Message[T]]:
        self._watch.heard()
        messages: list[Message[T]] = []
        after: dict[Partition, int] = {}
        try:
            for one in raw:
                at = Partition(one.topic(), one.partition())
                if at not in self._assignment.partitions:
                    continue  # revoked while the batch was gathered: its new owner reads it
                after[at] = one.offset() + 1
                try:
                    record = Record.of(one)
                    value = self._decode(record.value)
                    if self._accept is not None:
                        self._accept(value, record)
                    messages.append(Message(value, record))
                except (ValueError, DecodeError) as error:
                    self._dead_letters.put(one, error)
            self._dead_letters.flush()
        except BaseException:
            self._rewind(raw)
            raise
        self._assignment.advance(after)
        self._count(raw)
        return messages

    def _rewind(self, raw: list[_Raw]) -> None:
        first: dict[Partition, int] = {}
        for one in raw:
            first.setdefault(Partition(one.topic(), one.partition()), one.offset())
        for at, offset in first.items():
            if at in self._assignment.partitions:
                self.seek(at, offset)

    def _count(self, raw: list[_Raw]) -> None:
        totals: dict[str, tuple[int, int]] = {}
        for one in raw:
            records, size = totals.get(one.topic(), (0, 0))
            totals[one.topic()] = (records + 1, size + len(one.value() or b""))
        for topic, (records, size) in totals.items():
            self._metrics.records_in.labels(topic).inc(records)
            self._metrics.bytes_in.labels(topic).inc(size)


# Errors that come back until somebody changes something outside this process.
REFUSALS = frozenset(
    {
        ClientError._FATAL,  # as where another process has taken over under the same name
        ClientError._AUTHENTICATION,
        ClientError.GROUP_AUTHORIZATION_FAILED,
        ClientError.TOPIC_AUTHORIZATION_FAILED,
        ClientError.INCONSISTENT_GROUP_PROTOCOL,
        ClientError.INVALID_SESSION_TIMEOUT,
    }
)
