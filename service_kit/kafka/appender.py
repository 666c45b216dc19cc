"""Appends a record and waits until the brokers have it, for answers that promise exactly that."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import confluent_kafka
from confluent_kafka import KafkaError as ClientError
from confluent_kafka import KafkaException

from service_kit.kafka.connection import LOG, client_config
from service_kit.kafka.errors import DeliveryFailed, RecordTooLarge
from service_kit.kafka.partitioning import LIBRDKAFKA_PARTITIONER
from service_kit.kafka.settings import KafkaSettings

_POLL_S = 0.02
_BY_KEY = -1  # the client library's "unassigned": the partitioner decides


@dataclass(slots=True)
class _Receipt:
    partition: int = -1
    offset: int = -1
    error: str = ""
    done: threading.Event = field(default_factory=threading.Event)

    def on_delivery(self, error: ClientError | None, message: confluent_kafka.Message) -> None:
        if error is None:
            self.partition, self.offset = message.partition() or 0, message.offset() or 0
        else:
            self.error = error.str()
        self.done.set()


class Appender:
    """A client of its own with a receipt for every record; safe to share between threads."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings.validate()
        self._client: confluent_kafka.Producer | None = None
        self._lock = threading.Lock()

    def append(
        self, topic: str, key: str, value: bytes | None, partition: int | None = None
    ) -> tuple[int, int]:
        """Partition and offset of the record, once every in-sync replica has it; or DeliveryFailed.

        `partition` None: the key's own. RecordTooLarge: it could never be delivered, and nothing was sent.
        """
        size, most = 0 if value is None else len(value), self._settings.record_bytes_max
        if size > most:
            raise RecordTooLarge(
                f"a record of {size:,} bytes for {topic} exceeds kafka.record_bytes_max ({most:,})"
            )
        client, receipt = self._connected(), _Receipt()
        # The client gives every record up by itself after its delivery timeout.
        deadline = time.monotonic() + self._settings.delivery_timeout_ms / 1e3 + 1.0
        try:
            client.produce(
                topic,
                value,
                key,
                partition=_BY_KEY if partition is None else partition,
                on_delivery=receipt.on_delivery,
            )
        except (BufferError, KafkaException) as error:
            raise DeliveryFailed(f"the record for {topic} was refused: {error}") from error
        while not receipt.done.is_set():
            self._poll(client)
            if time.monotonic() > deadline:
                raise DeliveryFailed(f"no receipt for a record of {topic}: it may or may not be in the log")
        if receipt.error:
            raise DeliveryFailed(f"the record for {topic} was not delivered: {receipt.error}")
        return receipt.partition, receipt.offset

    def _poll(self, client: confluent_kafka.Producer) -> None:
        """Runs the callbacks that are due, of whichever thread's records."""
        try:
            client.poll(_POLL_S)
        except KafkaException as error:
            # A fatal error: this client takes nothing more, the next append makes a new one.
            with self._lock:
                if self._client is client:
                    self._client = None
            raise DeliveryFailed(f"the client failed: {error.args[0].str()}") from error

    def close(self) -> None:
        """Waits shortly for what is under way and lets go of the connection."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.flush(self._settings.close_wait_s_max)

    def _connected(self) -> confluent_kafka.Producer:
        with self._lock:
            if self._client is None:
                self._client = confluent_kafka.Producer(self._config(), logger=LOG)
            return self._client

    def _config(self) -> dict[str, object]:
        settings = self._settings
        return client_config(settings) | {
            "linger.ms": settings.linger_ms,
            "message.max.bytes": settings.record_bytes_max + 65_536,
            "delivery.timeout.ms": settings.delivery_timeout_ms,
            "compression.type": settings.compression,
            "partitioner": LIBRDKAFKA_PARTITIONER,
            "enable.idempotence": True,
        }
