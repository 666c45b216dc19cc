"""What the broker answers to each kind of request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from service_kit.kafka.memory_broker import wire
from service_kit.kafka.memory_broker.codes import VERSIONS, Api, Code
from service_kit.kafka.memory_broker.fetches import Fetch, Reply
from service_kit.kafka.memory_broker.group_requests import GroupRequests
from service_kit.kafka.memory_broker.groups import Later
from service_kit.kafka.memory_broker.log import Refused
from service_kit.kafka.memory_broker.topics import Topics
from service_kit.kafka.memory_broker.wire import NO_THROTTLE, Reader, topic

NODE = 1
_CLUSTER = "gpu-risk-in-memory"
_NOT_KEPT = -1  # times that the log does not tell, epochs that it does not have
_LATEST, _EARLIEST = -1, -2
_TOPIC, _SET_FOR_THE_TOPIC = 2, 1  # a kind of thing that has settings, and where one of them comes from


class _NewTopic(NamedTuple):
    """A topic that is to be made."""

    name: str
    partitions: int
    copies: int
    settings: dict[str, str]


@dataclass(slots=True)
class Requests:
    """Answers requests. `later` calls something after so many seconds."""

    topics: Topics
    host: str
    port: int
    later: Later
    groups: GroupRequests = field(init=False)
    _producers: int = 0

    def __post_init__(self) -> None:
        self.groups = GroupRequests(self.topics, self.later)

    def answer(self, api: Api, version: int, request: Reader, reply: Reply) -> Fetch | None:
        """Gives the answer to `reply`, now or later; a fetch is returned, so that it can be stopped.

        Raises Malformed for what is no request.
        """
        if api is Api.FETCH:
            fetch = Fetch(self.topics, version, reply)
            fetch.read(request)
            fetch.start(self.later)
            return fetch
        if api in _OF_GROUPS:
            _OF_GROUPS[api](self.groups, version, request, reply)
        else:
            _ANSWERS[api](self, version, request, reply)
        return None

    def produce(self, version: int, request: Reader, reply: Reply) -> None:
        """Appends; who wants no acknowledgement gets none."""
        request.optional_string()  # a transaction's id: nobody gets a producer for one
        wants_answer = request.int16() != 0
        request.int32()  # patience: an append takes no time

        def one() -> bytes:
            return topic(request, lambda name: self._append(name, version, request))

        answer = wire.array(request.array(one)) + NO_THROTTLE
        if wants_answer:
            reply(answer)

    def list_offsets(self, version: int, request: Reader, reply: Reply) -> None:
        """The first, the last, or the first since a moment."""
        request.int32()
        if version >= 2:
            request.int8()

        def one() -> bytes:
            return topic(request, lambda name: self._offset(name, version, request))

        body = wire.array(request.array(one))
        reply(NO_THROTTLE + body if version >= 2 else body)

    def metadata(self, version: int, request: Reader, reply: Reply) -> None:
        """The one broker, and the topics asked for, or all."""
        asked = request.optional_array(request.string)
        names = self.topics.names() if asked is None else asked
        body = b"".join(
            (
                wire.array([self._broker() + wire.optional_string(None)]),
                wire.optional_string(_CLUSTER) if version >= 2 else b"",
                wire.int32(NODE),
                wire.array(self._described(name, version) for name in names),
            )
        )
        reply(NO_THROTTLE + body if version >= 3 else body)

    def create_topics(self, version: int, request: Reader, reply: Reply) -> None:
        """Makes topics."""
        asked = request.array(lambda: _new_topic(request))
        request.int32()
        only_checked = bool(request.int8())
        results = [self._create(one, only_checked) for one in asked]
        reply(NO_THROTTLE + wire.array(results))

    def describe_configs(self, version: int, request: Reader, reply: Reply) -> None:
        """What topics are set to, as far as this broker knows of settings."""

        def one() -> bytes:
            kind, name = request.int8(), request.string()
            request.optional_array(request.string)  # the settings asked for: all are told
            found = self.topics.settings(name) if kind == _TOPIC else None
            code = Code.UNKNOWN_TOPIC_OR_PARTITION if found is None else Code.NONE
            head = wire.int16(code) + wire.optional_string(None) + wire.int8(kind) + wire.string(name)
            return head + wire.array(_setting(*item) for item in (found or {}).items())

        reply(NO_THROTTLE + wire.array(request.array(one)))

    def init_producer(self, version: int, request: Reader, reply: Reply) -> None:
        """A number for an idempotent producer; there are no transactions."""
        if request.optional_string() is not None:
            refusal = wire.int16(Code.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
            reply(NO_THROTTLE + refusal + wire.int64(-1) + wire.int16(-1))
            return
        self._producers += 1
        reply(NO_THROTTLE + wire.int16(Code.NONE) + wire.int64(self._producers) + wire.int16(0))

    def find_coordinator(self, version: int, request: Reader, reply: Reply) -> None:
        """This broker, for every group."""
        head = NO_THROTTLE + wire.int16(Code.NONE) + wire.optional_string(None)
        reply((head if version >= 1 else wire.int16(Code.NONE)) + self._broker())

    def _append(self, name: str, version: int, request: Reader) -> bytes:
        number, records = request.int32(), request.blob()
        partition = self.topics.find(name, number)
        code, first, start = Code.NONE, -1, -1
        if partition is None:
            code = Code.UNKNOWN_TOPIC_OR_PARTITION
        else:
            start = partition.log.start
            try:
                first = partition.append(records)
            except Refused as refusal:
                code = refusal.code
        body = wire.int32(number) + wire.int16(code) + wire.int64(first) + wire.int64(_NOT_KEPT)
        return body + wire.int64(start) if version >= 5 else body

    def _offset(self, name: str, version: int, request: Reader) -> bytes:
        number = request.int32()
        if version >= 4:
            request.int32()
        time_ms = request.int64()
        partition = self.topics.find(name, number)
        code, offset, found_ms = Code.NONE, -1, _NOT_KEPT
        if partition is None:
            code = Code.UNKNOWN_TOPIC_OR_PARTITION
        elif time_ms in (_LATEST, _EARLIEST):
            offset = partition.log.end if time_ms == _LATEST else partition.log.start
        else:
            offset, found_ms = partition.log.first_since(time_ms) or (-1, _NOT_KEPT)
        body = wire.int32(number) + wire.int16(code) + wire.int64(found_ms) + wire.int64(offset)
        return body + wire.int32(_NOT_KEPT) if version >= 4 else body

    def _described(self, name: str, version: int) -> bytes:
        count = self.topics.partitions(name)
        code = Code.NONE if count else Code.UNKNOWN_TOPIC_OR_PARTITION
        only = wire.array([wire.int32(NODE)])
        tail = wire.int32(NODE) + only + only + (wire.array([]) if version >= 5 else b"")
        parts = [wire.int16(Code.NONE) + wire.int32(number) + tail for number in range(count)]
        return wire.int16(code) + wire.string(name) + wire.int8(0) + wire.array(parts)

    def _broker(self) -> bytes:
        return wire.int32(NODE) + wire.string(self.host) + wire.int32(self.port)

    def _create(self, asked: _NewTopic, only_checked: bool) -> bytes:
        code = Code.NONE if asked.copies in (1, -1) else Code.INVALID_REPLICATION_FACTOR
        try:
            if code is Code.NONE and not only_checked:
                self.topics.create(asked.name, asked.partitions, asked.settings)
        except Refused as refusal:
            code = refusal.code
        return wire.string(asked.name) + wire.int16(code) + wire.optional_string(None)


def api_versions(version: int) -> bytes:
    """What this broker answers; to a newer question than it knows too, in the oldest form."""
    known = VERSIONS[Api.API_VERSIONS][1]
    rows = [(api, *span) for api, span in VERSIONS.items()]
    if version == known:
        # The compact form: lengths are one more than they are, and empty lists of tags end each item.
        items = b"".join(wire.int16(a) + wire.int16(b) + wire.int16(c) + b"\0" for a, b, c in rows)
        return wire.int16(Code.NONE) + bytes([len(rows) + 1]) + items + NO_THROTTLE + b"\0"
    code = Code.NONE if version < known else Code.UNSUPPORTED_VERSION
    body = wire.int16(code) + wire.array(b"".join(map(wire.int16, row)) for row in rows)
    return body + NO_THROTTLE if 1 <= version < known else body


_ANSWERS: dict[Api, Callable[[Requests, int, Reader, Reply], None]] = {
    Api.PRODUCE: Requests.produce,
    Api.LIST_OFFSETS: Requests.list_offsets,
    Api.METADATA: Requests.metadata,
    Api.FIND_COORDINATOR: Requests.find_coordinator,
    Api.CREATE_TOPICS: Requests.create_topics,
    Api.INIT_PRODUCER_ID: Requests.init_producer,
    Api.DESCRIBE_CONFIGS: Requests.describe_configs,
}

_OF_GROUPS: dict[Api, Callable[[GroupRequests, int, Reader, Reply], None]] = {
    Api.JOIN_GROUP: GroupRequests.join_group,
    Api.SYNC_GROUP: GroupRequests.sync_group,
    Api.HEARTBEAT: GroupRequests.heartbeat,
    Api.LEAVE_GROUP: GroupRequests.leave_group,
    Api.OFFSET_COMMIT: GroupRequests.commit,
    Api.OFFSET_FETCH: GroupRequests.committed,
}


def _new_topic(request: Reader) -> _NewTopic:
    name, partitions, copies = request.string(), request.int32(), request.int16()
    request.array(lambda: (request.int32(), request.array(request.int32)))
    settings = request.array(lambda: (request.string(), request.optional_string()))
    return _NewTopic(name, partitions, copies, {name: value or "" for name, value in settings})


def _setting(name: str, value: str) -> bytes:
    """One that can be changed, was set for the topic, is no secret, and has no other names."""
    told = wire.string(name) + wire.optional_string(value)
    return told + wire.int8(0) + wire.int8(_SET_FOR_THE_TOPIC) + wire.int8(0) + wire.array([])
