"""Reads orders.incoming and orders.executed from outside and counts what is lost, doubled or torn.

It shares nothing with the service's recovery: its own client reads both topics from the beginning, and a
venue that lives once, without snapshots, says what every batch of orders had to cause.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import confluent_kafka
from confluent_kafka import TopicPartition

from book_service import order_events
from book_service.execution_parts import serialized
from book_service.settings import BookSettings
from book_service.venue import Venue
from protos import topics
from protos.market.v1.market_pb2 import Origin
from protos.orders.v1.orders_pb2 import ExecutionBatch

_QUIET_S_MAX = 60.0


@dataclass(frozen=True)
class Findings:
    """Counts over all partitions. `torn`: batches that are other than their orders make them."""

    orders: int
    records: int
    reports: int
    lost: int
    doubled: int
    torn: int
    out_of_order: int

    @property
    def clean(self) -> bool:
        """Whether all is as if nothing had happened."""
        return self.lost == self.doubled == self.torn == self.out_of_order == 0


def check_topics(bootstrap: str, instruments: tuple[str, ...]) -> Findings:
    """What the two topics say about each other."""
    book = BookSettings(instruments=instruments)
    totals = [0] * 7
    places = [
        (topic, home) for topic in (topics.ORDERS_INCOMING, topics.ORDERS_EXECUTED) for home in range(4)
    ]
    read = read_all(bootstrap, places)
    for partition in range(4):
        orders = read[topics.ORDERS_INCOMING, partition]
        executed = [ExecutionBatch.FromString(value) for _, value in read[topics.ORDERS_EXECUTED, partition]]
        found = compare(Venue(book.listed(), book.first_controls()), partition, orders, executed)
        totals = [one + more for one, more in zip(totals, found, strict=True)]
    return Findings(*totals)


def compare(
    venue: Venue, partition: int, orders: list[tuple[int, bytes]], executed: list[ExecutionBatch]
) -> tuple[int, ...]:
    """The fields of Findings for one partition."""
    seen: dict[int, list[bytes]] = {}
    for batch in executed:
        seen.setdefault(batch.origin.offset, []).append(batch.SerializeToString())
    lost = doubled = torn = reports = 0
    for offset, value in orders:
        origin = Origin(topic=topics.ORDERS_INCOMING, partition=partition, offset=offset)
        wanted = venue.apply(order_events.decode(value), origin)
        reports += len(wanted.kind)
        parts, there = serialized(wanted), seen.get(offset, [])
        lost += not set(parts).issubset(there) and set(there).issubset(parts)
        torn += not set(there).issubset(parts)
        doubled += len(there) - len(set(there))
    torn += len(set(seen) - {offset for offset, _ in orders})
    places = [batch.origin.offset for batch in executed]
    out_of_order = sum(later < earlier for earlier, later in pairwise(places))
    return venue.orders, len(orders), reports, lost, doubled, torn, out_of_order


def read_all(
    bootstrap: str, places: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], list[tuple[int, bytes]]]:
    """Offset and value of every committed record of these topics' partitions."""
    client = confluent_kafka.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "checker",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,  # the end is told by a fetch that found nothing
        }
    )
    found: dict[tuple[str, int], list[tuple[int, bytes]]] = {place: [] for place in places}
    waiting = set(places)
    try:
        client.assign([TopicPartition(*place, confluent_kafka.OFFSET_BEGINNING) for place in places])
        deadline = time.monotonic() + _QUIET_S_MAX
        while waiting:
            message = client.poll(1.0)
            if message is None:
                assert time.monotonic() < deadline, f"{waiting} do not end"
                continue
            place = (message.topic() or "", message.partition() or 0)
            if message.error() is None:
                deadline = time.monotonic() + _QUIET_S_MAX
                found[place].append((message.offset() or 0, message.value() or b""))
            elif message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
                waiting.discard(place)
    finally:
        client.close()
    return found
