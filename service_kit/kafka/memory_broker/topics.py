"""The broker's topics, and readers that wait at a partition's end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from service_kit.kafka.memory_broker.codes import Code
from service_kit.kafka.memory_broker.log import LOG_BYTES_MAX, PartitionLog, Refused

PARTITIONS_MAX = 1_000
TOPICS_MAX = 10_000
_NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


@dataclass(slots=True)
class Partition:
    """A log, and whom to wake when something comes to its end."""

    log: PartitionLog
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
    _settings: dict[str, dict[str, str]] = field(default_factory=dict)

    def create(self, name: str, partitions: int, settings: Mapping[str, str] = _NO_SETTINGS) -> None:
        """Makes one, or raises `Refused`; only settings about the keeping of records count."""
        if name in self._topics:
            raise Refused(Code.TOPIC_ALREADY_EXISTS)
        if not name or len(self._topics) >= TOPICS_MAX:
            raise Refused(Code.INVALID_TOPIC)
        if not 1 <= partitions <= PARTITIONS_MAX:
            raise Refused(Code.INVALID_PARTITIONS)
        policy = settings.get("cleanup.policy", "delete")
        # What could be compacted is kept whole: that is never less than compaction leaves.
        kept = policy == "compact" or settings.get("retention.bytes") == "-1"
        bytes_max = sys.maxsize if kept else LOG_BYTES_MAX
        self._topics[name] = [Partition(PartitionLog(bytes_max)) for _ in range(partitions)]
        self._settings[name] = {
            "cleanup.policy": policy,
            "retention.ms": "-1",
            "retention.bytes": "-1" if kept else str(LOG_BYTES_MAX),
        }

    def names(self) -> list[str]:
        """Every topic's name."""
        return list(self._topics)

    def settings(self, name: str) -> Mapping[str, str] | None:
        """What a topic is set to; None where there is no such topic."""
        return self._settings.get(name)

    def partitions(self, name: str) -> int:
        """How many a topic has; 0 where there is no such topic."""
        return len(self._topics.get(name, ()))

    def find(self, name: str, partition: int) -> Partition | None:
        """One partition, or None where there is none."""
        parts = self._topics.get(name, ())
        return parts[partition] if 0 <= partition < len(parts) else None
