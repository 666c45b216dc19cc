"""Topics that are there already: one that would lose records is refused by name, before it has lost any."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from protos import topics
from protos.topics import Topic
from service_kit.kafka import admin, topic_settings
from service_kit.kafka.admin import check_topics, ensure_topics
from service_kit.kafka.connection import client_config
from service_kit.kafka.embedded import EmbeddedBroker
from service_kit.kafka.errors import TopicSetupFailed
from service_kit.kafka.memory_broker.log import LOG_BYTES_MAX
from service_kit.kafka.settings import KafkaSettings

PLAIN, COMPACTED = Topic("p", key="k"), Topic("c", key="k", compacted=True)
KEPT = Topic("o", key="k", kept=True)
FOR_EVER = {"retention.ms": "-1", "retention.bytes": "-1"}
A_WEEK = {"retention.ms": "604800000", "retention.bytes": "-1"}


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture(params=["embedded", "real"])
def either(request: pytest.FixtureRequest) -> KafkaSettings:
    if request.param == "embedded":
        return request.getfixturevalue("embedded").settings()
    return KafkaSettings(bootstrap=request.getfixturevalue("kafka_broker").bootstrap)


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Topic:
    """A topic of ours that must be kept, by a name that no other test uses."""
    topic = Topic(f"test.{uuid.uuid4().hex[:12]}", key="k", partitions=2, kept=True)
    monkeypatch.setattr(admin, "TOPICS", (topic,))
    return topic


def make(kafka: KafkaSettings, name: str, partitions: int, **config: str) -> None:
    client = AdminClient(client_config(kafka))
    settings = {key.replace("_", "."): value for key, value in config.items()}
    for future in client.create_topics([NewTopic(name, partitions, 1, config=settings)]).values():
        future.result(10)


@pytest.mark.parametrize("topic", [PLAIN, COMPACTED, KEPT])
def test_what_we_make_ourselves_loses_nothing(topic: Topic) -> None:
    made = topic_settings.wanted(topic, 3, 1_000)
    assert topic_settings.losses(topic, made) == []
    assert topic_settings.doubts(made, 3, 1_000) == []


@pytest.mark.parametrize(
    ("topic", "found", "named"),
    [
        (KEPT, {"cleanup.policy": "delete", **A_WEEK}, ["retention.ms=-1"]),
        (
            KEPT,
            {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "9"},
            ["retention.bytes"],
        ),
        (KEPT, {"cleanup.policy": "compact", **FOR_EVER}, ["cleanup.policy=delete"]),
        (KEPT, {"cleanup.policy": "compact,delete", **A_WEEK}, ["cleanup.policy=delete", "retention.ms"]),
        (COMPACTED, {"cleanup.policy": "delete", **A_WEEK}, ["retention.ms=-1"]),
        (COMPACTED, {"cleanup.policy": "compact,delete", **A_WEEK}, ["retention.ms=-1"]),
        (COMPACTED, {"cleanup.policy": "compact", **A_WEEK}, []),
        (COMPACTED, {"cleanup.policy": "delete", **FOR_EVER}, []),
        (PLAIN, {"cleanup.policy": "delete", **A_WEEK}, []),
        (PLAIN, {"cleanup.policy": "compact", **FOR_EVER}, ["cleanup.policy=delete"]),
    ],
)
def test_what_loses_records(topic: Topic, found: dict[str, str], named: list[str]) -> None:
    losses = topic_settings.losses(topic, found)
    assert len(losses) == len(named)
    assert all(loss.startswith(name) for loss, name in zip(losses, named, strict=True))


def test_what_is_only_doubtful() -> None:
    good = {
        "max.message.bytes": "1000",
        "message.timestamp.type": "LogAppendTime",
        "min.insync.replicas": "2",
    }
    assert topic_settings.doubts(good, 3, 1_000) == []
    for name, bad in (
        ("max.message.bytes", "999"),
        ("message.timestamp.type", "CreateTime"),
        ("min.insync.replicas", "1"),
    ):
        (doubt,) = topic_settings.doubts({**good, name: bad}, 3, 1_000)
        assert doubt.startswith(name)
    assert topic_settings.doubts({**good, "min.insync.replicas": "1"}, 1, 1_000) == []


def test_a_topic_that_forgets_is_refused_by_name(either: KafkaSettings, ours: Topic) -> None:
    make(either, ours.name, 2, cleanup_policy="delete", retention_bytes="1000000")
    for check in (lambda: check_topics(either, [ours.name]), lambda: ensure_topics(either, [ours])):
        with pytest.raises(TopicSetupFailed, match=f"topic {ours.name} .*retention.bytes=-1 is needed, not "):
            check()


def test_a_topic_that_keeps_is_taken(
    either: KafkaSettings, ours: Topic, caplog: pytest.LogCaptureFixture
) -> None:
    ensure_topics(either, [ours])
    with caplog.at_level(logging.WARNING):
        check_topics(either, [ours.name])
    assert caplog.records == []


def test_partitions_that_nobody_would_read_are_refused(either: KafkaSettings, ours: Topic) -> None:
    make(either, ours.name, 3, retention_ms="-1", retention_bytes="-1")
    with pytest.raises(TopicSetupFailed, match=f"{ours.name} exists with 3 partitions, 2 are needed"):
        check_topics(either, [ours.name])


def test_a_topic_that_is_missing_is_named(either: KafkaSettings, ours: Topic) -> None:
    with pytest.raises(TopicSetupFailed, match=f"no topic {ours.name} .*`risk topics` makes it"):
        check_topics(either, [ours.name], timeout_s=0.2)


def test_what_is_doubtful_is_said_and_taken(
    kafka_broker, ours: Topic, caplog: pytest.LogCaptureFixture
) -> None:
    kafka = KafkaSettings(bootstrap=kafka_broker.bootstrap)
    make(kafka, ours.name, 2, retention_ms="-1", retention_bytes="-1", max_message_bytes="1000")
    with caplog.at_level(logging.WARNING):
        check_topics(kafka, [ours.name])
    said = " ".join(caplog.messages)
    assert "max.message.bytes=1000" in said
    assert "message.timestamp.type" in said


def test_the_embedded_broker_says_what_it_keeps(embedded: EmbeddedBroker) -> None:
    client = AdminClient(client_config(embedded.settings()))
    asked = {one.name: ConfigResource(ResourceType.TOPIC, one.name) for one in topics.TOPICS}
    answers = client.describe_configs(list(asked.values()))
    for topic in topics.TOPICS:
        found = {name: entry.value for name, entry in answers[asked[topic.name]].result(10).items()}
        whole = topic.kept or topic.compacted
        assert found == {
            "cleanup.policy": "compact" if topic.compacted else "delete",
            "retention.ms": "-1",
            "retention.bytes": "-1" if whole else str(LOG_BYTES_MAX),
        }
    check_topics(embedded.settings(), asked)
