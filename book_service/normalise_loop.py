"""market.data.raw in, market.data.normalized out: poll, apply, publish, commit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from book_service.normaliser import Normaliser
from book_service.raw_events import RawEvents
from book_service.service_metrics import BookMetrics
from protos import topics
from protos.market.v1.market_pb2 import Origin
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.producer import Producer
from service_kit.kafka.records import Message
from service_kit.lifecycle import Stop
from service_kit.telemetry.traces import Headers, Traces


@dataclass(slots=True)
class NormaliseLoop:
    """Runs in one thread. At least once: after a crash a batch may come twice, with the same origin."""

    consumer: Consumer[RawEvents]
    producer: Producer
    normaliser: Normaliser
    metrics: BookMetrics
    poll_records_max: int
    poll_wait_s: float
    commit_every_s: float
    traces: Traces = field(default_factory=Traces.off)
    clock_ns: Callable[[], int] = time.time_ns
    _uncommitted: bool = False
    _committed_at_s: float = 0.0

    def run(self, stop: Stop) -> None:
        """Until told to stop; what was read is then sent and committed."""
        while not stop.is_set():
            self.turn()
        self._commit()

    def turn(self) -> None:
        """One round."""
        for message in self.consumer.poll(self.poll_records_max, self.poll_wait_s):
            self._publish(message)
            self._uncommitted = True
        self.producer.poll()
        if self._uncommitted and time.monotonic() - self._committed_at_s >= self.commit_every_s:
            self._commit()

    def _publish(self, message: Message[RawEvents]) -> None:
        record = message.record
        origin = Origin(topic=record.topic, partition=record.partition, offset=record.offset)
        result = self.normaliser.apply(message.value, origin)
        for reason, count in result.dropped.items():
            self.metrics.dropped.labels(reason.name.lower()).inc(count)
        self.metrics.events.inc(len(message.value))
        result.batch.normalized_time_ns = self.clock_ns()
        value = result.batch.SerializeToString()
        with self.traces.span("normalise", record.headers) as span:
            headers: Headers = []
            span.inject(headers)
            # By our name of the underlying: whatever sources call it, it shares a partition with its options.
            key = self.normaliser.house_symbols.get((message.value.source, record.key), record.key)
            self.producer.send(topics.MARKET_DATA_NORMALIZED, key, value, headers)

    def _commit(self) -> None:
        # Delivered first: a committed offset says that everything before it is on the other topic.
        self.producer.flush()
        self.consumer.commit()
        self.consumer.lag()  # sets the metric
        self._uncommitted = False
        self._committed_at_s = time.monotonic()
