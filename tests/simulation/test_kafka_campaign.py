"""On real Kafka: the service is killed and brokers are stopped under load; nothing is lost or doubled."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from book_service import audit
from book_service.matching import Controls
from book_service.service_metrics import BookMetrics
from book_service.settings import BookServiceSettings, BookSettings
from book_service.venue import Venue
from book_service.venue_loop import VenueLoop
from book_service.wiring import venue_loop
from protos.orders.v1.orders_pb2 import ExecutionBatch
from protos.topics import ORDERS_INCOMING
from service_kit.kafka.admin import ensure_topics
from service_kit.kafka.errors import ConsumerFailed
from service_kit.kafka.lookup import LogLookup
from service_kit.kafka.metrics import KafkaMetrics
from service_kit.kafka.producer import Producer
from service_kit.kafka.real import RealKafka
from service_kit.kafka.settings import KafkaSettings
from tests.simulation.campaign import INSTRUMENTS, SYMBOLS, Campaign, Plan, all_executed
from tests.simulation.checker import check_topics, compare
from tests.simulation.memory_venue import LISTED, truth
from tests.simulation.order_flow import order_batch


def run(kafka: RealKafka, folder: Path, seed: int, plan: Plan) -> None:
    """One campaign, its topics checked from outside, its audit log too."""
    campaign = Campaign(kafka, plan, folder, seed)
    found = campaign.run()
    print(found)
    assert found.clean
    assert found.orders >= plan.orders  # the topics outlive a campaign: the next one goes on with them
    assert campaign.starts == plan.kills + 1 + campaign.exits
    kept = audit.verify(folder / "audit")
    assert kept.sound, kept.broken


def test_killed_and_stopped_for_a_while(kafka_cluster: RealKafka, tmp_path: Path, seed: int) -> None:
    run(kafka_cluster, tmp_path, seed, Plan(orders=20_000, kills=3, stops=1, transactions=True))


def test_killed_without_transactions(kafka_cluster: RealKafka, tmp_path: Path, seed: int) -> None:
    run(kafka_cluster, tmp_path, seed, Plan(orders=5_000, kills=1, stops=0, transactions=False))


def loop_on(kafka: RealKafka, name: str) -> VenueLoop:
    """A venue's loop as the service makes it, with transactions."""
    settings = BookServiceSettings(
        kafka=KafkaSettings(bootstrap=kafka.bootstrap, group_instance_id=name),
        book=BookSettings(instruments=INSTRUMENTS, transactions=True),
    )
    metrics = BookMetrics.on(CollectorRegistry())
    return venue_loop(settings, Producer(settings.kafka), LogLookup(settings.kafka), metrics, KafkaMetrics())


def test_a_process_that_was_replaced_while_it_was_paused_publishes_nothing(
    kafka_cluster: RealKafka, seed: int
) -> None:
    settings = KafkaSettings(bootstrap=kafka_cluster.bootstrap)
    ensure_topics(settings)
    draw = random.Random(seed)
    with Producer(settings) as producer:
        for place in range(40):
            value = order_batch(draw, 20, time.time_ns(), 1_000_000 * (place + 1), SYMBOLS[place % 4])
            producer.send(ORDERS_INCOMING, SYMBOLS[place % 4][0], value, partition=place % 4)
        producer.flush()
    old, new = loop_on(kafka_cluster, "one"), loop_on(kafka_cluster, "one")
    # It matches and sends; before it commits it is paused, and another process comes under its name.
    while not any(held.unsettled for held in old._venues.values()):
        for message in old.consumer.poll(100, 0.2):
            old._match(message)
    with LogLookup(settings) as look:
        while not all_executed(look):
            new.turn()
    with pytest.raises(ConsumerFailed):
        turn_for_ever(old)
    assert check_topics(kafka_cluster.bootstrap, INSTRUMENTS).clean
    for loop in (old, new):
        loop._close(list(loop._venues))
        loop.consumer.close()


def turn_for_ever(loop: VenueLoop) -> None:
    while True:
        loop.turn()


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("transactions", [True, False], ids=["transactions", "plain"])
def test_killed_and_stopped_for_long(
    kafka_cluster: RealKafka, tmp_path: Path, seed: int, transactions: bool
) -> None:
    run(kafka_cluster, tmp_path, seed, Plan(orders=1_000_000, kills=20, stops=5, transactions=transactions))


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (lambda batches: batches[:4] + batches[5:], "lost"),
        (lambda batches: [*batches, batches[-1]], "doubled"),
        (lambda batches: [*batches[:-1], changed(batches[-1])], "torn"),
        (lambda batches: [batches[1], batches[0], *batches[2:]], "out of order"),
    ],
)
def test_the_checker_sees_what_is_wrong(spoil, field: str, seed: int) -> None:
    draw = random.Random(seed)
    values = [order_batch(draw, 20, 1 + 20 * place, 1_000_000_000 * (place + 1)) for place in range(12)]
    orders = list(enumerate(values))
    sound = [ExecutionBatch.FromString(value) for _, value in truth(values, 1 << 30)[0]]
    names = ("lost", "doubled", "torn", "out of order")
    for batches, wanted in (
        (sound, dict.fromkeys(names, 0)),
        (spoil(sound), {**dict.fromkeys(names, 0), field: 1}),
    ):
        found = compare(Venue(LISTED, Controls()), 1, orders, batches)
        assert dict(zip(names, found[3:], strict=True)) == wanted


def changed(batch: ExecutionBatch) -> ExecutionBatch:
    other = ExecutionBatch.FromString(batch.SerializeToString())
    other.quantity[0] += 1
    return other
