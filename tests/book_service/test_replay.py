"""Any moment again: from the log on a broker, from a snapshot and the rest, and from the audit log."""

from __future__ import annotations

import random
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from book_service import order_events
from book_service.audit import AuditLog
from book_service.replay import ReplayImpossible, replay, replay_audit
from book_service.snapshots import Snapshot, SnapshotFolder, fingerprint
from book_service.venue import Listed, Venue
from protos import packing, topics
from protos.market.v1.market_pb2 import Origin
from protos.orders.v1.orders_pb2 import OrderBatch
from service_kit.kafka.embedded import EmbeddedBroker
from service_kit.kafka.lookup import LogLookup
from service_kit.kafka.producer import Producer
from service_kit.kafka.records import Partition

LISTED = (Listed("AAA", 0.01), Listed("BBB", 0.5))
HERE = 2


def order_batch(draw: random.Random, first_id: int, count: int, first_ns: int) -> bytes:
    """New orders around one price in both instruments, one nanosecond apart."""
    batch = OrderBatch(symbols=["AAA", "BBB"])
    columns = {
        "symbol_index": [draw.randrange(2) for _ in range(count)],
        "order_id": list(range(first_id, first_id + count)),
        "account": [draw.randrange(1, 9) for _ in range(count)],
        "side": [draw.randrange(2) for _ in range(count)],
        "price_ticks": [draw.randrange(90, 111) for _ in range(count)],
        "quantity": [draw.randrange(1, 50) for _ in range(count)],
        "time_ns": list(range(first_ns, first_ns + count)),
    }
    for name, values in columns.items():
        packing.write(batch, name, np.array(values))
    packing.write(batch, "action", [0])
    return batch.SerializeToString()


def records(draw: random.Random, count: int) -> list[bytes]:
    """Batches of ten orders; one of them is no batch at all."""
    found = [order_batch(draw, 1 + 10 * place, 10, 1_000 + 10 * place) for place in range(count)]
    found[count // 2] = b"\xff not a batch"
    return found


def venue_after(values: list[bytes]) -> Venue:
    venue = Venue(LISTED)
    for offset, value in enumerate(values):
        if b"not a batch" not in value:
            origin = Origin(topic=topics.ORDERS_INCOMING, partition=HERE, offset=offset)
            venue.apply(order_events.decode(value), origin)
    return venue


@pytest.fixture(scope="module")
def log() -> tuple[EmbeddedBroker, list[bytes]]:
    values = records(random.Random(7), 40)
    with EmbeddedBroker() as broker:
        with Producer(broker.settings()) as producer:
            for value in values:
                producer.send(topics.ORDERS_INCOMING, "k", value, partition=HERE)
        yield broker, values


def test_any_offset_of_the_log(log) -> None:
    broker, values = log
    for through in (0, 7, 19, 20, 38, None):
        moment = replay(broker.settings(), LISTED, None, HERE, through_offset=through)
        wanted = venue_after(values if through is None else values[: through + 1])
        assert moment.state_hash == wanted.state_hash()
        assert moment.next_offset == (len(values) if through is None else through + 1)
        assert (moment.orders, moment.reports) == (wanted.orders, wanted.reports)
        depth = moment.book("AAA", 5)
        assert depth is not None
        assert list(depth.bid_price_ticks) == list(wanted.book("AAA", 5).bid_price_ticks)


def test_a_moment_within_a_batch(log) -> None:
    broker, values = log
    # Time 1,055 is the sixth order of the batch at offset 5.
    moment = replay(broker.settings(), LISTED, None, HERE, until_time_ns=1_055)
    assert (moment.orders, moment.next_offset, moment.time_ns) == (56, 5, 1_055)
    before = replay(broker.settings(), LISTED, None, HERE, until_time_ns=1_059)
    assert before.state_hash == venue_after(values[:6]).state_hash()


def snapshot_at(folder: SnapshotFolder, values: list[bytes], count: int) -> Path:
    venue = venue_after(values[:count])
    digest = sha256(values[count - 1]).hexdigest()
    return folder.save(Snapshot(topics.ORDERS_INCOMING, HERE, venue.state(), digest))


def test_a_snapshot_and_the_rest_is_the_whole_log(log, tmp_path: Path) -> None:
    broker, values = log
    folder = SnapshotFolder(tmp_path, fingerprint(LISTED, None))
    file = snapshot_at(folder, values, 15)
    whole = replay(broker.settings(), LISTED, None, HERE)
    short = replay(broker.settings(), LISTED, None, HERE, snapshots=tmp_path)
    assert (short.state_hash, short.reports, short.from_snapshot) == (whole.state_hash, whole.reports, file)
    # A moment before the snapshot is not taken from it.
    early = replay(broker.settings(), LISTED, None, HERE, through_offset=9, snapshots=tmp_path)
    assert (early.from_snapshot, early.state_hash) == (None, venue_after(values[:10]).state_hash())


def test_snapshots_that_cannot_be_trusted_are_named_and_passed_over(log, tmp_path: Path) -> None:
    broker, values = log
    folder = SnapshotFolder(tmp_path, fingerprint(LISTED, None))
    good = snapshot_at(folder, values, 12)
    other = snapshot_at(folder, [*values[:13], order_batch(random.Random(1), 1, 10, 1)], 14)
    moment = replay(broker.settings(), LISTED, None, HERE, snapshots=tmp_path)
    assert moment.from_snapshot == good
    assert [one.file for one in moment.refused] == [other]
    assert "is not in this log" in str(moment.refused[0])
    for file in (good, other):
        spoiled = bytearray(file.read_bytes())
        spoiled[-1] ^= 1
        file.write_bytes(bytes(spoiled))
    moment = replay(broker.settings(), LISTED, None, HERE, snapshots=tmp_path)
    assert moment.from_snapshot is None
    assert all("hash does not match" in str(one) for one in moment.refused)
    assert moment.state_hash == venue_after(values).state_hash()


def test_the_audit_log_alone_tells_any_moment(tmp_path: Path, seed: int) -> None:
    values = records(random.Random(seed), 20)
    audit = AuditLog(tmp_path, topics.ORDERS_INCOMING, HERE)
    for offset, value in enumerate(values):
        audit.append(offset, 0, value, b"")
    audit.close()
    assert replay_audit(tmp_path, LISTED, None, HERE).state_hash == venue_after(values).state_hash()
    early = replay_audit(tmp_path, LISTED, None, HERE, through_offset=4)
    assert early.state_hash == venue_after(values[:5]).state_hash()
    late = AuditLog(tmp_path, topics.ORDERS_INCOMING, 3)
    late.append(9, 0, values[0], b"")
    late.close()
    with pytest.raises(ReplayImpossible, match="begins with offset 9"):
        replay_audit(tmp_path, LISTED, None, 3)


def test_the_last_record_of_a_kind_is_found_however_far_back(log) -> None:
    broker, values = log
    home = Partition(topics.ORDERS_INCOMING, HERE)
    with LogLookup(broker.settings()) as look:
        assert look.bounds(home) == (0, len(values))
        found = look.last(home, lambda one: one.offset if one.value == values[3] else None)
        assert found == 3
        assert look.last(home, lambda one: one.offset) == len(values) - 1
        assert look.last(home, lambda one: None) is None
        assert look.record_at(home, 5).value == values[5]
        assert look.record_at(home, len(values)) is None
        assert look.last(Partition(topics.ORDERS_INCOMING, 0), lambda one: one) is None
