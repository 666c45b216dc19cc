"""A producer that never drops a record silently: bounded queue, backpressure, surfaced delivery errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError as ClientError
from confluent_kafka import KafkaException

from service_kit.kafka.connection import LOG, BrokerWatch, client_config
from service_kit.kafka.errors import DeliveryFailed, QueueFull, RecordTooLarge
from service_kit.kafka.metrics import KafkaMetrics
from service_kit.kafka.partitioning import LIBRDKAFKA_PARTITIONER
from service_kit.kafka.settings import KafkaSettings

BY_KEY = -1  # the client library's "unassigned": the partitioner decides
# How long to serve the client library before looking again whether the queue has room.
_ROOM_CHECK_S = 0.005
_FLUSH_SLICE_S = 0.25


class Producer:
    """Sends records; connects on the first send; safe to share between threads.

    Delivery is idempotent and in order per partition. A record that cannot be delivered is counted, given
    to `on_error` (called inside `send`, `poll` or `flush`) and raised by the next `flush` or `close`.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        metrics: KafkaMetrics | None = None,
        on_error: Callable[[DeliveryFailed], None] | None = None,
        gapless: bool = False,
    ) -> None:
        """`gapless`: once a record is lost nothing after it is sent; the producer must then be made anew."""
        self._gapless = gapless
        self._settings = settings.validate()
        self._metrics = KafkaMetrics() if metrics is None else metrics
        self._on_error = on_error
        self._watch = BrokerWatch(settings, self._metrics)
        self._client: confluent_kafka.Producer | None = None
        self._lock = threading.Lock()
        self._failures: list[str] = []
        self._failed = 0
        self._closed = False
        self._per_topic: dict[str, tuple[Any, Any]] = {}

    def send(
        self,
        topic: str,
        key: str | bytes | None,
        value: bytes | None,
        headers: Iterable[tuple[str, bytes]] = (),
        *,
        partition: int | None = None,
    ) -> None:
        """Queue one record; `value` None is a tombstone. Waits at most `send_wait_s_max` for room.

        `partition` None: the key's own.
        """
        client = self._connected()
        size = 0 if value is None else len(value)
        if size > self._settings.record_bytes_max:
            raise RecordTooLarge(
                f"a record of {size:,} bytes for {topic} exceeds kafka.record_bytes_max "
                f"({self._settings.record_bytes_max:,})"
            )
        pairs: Any = list(headers) or None
        deadline: float | None = None
        place = BY_KEY if partition is None else partition
        while True:
            try:
                client.produce(topic, value, key, partition=place, headers=pairs)
                break
            except BufferError:
                deadline = self._wait_for_room(client, topic, deadline)
            except KafkaException as error:
                raise self._refused(client, topic, error) from error
        self._count(topic, size)
        self._serve(client, topic, 0)

    def poll(self, timeout_s: float = 0.0) -> None:
        """Serve delivery errors without sending; raise `BrokerUnreachable` after a long silence."""
        if self._client is not None:
            client = self._client
            self._serve(client, "", timeout_s)
            self._watch.check(client.list_topics)

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until everything sent is delivered, or raise `DeliveryFailed`.

        `timeout_s` None: as long as delivery may take before the client itself gives a record up.
        """
        if self._client is not None:
            limit = self._settings.delivery_timeout_ms / 1_000 + 1.0 if timeout_s is None else timeout_s
            self._drain(self._client, limit)
        self._raise_failures()

    def close(self, timeout_s: float | None = None) -> None:
        """Flush for at most `close_wait_s_max`, give up the rest and raise when any record was lost."""
        self._closed = True
        client, self._client = self._client, None
        if client is None:
            self._raise_failures()
            return
        limit = self._settings.close_wait_s_max if timeout_s is None else timeout_s
        try:
            self._drain(client, limit)
        except DeliveryFailed as error:
            client.purge()
            client.poll(0)
            with self._lock:
                self._failures, self._failed = [], 0
            raise DeliveryFailed(f"{error}; the producer was closed and gave them up") from None
        self._raise_failures()

    def __enter__(self) -> Producer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except DeliveryFailed as lost:
            if error is None:
                raise
            # The error that ended the block matters more; the loss is logged beside it.
            LOG.error("%s", lost)

    @property
    def queued(self) -> int:
        """Records that are queued or in flight."""
        return 0 if self._client is None else len(self._client)

    def _connected(self) -> confluent_kafka.Producer:
        client = self._client
        if client is not None:
            return client
        with self._lock:
            if self._closed:
                raise DeliveryFailed("the producer is closed")
            if self._client is None:
                self._client = confluent_kafka.Producer(self._config(), logger=LOG)
                self._metrics.watch_queue(self)
            return self._client

    def _config(self) -> dict[str, Any]:
        settings = self._settings
        return client_config(settings) | {
            "linger.ms": settings.linger_ms,
            "batch.size": settings.batch_bytes_max,
            "batch.num.messages": settings.batch_records_max,
            # The limit covers keys, headers and framing too.
            "message.max.bytes": settings.record_bytes_max + 65_536,
            "queue.buffering.max.messages": settings.queue_records_max,
            "queue.buffering.max.kbytes": settings.queue_kbytes_max,
            "delivery.timeout.ms": settings.delivery_timeout_ms,
            "compression.type": settings.compression,
            "partitioner": LIBRDKAFKA_PARTITIONER,
            "enable.idempotence": True,
            "enable.gapless.guarantee": self._gapless,
            "retry.backoff.ms": 50,
            # Successes are only counted, by the client library itself: `flush` waits for its count.
            "delivery.report.only.error": True,
            "on_delivery": self._delivered,
            "error_cb": self._watch.on_error,
        }

    def _wait_for_room(self, client: confluent_kafka.Producer, topic: str, deadline: float | None) -> float:
        now = time.monotonic()
        if deadline is None:
            deadline = now + self._settings.send_wait_s_max
        if now >= deadline:
            self._metrics.queue_full.labels(topic).inc()
            limits = self._settings
            raise QueueFull(
                f"the queue to {limits.bootstrap} was full for {limits.send_wait_s_max:g} s, the record for "
                f"{topic} was not sent ({len(client):,} records wait; limits kafka.queue_records_max "
                f"{limits.queue_records_max:,}, kafka.queue_kbytes_max {limits.queue_kbytes_max:,})"
            )
        self._serve(client, topic, min(_ROOM_CHECK_S, deadline - now))
        self._metrics.backpressure_s.labels(topic).inc(time.monotonic() - now)
        return deadline

    def _serve(self, client: confluent_kafka.Producer, topic: str, timeout_s: float) -> None:
        try:
            client.poll(timeout_s)
        except KafkaException as error:
            raise self._refused(client, topic, error) from error

    def _refused(
        self, client: confluent_kafka.Producer, topic: str, error: KafkaException
    ) -> RecordTooLarge | DeliveryFailed:
        reason: ClientError = error.args[0]
        if reason.code() == ClientError.MSG_SIZE_TOO_LARGE:
            return RecordTooLarge(f"a record for {topic} with its key and headers is too large")
        why = reason.str()
        if reason.fatal() or reason.code() == ClientError._FATAL:
            why = self._give_up(client) or why
        what = f"the record for {topic} was refused" if topic else "the producer had to give up"
        return DeliveryFailed(f"{what}: {why}")

    def _give_up(self, client: confluent_kafka.Producer) -> str:
        """Part with a client that takes nothing more after a fatal error; its reason, if it tells.

        The next send makes a new client.
        """
        if self._client is client:
            self._client = None
        client.purge()
        # What waited is reported as lost, record by record, while the error itself is told again.
        why, deadline = "", time.monotonic() + _FLUSH_SLICE_S
        while len(client) and time.monotonic() < deadline:
            try:
                client.poll(_ROOM_CHECK_S)
            except KafkaException as error:
                why = error.args[0].str()
        return why

    def _delivered(self, error: ClientError | None, message: confluent_kafka.Message) -> None:
        if error is None:
            return
        topic = str(message.topic())
        why = f"{topic} at {self._settings.bootstrap}: {error.str()}"
        self._metrics.delivery_errors.labels(topic).inc()
        with self._lock:
            self._failed += 1
            if len(self._failures) < 3:
                self._failures.append(why)
        if self._on_error is not None:
            self._on_error(DeliveryFailed(f"a record was not delivered to {why}"))

    def _drain(self, client: confluent_kafka.Producer, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            # In slices, so that Ctrl-C is seen.
            wait_s = max(0.0, min(_FLUSH_SLICE_S, deadline - time.monotonic()))
            try:
                left = client.flush(wait_s)
            except KafkaException as error:
                raise self._refused(client, "", error) from error
            if left == 0:
                return
            if time.monotonic() >= deadline:
                where = self._settings.bootstrap
                raise DeliveryFailed(f"{left:,} records were not delivered to {where} within {timeout_s:g} s")

    def _raise_failures(self) -> None:
        with self._lock:
            failures, failed = self._failures, self._failed
            self._failures, self._failed = [], 0
        if failed:
            raise DeliveryFailed(f"{failed:,} records were not delivered: {'; '.join(failures)}")

    def _count(self, topic: str, size: int) -> None:
        counters = self._per_topic.get(topic)
        if counters is None:
            counters = (self._metrics.records_out.labels(topic), self._metrics.bytes_out.labels(topic))
            self._per_topic[topic] = counters
        counters[0].inc()
        counters[1].inc(size)
