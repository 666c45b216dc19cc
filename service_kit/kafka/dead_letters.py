"""Where records go that could not be read, with what is needed to find and mend them."""

from __future__ import annotations

from typing import Any

from protos.topics import dead_letter
from service_kit.kafka.connection import LOG
from service_kit.kafka.errors import DeliveryFailed
from service_kit.kafka.metrics import KafkaMetrics
from service_kit.kafka.producer import Producer
from service_kit.kafka.settings import KafkaSettings

# Headers of a dead letter; the record's own headers stay before them.
TOPIC = "dead-letter-topic"
PARTITION = "dead-letter-partition"
OFFSET = "dead-letter-offset"
ERROR = "dead-letter-error"
GROUP = "dead-letter-group"
# Present when the value was cut: its full length in bytes.
VALUE_BYTES = "dead-letter-value-bytes"

_ERROR_CHARS_MAX = 1_000


class DeadLetters:
    """Sends poison records to `<topic>.dead-letter`; `flush` returns once all are delivered."""

    def __init__(
        self, settings: KafkaSettings, group: str, producer: Producer | None, metrics: KafkaMetrics
    ) -> None:
        self._settings = settings
        self._group = group
        self._producer = producer
        self._metrics = metrics
        self._pending = 0

    def put(self, message: Any, error: Exception) -> None:
        """Send one record on, or only log it when there is no producer."""
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        text = f"{type(error).__name__}: {error}"[:_ERROR_CHARS_MAX]
        self._metrics.dead_letters.labels(topic).inc()
        LOG.error("cannot read %s[%d] offset %d: %s", topic, partition, offset, text)
        if self._producer is None:
            return
        value = message.value()
        headers = [(name, content or b"") for name, content in message.headers() or ()]
        headers += [
            (TOPIC, topic.encode()),
            (PARTITION, str(partition).encode()),
            (OFFSET, str(offset).encode()),
            (ERROR, text.encode("utf-8", "replace")),
            (GROUP, self._group.encode()),
        ]
        limit = self._settings.dead_letter_value_bytes_max
        if value is not None and len(value) > limit:
            headers.append((VALUE_BYTES, str(len(value)).encode()))
            value = value[:limit]
        self._producer.send(dead_letter(topic), message.key(), value, headers)
        self._pending += 1

    def flush(self) -> None:
        """Wait until the dead letters are delivered; raise `DeliveryFailed` naming the remedy otherwise."""
        if self._producer is None or not self._pending:
            return
        self._pending = 0
        try:
            self._producer.flush()
        except DeliveryFailed as error:
            raise DeliveryFailed(
                f"dead letters could not be delivered, reading stops here: {error}"
            ) from error
