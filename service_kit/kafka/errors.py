"""What can go wrong on the way to or from Kafka, one exception per remedy."""

from __future__ import annotations

from service_kit.errors import BrokerUnreachable, ServiceKitError

__all__ = [
    "BrokerUnreachable",
    "ConsumerFailed",
    "DeliveryFailed",
    "EmbeddedBrokerFailed",
    "KafkaError",
    "MockClusterUnavailable",
    "NoRealKafka",
    "ProducerFenced",
    "QueueFull",
    "RecordTooLarge",
    "TopicSetupFailed",
]


class KafkaError(ServiceKitError):
    """Any failure of the Kafka layer."""


class QueueFull(KafkaError):
    """The producer's queue stayed full for the whole time that a send may wait."""


class RecordTooLarge(KafkaError):
    """A record is larger than `record_bytes_max`."""


class DeliveryFailed(KafkaError):
    """Records that were sent have not reached the broker."""


class ProducerFenced(KafkaError):
    """Another process has taken over what this producer wrote for."""


class ConsumerFailed(KafkaError):
    """The broker refused the consumer in a way that retrying does not mend."""


class TopicSetupFailed(KafkaError):
    """A topic could not be made, or exists in a shape that does not fit."""


class EmbeddedBrokerFailed(KafkaError):
    """The in-memory broker did not start, or has ended."""


class MockClusterUnavailable(KafkaError):
    """This platform's Kafka client library has no mock cluster."""


class NoRealKafka(KafkaError):
    """No real Kafka broker could be found or started; the message says what was tried."""
