"""On real Kafka: the service is killed and brokers are stopped under load; nothing is lost or doubled."""

from __future__ import annotations

import json
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
from tests.end_to_end.running import Service, until
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
        book=BookSettings(instruments=INSTRUMENTS, transactions="always"),
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


class Members:
    """Services of one group on shared snapshots, and orders for all partitions."""

    def __init__(self, kafka: RealKafka, folder: Path, seed: int) -> None:
        self.settings = KafkaSettings(bootstrap=kafka.bootstrap)
        self.folder, self.draw, self.look = folder, random.Random(seed), LogLookup(self.settings)
        self.environment = {
            "GPU_RISK_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "GPU_RISK_KAFKA_SESSION_TIMEOUT_MS": "6000",
            "GPU_RISK_GRPC_PORT": "0",
            "GPU_RISK_BOOK_GROUP": f"members-{seed}",
            "GPU_RISK_BOOK_INSTRUMENTS": ",".join(INSTRUMENTS),
            "GPU_RISK_BOOK_SNAPSHOT_FOLDER": str(folder / "snapshots"),
            "GPU_RISK_BOOK_SNAPSHOT_EVERY_S": "0.2",
            "GPU_RISK_BOOK_TRANSACTIONS": "auto" if seed % 2 else "never",
        }

    def start(self, name: str) -> Service:
        (self.folder / name).mkdir()
        return Service(self.folder / name, "book", settings=self.environment)

    def send(self, batches: int) -> None:
        with Producer(self.settings) as producer:
            for place in range(batches):
                home, first = place % 4, time.time_ns()
                value = order_batch(self.draw, 50, first, first, SYMBOLS[home])
                producer.send(ORDERS_INCOMING, SYMBOLS[home][0], value, partition=home)

    def taken(self, service: Service) -> list[tuple[int, str]]:
        """Partition and snapshot of everything that a service has taken so far."""
        lines = service.err.read_text().splitlines()
        said = [json.loads(line) for line in lines if '"partition taken"' in line and line.endswith("}")]
        return [(one["partition"], one["snapshot"]) for one in said]

    def saved(self) -> set[str]:
        """Partitions that have a snapshot."""
        return {file.name.split("-")[1] for file in (self.folder / "snapshots").glob("*.snapshot")}

    def settled(self, *services: Service) -> None:
        until(lambda: all_executed(self.look), "every order to be executed", *services)


def test_partitions_move_between_members_with_their_state(
    kafka_cluster: RealKafka, tmp_path: Path, seed: int
) -> None:
    ensure_topics(KafkaSettings(bootstrap=kafka_cluster.bootstrap))
    members = Members(kafka_cluster, tmp_path, seed)
    with members.start("first") as first:
        members.send(80)
        members.settled(first)
        until(lambda: len({one[0] for one in members.taken(first)}) == 4, "all partitions", first)
        until(lambda: len(members.saved()) == 4, "snapshots", first)
        with members.start("second") as second:
            while not members.taken(second):
                members.send(4)  # trading goes on while partitions move
                assert second.process.poll() is None, second.err.read_text()[-2000:]
            members.send(80)
            members.settled(first, second)
            moved = members.taken(second)
            # What was moved was not read from its beginning.
            assert all(snapshot for _, snapshot in moved)
            assert len({home for home, _ in moved}) == 2
            before = len(members.taken(first))
            second.process.kill()
            members.send(80)
            members.settled(first)
            back = members.taken(first)[before:]
            assert {home for home, _ in moved} <= {home for home, _ in back}
            assert all(snapshot for _, snapshot in back)
        assert first.stop() == 0
    found = check_topics(kafka_cluster.bootstrap, INSTRUMENTS)
    print(found)
    assert found.clean
    members.look.close()


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
