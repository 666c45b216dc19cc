"""`risk book replay`: any moment of the venue, from a broker's log and from an audit log, by hash."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from desk_files import run

from book_service import order_events
from book_service.audit import AuditLog
from book_service.venue import Listed, Venue
from book_service.wiring import ORDER_PARTITIONS
from protos import packing, topics
from protos.market.v1.market_pb2 import Origin
from protos.orders.v1.orders_pb2 import OrderBatch
from service_kit.kafka.embedded import EmbeddedBroker
from service_kit.kafka.partitioning import partition_of
from service_kit.kafka.producer import Producer

HERE = partition_of("AAA", ORDER_PARTITIONS)
NOON_NS = 1_700_000_000_000_000_000
BATCHES = 5


def _batch(number: int) -> bytes:
    batch = OrderBatch(symbols=["AAA"])
    for name, values in (
        ("order_id", [2 * number + 1, 2 * number + 2]),
        ("side", [0, 1]),
        ("price_ticks", [100 - number, 103 + number]),
        ("quantity", [5 + number, 7]),
        ("time_ns", [NOON_NS + number * 1_000_000_000, NOON_NS + number * 1_000_000_000 + 500_000_000]),
    ):
        packing.write(batch, name, values)
    return batch.SerializeToString()


def _hash_after(count: int) -> str:
    venue = Venue((Listed("AAA", 0.5),))
    for offset in range(count):
        origin = Origin(topic=topics.ORDERS_INCOMING, partition=HERE, offset=offset)
        venue.apply(order_events.decode(_batch(offset)), origin)
    return venue.state_hash()


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        with Producer(broker.settings()) as producer:
            for number in range(BATCHES):
                producer.send(topics.ORDERS_INCOMING, "AAA", _batch(number))
            producer.flush()
        yield broker


@pytest.fixture(autouse=True)
def _settings(broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPU_RISK_KAFKA_BOOTSTRAP", broker.bootstrap)
    monkeypatch.setenv("GPU_RISK_KAFKA_FETCH_WAIT_MS_MAX", str(broker.settings().fetch_wait_ms_max))
    monkeypatch.setenv("GPU_RISK_BOOK_INSTRUMENTS", "AAA:0.5")
    monkeypatch.setenv("GPU_RISK_BOOK_CONTROLS", "false")


def _replayed(*words: str) -> dict[str, Any]:
    done = run("book", "replay", *words, "--json")
    assert done.exit_code == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_the_latest_moment_and_any_offset() -> None:
    latest = _replayed("AAA")
    assert (latest["state_hash"], latest["next_offset"], latest["orders"]) == (_hash_after(5), 5, 10)
    assert [level["price_ticks"] for level in latest["books"][0]["bids"]] == [100, 99, 98, 97, 96]
    early = _replayed("AAA", "--offset", "1")
    assert (early["state_hash"], early["next_offset"]) == (_hash_after(2), 2)
    assert [level["price"] for level in early["books"][0]["asks"]] == [51.5, 52.0]
    assert _replayed("--partition", str(HERE))["state_hash"] == latest["state_hash"]


def test_a_time_in_the_midst_of_a_batch() -> None:
    for until in ("2023-11-14T22:13:22.200", str(NOON_NS + 2_200_000_000)):
        answer = _replayed("AAA", "--until", until)
        assert (answer["orders"], answer["next_offset"]) == (5, 2)
        assert (len(answer["books"][0]["bids"]), len(answer["books"][0]["asks"])) == (3, 2)


def test_the_audit_log_gives_the_same(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, topics.ORDERS_INCOMING, HERE)
    for offset in range(BATCHES):
        log.append(offset, NOON_NS, _batch(offset), b"")
    log.close()
    assert _replayed("AAA", "--audit", str(tmp_path))["state_hash"] == _hash_after(5)
    assert _replayed("AAA", "--audit", str(tmp_path), "--offset", "2")["state_hash"] == _hash_after(3)
    file = next(tmp_path.rglob("*.audit"))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    done = run("book", "replay", "AAA", "--audit", str(tmp_path))
    assert (done.exit_code, "record 4" in done.stderr) == (1, True)


def test_a_reader_sees_hash_and_depth() -> None:
    shown = run("book", "replay", "AAA", "--offset", "0").stdout
    assert _hash_after(1) in shown
    assert [line.split() for line in shown.splitlines() if line.startswith(("bid", "ask"))] == [
        ["ask", "51.5", "7", "1", "7"],
        ["bid", "50.0", "5", "1", "5"],
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("ZZZ",), "ZZZ"),
        ((), "--partition"),
        (("--partition", "99999"), "--partition"),
        (("AAA", "--partition", str((HERE + 1) % ORDER_PARTITIONS)), "one partition"),
        (("AAA", "--until", "noon"), "--until"),
        (("AAA", "--audit", ".", "--snapshots", "."), "--snapshots"),
    ],
)
def test_refusals_of_a_replay(words: tuple[str, ...], says: str) -> None:
    done = run("book", "replay", *words)
    assert (done.exit_code, says in done.stderr) == (2, True), done.stderr
