"""Transactions on real Kafka: all or nothing, with the offsets; a later writer shuts out an earlier one."""

from __future__ import annotations

import time

import confluent_kafka
import pytest

from protos.topics import Topic
from service_kit.kafka.admin import ensure_topics
from service_kit.kafka.connection import client_config
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.errors import DeliveryFailed, ProducerFenced
from service_kit.kafka.lookup import LogLookup
from service_kit.kafka.producer import Producer
from service_kit.kafka.real import RealKafka
from service_kit.kafka.records import Partition
from service_kit.kafka.settings import KafkaSettings
from service_kit.kafka.transactions import TransactionalProducer


@pytest.fixture
def one(kafka_broker: RealKafka) -> KafkaSettings:
    return KafkaSettings(bootstrap=kafka_broker.bootstrap)


@pytest.fixture
def source(one: KafkaSettings, new_topic: str) -> Partition:
    """A topic of one partition with three records, and one beside it for what becomes of them."""
    ensure_topics(
        one, (Topic(new_topic, key="k", partitions=1), Topic(f"{new_topic}.out", key="k")), replication=1
    )
    with Producer(one) as producer:
        for value in (b"a", b"b", b"c"):
            producer.send(new_topic, "k", value)
    return Partition(new_topic, 0)


def group_of(one: KafkaSettings, source: Partition, drain) -> Consumer[bytes]:
    reader = Consumer(one, [source.topic], source.topic, bytes)
    assert len(drain(reader, 3)) == 3
    return reader


def visible(one: KafkaSettings, there: Partition, count: int = 0) -> list[bytes]:
    """What readers see, once it is so much: a commit is settled before its markers are everywhere."""
    deadline = time.monotonic() + 30
    with LogLookup(one) as look:
        while True:
            _, end = look.bounds(there)
            found = [record.value for record in look.read(there, 0, end)]
            if len(found) >= count or time.monotonic() > deadline:
                return found


def test_records_and_offsets_come_together(one: KafkaSettings, source: Partition, drain) -> None:
    there = Partition(f"{source.topic}.out", 2)
    producer = TransactionalProducer(one, source.topic)
    producer.open()
    with group_of(one, source, drain) as reader:
        producer.send(there.topic, "k", b"1", partition=2)
        assert visible(one, there) == []
        producer.commit({source: 1}, reader.group_metadata())
        assert visible(one, there, 1) == [b"1"]
        assert reader.committed([source]) == {source: 1}
        producer.send(there.topic, "k", b"given up", partition=2)
        producer.close()
        producer.open()
        producer.send(there.topic, "k", b"2", partition=2)
        producer.commit({source: 2}, reader.group_metadata())
        assert visible(one, there, 2) == [b"1", b"2"]
        assert reader.committed([source]) == {source: 2}
    producer.close()
    with pytest.raises(DeliveryFailed, match="not open"):
        producer.send(there.topic, "k", b"3")


def test_the_last_record_is_found_behind_markers_and_what_was_aborted(
    one: KafkaSettings, source: Partition, drain
) -> None:
    there = Partition(f"{source.topic}.out", 1)
    producer = TransactionalProducer(one, source.topic)
    producer.open()
    with group_of(one, source, drain) as reader:
        for value in (b"first", b"last"):
            producer.send(there.topic, "k", value, partition=1)
            producer.commit({source: 1}, reader.group_metadata())
    producer.close()
    bare = confluent_kafka.Producer(client_config(one) | {"transactional.id": source.topic})
    bare.init_transactions(20)
    for _ in range(20):
        bare.begin_transaction()
        bare.produce(there.topic, b"aborted", partition=1)
        bare.flush(10)  # on the broker, to be aborted there
        bare.abort_transaction(20)
    producer.open()  # waits until the markers of the transaction before are written
    producer.close()
    with LogLookup(one) as look:
        assert look.last(there, lambda record: record.value) == b"last"
        assert look.last(there, lambda record: None if record.value == b"last" else record.value) == b"first"
        assert look.record_at(there, 0).value == b"first"
        assert look.record_at(there, 1) is None  # a marker
        # Twenty aborted records, each with its marker, end after the two that count.
        assert look.bounds(there) == (0, 4 + 40)


def test_a_writer_that_has_a_successor_writes_no_more(one: KafkaSettings, source: Partition, drain) -> None:
    there = Partition(f"{source.topic}.out", 0)
    old, new = TransactionalProducer(one, source.topic), TransactionalProducer(one, source.topic)
    old.open()
    with group_of(one, source, drain) as reader:
        old.send(there.topic, "k", b"of the dead", partition=0)
        new.open()
        with pytest.raises(ProducerFenced):
            old.commit({source: 3}, reader.group_metadata())
        new.send(there.topic, "k", b"of the living", partition=0)
        new.commit({source: 1}, reader.group_metadata())
        assert visible(one, there, 1) == [b"of the living"]
        assert reader.committed([source]) == {source: 1}
    old.close()
    new.close()


def test_a_named_member_comes_back_to_what_it_had(kafka_broker: RealKafka, source: Partition, drain) -> None:
    named = KafkaSettings(bootstrap=kafka_broker.bootstrap, group_instance_id="here")
    first = group_of(named, source, drain)
    first.commit({source: 1})
    first.close()
    with Consumer(named, [source.topic], source.topic, bytes) as second:
        assert [message.value for message in drain(second, 2)] == [b"b", b"c"]
