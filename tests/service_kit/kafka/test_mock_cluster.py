from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from protos.topics import RISK_METRICS, TOPICS, dead_letter
from service_kit.errors import BrokerUnreachable
from service_kit.kafka import librdkafka
from service_kit.kafka.admin import check_broker, ensure_topics
from service_kit.kafka.connection import client_config
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.errors import MockClusterUnavailable, TopicSetupFailed
from service_kit.kafka.mock_cluster import MockCluster
from service_kit.kafka.producer import Producer
from service_kit.kafka.settings import KafkaSettings


def test_it_listens_on_loopback_with_every_topic_made() -> None:
    from confluent_kafka.admin import AdminClient

    with MockCluster(brokers=3) as broker:
        brokers = check_broker(broker.settings())
        assert ",".join(f"127.0.0.1:{one.port}" for one in brokers) == broker.bootstrap
        made = AdminClient(client_config(broker.settings())).list_topics(timeout=5).topics
        for topic in TOPICS:
            assert len(made[topic.name].partitions) == topic.partitions
            assert len(made[dead_letter(topic.name)].partitions) == 1
        # With all topics there, nothing is left to do for the one call that services make.
        assert ensure_topics(broker.settings()) == []


def test_another_process_reads_what_this_one_sends(settings) -> None:
    with Producer(settings) as producer:
        producer.send(RISK_METRICS, "k", b"across")
    script = (
        "import sys; from service_kit.kafka.consumer import Consumer; "
        "from service_kit.kafka.settings import KafkaSettings as S\n"
        f"with Consumer(S(bootstrap=sys.argv[1]), [{RISK_METRICS!r}], 'g', bytes) as reader:\n"
        "    print(reader.poll(timeout_s=20)[0].value.decode())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, settings.bootstrap],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "across\n"


def test_two_of_three_brokers_carry_on(drain) -> None:
    with MockCluster(brokers=3) as broker, Producer(broker.settings()) as producer:
        for leader in range(4):
            broker.move_leader(RISK_METRICS, leader, 1)
        producer.send(RISK_METRICS, "k", b"before")
        producer.flush()
        for partition in range(4):
            broker.move_leader(RISK_METRICS, partition, 2)
        broker.broker_down(1)
        producer.send(RISK_METRICS, "k", b"after")
        producer.flush()
        with Consumer(broker.settings(), [RISK_METRICS], "g", bytes) as reader:
            assert [one.value for one in drain(reader, 2)] == [b"before", b"after"]


def test_a_slow_broker_is_waited_for(broker: MockCluster, settings, drain) -> None:
    with Producer(settings) as producer, Consumer(settings, [RISK_METRICS], "g", bytes) as reader:
        broker.broker_delay(1, 30)
        producer.send(RISK_METRICS, "k", b"late")
        producer.flush()
        assert [one.value for one in drain(reader, 1)] == [b"late"]


def test_injected_errors_can_be_taken_back(broker: MockCluster, settings) -> None:
    with Producer(dataclasses.replace(settings, delivery_timeout_ms=2_000)) as producer:
        broker.fail_requests(0, [29] * 1_000)  # TOPIC_AUTHORIZATION_FAILED, never retried
        broker.clear_failures(0)
        producer.send(RISK_METRICS, "k", b"x")
        producer.flush()


def test_wrong_numbers_are_refused_by_name(broker: MockCluster) -> None:
    with pytest.raises(ValueError, match="brokers must be from 1 to 9, not 0"):
        MockCluster(brokers=0)
    with pytest.raises(ValueError, match="broker must be from 1 to 1, not 2"):
        broker.broker_down(2)
    with pytest.raises(TopicSetupFailed, match=RISK_METRICS):
        broker.create_topic(RISK_METRICS, 4)


def test_a_closed_broker_says_so() -> None:
    broker = MockCluster()
    address = broker.bootstrap
    broker.close()
    broker.close()
    with pytest.raises(MockClusterUnavailable, match="closed"):
        broker.broker_down(1)
    with pytest.raises(BrokerUnreachable, match=f"{address} cannot be reached: .*refused"):
        check_broker(KafkaSettings(bootstrap=address), timeout_s=0.5)


def test_a_library_without_a_mock_cluster_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    librdkafka.load.cache_clear()
    # Any library of the system that is not librdkafka.
    monkeypatch.setattr(librdkafka, "_candidates", lambda: iter([librdkafka.ctypes.util.find_library("c")]))
    try:
        with pytest.raises(MockClusterUnavailable, match="needs a librdkafka with its mock cluster"):
            MockCluster()
    finally:
        librdkafka.load.cache_clear()


def test_the_error_of_an_unreachable_broker_is_one_clear_line() -> None:
    with pytest.raises(BrokerUnreachable) as caught:
        ensure_topics(KafkaSettings(bootstrap="127.0.0.1:1"), timeout_s=0.5)
    text = str(caught.value)
    assert "127.0.0.1:1" in text
    assert "refused" in text
    assert "\n" not in text
