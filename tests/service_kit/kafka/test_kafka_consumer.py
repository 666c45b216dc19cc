from __future__ import annotations

import contextlib
import dataclasses
import random
from collections.abc import Mapping

import pytest
from google.protobuf.message import DecodeError
from prometheus_client import CollectorRegistry

from protos.market.v1 import market_pb2
from protos.topics import MARKET_DATA_RAW, RISK_METRICS, dead_letter
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.errors import BrokerUnreachable, ConsumerFailed, DeliveryFailed
from service_kit.kafka.metrics import KafkaMetrics
from service_kit.kafka.mock_cluster import MockCluster
from service_kit.kafka.partitioning import partition_of
from service_kit.kafka.producer import Producer
from service_kit.kafka.records import BEGINNING, END, Headers, Partition

FETCH, OFFSET_COMMIT = 1, 8
NOT_LEADER, GROUP_AUTHORIZATION_FAILED = 6, 30
# All records with this key are in one partition, so that their order is certain.
HERE = Partition(RISK_METRICS, partition_of("k", 4))
HALVES = [{Partition(RISK_METRICS, number) for number in half} for half in ((0, 1), (2, 3))]


def _not_poison(value: bytes) -> bytes:
    if value.startswith(b"poison"):
        raise ValueError("not a number: ☠")
    return value


def _send(settings, *values: bytes, topic: str = RISK_METRICS, key: str | bytes = "k") -> None:
    with Producer(settings) as producer:
        for value in values:
            producer.send(topic, key, value, [("traceparent", b"00-abc")])


def test_a_poison_record_is_set_aside_and_reading_goes_on(settings, drain) -> None:
    registry = CollectorRegistry()
    _send(settings, b"1", b"poison", b"2", b"poison too", b"3")
    with (
        Producer(settings) as letters,
        Consumer(
            settings, [RISK_METRICS], "g", _not_poison, letters, metrics=KafkaMetrics(registry)
        ) as reader,
    ):
        assert [one.value for one in drain(reader, 3)] == [b"1", b"2", b"3"]
        reader.commit()
        assert reader.position()[HERE] == 5
        assert reader.committed([HERE]) == {HERE: 5}
    with Consumer(settings, [dead_letter(RISK_METRICS)], "letters", bytes) as reader:
        first, second = drain(reader, 2)
    assert (first.value, second.value) == (b"poison", b"poison too")
    assert first.record.key == "k"
    headers = first.record.headers
    assert header(headers, "dead-letter-topic") == RISK_METRICS
    assert header(headers, "dead-letter-partition") == str(HERE.partition)
    assert header(headers, "dead-letter-offset") == "1"
    assert header(headers, "dead-letter-error") == "ValueError: not a number: ☠"
    assert header(headers, "dead-letter-group") == "g"
    assert header(headers, "traceparent") == "00-abc"
    topic = {"topic": RISK_METRICS}
    assert registry.get_sample_value("gpu_risk_kafka_dead_letters_total", topic) == 2
    assert registry.get_sample_value("gpu_risk_kafka_records_in_total", topic) == 5
    assert registry.get_sample_value("gpu_risk_kafka_bytes_in_total", topic) == 3 + 6 + 10


def test_random_bytes_are_decoded_or_set_aside_never_lost(settings, drain, seed) -> None:
    draw = random.Random(seed)
    values = [draw.randbytes(draw.randint(0, 60)) for _ in range(400)]

    def readable(value: bytes) -> bool:
        try:
            market_pb2.RawBatch.FromString(value)
        except DecodeError:
            return False
        return True

    good = [value for value in values if readable(value)]
    _send(settings, *values, topic=MARKET_DATA_RAW)
    with (
        Producer(settings) as letters,
        Consumer(settings, [MARKET_DATA_RAW], "g", market_pb2.RawBatch.FromString, letters) as reader,
    ):
        messages = drain(reader, len(good)) if good else []
    assert [one.record.value for one in messages] == good
    with Consumer(settings, [dead_letter(MARKET_DATA_RAW)], "letters", bytes) as reader:
        assert [one.value for one in drain(reader, len(values) - len(good))] == [
            value for value in values if not readable(value)
        ]


def test_a_key_that_is_no_text_is_shown_as_well_as_it_can_be(settings, drain) -> None:
    _send(settings, b"poison", key=b"\xffk")
    with (
        Producer(settings) as letters,
        Consumer(settings, [RISK_METRICS], "g", _not_poison, letters) as reader,
    ):
        while not any(reader.position().values()):
            reader.poll(timeout_s=0.1)
    with Consumer(settings, [dead_letter(RISK_METRICS)], "letters", bytes) as reader:
        (letter,) = drain(reader, 1)
    # The bytes went along unchanged: they decode to the same text again.
    assert letter.record.key == "\N{REPLACEMENT CHARACTER}k"


def test_a_long_poison_record_is_cut_and_says_so(settings, drain) -> None:
    short = dataclasses.replace(settings, dead_letter_value_bytes_max=10)
    _send(settings, b"poison" + bytes(1_000), b"1")
    with Producer(short) as letters, Consumer(short, [RISK_METRICS], "g", _not_poison, letters) as reader:
        drain(reader, 1)
    with Consumer(settings, [dead_letter(RISK_METRICS)], "letters", bytes) as reader:
        (letter,) = drain(reader, 1)
    assert letter.value == b"poison" + bytes(4)
    assert header(letter.record.headers, "dead-letter-value-bytes") == "1006"


def test_without_a_producer_poison_is_counted_and_passed(settings, drain, caplog) -> None:
    _send(settings, b"poison", b"1")
    with Consumer(settings, [RISK_METRICS], "g", _not_poison) as reader:
        assert [one.value for one in drain(reader, 1)] == [b"1"]
    assert f"cannot read {RISK_METRICS}[{HERE.partition}] offset 0" in caplog.text


def test_poison_is_not_passed_before_its_dead_letter_is_delivered(settings, drain) -> None:
    _send(settings, b"1", b"poison", b"2")
    with MockCluster() as elsewhere:
        elsewhere.broker_down(1)
        impatient = dataclasses.replace(elsewhere.settings(), delivery_timeout_ms=200)
        letters = Producer(impatient)
        with Consumer(settings, [RISK_METRICS], "g", _not_poison, letters) as reader:

            def poll_on() -> None:
                drain(reader, 1)

            with pytest.raises(DeliveryFailed, match="reading stops here"):
                poll_on()
            assert reader.position().get(HERE, 0) == 0
            elsewhere.broker_up(1)
            # The very same records come again, until the letter is delivered.
            got: list[bytes] = []
            while not got:
                with contextlib.suppress(DeliveryFailed):
                    got = [one.value for one in drain(reader, 2)]
            assert got == [b"1", b"2"]
            letters.close()
        with Consumer(elsewhere.settings(), [dead_letter(RISK_METRICS)], "letters", bytes) as reader:
            assert [one.value for one in drain(reader, 1)] == [b"poison"]


def test_a_bug_in_decode_is_raised_and_nothing_is_passed(settings, drain) -> None:
    broken = [True]

    def decode(value: bytes) -> bytes:
        if broken and value == b"2":
            raise KeyError("bug")
        return value

    _send(settings, b"1", b"2", b"3")
    with Consumer(settings, [RISK_METRICS], "g", decode) as reader:
        with pytest.raises(KeyError):
            drain(reader, 3)
        broken.clear()
        assert [one.value for one in drain(reader, 3)] == [b"1", b"2", b"3"]


def test_reading_resumes_at_the_commit(settings, drain) -> None:
    _send(settings, *(b"%d" % at for at in range(10)))
    with Consumer(settings, [RISK_METRICS], "g", bytes) as reader:
        while reader.position().get(HERE, 0) < 4:
            reader.poll(max_records=1, timeout_s=0.3)
        reader.commit()
        reader.poll(max_records=3, timeout_s=1)
    with Consumer(settings, [RISK_METRICS], "g", bytes) as reader:
        assert [one.record.offset for one in drain(reader, 6)] == list(range(4, 10))


def test_fixed_partitions_start_where_they_are_told(settings, drain) -> None:
    _send(settings, *(b"%d" % at for at in range(10)))
    with Consumer(settings, [], "g", bytes) as reader:
        reader.assign({HERE: 7})
        assert reader.assignment() == {HERE}
        assert [one.value for one in drain(reader, 3)] == [b"7", b"8", b"9"]
        reader.seek(HERE, 2)
        assert drain(reader, 8)[0].value == b"2"
        reader.assign({HERE: BEGINNING})
        assert drain(reader, 10)[0].value == b"0"
        reader.commit({HERE: 9})
        reader.assign([HERE])
        assert [one.value for one in drain(reader, 1)] == [b"9"]
        reader.assign({HERE: END})
        while HERE not in reader.position():
            reader.poll(timeout_s=0.1)
        _send(settings, b"new")
        assert [one.value for one in drain(reader, 1)] == [b"new"]
        assert reader.ends([HERE]) == {HERE: 11}
        assert reader.lag() == {HERE: 0}


def test_a_consumer_of_nothing_is_refused(settings) -> None:
    with Consumer(settings, [], "g", bytes) as reader, pytest.raises(ConsumerFailed, match="no topics"):
        reader.poll()


def test_latest_starts_at_the_end(settings, drain) -> None:
    _send(settings, b"old")
    with Consumer(settings, [RISK_METRICS], "g", bytes, start="latest") as reader:
        while HERE not in reader.position():
            reader.poll(timeout_s=0.1)
        _send(settings, b"new")
        assert [one.value for one in drain(reader, 1)] == [b"new"]


def test_lag_counts_what_is_still_to_read(settings) -> None:
    registry = CollectorRegistry()
    _send(settings, *(b"%d" % at for at in range(10)))
    with Consumer(settings, [RISK_METRICS], "g", bytes, metrics=KafkaMetrics(registry)) as reader:
        while reader.position().get(HERE, 0) < 3:
            reader.poll(max_records=1, timeout_s=0.3)
        assert reader.lag()[HERE] == 7
    labels = {"group": "g", "topic": RISK_METRICS, "partition": str(HERE.partition)}
    assert registry.get_sample_value("gpu_risk_kafka_consumer_lag_records", labels) == 7


def test_members_of_a_group_share_the_partitions(settings, drain) -> None:
    # A session that no busy machine outlasts: a member that is thought dead loses its partitions instead.
    patient = dataclasses.replace(settings, session_timeout_ms=60_000)
    taken: list[tuple[list[Partition], bool]] = []
    first = Consumer(
        patient, [RISK_METRICS], "g", bytes, on_revoke=lambda gone, lost: taken.append((gone, lost))
    )
    second = Consumer(patient, [RISK_METRICS], "g", bytes)
    with first, second:
        while len(first.assignment()) < 4:
            first.poll(timeout_s=0.1)
        # Each knows what it had when it last asked: in the midst of a division both may name the same.
        while [first.assignment(), second.assignment()] not in (HALVES, HALVES[::-1]):
            first.poll(timeout_s=0.05)
            second.poll(timeout_s=0.05)
        assert (len(taken[0][0]), taken[0][1]) == (4, False)


def test_a_snapshot_decides_where_an_assigned_partition_starts(settings, drain) -> None:
    def on_assign(given: list[Partition]) -> Mapping[Partition, int]:
        return {one: 6 for one in given if one == HERE}

    _send(settings, *(b"%d" % at for at in range(10)))
    with Consumer(settings, [RISK_METRICS], "g", bytes, on_assign=on_assign) as reader:
        assert [one.value for one in drain(reader, 4)] == [b"6", b"7", b"8", b"9"]


def test_a_broker_that_comes_back_is_read_on(broker: MockCluster, settings, drain) -> None:
    with Consumer(settings, [RISK_METRICS], "g", bytes) as reader:
        _send(settings, b"1")
        drain(reader, 1)
        broker.broker_down(1)
        assert reader.poll(timeout_s=0.3) == []
        broker.broker_up(1)
        _send(settings, b"2")
        assert [one.value for one in drain(reader, 1)] == [b"2"]


def test_failed_fetches_are_tried_again(broker: MockCluster, settings, drain) -> None:
    with Consumer(settings, [RISK_METRICS], "g", bytes) as reader:
        _send(settings, b"1")
        drain(reader, 1)
        broker.fail_requests(FETCH, [NOT_LEADER] * 5)
        _send(settings, b"2")
        assert [one.value for one in drain(reader, 1)] == [b"2"]


def test_a_refused_commit_is_raised(broker: MockCluster, settings, drain) -> None:
    with Consumer(settings, [RISK_METRICS], "g", bytes) as reader:
        _send(settings, b"1")
        drain(reader, 1)
        broker.fail_requests(OFFSET_COMMIT, [GROUP_AUTHORIZATION_FAILED])
        with pytest.raises(ConsumerFailed, match=r"group g: .*[Aa]uthorization"):
            reader.commit()


def test_a_long_silence_of_all_brokers_ends_in_one_clear_error(broker: MockCluster, settings, drain) -> None:
    with Consumer(dataclasses.replace(settings, unreachable_s_max=0.3), [RISK_METRICS], "g", bytes) as reader:
        _send(settings, b"1")
        drain(reader, 1)
        broker.broker_down(1)
        with pytest.raises(BrokerUnreachable, match=broker.bootstrap):
            drain(reader, 1)


def header(headers: Headers, name: str) -> str:
    """As text."""
    return dict(headers)[name].decode()
