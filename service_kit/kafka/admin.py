"""Topics on a real broker: made where missing, checked where present."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError as ClientError
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic

from protos.topics import TOPICS, Topic, dead_letter
from service_kit.errors import BrokerUnreachable
from service_kit.kafka import topic_settings
from service_kit.kafka.connection import LOG, client_config, plain
from service_kit.kafka.errors import TopicSetupFailed
from service_kit.kafka.settings import KafkaSettings

_SLICE_S = 0.25
# What is only looked at must not hold up a start while brokers come and go.
_DESCRIBE_S = 3.0

# The client library's ClusterMetadata: its module exports no types.
_Metadata = Any


@dataclass(frozen=True, slots=True)
class Broker:
    """One broker of a cluster, as its metadata names it."""

    id: int
    host: str
    port: int


def check_broker(settings: KafkaSettings, timeout_s: float = 5.0) -> tuple[Broker, ...]:
    """The brokers of the cluster; raise `BrokerUnreachable` when none answers within `timeout_s`."""
    return _brokers(_Admin(settings).metadata(timeout_s))


def ensure_topics(
    settings: KafkaSettings,
    topics: Iterable[Topic] = TOPICS,
    *,
    replication: int | None = None,
    timeout_s: float = 20.0,
    dead_letters: bool = True,
) -> list[str]:
    """Make missing topics and, unless told otherwise, their dead-letter topics; return the names made.

    `replication` None: three, or as many as there are brokers. With three replicas a write needs two of
    them in sync, so that one broker may fail without loss or halt. A topic that exists in a shape in which
    records are lost is an error, as for `check_topics`.
    """
    admin = _Admin(settings)
    deadline = time.monotonic() + timeout_s
    metadata = admin.metadata(min(timeout_s, 5.0))
    copies = min(3, len(metadata.brokers)) if replication is None else replication
    wanted = {one.name: one for one in topics}
    for topic in list(wanted.values()) if dead_letters else ():
        name = dead_letter(topic.name)
        wanted[name] = Topic(name, key=topic.key, partitions=1)
    missing = [topic for name, topic in wanted.items() if name not in metadata.topics]
    _check(admin, settings, [topic for topic in wanted.values() if topic not in missing], metadata)
    if missing:
        admin.create([_new_topic(topic, copies, settings) for topic in missing], deadline)
        admin.wait_for({topic.name: topic.partitions for topic in missing}, deadline)
    return [topic.name for topic in missing]


def check_topics(settings: KafkaSettings, names: Iterable[str], timeout_s: float = 5.0) -> None:
    """Raises where one of our topics is missing, has other partitions, or is set to lose records.

    What works and should be set otherwise is logged, and so is a broker that does not tell its settings.
    """
    admin, wanted = _Admin(settings), [one for one in TOPICS if one.name in set(names)]
    deadline = time.monotonic() + timeout_s
    while True:
        metadata = admin.metadata(timeout_s)
        missing = [topic.name for topic in wanted if topic.name not in metadata.topics]
        if not missing:
            break
        # A broker that has just started may not have heard of them yet.
        if time.monotonic() >= deadline:
            raise TopicSetupFailed(
                f"no topic {', '.join(missing)} at {settings.bootstrap}; `risk topics` makes it"
            )
        admin.pause()
    _check(admin, settings, wanted, metadata)


def _check(admin: _Admin, settings: KafkaSettings, topics: list[Topic], metadata: _Metadata) -> None:
    for topic in topics:
        _check_partitions(topic, metadata)
    for topic, found in admin.described(topics):
        replication = min(len(one.replicas) for one in metadata.topics[topic.name].partitions.values())
        for doubt in topic_settings.doubts(found, replication, settings.record_bytes_max):
            LOG.warning("topic %s: %s", topic.name, doubt)
        losses = topic_settings.losses(topic, found)
        if losses:
            raise TopicSetupFailed(
                f"topic {topic.name} at {settings.bootstrap} would lose records: {'; '.join(losses)} "
                f"(kafka-configs.sh --alter --topic {topic.name} --add-config NAME=VALUE)"
            )


class _Admin:
    """The admin client with its errors put into one line each."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._last_error = "no answer"
        self._client = AdminClient(client_config(settings) | {"error_cb": self._on_error}, logger=LOG)

    def metadata(self, timeout_s: float) -> _Metadata:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                # In slices: the reason of a refused connection comes through `poll`, and Ctrl-C is seen.
                return self._client.list_topics(timeout=max(0.01, min(_SLICE_S, deadline - time.monotonic())))
            except KafkaException as error:
                self._client.poll(0)
                reason: ClientError = error.args[0]
                if reason.code() not in _NO_ANSWER:
                    raise BrokerUnreachable(self._settings.bootstrap, plain(reason)) from None
                if time.monotonic() >= deadline:
                    why = f"{self._last_error} (waited {timeout_s:g} s)"
                    raise BrokerUnreachable(self._settings.bootstrap, why) from None

    def create(self, topics: list[NewTopic], deadline: float) -> None:
        left = max(0.1, deadline - time.monotonic())
        futures = self._client.create_topics(topics, operation_timeout=left, request_timeout=left)
        for name, future in futures.items():
            try:
                future.result(timeout=left + 1.0)
            except KafkaException as error:
                # Another process was faster: as good as made.
                if error.args[0].code() != ClientError.TOPIC_ALREADY_EXISTS:
                    raise TopicSetupFailed(f"topic {name}: {error.args[0].str()}") from None
            except FutureTimeout:
                raise TopicSetupFailed(f"topic {name}: no answer within {left:.0f} s") from None

    def wait_for(self, partitions: dict[str, int], deadline: float) -> None:
        """Until every partition has a leader: before that a first send or read would have to retry."""
        while True:
            metadata = self.metadata(5.0)
            waiting = [name for name, count in partitions.items() if not _has_leaders(metadata, name, count)]
            if not waiting:
                return
            if time.monotonic() >= deadline:
                raise TopicSetupFailed(f"topics without leaders: {', '.join(waiting)}")
            self.pause()

    def pause(self) -> None:
        """A moment, before something is asked again."""
        self._client.poll(0.02)

    def described(self, topics: list[Topic]) -> list[tuple[Topic, dict[str, str]]]:
        """The settings of topics that are there; of none where the broker does not tell them."""
        resources = {ConfigResource(ResourceType.TOPIC, topic.name): topic for topic in topics}
        if not resources:
            return []
        futures = self._client.describe_configs(list(resources), request_timeout=_DESCRIBE_S)
        out = []
        for resource, future in futures.items():
            try:
                entries = future.result(timeout=_DESCRIBE_S + 1.0)
            except KafkaException as error:
                LOG.warning(
                    "the settings of topic %s are not checked: %s", resource.name, plain(error.args[0])
                )
            except FutureTimeout:
                LOG.warning("the settings of topic %s are not checked: no answer", resource.name)
            else:
                known = {name: entries[name].value for name in topic_settings.ASKED if name in entries}
                out.append((resources[resource], known))
        return out

    def _on_error(self, error: ClientError) -> None:
        if error.code() != ClientError._ALL_BROKERS_DOWN:
            self._last_error = plain(error)


_NO_ANSWER = frozenset({ClientError._TRANSPORT, ClientError._TIMED_OUT, ClientError._ALL_BROKERS_DOWN})


def _brokers(metadata: _Metadata) -> tuple[Broker, ...]:
    found = (Broker(one.id, one.host, one.port) for one in metadata.brokers.values())
    return tuple(sorted(found, key=lambda one: one.id))


def _check_partitions(topic: Topic, metadata: _Metadata) -> None:
    there = len(metadata.topics[topic.name].partitions)
    if there != topic.partitions:
        # Keys would move, and nobody would read what lies beyond.
        raise TopicSetupFailed(
            f"topic {topic.name} exists with {there} partitions, {topic.partitions} are needed"
        )


def _new_topic(topic: Topic, replication: int, settings: KafkaSettings) -> NewTopic:
    config = topic_settings.wanted(topic, replication, settings.record_bytes_max)
    return NewTopic(topic.name, topic.partitions, replication, config=config)


def _has_leaders(metadata: _Metadata, name: str, count: int) -> bool:
    topic = metadata.topics.get(name)
    return (
        topic is not None
        and len(topic.partitions) == count
        and all(one.leader >= 0 for one in topic.partitions.values())
    )


def leaders_in_sync(settings: KafkaSettings, replicas: int, timeout_s: float = 5.0) -> bool:
    """Whether every partition has a leader and, of its replicas, at least `replicas` (or all) in sync."""
    metadata = _Admin(settings).metadata(timeout_s)
    return all(
        one.leader >= 0 and len(one.isrs) >= min(replicas, len(one.replicas))
        for topic in metadata.topics.values()
        for one in topic.partitions.values()
    )
