"""The in-memory broker's consumer groups, on a clock that the test moves."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from broker_parts import Clock

from service_kit.kafka.memory_broker.codes import Code
from service_kit.kafka.memory_broker.groups import FIRST_WAIT_S, Asked, Group, Joined, Synced


@dataclass
class Member:
    """A consumer: joins, and divides the partitions when it is told to lead."""

    group: Group
    instance: str | None = None
    session_ms: int = 1_000
    protocols: tuple[str, ...] = ("range",)
    name: str = ""
    joins: list[Joined] = field(default_factory=list)
    syncs: list[Synced] = field(default_factory=list)

    def join(self) -> Member:
        offered = [(one, b"about") for one in self.protocols]
        asked = Asked(self.name, self.instance, self.session_ms, 3_000, "consumer", offered)
        self.group.join(asked, self._joined)
        return self

    def sync(self) -> None:
        last = self.joins[-1]
        given = [(name, b"for " + name.encode()) for name, _, _ in last.members]
        self.group.sync(self.name, last.generation, given, self.syncs.append)

    def beat(self) -> Code:
        return self.group.heartbeat(self.name, self.joins[-1].generation)

    @property
    def leads(self) -> bool:
        return self.joins[-1].leader == self.name

    def _joined(self, joined: Joined) -> None:
        self.joins.append(joined)
        if joined.code is Code.NONE:
            self.name = joined.member


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def group(clock: Clock) -> Group:
    return Group("desk", clock.later)


def settled(clock: Clock, *members: Member) -> None:
    """All of them joined and synced for the first time."""
    for one in members:
        one.join()
    clock.pass_s(FIRST_WAIT_S)
    for one in members:
        one.sync()


def test_members_that_come_together_share_at_once(clock: Clock, group: Group) -> None:
    first, second = Member(group), Member(group)
    settled(clock, first, second)
    assert [one.joins[0].generation for one in (first, second)] == [1, 1]
    assert first.leads
    assert not second.leads
    assert {name for name, _, _ in first.joins[0].members} == {first.name, second.name}
    assert second.joins[0].members == ()
    assert first.syncs == [Synced(Code.NONE, b"for " + first.name.encode())]
    assert second.syncs == [Synced(Code.NONE, b"for " + second.name.encode())]
    assert first.beat() is second.beat() is Code.NONE


def test_a_follower_that_asks_first_waits_for_the_leader(clock: Clock, group: Group) -> None:
    leader, follower = Member(group).join(), Member(group).join()
    clock.pass_s(FIRST_WAIT_S)
    follower.sync()
    assert follower.syncs == []
    leader.sync()
    assert follower.syncs[0].assignment == b"for " + follower.name.encode()


def test_one_more_makes_everybody_join_again(clock: Clock, group: Group) -> None:
    first = Member(group)
    settled(clock, first)
    late = Member(group).join()
    assert late.joins == []
    assert first.beat() is Code.REBALANCE_IN_PROGRESS
    first.join()
    assert [first.joins[-1].generation, late.joins[-1].generation] == [2, 2]
    assert first.leads
    late.sync()
    first.sync()
    assert late.syncs[0].code is Code.NONE


def test_who_does_not_come_back_in_time_is_out(clock: Clock, group: Group) -> None:
    first, second = Member(group, session_ms=60_000), Member(group, session_ms=60_000)
    settled(clock, first, second)
    late = Member(group, session_ms=60_000).join()
    second.join()
    clock.pass_s(2.9)
    assert late.joins == []
    clock.pass_s(0.1)
    assert late.joins[-1].generation == second.joins[-1].generation == 2
    assert second.leads or late.leads
    assert first.beat() is Code.UNKNOWN_MEMBER_ID


def test_silence_ends_a_membership_and_signs_of_life_keep_it(clock: Clock, group: Group) -> None:
    first, second = Member(group), Member(group)
    settled(clock, first, second)
    for _ in range(3):
        clock.pass_s(0.9)
        assert first.beat() is Code.NONE or first.beat() is Code.REBALANCE_IN_PROGRESS
    assert second.beat() is Code.UNKNOWN_MEMBER_ID
    assert first.beat() is Code.REBALANCE_IN_PROGRESS
    first.join()
    assert first.joins[-1].generation == 2
    assert len(first.joins[-1].members) == 1


def test_who_leaves_gives_room_at_once(clock: Clock, group: Group) -> None:
    first, second = Member(group), Member(group)
    settled(clock, first, second)
    assert group.leave(first.name) is Code.NONE
    assert group.leave(first.name) is Code.UNKNOWN_MEMBER_ID
    second.join()
    assert second.leads
    group.leave(second.name)
    assert clock.waiting == 0
    # An empty group begins as a new one does, and its generations go on.
    third = Member(group).join()
    assert third.joins == []
    clock.pass_s(FIRST_WAIT_S)
    assert third.joins[0].generation == 3


def test_a_process_under_its_old_name_takes_over_without_a_division(clock: Clock, group: Group) -> None:
    first, named = Member(group), Member(group, instance="a")
    settled(clock, first, named)
    again = Member(group, instance="a").join()
    assert (again.joins[0].code, again.joins[0].generation, again.joins[0].members) == (Code.NONE, 1, ())
    again.sync()
    assert again.syncs[0].assignment == b"for " + named.name.encode()
    assert first.beat() is again.beat() is Code.NONE
    assert named.beat() is Code.FENCED_INSTANCE_ID


def test_a_leader_under_its_old_name_does_not_divide_again(clock: Clock, group: Group) -> None:
    leader, other = Member(group, instance="a"), Member(group)
    settled(clock, leader, other)
    assert leader.leads
    again = Member(group, instance="a").join()
    assert not again.leads
    again.sync()
    assert again.syncs[0].assignment == b"for " + leader.name.encode()
    # At the next division it leads.
    late = Member(group).join()
    again.join()
    other.join()
    assert again.leads
    assert len(late.joins) == 1


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (Asked("nobody", None, 1_000, 3_000, "consumer", [("range", b"")]), Code.UNKNOWN_MEMBER_ID),
        (Asked("", None, 1, 3_000, "consumer", [("range", b"")]), Code.INVALID_SESSION_TIMEOUT),
        (Asked("", None, 9_999_999, 3_000, "consumer", [("range", b"")]), Code.INVALID_SESSION_TIMEOUT),
        (Asked("", None, 1_000, 3_000, "consumer", [("sticky", b"")]), Code.INCONSISTENT_GROUP_PROTOCOL),
        (Asked("", None, 1_000, 3_000, "connect", [("range", b"")]), Code.INCONSISTENT_GROUP_PROTOCOL),
        (Asked("", None, 1_000, 3_000, "consumer", []), Code.INCONSISTENT_GROUP_PROTOCOL),
    ],
)
def test_who_does_not_fit_is_refused(clock: Clock, group: Group, asked: Asked, code: Code) -> None:
    settled(clock, Member(group))
    answers: list[Joined] = []
    group.join(asked, answers.append)
    assert [one.code for one in answers] == [code]


def test_the_protocol_is_one_that_all_offer(clock: Clock, group: Group) -> None:
    first = Member(group, protocols=("sticky", "range", "robin"))
    settled(clock, first, Member(group, protocols=("robin", "range")))
    assert first.joins[0].protocol == "range"


def test_offsets_are_taken_of_members_of_this_generation_only(clock: Clock, group: Group) -> None:
    assert group.may_commit("", -1) is Code.NONE
    first = Member(group).join()
    clock.pass_s(FIRST_WAIT_S)
    assert group.may_commit(first.name, 1) is Code.REBALANCE_IN_PROGRESS
    first.sync()
    assert group.may_commit(first.name, 1) is Code.NONE
    assert group.may_commit(first.name, 0) is Code.ILLEGAL_GENERATION
    assert group.may_commit("", -1) is Code.UNKNOWN_MEMBER_ID
    # While others are waited for, what was done may still be committed.
    Member(group).join()
    assert group.may_commit(first.name, 1) is Code.NONE
