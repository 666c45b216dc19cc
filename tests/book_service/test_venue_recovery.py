"""Venues in their loops on a broker: restarts by snapshot, refused snapshots, partitions that move."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from book_service import audit
from book_service.order_log import KafkaOrderLog
from book_service.venue_partition import VenuePartition, VenueUnrecoverable
from protos.topics import ORDERS_INCOMING
from service_kit.errors import Unavailable
from service_kit.kafka.appender import Appender
from service_kit.kafka.embedded import EmbeddedBroker
from service_kit.kafka.partitioning import partition_of
from tests.book_service.test_venue import BUY, SELL, batch, executed, leave, loop_on, turn_until

HOME = partition_of("AAA", 4)


@pytest.fixture
def broker():
    with EmbeddedBroker() as broker:
        yield broker


def log_orders(broker, first: int, count: int) -> None:
    log = KafkaOrderLog(Appender(broker.settings()), 4)
    for n in range(first, first + count):
        log.append(batch((0, n, SELL, 100 + n, n)))


def applied(monkeypatch) -> list[int]:
    """Every offset that any venue of this test applies, as it goes."""
    seen: list[int] = []
    real = VenuePartition.apply

    def noting(self, record, events):
        seen.append(record.offset)
        return real(self, record, events)

    monkeypatch.setattr(VenuePartition, "apply", noting)
    return seen


def test_a_restart_reads_only_what_came_after_the_snapshot(broker, tmp_path: Path, monkeypatch) -> None:
    folders = {"snapshot_folder": str(tmp_path / "snapshots"), "audit_folder": str(tmp_path / "audit")}
    log_orders(broker, 1, 6)
    first = loop_on(broker, **folders)
    before = turn_until(first, lambda book: len(book.ask_price_ticks) == 6)
    leave(first)
    [file] = (tmp_path / "snapshots").iterdir()
    assert file.name == f"orders.incoming-{HOME}-{6:020d}.snapshot"

    seen = applied(monkeypatch)
    log_orders(broker, 7, 2)
    second = loop_on(broker, **folders)
    after = turn_until(second, lambda book: len(book.ask_price_ticks) == 8)
    leave(second)
    assert seen == [6, 7]
    assert list(after.ask_price_ticks)[:6] == list(before.ask_price_ticks)
    assert executed(broker, 8) == [(HOME, offset) for offset in range(8)]
    kept = audit.verify(tmp_path / "audit")
    assert kept.sound
    assert [chain.records for chain in kept.chains] == [8]


def test_a_damaged_snapshot_is_refused_by_name_and_the_log_read_from_its_beginning(
    broker, tmp_path: Path, monkeypatch, caplog
) -> None:
    log_orders(broker, 1, 5)
    first = loop_on(broker, snapshot_folder=str(tmp_path))
    turn_until(first, lambda book: len(book.ask_price_ticks) == 5)
    leave(first)
    [file] = tmp_path.iterdir()
    blob = bytearray(file.read_bytes())
    blob[len(blob) // 2] ^= 1
    file.write_bytes(bytes(blob))
    seen = applied(monkeypatch)
    second = loop_on(broker, snapshot_folder=str(tmp_path))
    with caplog.at_level(logging.WARNING):
        turn_until(second, lambda book: len(book.ask_price_ticks) == 5)
    leave(second)
    assert seen == [0, 1, 2, 3, 4]
    assert f"snapshot {file}: its hash does not match" in caplog.text
    assert executed(broker, 5) == [(HOME, offset) for offset in range(5)]


def test_a_process_that_was_killed_before_it_committed_doubles_nothing(broker) -> None:
    log_orders(broker, 1, 5)
    first = loop_on(broker)
    turn_until(first, lambda book: len(book.ask_price_ticks) == 5)
    for held in first._venues.values():
        held.output._producer.flush()  # delivered; then the process is gone, with no commit and no farewell
    first.consumer._assignment._on_revoke = None
    first.consumer.close()
    second = loop_on(broker, group="another")  # which has committed nothing
    log_orders(broker, 6, 1)
    turn_until(second, lambda book: len(book.ask_price_ticks) == 6)
    leave(second)
    assert executed(broker, 6) == [(HOME, offset) for offset in range(6)]


def test_partitions_move_to_a_new_member_with_their_state(broker, tmp_path: Path, monkeypatch) -> None:
    one = loop_on(broker, snapshot_folder=str(tmp_path))
    log_orders(broker, 1, 6)
    log = KafkaOrderLog(Appender(broker.settings()), 4)
    for n in range(1, 4):
        log.append(batch((0, n, BUY, 50 + n, n), symbols=("BBB",)))
    turn_until(one, lambda book: len(book.ask_price_ticks) == 6)
    while one.book("BBB", 9) is None or len(one.book("BBB", 9).bid_price_ticks) < 3:
        one.turn()
    seen = applied(monkeypatch)
    two = loop_on(broker, snapshot_folder=str(tmp_path))
    # Until the group has shared the partitions out between both.
    while not (len(one.consumer.assignment()) == len(two.consumer.assignment()) == 2):
        one.turn()
        two.turn()
    assert seen == []  # nothing was replayed: the state moved by its snapshots
    for symbol, count in (("AAA", 6), ("BBB", 3)):
        books = []
        for loop in (one, two):
            try:
                books.append(loop.book(symbol, 9))
            except Unavailable:
                continue
        assert [len(book.ask_price_ticks) + len(book.bid_price_ticks) for book in books] == [count]
    leave(one)
    leave(two)


def test_executions_of_another_venue_stop_the_process(broker) -> None:
    log_orders(broker, 1, 3)
    first = loop_on(broker)
    turn_until(first, lambda book: len(book.ask_price_ticks) == 3)
    leave(first)
    second = loop_on(broker, group="another", listed_more=("CCC:0.01",))
    log = KafkaOrderLog(Appender(broker.settings()), 4)
    log.append(batch((0, 9, SELL, 200, 1)))
    # An instrument more changes nothing that was said before ...
    turn_until(second, lambda book: len(book.ask_price_ticks) == 4)
    leave(second)
    # ... but controls do: these orders would have been refused. So does another order of the list, another
    # tick, or an instrument less.
    others = {
        "controls": {"controls": True},
        "order": {"instruments": ("BBB:0.01", "AAA:0.01", "CCC:0.01")},
        "tick": {"instruments": ("AAA:0.01", "BBB:0.02", "CCC:0.01")},
        "less": {},
    }
    for name, other in others.items():
        third = loop_on(broker, group=name, **other)
        with pytest.raises(VenueUnrecoverable, match="a venue with other instruments or controls"):
            turn_until(third, lambda book: False)
        third.consumer.close()
    assert executed(broker, 4) == [(HOME, offset) for offset in range(4)]


def test_what_the_output_holds_is_in_the_partition_of_its_orders(broker) -> None:
    appender = Appender(broker.settings())
    command = batch((0, 1, SELL, 100, 1)).SerializeToString()
    places = [appender.append(ORDERS_INCOMING, "AAA", command, home) for home in range(4)]
    loop = loop_on(broker)
    turn_until(loop, lambda book: len(book.ask_price_ticks) == 1)
    while len([one for one in loop._venues.values() if one.venue.reports]) < 4:
        loop.turn()
    leave(loop)
    assert executed(broker, 4) == sorted(places)
