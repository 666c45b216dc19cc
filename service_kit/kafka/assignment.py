"""Which partitions a consumer reads, where it began, and how far it has come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import confluent_kafka
from confluent_kafka import TopicPartition

from service_kit.kafka.records import COMMITTED, Partition

# Given the new partitions; may return offsets to start at, for instance those of a snapshot.
OnAssign = Callable[[list[Partition]], Mapping[Partition, int] | None]
# Given the partitions that go; the last moment to commit for them. `lost`: too late to commit.
OnRevoke = Callable[[list[Partition], bool], None]


class Assignment:
    """Kept by one consumer; the group's word comes through the callbacks of `subscribe`, within a poll."""

    def __init__(self, on_assign: OnAssign | None, on_revoke: OnRevoke | None) -> None:
        self._on_assign = on_assign
        self._on_revoke = on_revoke
        self.partitions: set[Partition] = set()
        # The next offset to read of each partition from which something was read.
        self._positions: dict[Partition, int] = {}
        # Where the partitions begin that the group has given during the poll that runs.
        self._starts: list[TopicPartition] = []

    def fix(self, client: confluent_kafka.Consumer, starts: Mapping[Partition, int]) -> None:
        """Exactly these, each from its offset, without a group."""
        self._positions.clear()
        self.partitions = set(starts)
        client.assign([TopicPartition(one.topic, one.partition, at) for one, at in starts.items()])

    def subscribe(self, client: confluent_kafka.Consumer, topics: list[str]) -> None:
        """Those that the group gives."""
        client.subscribe(topics, on_assign=self._given, on_revoke=self._taken, on_lost=self._lost)

    def position(self) -> dict[Partition, int]:
        """The next offset of each partition from which something was read."""
        return {one: at for one, at in self._positions.items() if one in self.partitions}

    def advance(self, positions: Mapping[Partition, int]) -> None:
        """Everything before these offsets has been read."""
        self._positions.update(positions)

    def reached_end(self, at: Partition, offset: int) -> None:
        """There is nothing before this offset that has not been read."""
        self._positions[at] = max(offset, self._positions.get(at, 0))

    def sought(self, at: Partition, offset: int) -> None:
        """Reading goes on from this offset; one below 0 is not known yet."""
        self._positions.pop(at, None)
        if offset >= 0:
            self._positions[at] = offset

    def begin_poll(self) -> None:
        """Nothing has been given yet during this poll."""
        self._starts = []

    def in_order(self, client: confluent_kafka.Consumer, raw: list[Any]) -> list[Any]:
        """Without what was read of a partition before it was given anew in this poll, from another offset."""
        restarted = {(one.topic, one.partition) for one in self._starts if one.offset != COMMITTED}
        kept = [one for one in raw if (one.topic(), one.partition()) not in restarted]
        if len(kept) < len(raw):
            client.assign(self._starts)
        return kept

    def clear(self) -> None:
        """Nothing is read any more."""
        self.partitions = set()

    def _given(self, client: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        given = _named(partitions)
        self.partitions = set(given)
        for one in given:
            self._positions.pop(one, None)
        offsets = (self._on_assign(given) if self._on_assign else None) or {}
        if offsets:
            self._starts = [
                TopicPartition(one.topic, one.partition, offsets.get(one, COMMITTED)) for one in given
            ]
            client.assign(self._starts)

    def _taken(self, client: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        self._drop(partitions, lost=False)

    def _lost(self, client: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        self._drop(partitions, lost=True)

    def _drop(self, partitions: list[TopicPartition], *, lost: bool) -> None:
        gone = _named(partitions)
        if self._on_revoke is not None:
            self._on_revoke(gone, lost)
        for one in gone:
            self.partitions.discard(one)
            self._positions.pop(one, None)


def _named(partitions: Iterable[TopicPartition]) -> list[Partition]:
    return [Partition(one.topic, one.partition) for one in partitions]
