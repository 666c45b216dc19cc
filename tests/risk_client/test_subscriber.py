"""The Kafka subscriber against a broker that speaks the protocol: nothing lost, resumed where it was."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import uuid
from itertools import islice
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition

import risk_client
from protos import topics
from protos.risk.v1 import risk_pb2 as wire
from risk_client.kafka import Partition, RiskSubscriber
from service_kit.kafka.admin import ensure_topics
from service_kit.kafka.embedded import EmbeddedBroker
from service_kit.kafka.settings import KafkaSettings

CLIENT_PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
PATIENCE_S = 60.0


@pytest.fixture
def broker():
    with EmbeddedBroker() as broker:
        yield broker


class Desk:
    """Publishes numbered updates as risk_service does."""

    def __init__(self, bootstrap):
        self._producer = Producer({"bootstrap.servers": bootstrap})
        self.count = 0

    def publish(self, updates=1, portfolio=None):
        for _ in range(updates):
            name = portfolio or f"desk-{self.count % 5}"
            tail = wire.TailRisk(level=0.975, expected_shortfall=10.0)
            metrics = wire.RiskMetrics(portfolio=name, value=float(self.count), historical=[tail])
            self._send(topics.RISK_METRICS, name, metrics.SerializeToString())
            self.count += 1
        assert self._producer.flush(PATIENCE_S) == 0

    def alert(self, portfolio, text):
        alert = wire.RiskAlert(portfolio=portfolio, raised=True, text=text)
        self._send(topics.RISK_ALERTS, portfolio, alert.SerializeToString())
        assert self._producer.flush(PATIENCE_S) == 0

    def raw(self, key, value):
        self._send(topics.RISK_METRICS, key, value)
        assert self._producer.flush(PATIENCE_S) == 0

    def _send(self, topic, key, value):
        self._producer.produce(topic, key=key.encode(), value=value)


@pytest.fixture
def desk(broker):
    return Desk(broker.bootstrap)


def take(subscriber, count):
    """The values of the next updates, however they come in batches."""
    values = []
    empty = 0
    while len(values) < count and empty < PATIENCE_S:
        updates = subscriber.poll(1.0)
        empty = 0 if updates else empty + 1
        values += [int(one.metrics.value) for one in updates if one.metrics]
    return values


def subscribe(broker, group=None, **more):
    session = {"session.timeout.ms": 2_000, "heartbeat.interval.ms": 500}
    return RiskSubscriber(broker.bootstrap, group, config=session, **more)


@pytest.mark.parametrize("group", [None, "readers"])
def test_metrics_and_alerts_come_decoded(broker, desk, group):
    desk.publish(3)
    desk.alert("desk-1", "VaR above its limit")
    with subscribe(broker, group, start="earliest") as feed:
        updates = list(islice(feed, 4))
    alerts = [one for one in updates if one.alert]
    assert [(one.portfolio, one.alert.text, one.metrics) for one in alerts] == [
        ("desk-1", "VaR above its limit", None)
    ]
    metrics = {one.portfolio: one.metrics.value for one in updates if one.metrics}
    assert metrics == {"desk-0": 0.0, "desk-1": 1.0, "desk-2": 2.0}


def test_a_new_reader_starts_at_the_end_or_the_beginning(broker, desk):
    desk.publish(2)
    with subscribe(broker) as latest, subscribe(broker, start="earliest") as earliest:
        desk.publish(2)
        assert sorted(take(latest, 2)) == [2, 3]  # of two books: their order is nobody's promise
        assert sorted(take(earliest, 4)) == [0, 1, 2, 3]


def test_positions_resume_exactly_even_where_nothing_was_read_before(broker, desk):
    with subscribe(broker) as feed:
        positions = feed.positions()
    desk.publish(10)  # while nobody reads
    with subscribe(broker, positions=positions) as feed:
        first = take(feed, 10)
        positions = feed.positions()
    desk.publish(7)
    with subscribe(broker, positions=positions) as feed:
        second = take(feed, 7)
    assert sorted(first) == list(range(10))
    assert sorted(second) == list(range(10, 17))


def test_a_group_resumes_where_it_has_committed(broker, desk):
    with subscribe(broker, "desk") as feed:
        while not feed.positions():
            feed.poll(0.2)
        # Before anything was read: a restart must not jump over what comes meanwhile.
    desk.publish(20)
    with subscribe(broker, "desk") as feed:
        assert sorted(take(feed, 20)) == list(range(20))
        feed.commit()
        desk.publish(5)
        assert len(take(feed, 5)) == 5  # seen, not committed
    with subscribe(broker, "desk") as feed:
        assert sorted(take(feed, 5)) == list(range(20, 25))


def test_an_iteration_commits_what_it_has_handled_and_no_more(broker, desk):
    desk.publish(8, portfolio="one")
    seen = []
    with subscribe(broker, "desk", start="earliest") as feed:
        for update in feed:
            seen.append(int(update.metrics.value))
            if len(seen) == 6:
                break  # number 5 is in hand and counts as not handled
    with subscribe(broker, "desk") as feed:
        again = take(feed, 3)
    assert seen == [0, 1, 2, 3, 4, 5]
    assert again == [5, 6, 7]


def test_what_was_read_and_not_handed_out_is_not_lost(broker, desk):
    desk.publish(10, portfolio="one")
    with subscribe(broker, start="earliest") as feed:
        for update in feed:
            assert update.metrics.value == 0.0
            break
        kept = feed.positions()
        # A poll goes on where the iteration stopped.
        assert [one.metrics.value for one in feed.poll(1.0, max_updates=2)] == [1.0, 2.0]
        assert next(iter(feed)).metrics.value == 3.0
    with subscribe(broker, positions=kept) as feed:
        assert take(feed, 9) == list(range(1, 10))
    with subscribe(broker, "early", start="earliest") as feed:
        next(iter(feed))
        feed.commit()
    with subscribe(broker, "early") as feed:
        assert take(feed, 9) == list(range(1, 10))
        feed.commit()


def test_positions_pass_over_what_was_not_asked_for(broker, desk):
    desk.publish(4, portfolio="others")
    with subscribe(broker, start="earliest", portfolios=["mine"]) as feed:
        feed.poll(1.0)
        assert sum(feed.positions().values()) == 4


def test_an_update_that_raises_is_seen_again(broker, desk):
    desk.publish(3, portfolio="one")

    def fail_at_the_second(feed):
        for update in feed:
            if update.metrics.value == 1.0:
                raise ZeroDivisionError

    with subscribe(broker, "desk", start="earliest") as feed, pytest.raises(ZeroDivisionError):
        fail_at_the_second(feed)
    with subscribe(broker, "desk") as feed:
        assert take(feed, 2) == [1, 2]


def test_members_of_a_group_share_the_partitions(broker, desk):
    with subscribe(broker, "shared") as one, subscribe(broker, "shared") as two:
        for _ in range(200):
            one.poll(0.05)
            two.poll(0.05)
            held = [set(one.positions()), set(two.positions())]
            if all(held) and not held[0] & held[1] and len(held[0] | held[1]) == 8:
                break
        else:
            raise AssertionError(f"the members never shared: {held}")
        desk.publish(50)
        got = []
        for _ in range(200):
            got += [int(update.metrics.value) for reader in (one, two) for update in reader.poll(0.05)]
            if len(got) >= 50:
                break
        assert sorted(got) == list(range(50))


def test_what_went_to_another_member_while_it_was_gathered_is_not_handed_out(broker, desk):
    desk.publish(20)
    with subscribe(broker, start="earliest") as feed:
        for source in list(feed.positions())[1:]:
            feed._lost(None, [TopicPartition(*source)])
        kept = next(iter(feed.positions()))
        assert {one.source for _ in range(3) for one in feed.poll(0.5)} <= {kept}
        assert set(feed.positions()) == {kept}


def test_only_the_portfolios_asked_for(broker, desk):
    desk.publish(10)
    with subscribe(broker, portfolios=["desk-3"], start="earliest") as feed:
        assert take(feed, 2) == [3, 8]
    with subscribe(broker, portfolios="desk-4", start="earliest") as feed:
        assert take(feed, 2) == [4, 9]


def test_what_cannot_be_read_is_skipped_and_counted(broker, desk):
    desk.publish(1, portfolio="one")
    desk.raw("one", b"\xff\xff\xff")
    desk.raw("one", None)
    desk.publish(1, portfolio="one")
    with subscribe(broker, start="earliest") as feed:
        assert take(feed, 2) == [0, 1]
        assert feed.skipped == 1


def test_what_cannot_work_is_said_at_once(broker):
    with pytest.raises(ValueError, match="no topic 'orders'"):
        subscribe(broker, topics=["orders"])
    with pytest.raises(ValueError, match="latest or earliest"):
        subscribe(broker, start="newest")
    with pytest.raises(ValueError, match="not both"):
        subscribe(broker, "group", positions={})
    with pytest.raises(risk_client.NotFound, match="not there"):
        subscribe(broker, positions={Partition(topics.RISK_METRICS, 99): 0})
    with subscribe(broker) as feed, pytest.raises(ValueError, match="positions"):
        feed.commit()


def test_brokers_that_are_gone_are_unavailable(broker, desk):
    desk.publish(1)
    feed = subscribe(broker, start="earliest", unreachable_s=0.5)
    assert take(feed, 1) == [0]
    broker.close()
    with pytest.raises(risk_client.Unavailable, match="no Kafka broker"):
        take(feed, 1)
    feed.close()


def test_the_example_of_the_page_runs(broker, desk):
    [example] = [
        one for one in re.findall(r"```python\n(.*?)```", CLIENT_PAGE, re.S) if "RiskSubscriber" in one
    ]
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    code = example.replace("localhost:9092", broker.bootstrap)
    reader = subprocess.Popen(
        [sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    printed = ""
    try:
        # It starts at the end of the log, so there must be something new until it has started.
        for _ in range(300):
            desk.publish(5)
            desk.alert("desk-1", "VaR above its limit")
            printed += _printed(reader)
            if "ALERT" in printed and re.search(r"^desk-2 \d+\.0 10\.0$", printed, re.M):
                break
    finally:
        reader.kill()
        reader.wait(PATIENCE_S)
        reader.stdout.close()
    assert re.search("^desk-1 ALERT VaR above its limit$", printed, re.M), printed
    assert re.search(r"^desk-2 \d+\.0 10\.0$", printed, re.M), printed


def _printed(process, wait_s=0.2):
    ready, _, _ = select.select([process.stdout], [], [], wait_s)
    return os.read(process.stdout.fileno(), 65_536).decode() if ready else ""


def test_nothing_of_the_services_is_imported():
    code = (
        "import sys, risk_client.kafka; "
        "print(sorted({name.split('.')[0] for name in sys.modules} "
        "& {'service_kit', 'prometheus_client', 'numba', 'jax', 'structlog', 'gpu_kernels', 'pandas'}))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S)
    assert ended.stdout.strip() == "[]", ended.stderr


def test_without_the_extra_it_says_which():
    code = "import sys; sys.modules['confluent_kafka'] = None; import risk_client; import risk_client.kafka"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S)
    assert "gpu-risk[kafka]" in ended.stderr


def test_on_real_kafka_nothing_is_lost_between_two_readers(kafka_broker):
    settings = KafkaSettings(bootstrap=kafka_broker.bootstrap)
    ensure_topics(settings, replication=1)
    ours = f"subscriber-{uuid.uuid4().hex[:8]}"
    desk = Desk(kafka_broker.bootstrap)
    with RiskSubscriber(kafka_broker.bootstrap, ours, portfolios=[ours]) as feed:
        while not feed.positions():
            feed.poll(0.5)
        positions = feed.positions()
    desk.publish(10, portfolio=ours)
    with RiskSubscriber(kafka_broker.bootstrap, ours, portfolios=[ours]) as feed:
        assert take(feed, 10) == list(range(10))
        feed.commit()
    desk.publish(5, portfolio=ours)
    with RiskSubscriber(kafka_broker.bootstrap, ours, portfolios=[ours]) as feed:
        assert take(feed, 5) == list(range(10, 15))
    with RiskSubscriber(kafka_broker.bootstrap, positions=positions, portfolios=[ours]) as feed:
        assert take(feed, 15) == list(range(15))
