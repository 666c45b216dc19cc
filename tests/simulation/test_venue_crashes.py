"""A venue that crashes at every step, and its output fails at any: afterwards nothing is lost or doubled."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from book_service import audit
from book_service.venue_partition import VenueUnrecoverable
from service_kit.kafka.errors import ProducerFenced
from tests.simulation.memory_venue import HOME, Crash, MemoryLog, Steps, World, take, truth
from tests.simulation.order_flow import order_log


@pytest.fixture(autouse=True)
def nobody_waits_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes die here, never the machine: what was written is there, synced or not, unless it is cut."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def check(world: World, values: list[bytes], last_life) -> None:
    """Output, audit log and venue are, byte for byte, what an undisturbed venue gives."""
    wanted, venue = truth(values)
    assert list(zip(world.topic.offsets, world.topic.values, strict=True)) == wanted
    assert last_life.venue.state_hash() == venue.state_hash()
    found = audit.verify(world.folder / "audit")
    assert found.sound, found.broken
    kept = audit.read(audit.chain_folder(world.folder / "audit", HOME.topic, HOME.partition))
    assert [(one.offset, one.executions) for one in kept] == truth(values, 1 << 30)[0]
    # And from its snapshot the venue comes back as it was.
    again, _ = world.start(Steps())
    assert again.open(lambda: world.topic.committed) == venue.next_offset
    assert again.venue.state_hash() == venue.state_hash()
    again.close()


def steps_of(values: list[bytes], folder: Path, draw: int, transactional: bool) -> int:
    """How many steps a life without a crash takes."""
    steps = Steps()
    world = World(MemoryLog(values), folder, random.Random(draw), transactional)
    check(world, values, world.live(steps))
    return steps.count


@pytest.mark.parametrize("transactional", [False, True], ids=["plain", "transactions"])
def test_a_crash_at_every_step(tmp_path: Path, seed: int, transactional: bool) -> None:
    values = order_log(random.Random(seed), 14, 12)
    count = steps_of(values, tmp_path / "whole", seed, transactional)
    assert count > 30
    for last in range(1, count + 1):
        world = World(MemoryLog(values), tmp_path / str(last), random.Random(seed), transactional)
        if world.live(Steps(last)) is not None:
            continue  # what the draws made of this life was shorter
        ended = world.live(Steps())
        assert ended is not None
        check(world, values, ended)


@pytest.mark.parametrize("transactional", [False, True], ids=["plain", "transactions"])
@pytest.mark.parametrize("life", range(12))
def test_many_lives_and_an_output_that_fails(
    tmp_path: Path, seed: int, transactional: bool, life: int
) -> None:
    draw = random.Random(seed * 100 + life)
    values = order_log(draw, 60, 20)
    world = World(MemoryLog(values), tmp_path, draw, transactional, failure_rate=0.15)
    ended = None
    while ended is None:
        ended = world.live(Steps(draw.randint(1, 120)))
    check(world, values, ended)


def test_a_writer_that_was_declared_dead_is_shut_out_and_its_successor_misses_nothing(
    tmp_path: Path, seed: int
) -> None:
    draw = random.Random(seed)
    values = order_log(draw, 30, 10)
    world = World(MemoryLog(values), tmp_path, draw, transactional=True)
    old, _ = world.start(Steps())
    at = old.open()
    for offset in range(at, 12):
        take(old, world.log.record(offset), Steps())
        if offset == 7:
            old.settle()
            old.snapshot()
    # Paused here, for so long that another process takes the partition over; the disk is its own.
    world.folder = tmp_path / "other"
    new, _ = world.start(Steps())
    assert new.open(lambda: world.topic.committed) == 0
    with pytest.raises(ProducerFenced):
        old.settle()
    for offset in range(30):
        take(new, world.log.record(offset), Steps())
    new.settle()
    old.close()
    wanted, venue = truth(values)
    assert list(zip(world.topic.offsets, world.topic.values, strict=True)) == wanted
    assert new.venue.state_hash() == venue.state_hash()
    new.close()


def test_an_output_made_by_another_venue_is_not_written_on(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    values = order_log(draw, 10, 30)
    world = World(MemoryLog(values), tmp_path, draw)
    ended = world.live(Steps())
    assert ended is not None
    world.topic.values[-1] = world.topic.values[-1] + b"\x98\x01\x07"  # another first_report
    for file in tmp_path.glob("snapshots/*.snapshot"):
        file.unlink()
    with pytest.raises(VenueUnrecoverable, match="other executions"):
        world.live(Steps())


def test_a_snapshot_ahead_of_the_output_is_not_used(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    values = order_log(draw, 20, 10)
    world = World(MemoryLog(values), tmp_path, draw)
    assert world.live(Steps()) is not None
    # The output has lost its end, as a broker without enough replicas may: the venue makes it again.
    del world.topic.values[5:], world.topic.offsets[5:]
    world.topic.committed = 0
    ended = world.live(Steps())
    assert list(zip(world.topic.offsets, world.topic.values, strict=True)) == truth(values)[0]
    assert ended is not None


def test_the_simulation_sees_what_is_doubled_and_what_is_lost(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    values = order_log(draw, 20, 10)
    world = World(MemoryLog(values), tmp_path, draw)
    ended = world.live(Steps())
    for spoil in (
        lambda t: (t.values.pop(3), t.offsets.pop(3)),
        lambda t: t.append([(t.offsets[0], t.values[0])]),
    ):
        kept = list(world.topic.offsets), list(world.topic.values)
        spoil(world.topic)
        with pytest.raises(AssertionError):
            check(world, values, ended)
        world.topic.offsets, world.topic.values = kept
    with pytest.raises(Crash):
        Steps(1)()
