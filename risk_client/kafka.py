"""A subscriber to the live risk on Kafka: the topics risk.metrics and risk.alerts, decoded and resumable.

Needs only the extra `kafka` (confluent-kafka), nothing of the services.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, NamedTuple

from google.protobuf.message import DecodeError

from protos import topics as names
from protos.risk.v1.risk_pb2 import RiskAlert, RiskMetrics
from risk_client.errors import (
    NotFound,
    PermissionDenied,
    RiskClientError,
    ServiceFault,
    Unauthenticated,
    Unavailable,
)

try:
    import confluent_kafka
    from confluent_kafka import KafkaError, KafkaException, TopicPartition
except ImportError as error:
    raise ImportError("risk_client.kafka needs confluent-kafka: pip install 'gpu-risk[kafka]'") from error

LOG = logging.getLogger(__name__)
REQUEST_S = 10.0
PROBE_S = 1.0
COMMIT_EVERY_S = 1.0
READ_MAX = 500  # records that are read at once
SLICE_S = 0.25  # a wait is cut into slices, so that Ctrl-C is heard

_DECODERS: dict[str, type[RiskMetrics] | type[RiskAlert]] = {
    names.RISK_METRICS: RiskMetrics,
    names.RISK_ALERTS: RiskAlert,
}
_FAULTS: dict[int, type[RiskClientError]] = {
    KafkaError._AUTHENTICATION: Unauthenticated,
    KafkaError.SASL_AUTHENTICATION_FAILED: Unauthenticated,
    KafkaError.TOPIC_AUTHORIZATION_FAILED: PermissionDenied,
    KafkaError.GROUP_AUTHORIZATION_FAILED: PermissionDenied,
    KafkaError.UNKNOWN_TOPIC_OR_PART: NotFound,
    KafkaError._UNKNOWN_TOPIC: NotFound,
    KafkaError._ALL_BROKERS_DOWN: Unavailable,
    KafkaError._TRANSPORT: Unavailable,
    KafkaError._TIMED_OUT: Unavailable,
    KafkaError._RESOLVE: Unavailable,
}


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Update:
    """One record: either `metrics` or `alert`, with its place in the log."""

    portfolio: str
    metrics: RiskMetrics | None
    alert: RiskAlert | None
    source: Partition
    offset: int


class RiskSubscriber:
    """Live risk as it is published. Iterate it, or `poll` and `commit`; not to be shared between threads.

    With a `group` the place is kept on the brokers, and members of one group share the portfolios. Without
    one the caller keeps `positions()` and hands them back as `positions=`. Either way every update is seen
    at least once. What has neither a commit nor a position starts at `start`. An iteration counts an update
    as handled when the next one is asked for, and commits every second and at the end.

    `config` are settings of librdkafka, for instance `{"security.protocol": "ssl", ...}`. When no broker
    answers for `unreachable_s` seconds, `Unavailable` is raised.
    """

    def __init__(
        self,
        bootstrap: str,
        group: str | None = None,
        *,
        topics: Iterable[str] = (names.RISK_METRICS, names.RISK_ALERTS),
        portfolios: str | Iterable[str] = (),
        positions: Mapping[Partition, int] | None = None,
        start: Literal["latest", "earliest"] = "latest",
        config: Mapping[str, Any] | None = None,
        unreachable_s: float = 30.0,
    ) -> None:
        self._topics = tuple(topics)
        for topic in self._topics:
            if topic not in _DECODERS:
                raise ValueError(f"no topic {topic!r} of risk; there are {', '.join(_DECODERS)}")
        if start not in ("latest", "earliest"):
            raise ValueError(f"start must be latest or earliest, not {start!r}")
        if group is not None and positions is not None:
            raise ValueError("give a group, which keeps its place on the brokers, or positions, not both")
        self._wanted = frozenset([portfolios] if isinstance(portfolios, str) else portfolios)
        self._from_start = start == "earliest"
        self._group = group
        self._unreachable_s = unreachable_s
        self._down_since: float | None = None
        self._why = ""
        self._closing = False
        # Per partition the next offset to read, and up to where updates were handed out, handled, committed.
        self._next: dict[Partition, int] = {}
        self._out: dict[Partition, int] = {}
        self._handled: dict[Partition, int] = {}
        self._committed: dict[Partition, int] = {}
        self._waiting: deque[Update] = deque()  # read, not handed out yet
        self.skipped = 0  # records that could not be decoded
        self._client = confluent_kafka.Consumer(self._config(bootstrap, config or {}), logger=LOG)
        try:
            if group is None:
                self._assign(positions or {})
            else:
                self._client.subscribe(
                    list(self._topics), on_assign=self._given, on_revoke=self._taken, on_lost=self._lost
                )
        except BaseException:
            self._client.close()
            raise

    def poll(self, timeout_s: float = 1.0, max_updates: int = 500) -> list[Update]:
        """What has arrived; waits for the first, and returns an empty list after `timeout_s`."""
        ends_at = time.monotonic() + timeout_s
        while not self._waiting:
            self._read(min(max(0.0, ends_at - time.monotonic()), SLICE_S))
            if not self._waiting:
                self._check_brokers()
                if time.monotonic() >= ends_at:
                    break
        return [self._hand_out() for _ in range(min(max_updates, len(self._waiting)))]

    def __iter__(self) -> Iterator[Update]:
        """Every update, for ever."""
        due = time.monotonic() + COMMIT_EVERY_S
        while True:
            # Only when the caller comes back for more does what was handed out count as handled.
            self._handled.update(self._out)
            if self._group is not None and time.monotonic() >= due:
                self._commit(self._handled)
                due = time.monotonic() + COMMIT_EVERY_S
            yield from self.poll(SLICE_S, max_updates=1)

    def commit(self) -> None:
        """Says to the group that everything handed out so far is handled."""
        if self._group is None:
            raise ValueError("without a group there is nothing to commit; keep positions()")
        self._handled.update(self._out)
        self._commit(self._handled)

    def positions(self) -> dict[Partition, int]:
        """The offset after the last update handed out, for every partition: give it back as `positions=`."""
        return dict(self._out)

    def close(self) -> None:
        """Commits what an iteration has handled, and leaves the group."""
        # The group may be about to hand out partitions: too late for that.
        self._closing = True
        try:
            if self._group is not None:
                self._commit(self._handled)
        finally:
            self._client.close()

    def __enter__(self) -> RiskSubscriber:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _config(self, bootstrap: str, given: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "client.id": "gpu-risk-subscriber",
            "reconnect.backoff.max.ms": 1_000,
            "fetch.wait.max.ms": 100,
            "log_level": 2,
            **given,
            "bootstrap.servers": bootstrap,
            # Without a group the client library still wants a name; nothing is ever committed under it.
            "group.id": self._group or "gpu-risk-no-group",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest" if self._from_start else "latest",
            "error_cb": self._on_error,
        }

    def _assign(self, positions: Mapping[Partition, int]) -> None:
        partitions = [one for topic in self._topics for one in self._partitions_of(topic)]
        unknown = positions.keys() - set(partitions)
        if unknown:
            raise NotFound(f"a position is given for {min(unknown)}, which is not there")
        for one in partitions:
            self._next[one] = self._out[one] = positions[one] if one in positions else self._start_of(one)
        self._client.assign([TopicPartition(*one, at) for one, at in self._next.items()])

    def _partitions_of(self, topic: str) -> list[Partition]:
        try:
            found = self._client.list_topics(topic, timeout=REQUEST_S).topics[topic]
        except KafkaException as error:
            raise _fault(error.args[0]) from None
        if found.error is not None:
            raise _fault(found.error)
        return [Partition(topic, number) for number in sorted(found.partitions)]

    def _start_of(self, one: Partition) -> int:
        # A real offset and not "latest": what arrives before the first read would be lost at a restart.
        try:
            first, end = self._client.get_watermark_offsets(TopicPartition(*one), timeout=REQUEST_S)
        except KafkaException as error:
            raise _fault(error.args[0]) from None
        return int(first if self._from_start else end)

    def _given(self, client: Any, partitions: list[Any]) -> None:
        if self._closing:
            return
        try:
            found = client.committed(partitions, timeout=REQUEST_S)
        except KafkaException as error:
            raise _fault(error.args[0]) from None
        for one in found:
            source = _partition(one)
            if one.offset >= 0:
                self._committed[source] = one.offset
            self._next[source] = one.offset if one.offset >= 0 else self._start_of(source)
            self._out[source] = self._handled[source] = self._next[source]
        client.assign([TopicPartition(*one, self._next[one]) for one in map(_partition, found)])
        self._commit(self._handled)

    def _taken(self, client: Any, partitions: list[Any]) -> None:
        if not self._closing:
            self._commit(self._handled)
        self._lost(client, partitions)

    def _lost(self, client: Any, partitions: list[Any]) -> None:
        for one in partitions:
            for held in (self._next, self._out, self._handled, self._committed):
                held.pop(_partition(one), None)

    def _commit(self, handled: Mapping[Partition, int]) -> None:
        new = {one: at for one, at in handled.items() if self._committed.get(one) != at}
        if not new:
            return
        offsets = [TopicPartition(*one, at) for one, at in new.items()]
        try:
            results = self._client.commit(offsets=offsets, asynchronous=False) or ()
            errors = [one.error for one in results if one.error is not None]
        except KafkaException as error:
            errors = [error.args[0]]
        for one in errors:
            if one.code() not in _MOVED:
                raise _fault(one)
        if errors:
            LOG.info("kafka: nothing committed while the group shares anew: %s", errors[0].str())
        else:
            self._committed.update(new)

    def _read(self, wait_s: float) -> None:
        """Takes in what has arrived, while nothing waits: the client may then share its partitions anew."""
        # consume(n) waits for n records: so wait for one, then take what came with it.
        records = self._client.consume(1, wait_s)
        if records:
            records += self._client.consume(READ_MAX - 1, 0.0)
        self._waiting.extend(one for one in map(self._update, records) if one is not None)
        if not self._waiting:
            self._out.update(self._next)

    def _hand_out(self) -> Update:
        update = self._waiting.popleft()
        self._out[update.source] = update.offset + 1
        if not self._waiting:
            # Past what was passed over, too: records of other portfolios, and what cannot be read.
            self._out.update(self._next)
        return update

    def _update(self, record: Any) -> Update | None:
        if record.error() is not None:
            self._on_error(record.error())
            if record.error().code() in _FAULTS and record.error().code() not in _PASSING:
                raise _fault(record.error())
            return None
        self._down_since = None
        source = Partition(record.topic(), record.partition())
        if source not in self._next:
            return None  # went to another member of the group while the batch was gathered
        self._next[source] = record.offset() + 1
        portfolio = (record.key() or b"").decode("utf-8", "replace")
        if (self._wanted and portfolio not in self._wanted) or record.value() is None:
            return None
        try:
            value = _DECODERS[source.topic].FromString(record.value())
        except DecodeError as error:
            self.skipped += 1
            LOG.warning("%s[%d] at %d cannot be read: %s", *source, record.offset(), error)
            return None
        metrics, alert = (value, None) if isinstance(value, RiskMetrics) else (None, value)
        return Update(portfolio, metrics, alert, source, record.offset())

    def _on_error(self, error: Any) -> None:
        self._why = str(error.str())
        if error.code() == KafkaError._ALL_BROKERS_DOWN and self._down_since is None:
            self._down_since = time.monotonic()
        LOG.warning("kafka: %s", self._why)

    def _check_brokers(self) -> None:
        """The client library tries for ever and does not say when a broker is back: so ask one."""
        if self._down_since is None or time.monotonic() - self._down_since < self._unreachable_s:
            return
        try:
            self._client.list_topics(timeout=PROBE_S)
        except KafkaException:
            silence = time.monotonic() - self._down_since
            raise Unavailable(f"no Kafka broker answers for {silence:.0f} s: {self._why}") from None
        self._down_since = None


# The client library gets over these by itself.
_PASSING = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError._RESOLVE,
    }
)

# The group is sharing its partitions anew: whoever has them next sees again what is not committed.
_MOVED = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.UNKNOWN_MEMBER_ID,
    }
)


def _partition(given: Any) -> Partition:
    return Partition(given.topic, given.partition)


def _fault(error: Any) -> RiskClientError:
    return _FAULTS.get(error.code(), ServiceFault)(str(error.str()))
