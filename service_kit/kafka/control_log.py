"""Control commands to every partition of orders.incoming, acknowledged on orders.executed.

A partition has applied a command when its executions say so: whichever process holds it, and whoever asks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from protos import packing, topics
from protos.orders.v1.orders_pb2 import (
    REPORT_KIND_ACCEPTED,
    REPORT_KIND_REJECTED,
    ExecutionBatch,
    OrderBatch,
)
from service_kit.errors import Unavailable
from service_kit.kafka.appender import Appender
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.errors import DeliveryFailed
from service_kit.kafka.records import Partition
from service_kit.kafka.settings import KafkaSettings

PARTITIONS: Final = next(one.partitions for one in topics.TOPICS if one.name == topics.ORDERS_INCOMING)
_ANSWERS: Final = (REPORT_KIND_ACCEPTED, REPORT_KIND_REJECTED)
_COLUMNS: Final = ("kind", "reason", "price_ticks", "maker_leaves")
_POLL_S: Final = 0.1


class Answer(NamedTuple):
    """What a partition says to one command; `amount`: orders cancelled, or value of those open."""

    accepted: bool
    reason: int
    value: int
    amount: int


@dataclass(slots=True)
class Acknowledged:
    """One partition's answers, in the order of the commands."""

    partition: int
    offset: int
    answers: list[Answer] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ControlLog:
    """Writes commands; each call reads the answers with a client of its own: calls may run side by side."""

    settings: KafkaSettings
    appender: Appender

    def send(self, batches: Mapping[int, OrderBatch], within_s: float) -> list[Acknowledged]:
        """Returns when every partition has answered all its commands; Unavailable if one has not in time."""
        deadline = time.monotonic() + within_s
        wanted = {home: len(packing.read(batch, "kind")) for home, batch in batches.items()}
        executed = {home: Partition(topics.ORDERS_EXECUTED, home) for home in batches}
        with Consumer(self.settings, (), "acknowledgements", ExecutionBatch.FromString) as reader:
            # Found before anything is written: an answer cannot come before it.
            reader.assign(reader.ends(executed.values()))
            logged = {home: Acknowledged(home, self._append(home, batch)) for home, batch in batches.items()}
            waiting = set(batches)
            while waiting:
                for message in reader.poll(timeout_s=_POLL_S):
                    home, batch = message.record.partition, message.value
                    if batch.origin.offset == logged[home].offset:
                        logged[home].answers += answered(home, batch.origin.offset, batch).answers
                    if len(logged[home].answers) >= wanted[home]:
                        waiting.discard(home)
                if waiting and time.monotonic() > deadline:
                    places = ", ".join(f"{home} (offset {logged[home].offset})" for home in sorted(waiting))
                    raise Unavailable(f"commands are logged, but not yet acknowledged by partition {places}")
        return [logged[home] for home in sorted(logged)]

    def _append(self, partition: int, batch: OrderBatch) -> int:
        try:
            return self.appender.append(
                topics.ORDERS_INCOMING, batch.symbols[0], batch.SerializeToString(), partition
            )[1]
        except DeliveryFailed as fault:
            raise Unavailable(f"a command for partition {partition} could not be logged: {fault}") from fault


def answered(partition: int, offset: int, batch: ExecutionBatch) -> Acknowledged:
    """What the executions of a batch of commands say to each."""
    rows = packing.row_count(batch, _COLUMNS)
    kinds, *rest = (packing.column(batch, name, rows).tolist() for name in _COLUMNS)
    answers = [
        Answer(kind == REPORT_KIND_ACCEPTED, reason, value, amount)
        for kind, reason, value, amount in zip(kinds, *rest, strict=True)
        if kind in _ANSWERS
    ]
    return Acknowledged(partition, offset, answers)
