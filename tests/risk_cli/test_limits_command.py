"""`risk book limits` against a running `risk book`: limits are split, and split anew while orders rest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from protos import packing, topics
from protos.orders.v1.orders_pb2 import OrderBatch
from risk_client import BookClient, Unavailable
from service_kit.kafka.embedded import EmbeddedBroker
from service_kit.kafka.producer import Producer
from service_kit.kafka.settings import KafkaSettings
from tests.end_to_end.running import Service, run_risk, until


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaSettings]:
    with EmbeddedBroker() as broker:
        yield broker.settings()


@pytest.fixture(scope="module")
def address(broker: KafkaSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    environment = {
        "GPU_RISK_KAFKA_BOOTSTRAP": broker.bootstrap,
        "GPU_RISK_GRPC_PORT": "0",
        "GPU_RISK_BOOK_INSTRUMENTS": "AAA:0.05:1.0,BBB:0.01:2.0",
    }
    with Service(tmp_path_factory.mktemp("book"), "book", settings=environment) as service:
        yield service.address()


def limits(address: str, *words: str) -> list[dict[str, object]]:
    done = run_risk("book", "limits", "--server", address, "--json", *words)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def of(rows: list[dict[str, object]], limit: str, key: str = "value") -> list[object]:
    return [row[key] for row in rows if row["limit"] == limit]


def bid(broker: KafkaSettings, symbol: str, account: int, ticks: int, quantity: int) -> None:
    batch = OrderBatch(symbols=[symbol], symbol_index=[0])
    for name, value in (("order_id", account), ("account", account), ("price_ticks", ticks)):
        packing.write(batch, name, [value])
    packing.write(batch, "quantity", [quantity])
    packing.write(batch, "time_ns", [1])
    with Producer(broker) as producer:
        producer.send(topics.ORDERS_INCOMING, symbol, batch.SerializeToString())


def bids(client: BookClient, symbol: str) -> list[int]:
    try:
        return list(client.get_book(symbol).bid_quantity)
    except Unavailable:  # the service has just started
        return []


def test_a_kill_is_answered_when_every_partition_has_applied_it(address: str, broker: KafkaSettings) -> None:
    with BookClient(address) as client:
        bid(broker, "BBB", 55, 200, 3)
        until(lambda: bids(client, "BBB"), "the order")
        killed = client.kill([55, 56], "a test")
        assert [one.partition for one in killed.acknowledged] == [0, 1, 2, 3]
        assert sum(one.cancelled for one in killed.acknowledged) == 1
        assert not client.get_book("BBB").bid_quantity
        books = client.watch_book("BBB", min_interval_s=0.01)
        assert not next(books).bid_quantity
        bid(broker, "BBB", 57, 201, 4)
        assert list(next(books).bid_price_ticks) == [201]
        books.close()


def test_limits_are_split_and_follow_their_use(address: str, broker: KafkaSettings) -> None:
    told = limits(address, "--account", "7", "--open-exposure", "1000", "--loss", "100", "--capital", "1e6")
    assert of(told, "open_exposure") == [250.0] * 4
    assert of(told, "loss") == [25.0] * 4
    # 100 AAA at 1.00 (20 ticks of 0.05) are worth 100.
    bid(broker, "AAA", 7, 20, 100)
    with BookClient(address) as client:
        until(lambda: bids(client, "AAA"), "the order")
    told = limits(address, "--account", "7", "--open-exposure", "500", "--by-use")
    used = of(told, "open_exposure", "open_value")
    home = used.index(100.0)
    assert sorted(used, key=float) == [0.0, 0.0, 0.0, 100.0]  # type: ignore[arg-type]
    # What is used, half of the rest to all alike, half where it is used.
    assert of(told, "open_exposure") == [350.0 if place == home else 50.0 for place in range(4)]


def test_the_table_says_what_holds_together(address: str) -> None:
    shown = run_risk("book", "limits", "--server", address, "--account", "9", "--message-rate", "40")
    assert shown.returncode == 0, shown.stderr
    rate = next(line for line in shown.stdout.splitlines() if line.startswith("message_rate"))
    assert rate.split() == ["message_rate", "9", "10.00", "10.00", "10.00", "10.00", "40.00"]
    loss = next(line for line in shown.stdout.splitlines() if line.startswith("loss"))
    assert loss.split() == ["loss", "9", *["none"] * 5]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--capital", "5"), "capital: is of accounts"),
        (("--by-use", "--loss", "1"), "by_use: needs one account"),
        (("--account", "-1"), "--account"),
    ],
)
def test_what_makes_no_sense_is_a_mistake_of_the_caller(
    address: str, words: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    done = run_risk("book", "limits", "--server", address, *words)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
