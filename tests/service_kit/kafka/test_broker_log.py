"""The in-memory broker's log against a plain list of what was written."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from broker_parts import HEADER, batch

from service_kit.kafka.memory_broker.codes import Code
from service_kit.kafka.memory_broker.log import PRODUCERS_MAX, PartitionLog, Refused


def first_of(part: bytes) -> int:
    return int(struct.unpack_from(">q", part)[0])


def test_every_offset_finds_its_batch_and_those_after_it(seed) -> None:
    random = np.random.default_rng(seed)
    log, offset_of, end = PartitionLog(), {}, 0
    for number in range(200):
        records = int(random.integers(1, 9))
        assert log.append(batch(records, b"%d" % number)) == end
        for one in range(end, end + records):
            offset_of[one] = number
        end += records
    assert (log.start, log.end) == (0, end)
    for offset, number in offset_of.items():
        found = log.read(offset, 1 << 30)
        assert [part[HEADER.size :] for part in found] == [b"%d" % one for one in range(number, 200)]
        assert first_of(found[0]) <= offset
    assert log.read(end, 1 << 30) == log.read(-1, 1 << 30) == []


def test_a_read_is_bounded_and_gives_one_batch_at_least() -> None:
    log = PartitionLog()
    for _ in range(5):
        log.append(batch(1, bytes(100)))
    size = HEADER.size + 100
    assert [len(log.read(1, most)) for most in (0, size, 2 * size - 1, 2 * size, 99 * size)] == [
        1,
        1,
        1,
        2,
        4,
    ]


def test_only_the_offset_of_a_batch_is_changed() -> None:
    log, sent = PartitionLog(), batch(2, b"payload", time_ms=5)
    log.append(sent)
    log.append(sent)
    (_, second) = log.read(0, 1 << 30)
    assert first_of(second) == 2
    assert second[8:] == sent[8:]


def test_a_full_log_drops_its_oldest_and_keeps_its_offsets(seed) -> None:
    random = np.random.default_rng(seed)
    log, batches, end = PartitionLog(bytes_max=2_000), [], 0
    for number in range(500):
        part = batch(int(random.integers(1, 4)), bytes(int(random.integers(0, 300))) + b"%d" % number)
        log.append(part)
        batches.append((end, part))
        end = log.end
        kept = [one for one in batches if one[0] >= log.start]
        assert log.size_bytes == sum(len(one) for _, one in kept) <= 2_000
        # One more would have been too many.
        if len(kept) < len(batches):
            assert log.size_bytes + len(batches[-len(kept) - 1][1]) > 2_000
        assert [one[8:] for one in log.read(log.start, 1 << 30)] == [one[8:] for _, one in kept]
        assert log.read(log.start - 1, 1 << 30) == []
    assert log.start > 0


def test_one_batch_larger_than_the_log_is_kept() -> None:
    log = PartitionLog(bytes_max=100)
    log.append(batch(1))
    log.append(batch(1, bytes(1_000)))
    assert (log.start, log.end, len(log.read(1, 0))) == (1, 2, 1)


@pytest.mark.parametrize(
    ("records", "code"),
    [
        (b"", Code.CORRUPT_MESSAGE),
        (batch(1)[:-1], Code.CORRUPT_MESSAGE),
        (batch(1) + b"x", Code.CORRUPT_MESSAGE),
        (batch(1) + batch(1)[:40], Code.CORRUPT_MESSAGE),
        (batch(0), Code.CORRUPT_MESSAGE),
        (bytes(61), Code.UNSUPPORTED_FOR_MESSAGE_FORMAT),
        (batch(1, magic=1), Code.UNSUPPORTED_FOR_MESSAGE_FORMAT),
        (struct.pack(">qi", 0, -60) + batch(1)[12:], Code.CORRUPT_MESSAGE),
    ],
)
def test_what_is_no_batch_is_refused_whole(records: bytes, code: Code) -> None:
    log = PartitionLog()
    with pytest.raises(Refused, match=code.name):
        log.append(records)
    assert (log.end, log.size_bytes) == (0, 0)


def test_a_batch_that_is_sent_again_is_taken_once() -> None:
    log = PartitionLog()
    places = [log.append(batch(3, producer=7, epoch=0, sequence=3 * n)) for n in range(8)]
    assert places == [3 * n for n in range(8)]
    # As many as may be under way at a time are remembered.
    for n in range(3, 8):
        assert log.append(batch(3, producer=7, epoch=0, sequence=3 * n)) == 3 * n
    assert log.end == 24
    for wrong in (batch(3, producer=7, epoch=0, sequence=0), batch(3, producer=7, epoch=0, sequence=27)):
        with pytest.raises(Refused, match="OUT_OF_ORDER_SEQUENCE"):
            log.append(wrong)
    # Another producer's numbers are its own.
    assert log.append(batch(1, producer=8, epoch=0, sequence=0)) == 24


def test_an_epoch_begins_at_nought_and_ends_the_one_before() -> None:
    log = PartitionLog()
    log.append(batch(1, producer=7, epoch=0, sequence=0))
    with pytest.raises(Refused, match="OUT_OF_ORDER_SEQUENCE"):
        log.append(batch(1, producer=7, epoch=1, sequence=1))
    log.append(batch(1, producer=7, epoch=1, sequence=0))
    with pytest.raises(Refused, match="INVALID_PRODUCER_EPOCH"):
        log.append(batch(1, producer=7, epoch=0, sequence=1))


def test_sequences_go_round() -> None:
    log, last = PartitionLog(), (1 << 31) - 1
    log.append(batch(2, producer=7, epoch=0, sequence=last - 1))
    assert log.append(batch(1, producer=7, epoch=0, sequence=0)) == 2


def test_only_so_many_producers_are_remembered() -> None:
    log = PartitionLog()
    for producer in range(PRODUCERS_MAX + 1):
        log.append(batch(1, producer=producer, epoch=0, sequence=0))
    assert log.append(batch(1, producer=PRODUCERS_MAX, epoch=0, sequence=0)) == PRODUCERS_MAX  # known
    assert log.append(batch(1, producer=0, epoch=0, sequence=0)) == PRODUCERS_MAX + 1  # forgotten


def test_a_moment_finds_the_first_batch_since() -> None:
    log = PartitionLog(bytes_max=3 * HEADER.size)
    for time_ms in (10, 20, 20, 30):
        log.append(batch(1, time_ms=time_ms))
    assert [log.first_since(at) for at in (0, 20, 21, 31)] == [(1, 20), (1, 20), (3, 30), None]
