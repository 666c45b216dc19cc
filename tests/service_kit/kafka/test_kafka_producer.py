from __future__ import annotations

import dataclasses
import random

import pytest
from opentelemetry import trace
from prometheus_client import CollectorRegistry

from protos.topics import RISK_METRICS
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.errors import BrokerUnreachable, DeliveryFailed, QueueFull, RecordTooLarge
from service_kit.kafka.metrics import KafkaMetrics
from service_kit.kafka.mock_cluster import MockCluster
from service_kit.kafka.partitioning import partition_of
from service_kit.kafka.producer import Producer
from service_kit.kafka.settings import KafkaSettings
from service_kit.telemetry import traces

# Codes of the protocol.
NOT_LEADER, CLUSTER_AUTHORIZATION_FAILED = 6, 31
PRODUCE, INIT_PRODUCER_ID = 0, 22


def _reader(settings: KafkaSettings, topic: str = RISK_METRICS) -> Consumer[bytes]:
    return Consumer(settings, [topic], "reader", bytes)


def test_a_record_arrives_as_it_was_sent(settings, drain) -> None:
    with Producer(settings) as producer, _reader(settings) as reader:
        producer.send(RISK_METRICS, "größe", b"\x00\xff", [("traceparent", b"00-1"), ("empty", b"")])
        producer.send(RISK_METRICS, "gone", None)
        producer.flush()
        first, gone = sorted(drain(reader, 2), key=lambda one: one.record.tombstone)
    assert (first.value, first.record.key) == (b"\x00\xff", "größe")
    assert first.record.headers == (("traceparent", b"00-1"), ("empty", b""))
    assert first.record.timestamp_ms > 1_600_000_000_000
    assert gone.record.tombstone
    assert gone.value == b""


def test_a_trace_goes_on_at_the_reader(settings, drain) -> None:
    span = trace.NonRecordingSpan(trace.SpanContext(7, 9, is_remote=False, trace_flags=trace.TraceFlags(1)))
    headers = [("other", b"\xff")]
    with trace.use_span(span):
        traces.inject(headers)
    with Producer(settings) as producer, _reader(settings) as reader:
        producer.send(RISK_METRICS, "k", b"x", headers)
        producer.flush()
        (message,) = drain(reader, 1)
    context = trace.get_current_span(traces.extract(message.record.headers)).get_span_context()
    assert (context.trace_id, context.span_id) == (7, 9)


def test_records_land_where_partition_of_says(settings, drain, seed) -> None:
    draw = random.Random(seed)
    keys = [""] + [
        "".join(chr(draw.randint(33, 0x2FF)) for _ in range(draw.randint(1, 30))) for _ in range(300)
    ]
    with Producer(settings) as producer, _reader(settings) as reader:
        for key in keys:
            producer.send(RISK_METRICS, key, b"x")
        producer.flush()
        for message in drain(reader, len(keys)):
            record = message.record
            assert record.partition == partition_of(record.key, 4), record.key


def test_nothing_is_opened_before_the_first_send() -> None:
    producer = Producer(KafkaSettings(bootstrap="127.0.0.1:1"))
    producer.flush()
    producer.poll()
    assert producer.queued == 0
    producer.close()
    with pytest.raises(DeliveryFailed, match="closed"):
        producer.send("t", "k", b"")


def test_a_full_queue_refuses_by_name_and_loses_nothing(broker: MockCluster, settings, drain) -> None:
    registry = CollectorRegistry()
    small = dataclasses.replace(settings, queue_records_max=10, send_wait_s_max=0.1)
    producer = Producer(small, metrics=KafkaMetrics(registry))
    broker.broker_down(1)
    for at in range(10):
        producer.send(RISK_METRICS, "k", b"%d" % at)
    with pytest.raises(QueueFull, match=r"kafka\.queue_records_max 10"):
        producer.send(RISK_METRICS, "k", b"refused")
    topic = {"topic": RISK_METRICS}
    assert registry.get_sample_value("gpu_risk_kafka_queue_full_total", topic) == 1
    assert registry.get_sample_value("gpu_risk_kafka_backpressure_seconds_total", topic) > 0
    assert registry.get_sample_value("gpu_risk_kafka_queue_records") == producer.queued == 10
    broker.broker_up(1)
    producer.close(timeout_s=10)
    with _reader(settings) as reader:
        assert [one.value for one in drain(reader, 10)] == [b"%d" % at for at in range(10)]
        assert reader.poll(timeout_s=0.1) == []


def test_a_full_queue_holds_the_sender_back_until_there_is_room(settings, drain) -> None:
    with Producer(dataclasses.replace(settings, queue_records_max=5)) as producer:
        for at in range(500):
            producer.send(RISK_METRICS, "k", b"%d" % at)
    with _reader(settings) as reader:
        assert [one.value for one in drain(reader, 500)] == [b"%d" % at for at in range(500)]


def test_the_queue_is_bounded_in_bytes_too(broker: MockCluster, settings) -> None:
    broker.broker_down(1)
    small = dataclasses.replace(settings, queue_kbytes_max=1_000, send_wait_s_max=0.0)
    producer = Producer(small)
    for _ in range(10):
        producer.send(RISK_METRICS, "k", bytes(100_000))
    with pytest.raises(QueueFull, match=r"kafka\.queue_kbytes_max 1,000"):
        producer.send(RISK_METRICS, "k", bytes(100_000))
    with pytest.raises(DeliveryFailed, match="gave them up"):
        producer.close(timeout_s=0)


def test_a_lost_record_is_counted_reported_and_raised_once(broker: MockCluster, settings) -> None:
    registry, seen = CollectorRegistry(), []
    impatient = dataclasses.replace(settings, delivery_timeout_ms=200)
    producer = Producer(impatient, metrics=KafkaMetrics(registry), on_error=seen.append)
    broker.broker_down(1)
    for _ in range(5):
        producer.send(RISK_METRICS, "k", b"x")
    with pytest.raises(DeliveryFailed, match=f"5 records were not delivered: {RISK_METRICS}"):
        producer.flush()
    assert len(seen) == 5
    assert registry.get_sample_value("gpu_risk_kafka_delivery_errors_total", {"topic": RISK_METRICS}) == 5
    producer.flush()
    producer.close()


def test_close_gives_up_in_time_and_says_so(broker: MockCluster, settings) -> None:
    producer = Producer(settings)
    broker.broker_down(1)
    producer.send(RISK_METRICS, "k", b"x")
    with pytest.raises(DeliveryFailed, match=r"1 records were not delivered .* gave them up"):
        producer.close(timeout_s=0.05)
    producer.close()


def test_the_error_that_ends_a_block_is_not_hidden_by_lost_records(
    broker: MockCluster, settings, caplog
) -> None:
    broker.broker_down(1)
    impatient = dataclasses.replace(settings, close_wait_s_max=0.05)

    def send_and_fail() -> None:
        with Producer(impatient) as producer:
            producer.send(RISK_METRICS, "k", b"x")
            raise KeyError

    with pytest.raises(KeyError):
        send_and_fail()
    assert "1 records were not delivered" in caplog.text


def test_a_record_over_the_limit_is_refused_by_name(settings) -> None:
    with Producer(dataclasses.replace(settings, record_bytes_max=1_024)) as producer:
        with pytest.raises(RecordTooLarge, match=r"1,025 bytes .* kafka\.record_bytes_max"):
            producer.send(RISK_METRICS, "k", bytes(1_025))
        with pytest.raises(RecordTooLarge, match="key and headers"):
            producer.send(RISK_METRICS, "k", b"", [("h", bytes(200_000))])


def test_broker_errors_are_retried_without_loss_or_double(broker: MockCluster, settings, drain) -> None:
    # One request at a time: of several in flight a real broker refuses those after a failed one by their
    # sequence numbers, this one takes them, and the client believes that the failed one arrived too.
    with Producer(dataclasses.replace(settings, linger_ms=10_000.0)) as producer:
        producer.send(RISK_METRICS, "k", b"0")
        producer.flush()
        broker.fail_requests(PRODUCE, [NOT_LEADER] * 3)
        for at in range(1, 50):
            producer.send(RISK_METRICS, "k", b"%d" % at)
    with _reader(settings) as reader:
        assert [one.value for one in drain(reader, 50)] == [b"%d" % at for at in range(50)]
        assert reader.poll(timeout_s=0.1) == []


def test_after_a_fatal_error_the_next_send_starts_anew(broker: MockCluster, settings, drain) -> None:
    producer = Producer(settings)
    broker.fail_requests(INIT_PRODUCER_ID, [CLUSTER_AUTHORIZATION_FAILED])

    def send_on() -> None:
        for _ in range(200):
            producer.send(RISK_METRICS, "k", b"lost")
            producer.poll(0.05)

    with pytest.raises(DeliveryFailed, match="Cluster authorization failed"):
        send_on()
    # What was queued before the error is lost, and said to be.
    with pytest.raises(DeliveryFailed, match="not delivered"):
        producer.flush()
    producer.send(RISK_METRICS, "k", b"new")
    producer.close()
    with _reader(settings) as reader:
        assert [one.value for one in drain(reader, 1)] == [b"new"]


def test_a_long_silence_of_all_brokers_ends_in_one_clear_error(broker: MockCluster, settings) -> None:
    producer = Producer(dataclasses.replace(settings, unreachable_s_max=0.3))
    producer.send(RISK_METRICS, "k", b"x")
    producer.flush()
    broker.broker_down(1)

    def poll_on() -> None:
        for _ in range(100):
            producer.poll(0.1)

    with pytest.raises(BrokerUnreachable, match=broker.bootstrap):
        poll_on()
