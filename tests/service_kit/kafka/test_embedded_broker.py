"""The in-memory broker as its clients see it, beside a real one, and under bytes that are no requests."""

from __future__ import annotations

import random
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing

import psutil
import pytest
from broker_parts import batch
from confluent_kafka import Consumer as Client
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka import Producer as ClientProducer

from protos.topics import RISK_METRICS, RISK_PORTFOLIOS, TOPICS, Topic, dead_letter
from service_kit.errors import BrokerUnreachable
from service_kit.kafka.admin import check_broker, ensure_topics
from service_kit.kafka.connection import client_config
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.embedded import EmbeddedBroker
from service_kit.kafka.errors import EmbeddedBrokerFailed, TopicSetupFailed
from service_kit.kafka.memory_broker.codes import VERSIONS, Api
from service_kit.kafka.producer import Producer
from service_kit.kafka.records import BEGINNING, Partition
from service_kit.kafka.settings import KafkaSettings

EMPTY = dead_letter(RISK_METRICS)
# A broker that shares its cores with a whole suite may take seconds for the first record.
PATIENT = KafkaSettings(close_wait_s_max=60.0)


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture(params=["embedded", "real"])
def either(request: pytest.FixtureRequest) -> KafkaSettings:
    """The embedded broker, and a real one where there is one: both must answer alike."""
    if request.param == "embedded":
        return request.getfixturevalue("broker").settings(PATIENT)
    return PATIENT.at(request.getfixturevalue("kafka_broker").bootstrap)


class TestProcess:
    def test_it_listens_on_loopback_with_every_topic_made(self, broker: EmbeddedBroker) -> None:
        from confluent_kafka.admin import AdminClient

        (only,) = check_broker(broker.settings())
        assert broker.bootstrap == f"127.0.0.1:{only.port}"
        made = AdminClient(client_config(broker.settings())).list_topics(timeout=5).topics
        for topic in TOPICS:
            assert len(made[topic.name].partitions) == topic.partitions
            assert len(made[dead_letter(topic.name)].partitions) == 1
        assert ensure_topics(broker.settings()) == []

    def test_it_ends_with_who_has_started_it(self) -> None:
        script = (
            "from service_kit.kafka.embedded import EmbeddedBroker\n"
            "broker = EmbeddedBroker()\nprint(broker.pid, flush=True)\ninput()\n"
        )
        owner = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert owner.stdout is not None
        with owner:
            child = psutil.Process(int(owner.stdout.readline()))
            owner.send_signal(signal.SIGKILL)
        child.wait(20)

    def test_a_closed_one_is_gone(self) -> None:
        broker = EmbeddedBroker()
        process = psutil.Process(broker.pid)
        broker.close()
        broker.close()
        assert not process.is_running()
        with pytest.raises(EmbeddedBrokerFailed, match="closed"):
            _ = broker.pid
        with pytest.raises(BrokerUnreachable, match=f"{broker.bootstrap} cannot be reached: .*refused"):
            check_broker(KafkaSettings(bootstrap=broker.bootstrap), timeout_s=0.5)

    def test_one_that_does_not_start_says_so(self, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(EmbeddedBrokerFailed, match="did not start"):
            EmbeddedBroker([Topic("a", key="k"), Topic("a", key="k")])
        assert "TOPIC_ALREADY_EXISTS" in capfd.readouterr().err


class TestAsARealOne:
    def test_topics_are_made_once_and_checked(self, either: KafkaSettings, new_topic: str) -> None:
        topic = Topic(new_topic, key="k", partitions=3)
        assert ensure_topics(either, [topic]) == [new_topic, dead_letter(new_topic)]
        assert ensure_topics(either, [topic]) == []
        with pytest.raises(TopicSetupFailed, match="exists with 3 partitions, 2 are needed"):
            ensure_topics(either, [Topic(new_topic, key="k", partitions=2)])

    @pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
    def test_records_come_back_as_they_were_sent(
        self, either: KafkaSettings, new_topic: str, compression: str
    ) -> None:
        ensure_topics(either, [Topic(new_topic, key="k", partitions=1)])
        sent = [
            ("a", b"1", [("trace", b"x")]),
            ("b", None, []),
            ("", b"", []),
            ("c", bytes(3_000_000), []),
        ]
        producer = ClientProducer(
            client_config(either) | {"compression.type": compression, "message.max.bytes": 8_000_000}
        )
        for key, value, headers in sent:
            producer.produce(new_topic, value, key, headers=headers)
        assert producer.flush(20) == 0
        found = read(either, new_topic, 0, len(sent))
        assert [(one.key(), one.value(), one.headers() or []) for one in found] == [
            (key.encode(), value, headers) for key, value, headers in sent
        ]
        assert [one.offset() for one in found] == [0, 1, 2, 3]

    def test_bounds_and_moments(self, either: KafkaSettings, new_topic: str) -> None:
        ensure_topics(either, [Topic(new_topic, key="k", partitions=1)])
        producer = ClientProducer(client_config(either))
        for number in range(5):
            producer.produce(new_topic, b"%d" % number)
            producer.flush(10)
        with closing(Client(client_config(either) | {"group.id": "bounds"})) as client:
            assert client.get_watermark_offsets(TopicPartition(new_topic, 0), timeout=10) == (0, 5)
            times = [one.timestamp()[1] for one in read(either, new_topic, 0, 5)]
            wanted = [TopicPartition(new_topic, 0, times[2]), TopicPartition(new_topic, 0, times[4] + 10_000)]
            found = [client.offsets_for_times([one], timeout=10)[0].offset for one in wanted]
            assert found == [times.index(times[2]), -1]
            with pytest.raises(KafkaException, match=r"Unknown (topic or )?partition"):
                client.get_watermark_offsets(TopicPartition(new_topic, 7), timeout=5)

    def test_a_reader_beyond_the_end_begins_where_it_is_told_to(
        self, either: KafkaSettings, new_topic: str
    ) -> None:
        ensure_topics(either, [Topic(new_topic, key="k", partitions=1)])
        with Producer(either) as producer:
            producer.send(new_topic, "k", b"only")
        with Consumer(either, [new_topic], "g", bytes, start="earliest") as reader:
            reader.assign({Partition(new_topic, 0): 99})
            assert until(lambda: reader.poll(10, 0.2))[0].value == b"only"

    def test_members_share_and_take_over(self, either: KafkaSettings, new_topic: str) -> None:
        ensure_topics(either, [Topic(new_topic, key="k", partitions=4)])
        group = f"{new_topic}.group"
        with Consumer(either, [new_topic], group, bytes) as first:
            until(lambda: first.poll(1, 0.05) or len(first.assignment()) == 4)
            second = Consumer(either, [new_topic], group, bytes)
            with second:
                until(lambda: [first.poll(1, 0.05), second.poll(1, 0.05)] and len(second.assignment()) == 2)
                shares = [first.assignment(), second.assignment()]
                assert set.union(*shares) == {Partition(new_topic, number) for number in range(4)}
                assert not set.intersection(*shares)
            until(lambda: first.poll(1, 0.05) or len(first.assignment()) == 4)

    def test_what_a_group_has_committed_is_where_it_goes_on(
        self, either: KafkaSettings, new_topic: str
    ) -> None:
        ensure_topics(either, [Topic(new_topic, key="k", partitions=1)])
        with Producer(either) as producer:
            for number in range(6):
                producer.send(new_topic, "k", b"%d" % number)
        with Consumer(either, [new_topic], f"{new_topic}.group", bytes) as reader:
            assert len(until(lambda: reader.poll(4, 0.2))) <= 4
            reader.seek(Partition(new_topic, 0), 4)
            reader.commit()
            assert reader.committed([Partition(new_topic, 0)]) == {Partition(new_topic, 0): 4}
        with Consumer(either, [new_topic], f"{new_topic}.group", bytes) as reader:
            assert until(lambda: reader.poll(10, 0.2))[0].value == b"4"


def test_a_reader_that_waits_is_woken(broker: EmbeddedBroker, new_topic: str) -> None:
    """Long before its own patience ends, which is longer than this test may take."""
    settings = broker.settings(KafkaSettings(fetch_wait_ms_max=60_000, request_timeout_ms=100_000))
    ensure_topics(settings, [Topic(new_topic, key="k", partitions=2)])
    with Consumer(settings, [new_topic], "g", bytes) as reader, Producer(settings) as producer:
        reader.assign({Partition(new_topic, number): BEGINNING for number in (0, 1)})
        for number in range(20):
            producer.send(new_topic, f"k{number}", b"%d" % number)
            assert until(lambda: reader.poll(1, 0.1))[0].value == b"%d" % number


def test_a_portfolio_topic_is_there_for_who_reads_it_from_the_beginning(broker: EmbeddedBroker) -> None:
    with Producer(broker.settings()) as producer:
        producer.send(RISK_PORTFOLIOS, "a", b"book")
        producer.send(RISK_PORTFOLIOS, "a", None)
    with Consumer(broker.settings(), [RISK_PORTFOLIOS], "g", bytes) as reader:
        found = until(lambda: reader.poll(10, 0.2))
        found += [] if len(found) == 2 else until(lambda: reader.poll(10, 0.2))
    assert [(one.value, one.record.tombstone) for one in found] == [(b"book", False), (b"", True)]


class TestStrangeBytes:
    """Whatever one connection sends, the others are served."""

    @pytest.mark.parametrize(
        "sent",
        [
            b"GET / HTTP/1.1\r\n\r\n",
            struct.pack(">i", -1),
            struct.pack(">i", 2_000_000_000),
            struct.pack(">ihhi", 8, 99, 0, 1),  # no such request
            struct.pack(">ihhih", 10, Api.FETCH, 12, 1, -1),  # a version too new
            struct.pack(">ihhih", 10, Api.FETCH, 4, 1, -1),  # nothing after the head
            struct.pack(">ihhihi", 14, Api.METADATA, 1, 1, -1, 1 << 30),  # an array that is not there
        ],
    )
    def test_what_is_no_request_ends_its_connection(self, broker: EmbeddedBroker, sent: bytes) -> None:
        with socket.create_connection(("127.0.0.1", port(broker)), timeout=10) as channel:
            channel.sendall(sent)
            assert ended(channel)
        assert check_broker(broker.settings())

    def test_random_requests_harm_nobody_else(self, seed: int) -> None:
        dice = random.Random(seed)
        with EmbeddedBroker() as broker:
            for _ in range(300):
                api = dice.choice(list(VERSIONS))
                body = bytes(dice.choices((0, 0, 0, 1, 2, 255, dice.randrange(256)), k=dice.randrange(60)))
                head = struct.pack(">hhih", api, dice.randint(*VERSIONS[api]), 1, -1)
                with socket.create_connection(("127.0.0.1", port(broker)), timeout=10) as channel:
                    channel.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
            with Producer(broker.settings()) as producer:
                producer.send(RISK_METRICS, "k", b"still here")
            with Consumer(broker.settings(), [RISK_METRICS], "g", bytes) as reader:
                assert until(lambda: reader.poll(10, 0.2))[0].value == b"still here"

    def test_answers_keep_the_order_of_the_requests(self, broker: EmbeddedBroker) -> None:
        """A fetch that waits holds back what is asked after it on its connection, as on a real broker."""
        fetch = struct.pack(">hhihiiii", Api.FETCH, 3, 1, -1, -1, 300, 1, 1_000) + fetched(EMPTY, 0, 0)
        metadata = struct.pack(">hhihi", Api.METADATA, 1, 2, -1, 0)
        with socket.create_connection(("127.0.0.1", port(broker)), timeout=10) as channel:
            for request in (fetch, metadata, metadata):
                channel.sendall(struct.pack(">i", len(request)) + request)
            assert [answer(channel)[0] for _ in range(3)] == [1, 2, 2]

    def test_a_transaction_is_refused(self, broker: EmbeddedBroker) -> None:
        producer = ClientProducer(client_config(broker.settings()) | {"transactional.id": "t"})
        with pytest.raises(KafkaException):
            producer.init_transactions(5)

    def test_a_corrupt_batch_is_refused_and_the_next_one_taken(self, broker: EmbeddedBroker) -> None:
        good, name = batch(1, b"x"), RISK_METRICS.encode()
        with socket.create_connection(("127.0.0.1", port(broker)), timeout=10) as channel:
            for records, code in ((good[:-1], 2), (good, 0)):
                head = struct.pack(">hhihhhii", Api.PRODUCE, 3, 5, -1, -1, 1, 1_000, 1)
                part = struct.pack(f">h{len(name)}siii", len(name), name, 1, 3, len(records))
                request = head + part + records
                channel.sendall(struct.pack(">i", len(request)) + request)
                _, body = answer(channel)
                assert struct.unpack_from(">h", body, 4 + 2 + len(name) + 4 + 4)[0] == code


def until(found: Callable[[], object], polls: int = 400):
    """What a call comes to in the end; each call waits a little by itself."""
    for _ in range(polls):
        result = found()
        if result:
            return result
    raise AssertionError("it never came")


def read(settings: KafkaSettings, topic: str, partition: int, count: int) -> list:
    with closing(Client(client_config(settings) | {"group.id": "reading"})) as client:
        client.assign([TopicPartition(topic, partition, 0)])
        found: list = []
        until(lambda: found.extend(client.consume(count, 0.1)) or len(found) >= count)
        return found


def port(broker: EmbeddedBroker) -> int:
    return int(broker.bootstrap.rpartition(":")[2])


def ended(channel: socket.socket) -> bool:
    try:
        return channel.recv(1) == b""
    except ConnectionResetError:
        return True


def answer(channel: socket.socket) -> tuple[int, bytes]:
    (size,) = struct.unpack(">i", exactly(channel, 4))
    body = exactly(channel, size)
    return struct.unpack_from(">i", body)[0], body[4:]


def exactly(channel: socket.socket, size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        some = channel.recv(size - len(parts))
        assert some, "the connection was closed"
        parts += some
    return parts


def fetched(topic: str, partition: int, offset: int) -> bytes:
    name = topic.encode()
    return struct.pack(f">ih{len(name)}siiqi", 1, len(name), name, 1, partition, offset, 1_000)
