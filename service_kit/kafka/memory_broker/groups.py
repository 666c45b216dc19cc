"""A consumer group: who its members are, what each has been given, and what the group has committed.

The broker's side of the classic group protocol. It knows neither sockets nor the clock: answers go through
callbacks, and waiting is the business of a `Later`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol

from service_kit.kafka.memory_broker.codes import Code

# How long the first member of a group waits for others: here all are started by one command.
FIRST_WAIT_S = 0.05
SESSION_MS_MIN, SESSION_MS_MAX = 100, 1_800_000
NO_GENERATION = -1


class Waiting(Protocol):
    """What can be called off."""

    def cancel(self) -> None: ...


Later = Callable[[float, Callable[[], None]], Waiting]


class Asked(NamedTuple):
    """What a member says of itself when it joins."""

    member: str
    instance: str | None
    session_ms: int
    rebalance_ms: int
    kind: str
    protocols: list[tuple[str, bytes]]


class Joined(NamedTuple):
    """The answer to a join; the members only for the one that is to divide the partitions."""

    code: Code
    generation: int = NO_GENERATION
    protocol: str = ""
    leader: str = ""
    member: str = ""
    members: tuple[tuple[str, str | None, bytes], ...] = ()


class Synced(NamedTuple):
    """The answer to a sync: what the member has been given."""

    code: Code
    assignment: bytes = b""


class _State(Enum):
    EMPTY = "empty"
    JOINING = "joining"
    SYNCING = "syncing"
    STABLE = "stable"


@dataclass(slots=True)
class _Member:
    asked: Asked
    join: Callable[[Joined], None] | None = None
    sync: Callable[[Synced], None] | None = None
    assignment: bytes = b""
    session: Waiting | None = None


@dataclass(slots=True)
class Group:
    """One group; every method answers through its callback or by its value."""

    name: str
    later: Later
    committed: dict[tuple[str, int], tuple[int, str | None]] = field(default_factory=dict)
    _state: _State = _State.EMPTY
    _generation: int = 0
    _protocol: str = ""
    _leader: str = ""
    _members: dict[str, _Member] = field(default_factory=dict)
    _named: dict[str, str] = field(default_factory=dict)  # member by its instance's name
    _replaced: set[str] = field(default_factory=set)  # members whose place another of their name has
    _wait: Waiting | None = None
    _first: bool = False  # nobody was here before: others may still come
    _made: int = 0

    def join(self, asked: Asked, reply: Callable[[Joined], None]) -> None:
        """A member comes, or comes again."""
        refusal = self._refusal(asked)
        if refusal is not None:
            reply(Joined(refusal, member=asked.member))
            return
        if not asked.member and asked.instance in self._named:
            self._replace(asked, self._named[asked.instance], reply)
            return
        name = asked.member or self._new_name(asked.instance)
        member = self._members.setdefault(name, _Member(asked))
        if member.join is not None:
            member.join(Joined(Code.REBALANCE_IN_PROGRESS, member=name))
        member.asked, member.join = asked, reply
        self._hold(member)
        if asked.instance is not None:
            self._named[asked.instance] = name
        if self._state is not _State.JOINING:
            self._begin(first=self._state is _State.EMPTY)
        self._end_when_all_joined()

    def sync(
        self,
        name: str,
        generation: int,
        given: list[tuple[str, bytes]],
        reply: Callable[[Synced], None],
    ) -> None:
        """A member asks what it has been given; the leader says what each gets."""
        code = self._check(name, generation)
        if code is not Code.NONE or self._state is _State.JOINING:
            reply(Synced(code if code is not Code.NONE else Code.REBALANCE_IN_PROGRESS))
            return
        member = self._members[name]
        self._touch(name)
        if self._state is _State.STABLE:
            reply(Synced(Code.NONE, member.assignment))
            return
        member.sync = reply
        if name == self._leader:
            self._divide(dict(given))

    def heartbeat(self, name: str, generation: int) -> Code:
        """A member lives."""
        code = self._check(name, generation)
        if code is not Code.NONE:
            return code
        self._touch(name)
        return Code.REBALANCE_IN_PROGRESS if self._state is _State.JOINING else Code.NONE

    def leave(self, name: str) -> Code:
        """A member goes; the others share what it had."""
        if name not in self._members:
            return Code.UNKNOWN_MEMBER_ID
        self._remove(name)
        return Code.NONE

    def may_commit(self, name: str, generation: int) -> Code:
        """Whether offsets from this member are taken: from anybody while nobody is a member."""
        if generation == NO_GENERATION and not self._members:
            return Code.NONE
        code = self._check(name, generation)
        if code is Code.NONE:
            self._touch(name)
            return Code.REBALANCE_IN_PROGRESS if self._state is _State.SYNCING else Code.NONE
        return code

    def _refusal(self, asked: Asked) -> Code | None:
        if not SESSION_MS_MIN <= asked.session_ms <= SESSION_MS_MAX:
            return Code.INVALID_SESSION_TIMEOUT
        if asked.member and asked.member not in self._members:
            return self._stranger(asked.member)
        if asked.member and asked.instance and self._named.get(asked.instance) != asked.member:
            return Code.FENCED_INSTANCE_ID
        offered = {name for name, _ in asked.protocols}
        for name, other in self._members.items():
            same = other.asked.kind == asked.kind
            if name != asked.member and not (same and offered & {one for one, _ in other.asked.protocols}):
                return Code.INCONSISTENT_GROUP_PROTOCOL
        return None if offered else Code.INCONSISTENT_GROUP_PROTOCOL

    def _check(self, name: str, generation: int) -> Code:
        if name not in self._members:
            return self._stranger(name)
        return Code.NONE if generation == self._generation else Code.ILLEGAL_GENERATION

    def _stranger(self, name: str) -> Code:
        return Code.FENCED_INSTANCE_ID if name in self._replaced else Code.UNKNOWN_MEMBER_ID

    def _new_name(self, instance: str | None) -> str:
        self._made += 1
        return f"{instance or 'member'}-{self.name}-{self._made}"

    def _replace(self, asked: Asked, old: str, reply: Callable[[Joined], None]) -> None:
        """A process has been started again under its name: it takes over what the old one had."""
        name = self._new_name(asked.instance)
        member = self._members.pop(old)
        self._replaced.add(old)
        self._hold(member)
        if member.join is not None:
            member.join(Joined(Code.FENCED_INSTANCE_ID, member=old))
        if member.sync is not None:
            member.sync(Synced(Code.FENCED_INSTANCE_ID))
        same = member.asked.protocols == asked.protocols
        self._members[name] = renewed = _Member(asked, assignment=member.assignment)
        self._named[str(asked.instance)] = name
        leader, self._leader = self._leader, name if self._leader == old else self._leader
        if self._state is _State.STABLE and same:
            # The old leader's name: the new process is not to divide anything.
            reply(Joined(Code.NONE, self._generation, self._protocol, leader, name))
            self._touch(name)
            return
        renewed.join = reply
        if self._state is not _State.JOINING:
            self._begin()
        self._end_when_all_joined()

    def _begin(self, *, first: bool = False) -> None:
        """Everybody is to join again; who has not in time is out."""
        self._state, self._first = _State.JOINING, first
        for member in self._members.values():
            if member.sync is not None:
                member.sync(Synced(Code.REBALANCE_IN_PROGRESS))
                member.sync = None
        if self._wait is not None:
            self._wait.cancel()
        patience_s = max(one.asked.rebalance_ms for one in self._members.values()) / 1_000
        self._wait = self.later(FIRST_WAIT_S if first else patience_s, self._out_of_patience)

    def _end_when_all_joined(self) -> None:
        if not self._first and all(one.join is not None for one in self._members.values()):
            self._end()

    def _out_of_patience(self) -> None:
        for name in [name for name, one in self._members.items() if one.join is None]:
            self._forget(name)
        self._end()

    def _end(self) -> None:
        """A new generation: everybody who has joined is told, the leader with all members."""
        if self._state is not _State.JOINING:
            return
        if self._wait is not None:
            self._wait.cancel()
        if not self._members:
            self._state, self._leader = _State.EMPTY, ""
            return
        self._generation += 1
        self._state = _State.SYNCING
        if self._leader not in self._members:
            self._leader = next(iter(self._members))
        self._protocol = self._common_protocol()
        everybody = tuple(
            (name, one.asked.instance, dict(one.asked.protocols)[self._protocol])
            for name, one in self._members.items()
        )
        for name, member in self._members.items():
            reply, member.join = member.join, None
            seen = everybody if name == self._leader else ()
            self._touch(name)
            if reply is not None:
                reply(Joined(Code.NONE, self._generation, self._protocol, self._leader, name, seen))

    def _common_protocol(self) -> str:
        offered = [{name for name, _ in one.asked.protocols} for one in self._members.values()]
        common = set.intersection(*offered)
        return next(name for name, _ in self._members[self._leader].asked.protocols if name in common)

    def _divide(self, given: dict[str, bytes]) -> None:
        self._state = _State.STABLE
        for name, member in self._members.items():
            member.assignment = given.get(name, b"")
            if member.sync is not None:
                member.sync(Synced(Code.NONE, member.assignment))
                member.sync = None

    def _hold(self, member: _Member) -> None:
        """Who waits for an answer of ours is not asked for signs of life."""
        if member.session is not None:
            member.session.cancel()
            member.session = None

    def _touch(self, name: str) -> None:
        member = self._members[name]
        self._hold(member)
        member.session = self.later(member.asked.session_ms / 1_000, lambda: self._remove(name))

    def _forget(self, name: str) -> None:
        member = self._members.pop(name)
        self._hold(member)
        if member.asked.instance is not None:
            self._named.pop(member.asked.instance, None)
        if member.join is not None:
            member.join(Joined(Code.UNKNOWN_MEMBER_ID, member=name))
        if member.sync is not None:
            member.sync(Synced(Code.UNKNOWN_MEMBER_ID))

    def _remove(self, name: str) -> None:
        if name not in self._members:
            return
        self._forget(name)
        if not self._members:
            self._state, self._leader = _State.EMPTY, ""
            if self._wait is not None:
                self._wait.cancel()
        elif self._state is _State.JOINING:
            self._end_when_all_joined()
        else:
            self._begin()
