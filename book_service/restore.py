"""Where a venue may begin: at the newest snapshot that can be trusted, or empty, at its log's beginning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from book_service.matching import Controls, SnapshotError
from book_service.snapshots import Snapshot, SnapshotFolder, SnapshotRefused
from book_service.venue import Listed, Venue
from protos.market.v1.market_pb2 import Origin
from service_kit.kafka.records import Partition, Record


@dataclass(frozen=True, slots=True)
class Start:
    """A venue to go on with, the file that it comes from, and the snapshots that were refused before it."""

    venue: Venue
    file: Path | None = None
    refused: tuple[SnapshotRefused, ...] = ()
    last_value: bytes = b""  # of the last record that the venue has taken


def start_of(
    folder: SnapshotFolder | None,
    listed: tuple[Listed, ...],
    controls: Controls | None,
    home: Partition,
    record_at: Callable[[int], Record | None],
    stop: int,
    until_time_ns: int | None = None,
) -> Start:
    """The newest snapshot that is sound, of this log, and covers nothing at or after the offset `stop`."""
    refused: list[SnapshotRefused] = []
    for found in folder.newest_first(home.topic, home.partition) if folder else ():
        if isinstance(found, SnapshotRefused):
            refused.append(found)
            continue
        state = found.state
        if state.next_offset > stop or (until_time_ns is not None and state.time_ns > until_time_ns):
            continue
        try:
            venue, last_value = _restored(found, listed, controls, home, record_at)
        except SnapshotRefused as refusal:
            refused.append(refusal)
            continue
        return Start(venue, found.file, tuple(refused), last_value)
    return Start(Venue(listed, controls), None, tuple(refused))


def _restored(
    found: Snapshot,
    listed: tuple[Listed, ...],
    controls: Controls | None,
    home: Partition,
    record_at: Callable[[int], Record | None],
) -> tuple[Venue, bytes]:
    last = found.state.next_offset - 1
    # A log that was made anew under the same name has other records at the same offsets.
    record = record_at(last)
    if record is None or sha256(record.value).hexdigest() != found.last_record:
        raise SnapshotRefused(found.file, f"the last record that it covers ({last}) is not in this log")
    origin = Origin(topic=home.topic, partition=home.partition, offset=last)
    try:
        return Venue.restored(listed, controls, found.state, origin), record.value
    except SnapshotError as fault:
        raise SnapshotRefused(found.file, str(fault)) from fault
