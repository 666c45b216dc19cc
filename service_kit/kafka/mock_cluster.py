"""Brokers that fail on command: librdkafka's mock cluster, alive as long as this process, on loopback only.

For fault injection. It keeps 5 MiB or 100,000 records per partition, does not compact, and is no proof of
anything transactional (it shows aborted records to read_committed readers). A read walks the partition's log
from its beginning: with tens of thousands of records it takes a core, so nothing that lasts runs on it.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import socket
import threading
from collections.abc import Iterable, Sequence
from types import TracebackType

from protos.topics import TOPICS, Topic, dead_letter
from service_kit.kafka import librdkafka
from service_kit.kafka.errors import MockClusterUnavailable, TopicSetupFailed
from service_kit.kafka.settings import KafkaSettings

BROKERS_MAX = 9
# Unlike a real broker, this one sleeps through the whole fetch wait even when a record arrives in it.
_FETCH_WAIT_MS = 2
# When a member comes or goes it waits this long, less a second, for the others to join again.
_SESSION_TIMEOUT_MS = 2_000
_NUDGE_S = 0.003


class MockCluster:
    """Brokers in this process's memory; `bootstrap` is the address list for all processes on this host."""

    def __init__(self, brokers: int = 1, topics: Iterable[Topic] = TOPICS) -> None:
        if not 1 <= brokers <= BROKERS_MAX:
            raise ValueError(f"brokers must be from 1 to {BROKERS_MAX}, not {brokers}")
        self.brokers = brokers
        self._library = librdkafka.load()
        self._handle = self._new_handle()
        self._cluster: int | None = self._library.rd_kafka_mock_cluster_new(self._handle, brokers)
        if not self._cluster:
            self._library.rd_kafka_destroy(self._handle)
            raise MockClusterUnavailable("the in-memory broker could not open its sockets on loopback")
        # Real brokers wait 3 s for more group members; here all are started by one command.
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 50)
        try:
            self.ensure_topics(topics)
        except TopicSetupFailed:
            self.close()
            raise

    @property
    def bootstrap(self) -> str:
        """Comma-separated host:port list."""
        return str(self._library.rd_kafka_mock_cluster_bootstraps(self._open()).decode())

    def settings(self, base: KafkaSettings | None = None) -> KafkaSettings:
        """The settings with which any process on this host reaches these brokers with low latency."""
        return dataclasses.replace(
            base or KafkaSettings(),
            bootstrap=self.bootstrap,
            fetch_wait_ms_max=_FETCH_WAIT_MS,
            session_timeout_ms=_SESSION_TIMEOUT_MS,
        )

    def ensure_topics(self, topics: Iterable[Topic]) -> None:
        """Make the topics, and a dead-letter topic of one partition beside each."""
        for topic in topics:
            self.create_topic(topic.name, topic.partitions)
            self.create_topic(dead_letter(topic.name), 1)

    def create_topic(self, name: str, partitions: int) -> None:
        """Make one topic, replicated on at most three brokers."""
        code = self._call("topic_create", name.encode(), partitions, min(3, self.brokers))
        if code:
            raise TopicSetupFailed(f"topic {name}: {self._text(code)}")

    def broker_down(self, broker: int) -> None:
        """Close a broker's connections and refuse new ones; brokers count from 1."""
        self._check(self._call("broker_set_down", self._broker(broker)))

    def broker_up(self, broker: int) -> None:
        """Let a broker accept connections again."""
        self._check(self._call("broker_set_up", self._broker(broker)))

    def broker_delay(self, broker: int, delay_ms: int) -> None:
        """Make a broker answer each request so much later."""
        self._check(self._call("broker_set_rtt", self._broker(broker), delay_ms))

    def move_leader(self, topic: str, partition: int, broker: int) -> None:
        """Make another broker the leader of a partition."""
        self._check(self._call("partition_set_leader", topic.encode(), partition, self._broker(broker)))

    def fail_requests(self, api_key: int, errors: Sequence[int]) -> None:
        """Answer the next requests of that API with these error codes, one each (0 lets one pass).

        API keys are the protocol's: 0 Produce, 1 Fetch, 3 Metadata, 8 OffsetCommit, ...
        Sequence numbers are not checked here: fail a Produce only where no other is in flight to the
        partition, or an idempotent producer takes the next one's success for its own.
        """
        array = (ctypes.c_int * len(errors))(*errors)
        self._library.rd_kafka_mock_push_request_errors_array(self._open(), api_key, len(errors), array)

    def clear_failures(self, api_key: int) -> None:
        """Forget the errors not yet given."""
        self._library.rd_kafka_mock_clear_request_errors(self._open(), api_key)

    def close(self) -> None:
        """Stop the brokers and forget everything they hold."""
        cluster, self._cluster = self._cluster, None
        if cluster:
            self._library.rd_kafka_mock_cluster_destroy(cluster)
            self._library.rd_kafka_destroy(self._handle)

    def __enter__(self) -> MockCluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _new_handle(self) -> int:
        text = ctypes.create_string_buffer(librdkafka.ERROR_TEXT_BYTES)
        conf = self._library.rd_kafka_conf_new()
        # A client that never connects anywhere: the cluster only borrows its logging.
        for name, value in ((b"client.id", b"mock-cluster"), (b"log_level", b"2")):
            self._library.rd_kafka_conf_set(conf, name, value, text, len(text))
        handle = self._library.rd_kafka_new(librdkafka.PRODUCER, conf, text, len(text))
        if not handle:
            raise MockClusterUnavailable(f"the in-memory broker could not start: {text.value.decode()}")
        return int(handle)

    def _call(self, name: str, *arguments: object) -> int:
        """Have the cluster's thread do something, and keep it awake until it has.

        It sleeps for up to a second at a time and now and then misses the signal that there is work;
        a connection to one of its brokers always wakes it.
        """
        function = getattr(self._library, f"rd_kafka_mock_{name}")
        cluster, addresses, done = self._open(), self.bootstrap.split(","), threading.Event()

        def nudge() -> None:
            while not done.wait(_NUDGE_S):
                for address in addresses:
                    host, _, port = address.rpartition(":")
                    with contextlib.suppress(OSError):
                        socket.create_connection((host, int(port)), timeout=1.0).close()

        nudging = threading.Thread(target=nudge, name="mock-cluster-nudge", daemon=True)
        nudging.start()
        try:
            return int(function(cluster, *arguments))
        finally:
            done.set()
            nudging.join()

    def _open(self) -> int:
        if self._cluster is None:
            raise MockClusterUnavailable("the in-memory broker is closed")
        return self._cluster

    def _broker(self, broker: int) -> int:
        if not 1 <= broker <= self.brokers:
            raise ValueError(f"broker must be from 1 to {self.brokers}, not {broker}")
        return broker

    def _check(self, code: int) -> None:
        if code:
            raise ValueError(self._text(code))

    def _text(self, code: int) -> str:
        return str(self._library.rd_kafka_err2str(code).decode())
