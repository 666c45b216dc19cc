"""The audit log: what is written is read again, and the first record that was touched is named."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from book_service.audit import AuditBroken, AuditBusy, AuditLog, Mark, chain_folder, read, verify
from book_service.audit_chain import RECORD, chained

TOPIC = "orders.incoming"
DAY_NS = 86_400_000_000_000


def fill(root: Path, count: int, draw: random.Random, **more) -> list[tuple[int, int, bytes, bytes]]:
    """Appends records at random offsets over some days; what was written."""
    log = AuditLog(root, TOPIC, 2, **more)
    offset, wanted = log.next_offset, []
    for number in range(count):
        offset += draw.choice((0, 0, 1, 5))
        row = (offset, number * DAY_NS // 7, draw.randbytes(draw.randint(0, 90)), draw.randbytes(20))
        assert log.append(*row)
        wanted.append(row)
        offset += 1
    log.close()
    return wanted


def contents(root: Path) -> list[tuple[int, int, bytes, bytes]]:
    return [
        (one.offset, one.time_ns, one.orders, one.executions) for one in read(chain_folder(root, TOPIC, 2))
    ]


def test_what_is_written_is_read_again_over_days_sizes_and_restarts(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    wanted = fill(tmp_path, 30, draw)
    wanted += fill(tmp_path, 40, draw, file_bytes_max=500)
    assert contents(tmp_path) == wanted
    found = verify(tmp_path)
    assert found.sound
    [chain] = found.chains
    assert (chain.topic, chain.partition, chain.records) == (TOPIC, 2, 70)
    assert (chain.first_offset, chain.last_offset) == (wanted[0][0], wanted[-1][0])
    assert chain.files == len(list(tmp_path.glob("*/*.audit"))) > 5
    assert verify(chain.folder).chains == found.chains
    assert verify(tmp_path, chain.head).sound


def test_what_is_replayed_is_not_written_twice(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, TOPIC, 2)
    assert log.append(4, 0, b"a", b"b")
    assert not log.append(4, 0, b"a", b"b")
    log.close()
    again = AuditLog(tmp_path, TOPIC, 2)
    assert again.next_offset == 5
    assert not again.append(3, 0, b"a", b"b")
    assert again.append(5, 0, b"c", b"d")
    again.close()
    assert [row[0] for row in contents(tmp_path)] == [4, 5]


def test_any_bit_that_changes_is_found_and_its_record_named(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    wanted = fill(tmp_path, 12, draw)
    files = sorted(tmp_path.glob("*/*.audit"))
    for file in files:
        whole = file.read_bytes()
        for place in draw.sample(range(len(whole)), 60):
            changed = bytearray(whole)
            changed[place] ^= 1 << draw.randrange(8)
            file.write_bytes(bytes(changed))
            found = verify(tmp_path)
            assert found.broken is not None
            # Everything that is called sound is as it was written.
            [chain] = found.chains
            assert found.broken.record == chain.first_record + chain.records or chain.records == 0
            assert chain.first_record > 0 or chain.records <= len(wanted)
        file.write_bytes(whole)
    assert verify(tmp_path).sound


def test_the_broken_record_is_named_exactly(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, TOPIC, 0)
    for offset in range(10):
        log.append(offset, 0, b"orders-%d" % offset, b"executions")
    log.close()
    [file] = tmp_path.glob("*/*.audit")
    file.write_bytes(file.read_bytes().replace(b"orders-6", b"orders-7"))
    found = verify(tmp_path)
    assert found.broken is not None
    assert (found.broken.record, found.broken.file, found.chains[0].records) == (6, file, 6)
    assert f"{file}: record 6: its hash does not follow" in str(found.broken)


def test_a_file_that_is_missing_or_swapped_breaks_the_chain(tmp_path: Path, seed: int) -> None:
    fill(tmp_path, 40, random.Random(seed), file_bytes_max=300)
    files = sorted(tmp_path.glob("*/*.audit"))
    middle = files[len(files) // 2]
    whole = middle.read_bytes()
    middle.unlink()
    found = verify(tmp_path)
    assert found.broken is not None
    assert found.broken.file == files[len(files) // 2 + 1]
    middle.write_bytes(files[0].read_bytes())
    assert verify(tmp_path).broken is not None
    middle.write_bytes(whole)
    assert verify(tmp_path).sound
    head = verify(tmp_path).chains[0].head
    files[-1].unlink()
    assert verify(tmp_path).sound  # a cut end looks like an earlier day ...
    assert verify(tmp_path, head).broken is not None  # ... unless one knows better


def test_a_mark_that_is_kept_elsewhere_shows_a_cut_end(tmp_path: Path) -> None:
    log, marks = AuditLog(tmp_path, TOPIC, 2), []
    for offset in range(4):
        log.append(offset, offset * DAY_NS, b"orders", b"executions")
        assert log.mark is not None
        marks.append({(TOPIC, 2): log.mark})
    log.close()
    assert log.mark == Mark.from_bytes(log.mark.to_bytes())
    assert all(verify(tmp_path, marks=one).sound for one in marks)  # also one of some records before
    files = sorted(tmp_path.glob("*/*.audit"))
    files[-1].unlink()
    assert verify(tmp_path).sound
    assert all(verify(tmp_path, marks=one).sound for one in marks[:3])
    broken = verify(tmp_path, marks=marks[3]).broken
    assert broken is not None
    assert (broken.record, "cut off" in broken.why) == (3, True)
    # A chain that was written anew from some record on is sound in itself, and not the one that was marked.
    other = AuditLog(tmp_path, TOPIC, 2)
    other.append(3, 3 * DAY_NS, b"0rders", b"executions")
    other.close()
    assert verify(tmp_path).sound
    broken = verify(tmp_path, marks=marks[3]).broken
    assert broken is not None
    assert (broken.record, "mark elsewhere" in broken.why) == (3, True)
    missing = verify(tmp_path, marks={(TOPIC, 1): Mark(1, "0" * 64)}).broken
    assert missing is not None
    assert f"no chain of {TOPIC}[1]" in missing.why


@pytest.mark.parametrize("value", [b"", b"5", b"x:" + b"0" * 64, b"5:" + b"0" * 63, b"\xff:" + b"0" * 64])
def test_what_is_no_mark_is_none(value: bytes) -> None:
    assert Mark.from_bytes(value) is None


@pytest.mark.parametrize("left", [1, 10, 40, 41, 70])
def test_a_record_torn_by_a_crash_is_set_aside_and_written_again(tmp_path: Path, left: int) -> None:
    log = AuditLog(tmp_path, TOPIC, 2)
    for offset in range(5):
        log.append(offset, 0, b"orders", b"executions")
    log.close()
    [file] = tmp_path.glob("*/*.audit")
    os.truncate(file, file.stat().st_size - left)
    assert verify(tmp_path).broken is not None
    again = AuditLog(tmp_path, TOPIC, 2)
    assert again.next_offset == 4
    again.append(4, 0, b"orders", b"executions")
    again.close()
    assert verify(tmp_path).sound
    assert [row[0] for row in contents(tmp_path)] == list(range(5))
    assert len(list(tmp_path.glob("*/*.torn-at-*"))) == 1


def test_a_head_torn_by_a_crash_is_written_again(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, TOPIC, 2)
    log.append(0, 0, b"a", b"b")
    log.append(1, DAY_NS, b"a", b"b")
    log.close()
    last = sorted(tmp_path.glob("*/*.audit"))[-1]
    os.truncate(last, 20)
    again = AuditLog(tmp_path, TOPIC, 2)
    assert again.next_offset == 1
    again.append(1, DAY_NS, b"a", b"b")
    again.close()
    assert verify(tmp_path).sound


def test_a_damaged_chain_is_not_written_on(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, TOPIC, 2)
    log.append(0, 0, b"orders", b"executions")
    log.append(1, 0, b"orders", b"executions")
    log.close()
    [file] = tmp_path.glob("*/*.audit")
    file.write_bytes(file.read_bytes().replace(b"orders", b"0rders", 1))
    with pytest.raises(AuditBroken, match="record 0"):
        AuditLog(tmp_path, TOPIC, 2)


@pytest.mark.parametrize(
    ("numbers", "offsets", "says"),
    [
        ((0, 2), (0, 1), "calls itself record 2"),
        ((0, 1), (4, 4), "offset 4 comes after 4"),
        ((0, 1), (4, 3), "3"),
    ],
)
def test_a_chain_that_was_forged_with_right_hashes_is_refused(
    tmp_path: Path, numbers: tuple[int, ...], offsets: tuple[int, ...], says: str
) -> None:
    """As by a writer that has lost its place: each hash follows, the numbers or the offsets do not."""
    log = AuditLog(tmp_path, TOPIC, 2)
    log.append(9, 0, b"orders", b"executions")
    log.close()
    [file] = tmp_path.glob("*/*.audit")
    front_end = file.stat().st_size - RECORD.size - len(b"ordersexecutions") - 32
    front = file.read_bytes()[:front_end]
    head = json.loads(front[16:])
    forged, digest = front, chained(bytes.fromhex(head["before"]), front)
    for number, offset in zip(numbers, offsets, strict=True):
        row = RECORD.pack(number, offset, 0, 6, 10)
        digest = chained(digest, row, b"orders", b"executions")
        forged += row + b"orders" + b"executions" + digest
    file.write_bytes(forged)
    broken = verify(tmp_path).broken
    assert broken is not None
    assert (broken.record, says in broken.why) == (1, True), broken


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, TOPIC, 2)
    with pytest.raises(AuditBusy):
        AuditLog(tmp_path, TOPIC, 2)
    AuditLog(tmp_path, TOPIC, 3).close()
    log.close()
    AuditLog(tmp_path, TOPIC, 2).close()


def test_a_path_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no audit log"):
        verify(tmp_path / "nothing")
