"""One partition of the venue: restore, apply, publish, settle, snapshot. It knows no Kafka and no clock.

Nothing is lost and nothing doubled, whatever fails and wherever it crashes, by three rules:
  the position is read from the end of the output itself, and only what lies behind it is sent;
  sent reports are kept until the output has them, so that a failed send is repeated from that end;
  a snapshot covers only what the output has, so that what it does not have is always made again.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, NamedTuple, Protocol

from book_service.audit import MARK_HEADER, AuditLog
from book_service.execution_parts import PART_BYTES_MAX, serialized
from book_service.matching import Controls
from book_service.order_events import OrderEvents
from book_service.restore import start_of
from book_service.snapshots import Snapshot, SnapshotFolder, venue_mark
from book_service.venue import Listed, Venue
from protos.market.v1.market_pb2 import Origin
from protos.orders.v1.orders_pb2 import ExecutionBatch
from service_kit.errors import ServiceKitError
from service_kit.kafka.records import Partition, Record
from service_kit.telemetry.logs import logger

LOG = logging.getLogger("gpu_risk.book_service")
VENUE_HEADER: Final = "venue"
TRIES: Final = 8  # of sending what the output has refused, before the process gives up

Headers = Sequence[tuple[str, bytes]]


class OutputFailed(ServiceKitError):
    """The output may or may not have what was sent since it was last settled; open it again."""


class VenueUnrecoverable(ServiceKitError):
    """The log or the output is not what the venue's recovery needs it to be; a person must look."""


@dataclass(frozen=True, slots=True)
class Published:
    """The last record of the output: the offset of the orders that caused it, its bytes, and who made it."""

    offset: int
    value: bytes
    venue: str = field(default="", compare=False)  # as `VENUE_HEADER` says; records of before it say nothing


class Output(Protocol):
    """The executions of one partition, in the order of their orders."""

    def open(self) -> Published | None:
        """Forgets what is under way, shuts earlier writers out where it can, and reads the end."""

    def send(self, key: str, value: bytes, headers: Headers) -> None:
        """Sends a batch; OutputFailed when it cannot."""

    def settle(self, next_offset: int) -> None:
        """Returns when the output has all that was sent, for good; OutputFailed when it may not."""

    def close(self) -> None:
        """Gives up what is not settled."""


class InputLog(Protocol):
    """The orders of one partition, as its recovery looks into them."""

    def bounds(self) -> tuple[int, int]:
        """The first offset that is still there, and the end."""

    def record_at(self, offset: int) -> Record | None:
        """The record at an offset."""


class _Sent(NamedTuple):
    offset: int
    key: str
    value: bytes
    headers: Headers


@dataclass(slots=True)
class VenuePartition:
    """Open it, take records from the offset that it gives on, settle now and then."""

    home: Partition
    listed: tuple[Listed, ...]
    controls: Controls | None
    log: InputLog
    output: Output
    snapshots: SnapshotFolder | None = None
    audit: AuditLog | None = None
    part_bytes_max: int = PART_BYTES_MAX
    venue: Venue = field(init=False)
    _published: Published | None = None
    _published_to: int = 0  # one past the last offset whose executions the output has
    _replay_to: int = 0
    _unsettled: deque[_Sent] = field(default_factory=deque)
    _failed: bool = False
    _last_value: bytes = b""
    _snapshot_at: int = 0
    _mark: str = field(init=False)

    def __post_init__(self) -> None:
        self._mark = venue_mark(self.listed, self.controls)

    def open(self, committed: Callable[[], int] = lambda: 0) -> int:
        """Where to read on. `committed`, asked only if the output is empty: an offset before which everything
        is known to have been published.
        """
        published = self._published = self.output.open()
        self._published_to = committed() if published is None else published.offset + 1
        if published is not None and published.venue and not self._made(published.venue):
            raise VenueUnrecoverable(
                f"{self._name}: its last executions are of a venue with other instruments or controls; with "
                "these the log means something else. A list may grow at its end; all else needs new topics"
            )
        low, end = self.log.bounds()
        if self._published_to > end:
            last = self._published_to - 1
            raise VenueUnrecoverable(f"{self._name} ends at {end}, yet executions of offset {last} are there")
        start = start_of(
            self.snapshots, self.listed, self.controls, self.home, self.log.record_at, self._published_to
        )
        for refused in start.refused:
            LOG.warning("%s", refused)
        self.venue, self._last_value = start.venue, start.last_value
        if self.venue.next_offset < low:
            raise VenueUnrecoverable(
                f"{self._name} begins at offset {low}, and no snapshot reaches up to there"
            )
        logger("venue").info(
            "partition taken",
            partition=self.home.partition,
            offset=self.venue.next_offset,
            snapshot="" if start.file is None else start.file.name,
        )
        self._snapshot_at = self.venue.next_offset
        self._replay_to = 0 if published is None else published.offset + 1
        self._unsettled.clear()
        self._failed = False
        return self.venue.next_offset

    @property
    def rebuilt(self) -> bool:
        """Whether the venue is at least as far as its executions."""
        return self.venue.next_offset >= self._replay_to

    @property
    def unsettled(self) -> bool:
        """Whether executions are under way."""
        return bool(self._unsettled)

    @property
    def published_to(self) -> int:
        """One past the last offset whose executions the output has."""
        return self._published_to

    def is_new(self, offset: int) -> bool:
        """Whether the executions of that offset are not published yet."""
        return offset >= self._published_to

    def apply(self, record: Record, events: OrderEvents) -> ExecutionBatch:
        """Matches one record's orders; `publish` must follow."""
        self._last_value = record.value
        return self.venue.apply(
            events, Origin(topic=record.topic, partition=record.partition, offset=record.offset)
        )

    def publish(self, record: Record, executions: ExecutionBatch, headers: Headers = ()) -> None:
        """Sends the executions that `apply` gave, unless they are published already."""
        if self.audit is not None and record.offset >= self.audit.next_offset:
            whole = executions.SerializeToString()
            self.audit.append(record.offset, self.venue.time_ns, record.value, whole)
        last = self._published
        if not self.is_new(record.offset) and (last is None or record.offset != last.offset):
            return
        parts = serialized(executions, self.part_bytes_max)
        if last is not None and record.offset == last.offset:
            parts = self._after(last, parts)
        mark = None if self.audit is None else self.audit.mark
        if mark is not None:
            headers = [*headers, (MARK_HEADER, mark.to_bytes())]
        headers = [*headers, (VENUE_HEADER, self._mark.encode())]
        for value in parts:
            self._send(_Sent(record.offset, record.key, value, headers))

    def _made(self, mark: str) -> bool:
        """Whether a venue of this mark is this one, or was before instruments were appended."""
        count = mark.partition(":")[0]
        return count.isdecimal() and mark == venue_mark(self.listed[: int(count)], self.controls)

    def _after(self, last: Published, parts: list[bytes]) -> list[bytes]:
        """The parts that the output has not: a crash may have come between two."""
        if last.value not in parts:
            raise VenueUnrecoverable(
                f"{self._name}: offset {last.offset} gives other executions than those that were published:"
                " the venue's instruments, controls or version have changed since"
            )
        return parts[parts.index(last.value) + 1 :]

    def settle(self) -> None:
        """Returns when the output and the audit log have everything; repeats what was refused."""
        if not self._unsettled:
            return
        tries = 0
        while self._failed or not self._settled():
            tries += 1
            if tries > TRIES:
                raise OutputFailed(f"{self._name}: executions could not be published in {TRIES} tries")
            self._send_again()
        if self._unsettled:
            last = self._unsettled[-1]
            self._published = Published(last.offset, last.value)
            self._unsettled.clear()
        self._published_to = self.venue.next_offset
        if self.audit is not None:
            self.audit.flush()

    def snapshot(self) -> None:
        """Saves the venue if it has moved on; all that it has taken must be settled."""
        done = self.venue.next_offset
        if (
            self.snapshots is None
            or done == self._snapshot_at
            or self._unsettled
            or done > self._published_to
        ):
            return
        if self.audit is not None:
            self.audit.flush()
        digest = sha256(self._last_value).hexdigest()
        self.snapshots.save(Snapshot(self.home.topic, self.home.partition, self.venue.state(), digest))
        self._snapshot_at = done

    def close(self) -> None:
        """Lets go of the output and the audit log; whoever opens next makes what is not settled again."""
        try:
            self.output.close()
        finally:
            if self.audit is not None:
                self.audit.close()

    @property
    def _name(self) -> str:
        return f"{self.home.topic}[{self.home.partition}]"

    def _send(self, sent: _Sent) -> None:
        self._unsettled.append(sent)
        if self._failed:
            return
        try:
            self.output.send(sent.key, sent.value, sent.headers)
        except OutputFailed as fault:
            self._note(fault)

    def _settled(self) -> bool:
        if not self._unsettled:
            return True
        try:
            self.output.settle(self._unsettled[-1].offset + 1)
        except OutputFailed as fault:
            self._note(fault)
            return False
        return True

    def _send_again(self) -> None:
        """From the end of the output on: nothing of it twice, nothing left out."""
        try:
            published = self.output.open()
        except OutputFailed as fault:
            self._note(fault)
            return
        sent, self._failed = list(self._unsettled), False
        self._unsettled.clear()
        values = [one.value for one in sent]
        if published is not None and published.value in values:
            sent = sent[values.index(published.value) + 1 :]
            self._published = published
        elif published != self._published:
            end = "nothing" if published is None else f"executions of offset {published.offset}"
            raise VenueUnrecoverable(
                f"{self._name}: the output ends with {end}: that is not what was last published here"
            )
        for one in sent:
            self._send(one)

    def _note(self, fault: OutputFailed) -> None:
        LOG.warning("%s: %s; looking what is there", self._name, fault)
        self._failed = True
