"""`risk book verify`: a sound log, one that was touched, one whose end was cut off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from desk_files import run

from book_service.audit import AuditLog, read
from book_service.order_log import KafkaOrderLog
from service_kit.kafka.appender import Appender
from service_kit.kafka.embedded import EmbeddedBroker
from tests.book_service.test_venue import SELL, batch, leave, loop_on, turn_until


def _log(root: Path, records: int = 5) -> Path:
    log = AuditLog(root, "orders.incoming", 3)
    for offset in range(records):
        log.append(offset, offset, b"orders %d" % offset, b"executions")
    log.close()
    return next(root.rglob("*.audit"))


def test_a_sound_log_tells_its_head_and_must_end_with_it(tmp_path: Path) -> None:
    _log(tmp_path)
    result = run("book", "verify", str(tmp_path), "--json")
    answer = json.loads(result.stdout)
    [chain] = answer["chains"]
    assert (result.exit_code, answer["sound"]) == (0, True)
    assert (chain["topic"], chain["partition"], chain["records"], chain["last_offset"]) == (
        "orders.incoming", 3, 5, 4,
    )  # fmt: skip
    assert run("book", "verify", str(tmp_path), "--head", chain["head"]).exit_code == 0
    shorter = tmp_path / "shorter"
    shorter.mkdir()
    _log(shorter, 4)
    cut = run("book", "verify", str(shorter), "--head", chain["head"])
    assert (cut.exit_code, chain["head"] in cut.stderr) == (1, True)


def test_the_first_record_that_was_touched_is_named(tmp_path: Path) -> None:
    file = _log(tmp_path)
    file.write_bytes(file.read_bytes().replace(b"orders 2", b"orders 7"))
    result = run("book", "verify", str(tmp_path), "--json")
    answer = json.loads(result.stdout)
    assert (result.exit_code, answer["sound"], answer["broken"]["record"]) == (1, False, 2)
    assert answer["chains"][0]["records"] == 2
    assert "record 2" in result.stderr


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    assert run("book", "verify", str(tmp_path)).exit_code == 2
    assert run("book", "verify", str(tmp_path / "none")).exit_code == 2
    _log(tmp_path)
    bad = run("book", "verify", str(tmp_path), "--head", "abc")
    assert (bad.exit_code, "--head" in bad.stderr) == (2, True)


def test_a_cut_end_shows_against_the_marks_on_kafka(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedBroker() as broker:
        monkeypatch.setenv("GPU_RISK_KAFKA_BOOTSTRAP", broker.bootstrap)
        log = KafkaOrderLog(Appender(broker.settings()), 4)
        for n in range(1, 5):
            log.append(batch((0, n, SELL, 100 + n, n)))
        loop = loop_on(broker, audit_folder=str(tmp_path))
        turn_until(loop, lambda book: len(book.ask_price_ticks) == 4)
        leave(loop)
        sound = run("book", "verify", str(tmp_path), "--kafka", "--json")
        assert (sound.exit_code, json.loads(sound.stdout)["sound"]) == (0, True), sound.stderr
        [file] = tmp_path.rglob("*.audit")
        *kept, last = read(file.parent)
        size = len(last.orders) + len(last.executions) + 32 + 32  # lengths and numbers before, the hash after
        file.write_bytes(file.read_bytes()[:-size])
        assert len(kept) == 3
        assert run("book", "verify", str(tmp_path)).exit_code == 0  # a cut end looks like an earlier moment
        cut = run("book", "verify", str(tmp_path), "--kafka")
        assert (cut.exit_code, "cut off: the chain had 4 records" in cut.stderr) == (1, True), cut.stderr
