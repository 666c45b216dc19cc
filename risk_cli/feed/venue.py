"""Our own venue as a source: its books, asked for again and again, and its trades from orders.executed."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from book_service.adapters.feed_plan import SourcePlan
from book_service.adapters.feed_run import Publisher
from book_service.adapters.raw_columns import RawColumns
from book_service.adapters.venue_book import VenueSource
from protos import topics
from protos.market.v1.market_pb2 import Origin
from protos.orders.v1.orders_pb2 import ExecutionBatch
from risk_client import BookClient, Unavailable
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.records import END, Partition
from service_kit.kafka.settings import KafkaSettings

UNREACHABLE_WAIT_S = 0.5
_PARTITIONS = next(topic.partitions for topic in topics.TOPICS if topic.name == topics.ORDERS_EXECUTED)


@dataclass(slots=True)
class VenueFeed:
    """Runs in one thread."""

    plan: SourcePlan
    kafka: KafkaSettings
    publisher: Publisher
    _source: VenueSource = field(init=False)
    _as_of: dict[str, Origin] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._source = VenueSource(self.plan.name)

    def run(self, stop: threading.Event) -> None:
        """Until told to stop; a book_service that cannot be reached is tried again."""
        consumer = Consumer(
            self.kafka, [topics.ORDERS_EXECUTED], f"feed.{self.plan.name}", ExecutionBatch.FromString
        )
        consumer.assign({Partition(topics.ORDERS_EXECUTED, number): END for number in range(_PARTITIONS)})
        try:
            with BookClient(self.plan.where) as client:
                while not stop.is_set():
                    try:
                        self._turn(client, consumer)
                    except Unavailable:
                        stop.wait(UNREACHABLE_WAIT_S)
        finally:
            consumer.close()

    def _turn(self, client: BookClient, consumer: Consumer[ExecutionBatch]) -> None:
        """Trades that have come within the interval, then the books that have changed."""
        for message in consumer.poll(timeout_s=self.plan.every_s):
            self._publish(self._wanted(self._source.trades(message.value)))
        for symbol in self.plan.symbols:
            book = client.get_book(symbol, self.plan.levels)
            if symbol not in self._as_of or self._as_of[symbol] != book.as_of:
                self._as_of[symbol] = book.as_of
                self._publish(self._source.book(book))

    def _wanted(self, events: RawColumns) -> RawColumns:
        wanted = [place for place, symbol in enumerate(events.symbols) if symbol in self.plan.symbols]
        index = events.columns["symbol_index"]
        return events.take((index[:, None] == wanted).any(axis=1))

    def _publish(self, events: RawColumns) -> None:
        ours = self.plan.terms.apply(events)
        if len(ours):
            self.publisher.publish(ours)
