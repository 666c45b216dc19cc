"""A durable append answers with the record's place, or with an error; never with a guess."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import KafkaError

from protos import topics
from service_kit.kafka.appender import Appender
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.errors import DeliveryFailed, RecordTooLarge
from service_kit.kafka.mock_cluster import MockCluster
from service_kit.kafka.records import BEGINNING, Partition

PRODUCE = 0  # the protocol's API key


def read(settings, partition, offset):
    with Consumer(settings, [topics.ORDERS_INCOMING], "reader", bytes) as consumer:
        consumer.assign({Partition(topics.ORDERS_INCOMING, partition): BEGINNING})
        while True:
            for message in consumer.poll(100, 1.0):
                if message.record.offset == offset:
                    return message.value


def test_the_place_is_where_the_record_is():
    with MockCluster() as broker:
        appender = Appender(broker.settings())
        places = [appender.append(topics.ORDERS_INCOMING, "AAA", b"%d" % n) for n in range(5)]
        appender.close()
        assert len({partition for partition, _ in places}) == 1
        assert [offset for _, offset in places] == [0, 1, 2, 3, 4]
        assert read(broker.settings(), *places[3]) == b"3"


def test_many_threads_get_their_own_receipts():
    with MockCluster() as broker, ThreadPoolExecutor(8) as pool:
        appender = Appender(broker.settings())
        append = lambda n: appender.append(topics.ORDERS_INCOMING, f"S{n % 7}", b"%d" % n)  # noqa: E731
        places = list(pool.map(append, range(200)))
        appender.close()
        assert len(set(places)) == 200


def test_a_refused_record_is_an_error():
    with MockCluster() as broker:
        settings = dataclasses.replace(broker.settings(), delivery_timeout_ms=2_000)
        broker.fail_requests(PRODUCE, [KafkaError.MSG_SIZE_TOO_LARGE] * 100)
        appender = Appender(settings)
        with pytest.raises(DeliveryFailed, match=r"orders\.incoming"):
            appender.append(topics.ORDERS_INCOMING, "AAA", b"x")
        broker.clear_failures(PRODUCE)
        assert appender.append(topics.ORDERS_INCOMING, "AAA", b"x")[1] >= 0
        appender.close()


def test_a_record_that_can_never_be_delivered_is_refused_before_it_is_sent(settings):
    appender = Appender(dataclasses.replace(settings, record_bytes_max=1_024))
    with pytest.raises(RecordTooLarge, match=r"1,025 bytes for .* exceeds kafka.record_bytes_max"):
        appender.append(topics.ORDERS_INCOMING, "AAA", bytes(1_025))
    assert appender.append(topics.ORDERS_INCOMING, "AAA", bytes(1_024))[1] == 0
    appender.close()


def test_without_a_broker_it_gives_up_in_its_time():
    with MockCluster() as broker:
        settings = dataclasses.replace(broker.settings(), delivery_timeout_ms=500)
    appender = Appender(settings)
    with pytest.raises(DeliveryFailed):
        appender.append(topics.ORDERS_INCOMING, "AAA", b"x")
