"""Our own venue as a source: its books, watched over gRPC, and its trades from orders.executed."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass, field

from book_service.adapters.feed_plan import SourcePlan
from book_service.adapters.feed_run import Publisher
from book_service.adapters.raw_columns import RawColumns
from book_service.adapters.venue_book import VenueSource
from protos import topics
from protos.book.v1.book_pb2 import Book
from protos.orders.v1.orders_pb2 import ExecutionBatch
from risk_client import BookClient, DeadlinePassed, RiskClientError, Unavailable
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.records import Partition
from service_kit.kafka.settings import KafkaSettings

UNREACHABLE_WAIT_S = 0.5
POLL_S = 0.02  # for trades; books that have come meanwhile go out after it
_PARTITIONS = next(topic.partitions for topic in topics.TOPICS if topic.name == topics.ORDERS_EXECUTED)


@dataclass(slots=True)
class VenueFeed:
    """Publishes from one thread; each symbol is watched in one of its own, at most one book per `every_s`."""

    plan: SourcePlan
    kafka: KafkaSettings
    publisher: Publisher
    _source: VenueSource = field(init=False)
    _books: queue.SimpleQueue[Book] = field(default_factory=queue.SimpleQueue)
    _ending: threading.Event = field(default_factory=threading.Event)
    _failure: RiskClientError | None = None

    def __post_init__(self) -> None:
        self._source = VenueSource(self.plan.name)

    def run(self, stop: threading.Event) -> None:
        """Until told to stop; a book_service that cannot be reached is tried again."""
        consumer = Consumer(self.kafka, (), f"feed.{self.plan.name}", ExecutionBatch.FromString)
        # From the ends as they are now: a trade after the first book must not be missed.
        consumer.assign(
            consumer.ends(Partition(topics.ORDERS_EXECUTED, number) for number in range(_PARTITIONS))
        )
        watchers: list[threading.Thread] = []
        try:
            with BookClient(self.plan.where) as client:
                for symbol in self.plan.symbols:
                    watchers.append(threading.Thread(target=self._watch, args=(client, symbol), name=symbol))
                    watchers[-1].start()
                while not stop.is_set() and self._failure is None:
                    self._turn(consumer)
                self._ending.set()  # before the connection is closed, which ends the watches
        finally:
            self._ending.set()
            for watcher in watchers:
                watcher.join()
            consumer.close()
        if self._failure is not None:
            raise self._failure

    def _watch(self, client: BookClient, symbol: str) -> None:
        while not self._ending.is_set():
            try:
                for book in client.watch_book(symbol, self.plan.levels, self.plan.every_s):
                    self._books.put(book)
            except (Unavailable, DeadlinePassed):
                self._ending.wait(UNREACHABLE_WAIT_S)
            except RiskClientError as fault:
                if not self._ending.is_set():
                    self._failure = fault
                return

    def _turn(self, consumer: Consumer[ExecutionBatch]) -> None:
        """Trades that have come, then the books that have changed."""
        for message in consumer.poll(timeout_s=POLL_S):
            self._publish(self._wanted(self._source.trades(message.value)))
        while not self._books.empty():
            self._publish(self._source.book(self._books.get()))

    def _wanted(self, events: RawColumns) -> RawColumns:
        wanted = [place for place, symbol in enumerate(events.symbols) if symbol in self.plan.symbols]
        index = events.columns["symbol_index"]
        return events.take((index[:, None] == wanted).any(axis=1))

    def _publish(self, events: RawColumns) -> None:
        ours = self.plan.terms.apply(events)
        if len(ours):
            self.publisher.publish(ours)
