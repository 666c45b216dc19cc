"""On real Kafka: the service is killed and brokers are stopped under load; nothing is lost or doubled."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from book_service import audit
from book_service.matching import Controls
from book_service.venue import Venue
from protos.orders.v1.orders_pb2 import ExecutionBatch
from service_kit.kafka.real import RealKafka
from tests.simulation.campaign import Campaign, Plan
from tests.simulation.checker import compare
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
