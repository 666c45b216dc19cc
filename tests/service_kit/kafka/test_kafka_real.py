"""On real Apache Kafka: what the in-memory broker cannot show."""

from __future__ import annotations

import random
import time
import uuid
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from protos.topics import ORDERS_EXECUTED, Topic, dead_letter
from service_kit.kafka.admin import check_broker, ensure_topics, leaders_in_sync
from service_kit.kafka.connection import client_config
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.errors import TopicSetupFailed
from service_kit.kafka.partitioning import partition_of
from service_kit.kafka.producer import Producer
from service_kit.kafka.real import RealKafka
from service_kit.kafka.records import Partition
from service_kit.kafka.settings import KafkaSettings


@pytest.fixture
def one(kafka_broker: RealKafka) -> KafkaSettings:
    return KafkaSettings(bootstrap=kafka_broker.bootstrap, close_wait_s_max=60.0)


@pytest.fixture
def three(kafka_cluster: RealKafka) -> KafkaSettings:
    return KafkaSettings(bootstrap=kafka_cluster.bootstrap, close_wait_s_max=60.0)


def _poison_is_short(value: bytes) -> bytes:
    if len(value) < 2:
        raise ValueError("short")
    return value


def test_topics_are_made_once_in_the_right_shape(one: KafkaSettings, new_topic: str) -> None:
    topics = (Topic(new_topic, key="symbol", partitions=3), Topic(f"{new_topic}.c", key="p", compacted=True))
    made = ensure_topics(one, topics, replication=1)
    assert set(made) == {name for topic in topics for name in (topic.name, dead_letter(topic.name))}
    assert ensure_topics(one, topics, replication=1) == []
    admin = AdminClient(client_config(one))
    found = admin.list_topics(timeout=5).topics
    assert len(found[new_topic].partitions) == 3
    assert len(found[dead_letter(new_topic)].partitions) == 1
    resource = ConfigResource(ResourceType.TOPIC, f"{new_topic}.c")
    config = admin.describe_configs([resource])[resource].result(timeout=10)
    assert config["cleanup.policy"].value == "compact"
    assert config["min.insync.replicas"].value == "1"
    assert int(config["max.message.bytes"].value) > one.record_bytes_max
    fills = ConfigResource(ResourceType.TOPIC, ORDERS_EXECUTED)
    ensure_topics(one)
    # A broker's usual week would take fills out of every position.
    kept = admin.describe_configs([fills])[fills].result(timeout=10)
    assert (kept["retention.ms"].value, kept["retention.bytes"].value) == ("-1", "-1")
    with pytest.raises(TopicSetupFailed, match=f"{new_topic} exists with 3 partitions, 5 are needed"):
        ensure_topics(one, (Topic(new_topic, key="symbol", partitions=5),), replication=1)


def test_a_topic_that_cannot_be_made_is_named(one: KafkaSettings) -> None:
    with pytest.raises(TopicSetupFailed, match="topic bad name"):
        ensure_topics(one, (Topic("bad name", key="symbol"),), replication=1)


def test_records_land_where_partition_of_says_and_poison_is_set_aside(
    one: KafkaSettings, new_topic: str, drain, seed
) -> None:
    draw = random.Random(seed)
    ensure_topics(one, (Topic(new_topic, key="symbol", partitions=7),), replication=1)
    keys = [f"{draw.randint(0, 10**9)}" for _ in range(200)]
    with (
        Producer(one) as producer,
        Consumer(one, [new_topic], new_topic, _poison_is_short, producer) as reader,
    ):
        for key in keys:
            producer.send(new_topic, key, key.encode() + b"!", [("traceparent", b"00-1")])
        producer.send(new_topic, "poison", b"x")
        messages = drain(reader, len(keys))
        assert sorted(one.record.key for one in messages) == sorted(keys)
        assert all(one.record.partition == partition_of(one.record.key, 7) for one in messages)
        assert messages[0].record.headers == (("traceparent", b"00-1"),)
        while sum(reader.position().values()) < len(keys) + 1:
            reader.poll(timeout_s=0.1)
        reader.commit()
        assert sum(reader.lag().values()) == 0
    with Consumer(one, [dead_letter(new_topic)], "letters", bytes) as reader:
        assert [letter.value for letter in drain(reader, 1)] == [b"x"]


def test_a_record_of_the_largest_size_passes(one: KafkaSettings, new_topic: str, drain) -> None:
    ensure_topics(one, (Topic(new_topic, key="portfolio"),), replication=1)
    value = random.Random(1).randbytes(one.record_bytes_max)
    with Producer(one) as producer, Consumer(one, [new_topic], new_topic, bytes) as reader:
        producer.send(new_topic, "k", value)
        producer.flush()
        assert drain(reader, 1)[0].value == value


def test_aborted_records_are_not_read_and_are_no_lag(one: KafkaSettings, new_topic: str, drain) -> None:
    ensure_topics(one, (Topic(new_topic, key="symbol", partitions=1),), replication=1)
    transactional = confluent_kafka.Producer(
        client_config(one) | {"transactional.id": new_topic, "transaction.timeout.ms": 10_000}
    )
    transactional.init_transactions(20)
    for text, end in (
        (b"aborted", transactional.abort_transaction),
        (b"committed", transactional.commit_transaction),
    ):
        transactional.begin_transaction()
        transactional.produce(new_topic, text)
        transactional.flush(10)
        end(20)
    there = Partition(new_topic, 0)
    with Consumer(one, [new_topic], new_topic, bytes) as reader:
        assert [one.value for one in drain(reader, 1)] == [b"committed"]
        # Two records and two markers: the position passes the last marker too.
        while reader.position()[there] < 4:
            assert reader.poll(timeout_s=0.1) == []
        assert reader.lag() == {there: 0}


def test_one_of_three_brokers_dies_and_nothing_is_lost_or_doubled(
    kafka_cluster: RealKafka, three: KafkaSettings, new_topic: str, drain
) -> None:
    ensure_topics(three, (Topic(new_topic, key="symbol"),))
    group = f"g-{uuid.uuid4().hex[:8]}"
    with Producer(three) as producer, Consumer(three, [new_topic], group, bytes) as reader:
        for at in range(200):
            producer.send(new_topic, f"k{at % 16}", b"%d" % at)
        producer.flush()
        messages = drain(reader, 200)
        reader.commit()
        kafka_cluster.kill(1)
        try:
            for at in range(200, 400):
                producer.send(new_topic, f"k{at % 16}", b"%d" % at)
            producer.flush()
            messages += drain(reader, 200)
            reader.commit()
            assert len(check_broker(three)) == 2
        finally:
            kafka_cluster.restart(1)
        assert leaders_in_sync(three, 3)
        for at in range(400, 450):
            producer.send(new_topic, f"k{at % 16}", b"%d" % at)
        producer.flush()
        messages += drain(reader, 50)
    assert sorted(int(one.value) for one in messages) == list(range(450))
    for key in {one.record.key for one in messages}:
        of_key = [int(one.value) for one in messages if one.record.key == key]
        assert of_key == sorted(of_key)


def described(admin: AdminClient, resource: ConfigResource) -> Any:
    """A topic's settings, once the broker that is asked has heard of the topic."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return admin.describe_configs([resource])[resource].result(timeout=10)
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            admin.poll(0.05)


def test_a_write_needs_all_replicas_but_one(
    kafka_cluster: RealKafka, three: KafkaSettings, new_topic: str
) -> None:
    ensure_topics(three, (Topic(f"{new_topic}.3", key="symbol", partitions=1),))
    ensure_topics(three, (Topic(f"{new_topic}.2", key="symbol", partitions=1),), replication=2)
    admin = AdminClient(client_config(three))
    for copies in (3, 2):
        resource = ConfigResource(ResourceType.TOPIC, f"{new_topic}.{copies}")
        config = described(admin, resource)
        assert config["min.insync.replicas"].value == str(copies - 1)
        found = admin.list_topics(timeout=5).topics[f"{new_topic}.{copies}"]
        assert len(found.partitions[0].replicas) == copies
