"""Limits split over partitions: shares that add up, and splittings under way that never add up to more."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from book_service import order_events
from book_service.budgets import Splitter, Wanted, first_controls, shares, shares_by_use
from book_service.matching import ControlCommand, Controls, Limit, RejectReason
from book_service.venue import Listed, Venue
from protos import packing
from protos.control_commands import ControlRow, control_batch
from protos.market.v1.market_pb2 import Origin
from protos.orders.v1 import orders_pb2 as orders
from service_kit.errors import AlreadyChanged
from service_kit.kafka.control_log import Acknowledged, Answer, answered

PARTITIONS = 4
EXPOSURE, LOSS = Limit.OPEN_EXPOSURE, Limit.LOSS
LISTED = (Listed("AAA", 0.01, 1.0, 100), Listed("BBB", 0.05, 5.0, 500))


class Venues:
    """Real venues over logs in memory; `between` runs before each record is applied."""

    def __init__(self, controls: Controls | None = None) -> None:
        first = first_controls(controls or Controls(), PARTITIONS)
        self.venues = [Venue(LISTED, first) for _ in range(PARTITIONS)]
        self.offsets = [0] * PARTITIONS
        self.between = lambda: None
        self.now = 0

    def time_ns(self) -> int:
        self.now += 1
        return self.now

    def send(self, batches: Mapping[int, orders.OrderBatch]) -> list[Acknowledged]:
        made = []
        for home, batch in batches.items():
            self.between()
            made.append(answered(home, self.offsets[home], self.apply(home, batch)))
        return made

    def apply(self, home: int, batch: orders.OrderBatch) -> orders.ExecutionBatch:
        at = Origin(topic="orders.incoming", partition=home, offset=self.offsets[home])
        self.offsets[home] += 1
        return self.venues[home].apply(order_events.decode(batch.SerializeToString()), at)

    def splitter(self) -> Splitter:
        return Splitter(self.send, PARTITIONS, self.time_ns, "test")

    def told(self, home: int, limit: Limit, account: int | None) -> Answer:
        row = ControlRow(ControlCommand.LOWER_LIMIT, account, limit, -1)
        return answered(home, 0, self.apply(home, control_batch([row], self.now))).answers[0]

    def total(self, limit: Limit, account: int | None) -> int:
        return sum(self.told(home, limit, account).value for home in range(PARTITIONS))

    def order(self, home: int, order_id: int, account: int, price: int, quantity: int) -> list[int]:
        batch = orders.OrderBatch(symbols=["AAA"], symbol_index=[0])
        for name, value in (
            *(("action", 0), ("order_id", order_id), ("account", account), ("price_ticks", price)),
            *(("quantity", quantity), ("time_ns", self.now)),
        ):
            packing.write(batch, name, [value])
        made = self.apply(home, batch)
        return packing.column(made, "reason", len(made.kind)).tolist()


@given(st.integers(0, 2**60), st.lists(st.integers(0, 2**60), min_size=1, max_size=12))
def test_shares_are_whole_and_add_up_to_the_total(total: int, weights: list[int]) -> None:
    parts = shares(total, weights)
    assert sum(parts) == total
    assert min(parts) >= 0
    base = weights if any(weights) else [1] * len(weights)
    for part, weight in zip(parts, base, strict=True):
        assert abs(part * sum(base) - total * weight) < sum(base)  # less than one unit from its weight


@given(st.integers(0, 2**60), st.lists(st.integers(0, 2**60), min_size=1, max_size=12))
def test_shares_by_use_add_up_and_cover_what_is_used_where_they_can(total: int, used: list[int]) -> None:
    parts = shares_by_use(total, used)
    assert sum(parts) == total
    if sum(used) <= total:
        assert all(part >= use for part, use in zip(parts, used, strict=True))


def test_no_limit_stays_none_everywhere() -> None:
    assert shares(-1, [1, 2]) == shares_by_use(-1, [5, 0]) == (-1, -1)
    with pytest.raises(ValueError, match="weights"):
        shares(10, [1, -1])


def test_partitions_start_with_their_share_of_what_spans_them() -> None:
    whole = Controls(loss=1_003)
    part = first_controls(whole, PARTITIONS)
    for name in ("open_exposure", "loss", "message_rate", "execution_rate", "breaker_loss_ppm"):
        assert 0 <= getattr(whole, name) - PARTITIONS * getattr(part, name) < PARTITIONS
    assert part.maximum_value == whole.maximum_value
    assert first_controls(Controls(), PARTITIONS).loss is None


def test_a_splitting_is_in_force_on_every_partition() -> None:
    venues = Venues()
    found = venues.splitter().split([Wanted(EXPOSURE, 7, 1_001), Wanted(LOSS, None, 10)], {7: 5_000})
    assert [one.value for one in found if one.limit is EXPOSURE] == [251, 250, 250, 250]
    assert [one.value for one in found if one.limit is LOSS] == [3, 3, 2, 2]
    assert [venues.told(home, EXPOSURE, 7).value for home in range(PARTITIONS)] == [251, 250, 250, 250]
    # Prices of 1.00 at a tick of 0.01 and 100 units a tick: an order of one is worth 10,000 units.
    assert venues.order(0, 1, 7, 100, 1) == [RejectReason.OPEN_EXPOSURE_LIMIT]
    assert venues.order(0, 2, 8, 100, 1) == [0]


def test_a_limit_can_be_taken_off_and_put_on_again() -> None:
    venues = Venues()
    for total, each in ((40, 10), (-1, -1), (20, 5)):
        assert {one.value for one in venues.splitter().split([Wanted(LOSS, 7, total)])} == {each}


def test_by_use_a_partition_gets_at_least_what_it_has_open() -> None:
    venues = Venues()
    venues.splitter().split([Wanted(EXPOSURE, 7, 400_000)])
    assert venues.order(2, 1, 7, 100, 9) == [0]  # 90,000 of 100,000
    assert venues.order(2, 2, 7, 100, 9) == [RejectReason.OPEN_EXPOSURE_LIMIT]
    found = venues.splitter().split([Wanted(EXPOSURE, 7, 400_000)], by_use=True)
    assert sum(one.value for one in found) == 400_000
    assert found[2].value == 90_000 + 155_000 // 4 + 155_000
    assert [one.open_value for one in found] == [0, 0, 90_000, 0]
    assert venues.order(2, 3, 7, 100, 9) == [0]


def test_at_no_moment_is_the_sum_above_the_larger_limit(seed: int) -> None:
    draw = random.Random(seed)
    venues = Venues(Controls(open_exposure=80_000))
    before = 80_000
    for _ in range(20):
        wanted = draw.choice([0, draw.randrange(100_000)])
        seen: list[int] = []
        venues.between = lambda seen=seen: seen.append(venues.total(EXPOSURE, 7))
        venues.splitter().split([Wanted(EXPOSURE, 7, wanted)], by_use=draw.random() < 0.5)
        venues.between = lambda: None
        assert len(seen) >= 2 * PARTITIONS
        assert max(seen) <= max(before, wanted)
        assert venues.total(EXPOSURE, 7) == wanted
        before = wanted


def test_two_splittings_at_once_never_add_up(seed: int) -> None:
    """Every way in which the records of two splittings can follow each other on each partition, at random."""
    draw = random.Random(seed)
    for _ in range(150):
        venues = Venues(Controls(open_exposure=1_000))
        limits = [draw.randrange(2_000), draw.randrange(2_000)]
        targets = [shares(one, [draw.randrange(3) for _ in range(PARTITIONS)]) for one in limits]
        plans = [list(steps(target, turn + 1)) for turn, target in enumerate(targets)]
        failed = [False, False]
        while any(plans):
            who = draw.choice([place for place, plan in enumerate(plans) if plan])
            # Each waits for its lowering everywhere before it raises; within a phase any order may be.
            phase = [step for step in plans[who] if step[1].command == plans[who][0][1].command]
            home, row = draw.choice(phase)
            plans[who].remove((home, row))
            made = venues.apply(home, control_batch([row], venues.now))
            if not answered(home, 0, made).answers[0].accepted:
                failed[who], plans[who] = True, []
            assert venues.total(EXPOSURE, 7) <= max(1_000, *limits)
        if not failed[1]:  # the later turn came through: it alone is in force
            assert venues.total(EXPOSURE, 7) <= limits[1]


def steps(target: tuple[int, ...], turn: int) -> list[tuple[int, ControlRow]]:
    return [
        (home, ControlRow(command, 7, EXPOSURE, value, turn))
        for command in (ControlCommand.LOWER_LIMIT, ControlCommand.RAISE_LIMIT)
        for home, value in enumerate(target)
    ]


def test_a_splitting_that_another_has_overtaken_says_so_and_leaves_the_limits_low() -> None:
    venues = Venues(Controls(open_exposure=1_000))
    other = venues.splitter()
    late = Splitter(venues.send, PARTITIONS, lambda: 1, "late")
    venues.now = 10

    def overtake() -> None:
        if venues.offsets[3] == 1:  # the first one has lowered everywhere
            venues.between = lambda: None
            other.split([Wanted(EXPOSURE, 7, 600)])

    venues.between = overtake
    with pytest.raises(AlreadyChanged, match="another change of limits"):
        late.split([Wanted(EXPOSURE, 7, 900)])
    assert venues.total(EXPOSURE, 7) == 600


def test_budgets_survive_a_snapshot() -> None:
    venues = Venues()
    venues.now = 10
    venues.splitter().split([Wanted(EXPOSURE, 7, 400), Wanted(Limit.BREAKER_LOSS, None, 30_000)])
    for home, venue in enumerate(venues.venues):
        venues.venues[home] = Venue.restored(LISTED, None, venue.state(), Origin())
        assert venues.venues[home].state_hash() == venue.state_hash()
    assert venues.total(EXPOSURE, 7) == 400
    late = Splitter(venues.send, PARTITIONS, lambda: 1, "late")
    with pytest.raises(AlreadyChanged):  # the turn is part of the state
        late.split([Wanted(EXPOSURE, 7, 500)])


def test_what_makes_no_sense_is_refused_and_changes_nothing() -> None:
    venues = Venues()
    venues.splitter().split([Wanted(EXPOSURE, 7, 400)])
    for row in (
        ControlRow(ControlCommand.LOWER_LIMIT, 7, Limit.SYMBOL_POSITION, 1, 99),  # of one symbol: not split
        ControlRow(ControlCommand.LOWER_LIMIT, 7, 15, 1, 99),
        ControlRow(ControlCommand.LOWER_LIMIT, 7, EXPOSURE, -2, 99),
        ControlRow(ControlCommand.LOWER_LIMIT, 7, EXPOSURE, 1, 0),
        ControlRow(ControlCommand.RAISE_LIMIT, 7, EXPOSURE, 1, 99),  # no lowering of that turn came before
        ControlRow(ControlCommand.RAISE_LIMIT, 7, EXPOSURE, 2**61, 1),
    ):
        made = venues.apply(0, control_batch([row], 0))
        assert list(made.reason) == [RejectReason.BAD_CONTROL_COMMAND]
    assert venues.total(EXPOSURE, 7) == 400
