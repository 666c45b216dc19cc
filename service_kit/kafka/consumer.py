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

from service_kit.kafka.connection import LOG, BrokerWatch, client_config
from service_kit.kafka.dead_letters import DeadLetters
from service_kit.kafka.errors import ConsumerFailed
from service_kit.kafka.metrics import KafkaMetrics
from service_kit.kafka.producer import Producer
from service_kit.kafka.records import COMMITTED, Message, Partition, Record
from service_kit.kafka.settings import KafkaSettings

T = TypeVar("T")
Start = Literal["earliest", "latest"]
# Given the new partitions; may return offsets to start at, for instance those of a snapshot.
OnAssign = Callable[[list[Partition]], Mapping[Partition, int] | None]
# Given the partitions that go; the last moment to commit for them. `lost`: too late to commit.
OnRevoke = Callable[[list[Partition], bool], None]

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
        self._on_assign = on_assign
        self._on_revoke = on_revoke
        self._read_committed = read_committed
        self._watch = BrokerWatch(settings, self._metrics)
        self._client: confluent_kafka.Consumer | None = None
        self._closed = False
        # The next offset to read of each partition from which something was read.
        self._positions: dict[Partition, int] = {}
        self._assigned: set[Partition] = set()
        # Where the partitions begin that the group has given during the call of `poll` that runs.
        self._starts: list[TopicPartition] = []

    def assign(self, partitions: Mapping[Partition, int] | Iterable[Partition]) -> None:
        """Read exactly these partitions, each from its offset (a number, BEGINNING, END or COMMITTED)."""
        if not isinstance(partitions, Mapping):
            partitions = dict.fromkeys(partitions, COMMITTED)
        client = self._connected(subscribe=False)
        self._positions.clear()
        self._assigned = set(partitions)
        client.assign([TopicPartition(one.topic, one.partition, at) for one, at in partitions.items()])

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
            self._subscribe(client)
        except KafkaException as error:
            raise ConsumerFailed(f"group {self._group}: {error.args[0].str()}") from error

    def position(self) -> dict[Partition, int]:
        """The next offset of each assigned partition from which something was read."""
        return {one: at for one, at in self._positions.items() if one in self._assigned}

    def assignment(self) -> set[Partition]:
        """The partitions that this consumer reads now."""
        return set(self._assigned)

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
        self._positions.pop(partition, None)
        if offset >= 0:
            self._positions[partition] = offset

    def close(self) -> None:
        """Leave the group; nothing is committed."""
        self._closed = True
        client, self._client = self._client, None
        self._assigned = set()
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
                self._subscribe(self._client)
        return self._client

    def _subscribe(self, client: confluent_kafka.Consumer) -> None:
        client.subscribe(self._topics, on_assign=self._given, on_revoke=self._taken, on_lost=self._lost)

    def _config(self) -> dict[str, Any]:
        settings = self._settings
        named = {"group.instance.id": settings.group_instance_id} if settings.group_instance_id else {}
        return (
            client_config(settings)
            | named
            | {
                "group.id": self._group,
                "auto.offset.reset": self._start,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "isolation.level": "read_committed" if self._read_committed else "read_uncommitted",
                # Equal partition numbers of two topics go to the same member: book_service joins by them.
                "partition.assignment.strategy": "range",
                # The end of a partition is reported, so that control records do not look like lag.
                "enable.partition.eof": True,
                "session.timeout.ms": settings.session_timeout_ms,
                "heartbeat.interval.ms": min(1_000, settings.session_timeout_ms // 3),
                "max.poll.interval.ms": settings.poll_interval_ms_max,
                "fetch.min.bytes": 1,
                "fetch.wait.max.ms": settings.fetch_wait_ms_max,
                "fetch.max.bytes": max(settings.fetch_bytes_max, settings.record_bytes_max + 65_536),
                "message.max.bytes": settings.record_bytes_max + 65_536,
                "queued.max.messages.kbytes": settings.fetch_queue_kbytes_max,
                # Records are large batches: a few thousand in the queue are plenty, and when the queue is
                # full a fetch is tried again soon instead of after the default second.
                "queued.min.messages": 2_000,
                "fetch.queue.backoff.ms": 5,
                "fetch.error.backoff.ms": 50,
                "error_cb": self._watch.on_error,
            }
        )

    def _fetch(self, client: confluent_kafka.Consumer, max_records: int, timeout_s: float) -> list[_Raw]:
        # `consume(n)` waits for n records; so wait for one, then take what has arrived with it.
        self._starts = []
        raw = client.consume(1, timeout_s)
        if raw and max_records > 1:
            raw += client.consume(max_records - 1, 0)
        return [one for one in self._in_order(client, raw) if self._is_record(one)]

    def _in_order(self, client: confluent_kafka.Consumer, raw: list[_Raw]) -> list[_Raw]:
        """Without what was read of a partition before it was given anew in this call, from another offset."""
        restarted = {(one.topic, one.partition) for one in self._starts if one.offset != COMMITTED}
        kept = [one for one in raw if (one.topic(), one.partition()) not in restarted]
        if len(kept) < len(raw):
            client.assign(self._starts)
        return kept

    def _is_record(self, message: _Raw) -> bool:
        error = message.error()
        if error is None:
            return True
        if error.code() == ClientError._PARTITION_EOF:
            self._watch.heard()
            at = Partition(message.topic(), message.partition())
            self._positions[at] = max(message.offset(), self._positions.get(at, 0))
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
                if at not in self._assigned:
                    continue  # revoked while the batch was gathered: its new owner reads it
                after[at] = one.offset() + 1
                try:
                    record = _record(one)
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
        self._positions.update(after)
        self._count(raw)
        return messages

    def _rewind(self, raw: list[_Raw]) -> None:
        first: dict[Partition, int] = {}
        for one in raw:
            first.setdefault(Partition(one.topic(), one.partition()), one.offset())
        for at, offset in first.items():
            if at in self._assigned:
                self.seek(at, offset)

    def _count(self, raw: list[_Raw]) -> None:
        totals: dict[str, tuple[int, int]] = {}
        for one in raw:
            records, size = totals.get(one.topic(), (0, 0))
            totals[one.topic()] = (records + 1, size + len(one.value() or b""))
        for topic, (records, size) in totals.items():
            self._metrics.records_in.labels(topic).inc(records)
            self._metrics.bytes_in.labels(topic).inc(size)

    def _given(self, client: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        given = [Partition(one.topic, one.partition) for one in partitions]
        self._assigned = set(given)
        for one in given:
            self._positions.pop(one, None)
        offsets = (self._on_assign(given) if self._on_assign else None) or {}
        if offsets:
            self._starts = [
                TopicPartition(one.topic, one.partition, offsets.get(one, COMMITTED)) for one in given
            ]
            client.assign(self._starts)

    def _taken(self, client: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        self._drop(partitions, lost=False)

    def _lost(self, client: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        self._drop(partitions, lost=True)

    def _drop(self, partitions: list[TopicPartition], *, lost: bool) -> None:
        gone = [Partition(one.topic, one.partition) for one in partitions]
        if self._on_revoke is not None:
            self._on_revoke(gone, lost)
        for one in gone:
            self._assigned.discard(one)
            self._positions.pop(one, None)


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


def _record(message: _Raw) -> Record:
    value = message.value()
    _, timestamp_ms = message.timestamp()
    return Record(
        topic=message.topic(),
        partition=message.partition(),
        offset=message.offset(),
        # Values name their symbol or portfolio themselves, so a strange key spoils nothing.
        key=(message.key() or b"").decode("utf-8", "replace"),
        value=value or b"",
        headers=tuple((name, content or b"") for name, content in message.headers() or ()),
        timestamp_ms=timestamp_ms,
        tombstone=value is None,
    )
