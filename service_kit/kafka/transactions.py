"""A producer whose records and offsets become visible together or not at all.

For brokers of version 4 or newer. After any failure it is of no more use and must be opened again: a new
client with the same transactional id waits for, or ends, what the old one left open, and shuts that one out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping

import confluent_kafka
from confluent_kafka import KafkaError as ClientError
from confluent_kafka import KafkaException, TopicPartition

from service_kit.kafka.connection import LOG, client_config
from service_kit.kafka.errors import DeliveryFailed, ProducerFenced
from service_kit.kafka.partitioning import LIBRDKAFKA_PARTITIONER
from service_kit.kafka.producer import BY_KEY
from service_kit.kafka.records import Partition
from service_kit.kafka.settings import KafkaSettings

_OPEN_S_MAX = 60.0
# How long to serve the client library before looking again whether its queue has room.
_ROOM_S = 0.05
_FENCED = frozenset(
    {
        ClientError._FENCED,
        ClientError.PRODUCER_FENCED,
        ClientError.INVALID_PRODUCER_EPOCH,
        ClientError.ILLEGAL_GENERATION,
        ClientError.UNKNOWN_MEMBER_ID,
        ClientError.FENCED_INSTANCE_ID,
    }
)


class TransactionalProducer:
    """One transaction after another, each begun by its first record; one thread."""

    def __init__(self, settings: KafkaSettings, transactional_id: str) -> None:
        self._settings = settings.validate()
        self._id = transactional_id
        self._client: confluent_kafka.Producer | None = None
        self._begun = False

    def open(self) -> None:
        """Ends whatever an earlier client of this id left open and shuts that client out."""
        self._discard()
        client = confluent_kafka.Producer(self._config(), logger=LOG)
        try:
            client.init_transactions(_OPEN_S_MAX)
        except KafkaException as error:
            raise self._failure("cannot begin", error) from error
        self._client = client

    def send(
        self,
        topic: str,
        key: str | bytes | None,
        value: bytes | None,
        headers: Iterable[tuple[str, bytes]] = (),
        *,
        partition: int | None = None,
    ) -> None:
        """Adds a record to the transaction."""
        client = self._opened()
        place = BY_KEY if partition is None else partition
        try:
            if not self._begun:
                client.begin_transaction()
                self._begun = True
            while True:
                try:
                    client.produce(topic, value, key, partition=place, headers=list(headers) or None)
                    break
                except BufferError:
                    client.poll(_ROOM_S)
            client.poll(0)
        except KafkaException as error:
            raise self._failure("cannot send", error) from error

    def commit(self, positions: Mapping[Partition, int], group: object) -> None:
        """Makes the records visible together with these offsets of the group's member `group`."""
        client = self._opened()
        within_s = self._settings.transaction_timeout_ms / 1_000
        offsets = [TopicPartition(one.topic, one.partition, at) for one, at in positions.items()]
        try:
            if not self._begun:
                client.begin_transaction()
            client.send_offsets_to_transaction(offsets, group, within_s)
            client.commit_transaction(within_s)
        except KafkaException as error:
            raise self._failure("cannot commit", error) from error
        self._begun = False

    def close(self) -> None:
        """Gives up what is not committed; the broker is told so that readers need not wait for it."""
        if self._client is not None and self._begun:
            with contextlib.suppress(KafkaException):
                self._client.abort_transaction(self._settings.close_wait_s_max)
        self._discard()

    def _discard(self) -> None:
        client, self._client, self._begun = self._client, None, False
        if client is not None:
            client.purge()

    def _opened(self) -> confluent_kafka.Producer:
        if self._client is None:
            raise DeliveryFailed(f"transactions of {self._id}: not open")
        return self._client

    def _failure(self, what: str, error: KafkaException) -> DeliveryFailed | ProducerFenced:
        reason: ClientError = error.args[0]
        self._discard()
        text = f"transactions of {self._id}: {what}: {reason.str()}"
        return ProducerFenced(text) if reason.code() in _FENCED else DeliveryFailed(text)

    def _config(self) -> dict[str, object]:
        settings = self._settings
        return client_config(settings) | {
            "transactional.id": self._id,
            "transaction.timeout.ms": settings.transaction_timeout_ms,
            "delivery.timeout.ms": min(settings.delivery_timeout_ms, settings.transaction_timeout_ms),
            "linger.ms": settings.linger_ms,
            "batch.size": settings.batch_bytes_max,
            "message.max.bytes": settings.record_bytes_max + 65_536,
            "queue.buffering.max.messages": settings.queue_records_max,
            "queue.buffering.max.kbytes": settings.queue_kbytes_max,
            "compression.type": settings.compression,
            "partitioner": LIBRDKAFKA_PARTITIONER,
            "retry.backoff.ms": 50,
            # A failed delivery makes the commit fail; there is nothing to be told before.
            "delivery.report.only.error": True,
            "on_delivery": _ignored,
        }


def _ignored(error: ClientError | None, message: confluent_kafka.Message) -> None:
    """The commit reports it."""
