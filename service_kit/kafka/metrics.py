"""Counters and gauges of the Kafka layer; one instance per process and registry."""

from __future__ import annotations

import weakref
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge

from protos import topics


class Queue(Protocol):
    """What has records waiting."""

    @property
    def queued(self) -> int:
        """Records that are queued or in flight."""


class KafkaMetrics:
    """The `gpu_risk_kafka_*` metrics; without a registry they count but are not exported."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = CollectorRegistry() if registry is None else registry

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"gpu_risk_kafka_{name}", text, labels, registry=registry)

        self.records_in = counter("records_in", "Records read from a topic.", "topic")
        self.bytes_in = counter("bytes_in", "Bytes of record values read from a topic.", "topic")
        self.records_out = counter("records_out", "Records handed to the producer's queue.", "topic")
        self.bytes_out = counter("bytes_out", "Bytes of record values handed to the queue.", "topic")
        self.dead_letters = counter("dead_letters", "Records that could not be decoded.", "topic")
        self.delivery_errors = counter("delivery_errors", "Records that did not reach a broker.", "topic")
        self.client_errors = counter("client_errors", "Errors that the Kafka client reported.", "code")
        self.queue_full = counter("queue_full", "Sends refused because the queue stayed full.", "topic")
        self.backpressure_s = counter("backpressure_seconds", "Time that sends waited for room.", "topic")
        # An alert would miss the first of its kind if its counter came with it.
        for one in topics.TOPICS:
            self.dead_letters.labels(one.name)
            self.delivery_errors.labels(one.name)
        self.queue_records = Gauge(
            "gpu_risk_kafka_queue_records", "Records in the producers' queues.", registry=registry
        )
        self._queues: weakref.WeakSet[Queue] = weakref.WeakSet()
        self.queue_records.set_function(lambda: float(sum(queue.queued for queue in list(self._queues))))
        self.lag = Gauge(
            "gpu_risk_kafka_consumer_lag_records",
            "Records between the consumer's position and the end of the partition.",
            ("group", "topic", "partition"),
            registry=registry,
        )

    def watch_queue(self, queue: Queue) -> None:
        """Count this producer's queue in `queue_records` for as long as the producer lives."""
        self._queues.add(queue)
