"""The broker's topics, and readers that wait at a partition's end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from service_kit.kafka.memory_broker.codes import Code
from service_kit.kafka.memory_broker.log import PartitionLog, Refused

PARTITIONS_MAX = 1_000
TOPICS_MAX = 10_000


@dataclass(slots=True)
class Partition:
    """A log, and whom to wake when something comes to its end."""

    log: PartitionLog = field(default_factory=PartitionLog)
    waiting: set[Callable[[], None]] = field(default_factory=set)

    def append(self, records: bytes) -> int:
        """As the log's; wakes whoever waits."""
        first = self.log.append(records)
        for wake in tuple(self.waiting):
            wake()
        return first


@dataclass(slots=True)
class Topics:
    """All of them, by name."""

    _topics: dict[str, list[Partition]] = field(default_factory=dict)

    def create(self, name: str, partitions: int) -> None:
        """Makes one, or raises `Refused`."""
        if name in self._topics:
            raise Refused(Code.TOPIC_ALREADY_EXISTS)
        if not name or len(self._topics) >= TOPICS_MAX:
            raise Refused(Code.INVALID_TOPIC)
        if not 1 <= partitions <= PARTITIONS_MAX:
            raise Refused(Code.INVALID_PARTITIONS)
        self._topics[name] = [Partition() for _ in range(partitions)]

    def names(self) -> list[str]:
        """Every topic's name."""
        return list(self._topics)

    def partitions(self, name: str) -> int:
        """How many a topic has; 0 where there is no such topic."""
        return len(self._topics.get(name, ()))

    def find(self, name: str, partition: int) -> Partition | None:
        """One partition, or None where there is none."""
        parts = self._topics.get(name, ())
        return parts[partition] if 0 <= partition < len(parts) else None
