"""A venue partition on a log and an output in memory, where every step may fail or be the last.

A crash is an exception at a numbered step. What was under way then arrives in part: a prefix of plain sends,
all or nothing of a transaction, some bytes of the audit log, half a snapshot.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from google.protobuf.message import DecodeError

from book_service import order_events
from book_service.audit import AuditLog
from book_service.execution_parts import serialized
from book_service.matching import Controls
from book_service.snapshots import Snapshot, SnapshotFolder, fingerprint
from book_service.venue import Listed, Venue
from book_service.venue_partition import OutputFailed, Published, VenuePartition
from protos.market.v1.market_pb2 import Origin
from protos.orders.v1.orders_pb2 import ExecutionBatch
from service_kit.kafka.errors import ProducerFenced
from service_kit.kafka.records import Partition, Record

HOME = Partition("orders.incoming", 1)
LISTED = (Listed("AAA", 0.01, 1.0), Listed("BBB", 0.5, 50.0))
CONTROLS = Controls()
PART_BYTES_MAX = 700  # so small that the executions of many records come in parts


class Crash(Exception):
    """The process is gone."""


@dataclass
class Steps:
    """Counts the steps of one life; raises Crash at the one that is to be its last."""

    last: int | None = None
    count: int = 0

    def __call__(self) -> None:
        self.count += 1
        if self.count == self.last:
            raise Crash


@dataclass
class Topic:
    """orders.executed: what is there for good, in order, and the offset that the group has committed."""

    values: list[bytes] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    committed: int = 0
    owner: int = 0  # transactions: the number of the latest writer

    def append(self, sent: Sequence[tuple[int, bytes]]) -> None:
        for offset, value in sent:
            self.offsets.append(offset)
            self.values.append(value)


@dataclass
class MemoryOutput:
    """One writer. `fails`: whether the next round trip is to fail; it may have done its work all the same."""

    topic: Topic
    step: Steps
    draw: random.Random
    transactional: bool
    fails: Callable[[], bool] = lambda: False
    _under_way: list[tuple[int, bytes]] = field(default_factory=list)
    _me: int = 0

    def open(self) -> Published | None:
        self.step()
        self.arrive()
        self.topic.owner += 1
        self._me = self.topic.owner
        self.step()
        if not self.topic.values:
            return None
        return Published(self.topic.offsets[-1], self.topic.values[-1])

    def send(self, key: str, value: bytes, headers: object) -> None:
        self.step()
        self._expect_owner()
        offset = offset_of(value)
        self._under_way.append((offset, value))
        self.step()
        if self.draw.random() < 0.1 and self.fails():
            raise OutputFailed("the queue is full")
        if not self.transactional and self.draw.random() < 0.5:
            self._deliver(self.draw.randint(0, len(self._under_way)))

    def settle(self, next_offset: int) -> None:
        self.step()
        self._expect_owner()
        if self.fails():
            # The answer is lost: a commit has been done or not, of plain sends some have arrived.
            whole = self.draw.random() < 0.5
            count = len(self._under_way)
            self._deliver(count if whole else 0 if self.transactional else self.draw.randint(0, count))
            raise OutputFailed("timed out")
        self._deliver(len(self._under_way))
        if self.transactional:
            self.topic.committed = next_offset
        self.step()

    def close(self) -> None:
        if self.transactional:
            self._under_way.clear()
        self.arrive()

    def arrive(self) -> None:
        """What becomes of what was under way when its writer went: some of it arrives, in order, or none."""
        if self.transactional:
            self._under_way.clear()
        else:
            self._deliver(self.draw.randint(0, len(self._under_way)))
            self._under_way.clear()

    def _deliver(self, count: int) -> None:
        self.topic.append(self._under_way[:count])
        del self._under_way[:count]

    def _expect_owner(self) -> None:
        if self.transactional and self._me != self.topic.owner:
            self._under_way.clear()
            raise ProducerFenced("another writer has come")


def offset_of(value: bytes) -> int:
    """Which record a batch of executions says that it comes from."""
    return int(ExecutionBatch.FromString(value).origin.offset)


@dataclass(frozen=True)
class MemoryLog:
    """orders.incoming."""

    values: Sequence[bytes]

    def bounds(self) -> tuple[int, int]:
        return 0, len(self.values)

    def record_at(self, offset: int) -> Record | None:
        return self.record(offset) if offset < len(self.values) else None

    def record(self, offset: int) -> Record:
        return Record(HOME.topic, HOME.partition, offset, "AAA", self.values[offset], (), 0)


@dataclass(frozen=True)
class CrashingSnapshots(SnapshotFolder):
    """Snapshots that a crash may leave half written."""

    step: Steps = field(default_factory=Steps)

    def save(self, snapshot: Snapshot) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        torn = (
            self.folder
            / f"{HOME.topic}-{HOME.partition}-{snapshot.state.next_offset:020d}.snapshot.1.partial"
        )
        torn.write_bytes(snapshot.state.engine[:100])
        self.step()
        saved = super().save(snapshot)
        self.step()
        return saved


@dataclass
class World:
    """What outlives a process: the log, the output, the disk."""

    log: MemoryLog
    folder: Path
    draw: random.Random
    transactional: bool = False
    failure_rate: float = 0.0
    topic: Topic = field(default_factory=Topic)

    def start(self, step: Steps) -> tuple[VenuePartition, MemoryOutput]:
        """A new process, not opened yet."""
        output = MemoryOutput(
            self.topic, step, self.draw, self.transactional, lambda: self.draw.random() < self.failure_rate
        )
        name = fingerprint(LISTED, CONTROLS)
        partition = VenuePartition(
            HOME,
            LISTED,
            CONTROLS,
            self.log,
            output,
            CrashingSnapshots(self.folder / "snapshots", name, step),
            audit=AuditLog(self.folder / "audit", HOME.topic, HOME.partition, file_bytes_max=20_000),
            part_bytes_max=PART_BYTES_MAX,
        )
        return partition, output

    def live(self, step: Steps) -> VenuePartition | None:
        """One life, from the start until all is done, or (None) until it crashes."""
        partition, output = self.start(step)
        try:
            self.work(partition, step)
        except Crash:
            self._bury(partition, output)
            return None
        partition.close()
        return partition

    def work(self, partition: VenuePartition, step: Steps) -> None:
        """What the service's loop does, in rounds of a few records."""
        at = partition.open(lambda: self.topic.committed)
        while at < len(self.log.values):
            for _ in range(self.draw.randint(1, 4)):
                if at < len(self.log.values):
                    take(partition, self.log.record(at), step)
                    at += 1
            if self.draw.random() < 0.6:
                self._settle(partition, step)
            if self.draw.random() < 0.2:
                partition.snapshot()
        self._settle(partition, step)
        partition.snapshot()

    def _settle(self, partition: VenuePartition, step: Steps) -> None:
        partition.settle()
        step()
        if not self.transactional:
            self.topic.committed = max(self.topic.committed, partition.published_to)
            step()

    def _bury(self, partition: VenuePartition, output: MemoryOutput) -> None:
        """The buffers of a process that was killed are lost; the kernel has some of the last write."""
        before = {file: file.stat().st_size for file in self.folder.glob("audit/*/*.audit")}
        output.arrive()
        output.step = Steps()
        partition.close()
        for file in sorted(self.folder.glob("audit/*/*.audit")):
            os.truncate(file, self.draw.randint(before.get(file, 0), file.stat().st_size))


def take(partition: VenuePartition, record: Record, step: Steps) -> None:
    """One record, as the consumer hands it out: poison never reaches the venue."""
    try:
        events = order_events.decode(record.value)
    except (ValueError, DecodeError):
        return
    executions = partition.apply(record, events)
    step()
    partition.publish(record, executions)
    step()


def truth(
    values: Sequence[bytes], part_bytes_max: int = PART_BYTES_MAX
) -> tuple[list[tuple[int, bytes]], Venue]:
    """What the output must hold, from a venue that nothing ever happened to."""
    return _truth(tuple(values), part_bytes_max)


@lru_cache(maxsize=4)  # one log is held against very many lives
def _truth(values: tuple[bytes, ...], part_bytes_max: int) -> tuple[list[tuple[int, bytes]], Venue]:
    venue, found = Venue(LISTED, CONTROLS), []
    for offset, value in enumerate(values):
        try:
            events = order_events.decode(value)
        except (ValueError, DecodeError):
            continue
        origin = Origin(topic=HOME.topic, partition=HOME.partition, offset=offset)
        parts = serialized(venue.apply(events, origin), part_bytes_max)
        found += [(offset, part) for part in parts]
    return found, venue
