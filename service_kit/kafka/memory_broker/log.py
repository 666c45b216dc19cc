"""One partition's log: record batches as they came, found by offset, the oldest dropped when it is full."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field

from service_kit.kafka.memory_broker.codes import Code

# An hour of a busy demo; a service that starts reads the fills from the beginning of this.
LOG_BYTES_MAX = 32 * 1024 * 1024
# Sequences of more producers than this are forgotten, the longest silent first.
PRODUCERS_MAX = 1_000
# As on a real broker, and as many batches as a producer may have in flight.
_REMEMBERED_BATCHES = 5

# Of a batch: base offset, length of what follows, leader epoch, magic, then what the checksum covers.
_BEGIN = struct.Struct(">qiib")
_LENGTH_AFTER = 12
_HEADER_BYTES = 61
_LAST_DELTA = struct.Struct(">i")  # at 23
_LATEST_TIME = struct.Struct(">q")  # at 35
_PRODUCER = struct.Struct(">qhi")  # at 43: id, epoch, first sequence
_SEQUENCES = 1 << 31
_MAGIC = 2


class Refused(Exception):
    """Batches that are not taken, with the protocol's code for the reason."""

    def __init__(self, code: Code) -> None:
        super().__init__(code.name)
        self.code = code


@dataclass(slots=True)
class _Sequence:
    """What an idempotent producer has written here last."""

    epoch: int
    following: int
    recent: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED_BATCHES))


class PartitionLog:
    """Offsets from `start` to before `end` can be read."""

    def __init__(self, bytes_max: int = LOG_BYTES_MAX) -> None:
        self.start = 0
        self.end = 0
        self.size_bytes = 0
        self._bytes_max = bytes_max
        self._batches: list[bytes] = []
        self._firsts: list[int] = []
        self._dropped = 0  # from the fronts of the two lists, which are cut only now and then
        self._producers: dict[int, _Sequence] = {}

    def append(self, records: bytes) -> int:
        """Takes whole batches, or raises `Refused`; the offset of the first record."""
        batches = _split(records)
        first = self._known(batches[0])
        if first is not None:
            return first
        first = self.end
        for batch in batches:
            self._note(batch)
            count = _LAST_DELTA.unpack_from(batch, 23)[0] + 1
            self._firsts.append(self.end)
            self._batches.append(self.end.to_bytes(8, "big") + batch[8:])
            self.end += count
            self.size_bytes += len(batch)
        self._drop_oldest()
        return first

    def read(self, offset: int, bytes_max: int) -> list[bytes]:
        """Batches from the one that holds this offset on: at least one where there is one."""
        place = max(bisect_right(self._firsts, offset) - 1, self._dropped)
        if not self.start <= offset < self.end:
            return []
        found: list[bytes] = []
        size = 0
        while place < len(self._batches):
            batch = self._batches[place]
            size += len(batch)
            if found and size > bytes_max:
                break
            found.append(batch)
            place += 1
        return found

    def first_since(self, time_ms: int) -> tuple[int, int] | None:
        """Offset and time of the first batch with a record at or after this time, by its latest record."""
        for place in range(self._dropped, len(self._batches)):
            (latest,) = _LATEST_TIME.unpack_from(self._batches[place], 35)
            if latest >= time_ms:
                return self._firsts[place], latest
        return None

    def _known(self, batch: bytes) -> int | None:
        """The offset of a batch that was taken before; raises `Refused` for one out of its order."""
        producer, epoch, sequence = _PRODUCER.unpack_from(batch, 43)
        last = self._producers.get(producer)
        if producer < 0 or last is None:
            return None
        if epoch < last.epoch:
            raise Refused(Code.INVALID_PRODUCER_EPOCH)
        if epoch > last.epoch:
            if sequence:
                raise Refused(Code.OUT_OF_ORDER_SEQUENCE)
            return None
        for begun, offset in last.recent:
            if begun == sequence and sequence != last.following:
                return offset
        if sequence != last.following:
            raise Refused(Code.OUT_OF_ORDER_SEQUENCE)
        return None

    def _note(self, batch: bytes) -> None:
        producer, epoch, sequence = _PRODUCER.unpack_from(batch, 43)
        if producer < 0:
            return
        count = _LAST_DELTA.unpack_from(batch, 23)[0] + 1
        last = self._producers.pop(producer, None)
        if last is None or last.epoch != epoch:
            last = _Sequence(epoch, 0)
        last.following = (sequence + count) % _SEQUENCES
        last.recent.append((sequence, self.end))
        self._producers[producer] = last
        if len(self._producers) > PRODUCERS_MAX:
            del self._producers[next(iter(self._producers))]

    def _drop_oldest(self) -> None:
        while self.size_bytes > self._bytes_max and self._dropped < len(self._batches) - 1:
            self.size_bytes -= len(self._batches[self._dropped])
            self._batches[self._dropped] = b""
            self._dropped += 1
            self.start = self._firsts[self._dropped]
        # Rarely, so that it costs nothing for each record.
        if self._dropped > len(self._batches) // 2:
            del self._batches[: self._dropped], self._firsts[: self._dropped]
            self._dropped = 0


def _split(records: bytes) -> list[bytes]:
    """The batches of a request for one partition, each whole."""
    batches = []
    at = 0
    while at < len(records):
        if len(records) - at < _HEADER_BYTES:
            raise Refused(Code.CORRUPT_MESSAGE)
        _, length, _, magic = _BEGIN.unpack_from(records, at)
        end = at + _LENGTH_AFTER + length
        if magic != _MAGIC:
            raise Refused(Code.UNSUPPORTED_FOR_MESSAGE_FORMAT)
        if length < _HEADER_BYTES - _LENGTH_AFTER or end > len(records):
            raise Refused(Code.CORRUPT_MESSAGE)
        if _LAST_DELTA.unpack_from(records, at + 23)[0] < 0:
            raise Refused(Code.CORRUPT_MESSAGE)
        batches.append(records[at:end])
        at = end
    if not batches:
        raise Refused(Code.CORRUPT_MESSAGE)
    return batches
