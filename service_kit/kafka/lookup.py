"""Looks into a log from outside any group: its bounds, one record, the last record of a kind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TypeVar

from service_kit.kafka.consumer import Consumer
from service_kit.kafka.errors import ConsumerFailed
from service_kit.kafka.records import Partition, Record
from service_kit.kafka.settings import KafkaSettings

T = TypeVar("T")

READ_S_MAX = 30.0
_POLL_S = 0.25
_FIRST_STEP = 4  # records that are read back from the end at first; then ever more
_STEP_GROWTH = 8


class LogLookup:
    """Reads what is committed; a client of its own, not to be shared between threads."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._reader = self._new_reader()

    def bounds(self, partition: Partition) -> tuple[int, int]:
        """The first offset that the partition still holds and its end."""
        deadline = time.monotonic() + READ_S_MAX
        while True:
            try:
                return self._reader.bounds([partition])[partition]
            except ConsumerFailed:
                # A partition whose leader has just gone has none for seconds. A client that a broker, just
                # started, has told of no such partition believes it for minutes, so a new one asks.
                if time.monotonic() > deadline:
                    raise
                self._reader.poll(timeout_s=_POLL_S)
                self._reader.close()
                self._reader = self._new_reader()

    def _new_reader(self) -> Consumer[bytes]:
        reader = Consumer(self._settings, (), "lookup", bytes)
        reader.assign(())
        return reader

    def record_at(self, partition: Partition, offset: int) -> Record | None:
        """The record at exactly that offset, if there is one."""
        low, high = self.bounds(partition)
        if not low <= offset < high:
            return None
        return next((one for one in self.read(partition, offset, offset + 1) if one.offset == offset), None)

    def last(self, partition: Partition, accept: Callable[[Record], T | None]) -> T | None:
        """The last record's value that `accept` makes something of; None when there is none."""
        low, high = self.bounds(partition)
        step, end = _FIRST_STEP, high
        while end > low:
            # Markers of transactions and what was aborted take up offsets, so a step may hold no record.
            start = max(low, end - step)
            found = None
            for record in self.read(partition, start, end):
                taken = accept(record)
                found = found if taken is None else taken
            if found is not None:
                return found
            end, step = start, step * _STEP_GROWTH
        return None

    def read(self, partition: Partition, start: int, end: int) -> Iterator[Record]:
        """The records with offsets from `start` to before `end`; ConsumerFailed when they do not come."""
        if start >= end:
            return
        self._reader.assign({partition: start})
        quiet_since = time.monotonic()
        while self._reader.position().get(partition, start) < end:
            for message in self._reader.poll(timeout_s=_POLL_S):
                quiet_since = time.monotonic()
                if message.record.offset < end:
                    yield message.record
            if time.monotonic() - quiet_since > READ_S_MAX:
                where = f"{partition.topic}[{partition.partition}]"
                raise ConsumerFailed(f"{where} does not give its records from {start} to {end}")

    def close(self) -> None:
        """Lets go of the connection."""
        self._reader.close()

    def __enter__(self) -> LogLookup:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
