"""Any moment of the venue again: from the log, a snapshot and the rest of the log, or the audit log."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from book_service import audit, order_events
from book_service.matching import Controls
from book_service.order_events import OrderEvents
from book_service.restore import Start, start_of
from book_service.snapshots import SnapshotFolder, SnapshotRefused, fingerprint
from book_service.venue import Listed, Venue
from protos import topics
from protos.book.v1.book_pb2 import Book
from protos.market.v1.market_pb2 import Origin
from service_kit.errors import ServiceKitError
from service_kit.kafka.lookup import LogLookup
from service_kit.kafka.records import Partition, Record
from service_kit.kafka.settings import KafkaSettings


class ReplayImpossible(ServiceKitError):
    """The moment that was asked for cannot be rebuilt from what is there."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A venue as it was. `next_offset`: of the first record that it has not, or not wholly, taken."""

    partition: int
    next_offset: int
    orders: int
    reports: int
    time_ns: int
    state_hash: str
    from_snapshot: Path | None
    refused: tuple[SnapshotRefused, ...]
    venue: Venue

    def book(self, symbol: str, levels: int) -> Book | None:
        """Depth of an instrument then; None for one that is not traded."""
        return self.venue.book(symbol, levels)


def replay(
    kafka: KafkaSettings,
    listed: tuple[Listed, ...],
    controls: Controls | None,
    partition: int,
    *,
    through_offset: int | None = None,
    until_time_ns: int | None = None,
    snapshots: Path | None = None,
) -> Moment:
    """The venue of one partition after the record at `through_offset`, before the first order that is later
    than `until_time_ns`, or now. With a folder of snapshots, from the newest that lies before.
    """
    home = Partition(topics.ORDERS_INCOMING, partition)
    with LogLookup(kafka) as log:
        low, end = log.bounds(home)
        stop = end if through_offset is None else min(end, through_offset + 1)
        folder = None if snapshots is None else SnapshotFolder(snapshots, fingerprint(listed, controls))
        found = start_of(
            folder, listed, controls, home, lambda at: log.record_at(home, at), stop, until_time_ns
        )
        if found.venue.next_offset < low:
            raise ReplayImpossible(
                f"{home.topic}[{partition}] begins at offset {low}: what came before is no longer there"
            )
        records = log.read(home, found.venue.next_offset, stop)
        moment_offset = _apply(found.venue, partition, records, until_time_ns)
    next_offset = max(stop, found.venue.next_offset) if moment_offset is None else moment_offset
    return _moment(found, partition, next_offset)


def replay_audit(
    root: Path,
    listed: tuple[Listed, ...],
    controls: Controls | None,
    partition: int,
    *,
    through_offset: int | None = None,
    until_time_ns: int | None = None,
) -> Moment:
    """The same from the audit log alone, which must go back to the beginning and be sound."""
    venue = Venue(listed, controls)
    kept = audit.read(audit.chain_folder(root, topics.ORDERS_INCOMING, partition))
    # Without the log's own times: what was set aside for its times is not in the audit log.
    records = (
        Record(topics.ORDERS_INCOMING, partition, one.offset, "", one.orders, (), -1)
        for one in kept
        if through_offset is None or one.offset <= through_offset
    )
    stopped = _apply(venue, partition, _from_the_beginning(records, root), until_time_ns)
    return _moment(Start(venue), partition, venue.next_offset if stopped is None else stopped)


def _apply(venue: Venue, partition: int, records: Iterable[Record], until_time_ns: int | None) -> int | None:
    """Applies records up to the moment; the offset of the one in which it lies, if it does."""
    for record in records:
        origin = Origin(topic=topics.ORDERS_INCOMING, partition=partition, offset=record.offset)
        try:
            events = order_events.decode(record.value)
            order_events.expect_present(events, record)
        except (ValueError, DecodeError):
            continue  # the service sets such a record aside too
        later = _first_later(events, until_time_ns)
        if later is None:
            venue.apply(events, origin)
            continue
        if later:
            venue.apply(OrderEvents(events.symbols, events.rows[:later]), origin)
        return record.offset
    return None


def _first_later(events: OrderEvents, until_time_ns: int | None) -> int | None:
    if until_time_ns is None:
        return None
    later = np.flatnonzero(events.rows["time"] > until_time_ns)
    return int(later[0]) if later.size else None


def _from_the_beginning(records: Iterable[Record], root: Path) -> Iterable[Record]:
    for place, record in enumerate(records):
        if place == 0 and record.offset > 0:
            why = f"begins with offset {record.offset}, not with the first"
            raise ReplayImpossible(f"the audit log in {root} {why}")
        yield record


def _moment(start: Start, partition: int, next_offset: int) -> Moment:
    venue = start.venue
    return Moment(
        partition=partition,
        next_offset=next_offset,
        orders=venue.orders,
        reports=venue.reports,
        time_ns=venue.time_ns,
        state_hash=venue.state_hash(),
        from_snapshot=start.file,
        refused=start.refused,
        venue=venue,
    )
