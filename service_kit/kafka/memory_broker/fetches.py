"""Reading: what is there at once, or, at the end of the logs, what comes within the reader's patience."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from service_kit.kafka.memory_broker import wire
from service_kit.kafka.memory_broker.codes import Code
from service_kit.kafka.memory_broker.groups import Later, Waiting
from service_kit.kafka.memory_broker.topics import Partition, Topics
from service_kit.kafka.memory_broker.wire import Reader

Reply = Callable[[bytes], None]

# Of records in one answer, whatever the reader says it can take.
ANSWER_BYTES_MAX = 64 * 1024 * 1024


class _Wanted(NamedTuple):
    number: int
    offset: int
    bytes_max: int
    partition: Partition | None


class _Found(NamedTuple):
    topic: str
    wanted: _Wanted
    code: Code
    batches: list[bytes]


@dataclass(slots=True)
class Fetch:
    """One request of a reader."""

    topics: Topics
    version: int
    reply: Reply
    wait_s: float = 0.0
    bytes_min: int = 0
    bytes_max: int = ANSWER_BYTES_MAX
    asked: list[tuple[str, list[_Wanted]]] | None = None
    _timer: Waiting | None = None
    _done: bool = False

    def read(self, request: Reader) -> None:
        """Takes the request's fields."""
        request.int32()  # the replica's id: -1, a consumer
        self.wait_s = max(0, request.int32()) / 1_000
        self.bytes_min = request.int32()
        self.bytes_max = min(max(0, request.int32()), ANSWER_BYTES_MAX)
        if self.version >= 4:
            request.int8()  # isolation: without transactions everything is committed
        if self.version >= 7:
            request.int32()  # a session and, next, its epoch: none are kept
            request.int32()
        self.asked = request.array(lambda: self._topic(request))

    def start(self, later: Later) -> None:
        """Answers when there is enough, or when the patience ends."""
        found = self._found()
        enough = sum(len(batch) for one in found for batch in one.batches) >= self.bytes_min
        if enough or not self.wait_s or any(one.code is not Code.NONE for one in found):
            self._answer(found)
            return
        for partition in self._partitions():
            partition.waiting.add(self._woken)
        self._timer = later(self.wait_s, self._late)

    def stop(self) -> None:
        """The reader is gone, or has its answer."""
        self._done = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for partition in self._partitions():
            partition.waiting.discard(self._woken)

    def _woken(self) -> None:
        found = self._found()
        if sum(len(batch) for one in found for batch in one.batches) >= self.bytes_min:
            self._answer(found)

    def _late(self) -> None:
        self._answer(self._found())

    def _answer(self, found: list[_Found]) -> None:
        if not self._done:
            self.stop()
            self.reply(self._encoded(found))

    def _topic(self, request: Reader) -> tuple[str, list[_Wanted]]:
        name = request.string()
        return name, request.array(lambda: self._wanted(name, request))

    def _wanted(self, topic: str, request: Reader) -> _Wanted:
        number = request.int32()
        if self.version >= 9:
            request.int32()  # the leader's epoch: it never changes
        offset = request.int64()
        if self.version >= 5:
            request.int64()  # where a follower's log starts
        return _Wanted(number, offset, request.int32(), self.topics.find(topic, number))

    def _partitions(self) -> list[Partition]:
        every = (one.partition for _, wanted in self.asked or () for one in wanted)
        return [one for one in every if one is not None]

    def _found(self) -> list[_Found]:
        left, out = self.bytes_max, []
        for topic, wanted in self.asked or ():
            for one in wanted:
                code, batches = _read(one, left)
                left -= sum(map(len, batches))
                out.append(_Found(topic, one, code, batches))
        return out

    def _encoded(self, found: list[_Found]) -> bytes:
        by_topic: dict[str, list[bytes]] = {}
        for one in found:
            by_topic.setdefault(one.topic, []).append(self._part(one))
        parts = [wire.int32(0)]
        if self.version >= 7:
            parts += [wire.int16(Code.NONE), wire.int32(0)]
        parts.append(wire.array(wire.string(name) + wire.array(rows) for name, rows in by_topic.items()))
        return b"".join(parts)

    def _part(self, found: _Found) -> bytes:
        log = None if found.wanted.partition is None else found.wanted.partition.log
        start, end = (-1, -1) if log is None else (log.start, log.end)
        parts = [wire.int32(found.wanted.number), wire.int16(found.code), wire.int64(end)]
        if self.version >= 4:
            parts.append(wire.int64(end))
        if self.version >= 5:
            parts.append(wire.int64(start))
        if self.version >= 4:
            parts.append(wire.int32(-1))  # no aborted transactions
        if self.version >= 11:
            parts.append(wire.int32(-1))  # no replica to read from instead
        parts.append(wire.blob(b"".join(found.batches)))
        return b"".join(parts)


def _read(wanted: _Wanted, left: int) -> tuple[Code, list[bytes]]:
    if wanted.partition is None:
        return Code.UNKNOWN_TOPIC_OR_PARTITION, []
    log = wanted.partition.log
    if not log.start <= wanted.offset <= log.end:
        return Code.OFFSET_OUT_OF_RANGE, []
    # Of the first partition a batch is given even if it is larger than the reader has asked for.
    return Code.NONE, log.read(wanted.offset, min(wanted.bytes_max, left)) if left > 0 else []
