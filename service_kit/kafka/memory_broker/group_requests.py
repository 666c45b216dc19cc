"""What the broker answers to the members of consumer groups."""

from __future__ import annotations

from dataclasses import dataclass, field

from service_kit.kafka.memory_broker import wire
from service_kit.kafka.memory_broker.codes import Code
from service_kit.kafka.memory_broker.fetches import Reply
from service_kit.kafka.memory_broker.groups import Asked, Group, Joined, Later, Synced
from service_kit.kafka.memory_broker.topics import Topics
from service_kit.kafka.memory_broker.wire import NO_THROTTLE, Malformed, Reader, topic

GROUPS_MAX = 10_000
_NO_EPOCH = wire.int32(-1)


@dataclass(slots=True)
class GroupRequests:
    """Answers what is asked of a group. `later` calls something after so many seconds."""

    topics: Topics
    later: Later
    _groups: dict[str, Group] = field(default_factory=dict)

    def join_group(self, version: int, request: Reader, reply: Reply) -> None:
        """Answered when everybody has joined."""
        group, session_ms = self._group(request.string()), request.int32()
        rebalance_ms = request.int32() if version >= 1 else session_ms
        member = request.string()
        instance = request.optional_string() if version >= 5 else None
        kind = request.string()
        protocols = request.array(lambda: (request.string(), request.blob()))
        asked = Asked(member, instance, session_ms, rebalance_ms, kind, protocols)
        group.join(asked, lambda joined: reply(_joined(joined, version)))

    def sync_group(self, version: int, request: Reader, reply: Reply) -> None:
        """Answered when the leader has divided the partitions."""
        group, generation, member = self._group(request.string()), request.int32(), request.string()
        if version >= 3:
            request.optional_string()
        given = request.array(lambda: (request.string(), request.blob()))

        def answer(synced: Synced) -> None:
            body = wire.int16(synced.code) + wire.blob(synced.assignment)
            reply(NO_THROTTLE + body if version >= 1 else body)

        group.sync(member, generation, given, answer)

    def heartbeat(self, version: int, request: Reader, reply: Reply) -> None:
        """A member's sign of life."""
        group, generation, member = self._group(request.string()), request.int32(), request.string()
        body = wire.int16(group.heartbeat(member, generation))
        reply(NO_THROTTLE + body if version >= 1 else body)

    def leave_group(self, version: int, request: Reader, reply: Reply) -> None:
        """A member's farewell."""
        group = self._group(request.string())
        body = wire.int16(group.leave(request.string()))
        reply(NO_THROTTLE + body if version >= 1 else body)

    def commit(self, version: int, request: Reader, reply: Reply) -> None:
        """Keeps a group's offsets."""
        group, generation, member = self._group(request.string()), request.int32(), request.string()
        if version >= 7:
            request.optional_string()
        if version <= 4:
            request.int64()  # how long to keep them: as long as this broker lives
        code = group.may_commit(member, generation)

        def one() -> bytes:
            return topic(request, lambda name: self._commit(group, name, version, code, request))

        body = wire.array(request.array(one))
        reply(NO_THROTTLE + body if version >= 3 else body)

    def committed(self, version: int, request: Reader, reply: Reply) -> None:
        """A group's offsets, those asked for or all."""
        group = self._group(request.string())
        asked = request.optional_array(lambda: (request.string(), request.array(request.int32)))
        if asked is None:
            by_topic: dict[str, list[int]] = {}
            for name, number in group.committed:
                by_topic.setdefault(name, []).append(number)
            asked = list(by_topic.items())
        body = wire.array(
            wire.string(name) + wire.array(_kept(group, name, number, version) for number in numbers)
            for name, numbers in asked
        )
        if version >= 2:
            body += wire.int16(Code.NONE)
        reply(NO_THROTTLE + body if version >= 3 else body)

    def _group(self, name: str) -> Group:
        group = self._groups.get(name)
        if group is None:
            if len(self._groups) >= GROUPS_MAX:
                raise Malformed(f"more than {GROUPS_MAX} groups")
            group = self._groups[name] = Group(name, self.later)
        return group

    def _commit(self, group: Group, name: str, version: int, code: Code, request: Reader) -> bytes:
        number, offset = request.int32(), request.int64()
        if version >= 6:
            request.int32()
        note = request.optional_string()
        if code is Code.NONE and self.topics.find(name, number) is None:
            code = Code.UNKNOWN_TOPIC_OR_PARTITION
        if code is Code.NONE:
            group.committed[name, number] = (offset, note)
        return wire.int32(number) + wire.int16(code)


def _joined(joined: Joined, version: int) -> bytes:
    members = wire.array(
        wire.string(name) + (wire.optional_string(instance) if version >= 5 else b"") + wire.blob(about)
        for name, instance, about in joined.members
    )
    body = b"".join(
        (
            wire.int16(joined.code),
            wire.int32(joined.generation),
            wire.string(joined.protocol),
            wire.string(joined.leader),
            wire.string(joined.member),
            members,
        )
    )
    return NO_THROTTLE + body if version >= 2 else body


def _kept(group: Group, name: str, number: int, version: int) -> bytes:
    offset, note = group.committed.get((name, number), (-1, ""))
    epoch = _NO_EPOCH if version >= 5 else b""
    return (
        wire.int32(number) + wire.int64(offset) + epoch + wire.optional_string(note) + wire.int16(Code.NONE)
    )
