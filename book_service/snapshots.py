"""Snapshots of venues: one file per partition and moment, whole or not there, never trusted unchecked.

A file: magic, version, two lengths and the SHA-256 of the rest; then JSON (topic, partition, the offset that
it covers, the output sequence, the venue's fingerprint, the hash of the last record covered) and the engine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from book_service.matching import Controls
from book_service.venue import Listed, VenueState
from service_kit.errors import ServiceKitError

SUFFIX: Final = ".snapshot"
KEPT: Final = 2  # snapshots of a partition: the newest, and the one before should that be unreadable
_MAGIC: Final = b"GRVENUE\0"
_VERSION: Final = 1
_FRONT: Final = struct.Struct("<8sIIQ32s")


class SnapshotRefused(ServiceKitError):
    """A snapshot that is damaged, or of another log or venue."""

    def __init__(self, file: Path, why: str) -> None:
        super().__init__(file, why)
        self.file, self.why = file, why

    def __str__(self) -> str:
        return f"snapshot {self.file}: {self.why}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A venue at one moment; `last_record` is the SHA-256 (hex) of the last record that it covers."""

    topic: str
    partition: int
    state: VenueState
    last_record: str
    file: Path = Path()


def fingerprint(listed: tuple[Listed, ...], controls: Controls | None) -> str:
    """Names what a venue is made of: with another list or other first limits a log means something else."""
    parts: dict[str, Any] = {
        "listed": [dataclasses.asdict(one) for one in listed],
        "controls": None if controls is None else dataclasses.asdict(controls),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def venue_mark(listed: tuple[Listed, ...], controls: Controls | None) -> str:
    """The venue that makes a record: how many instruments it lists, and some of its fingerprint."""
    return f"{len(listed)}:{fingerprint(listed, controls)[:16]}"


@dataclass(frozen=True, slots=True)
class SnapshotFolder:
    """The snapshots of the venues that are made of these instruments and controls."""

    folder: Path
    venue: str  # its fingerprint

    def save(self, snapshot: Snapshot) -> Path:
        """Writes a snapshot, whole or not at all, and removes those that it makes needless."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{snapshot.topic}-{snapshot.partition}-{snapshot.state.next_offset:020d}{SUFFIX}"
        final, partial = self.folder / name, self.folder / f"{name}.{os.getpid()}.partial"
        for left in self.folder.glob(f"{snapshot.topic}-{snapshot.partition}-*.partial"):
            left.unlink(missing_ok=True)  # by a process that was killed
        with partial.open("wb") as out:
            out.write(self._encoded(snapshot))
            out.flush()
            os.fsync(out.fileno())
        os.replace(partial, final)
        self._sync_folder()
        for old in self.files(snapshot.topic, snapshot.partition)[KEPT:]:
            old.unlink(missing_ok=True)
        return final

    def files(self, topic: str, partition: int) -> list[Path]:
        """The snapshots of a partition, newest first."""
        return sorted(self.folder.glob(f"{topic}-{partition}-*{SUFFIX}"), reverse=True)

    def newest_first(self, topic: str, partition: int) -> Iterator[Snapshot | SnapshotRefused]:
        """Each snapshot of a partition, or why it is refused."""
        for file in self.files(topic, partition):
            try:
                yield self.load(file, topic, partition)
            except SnapshotRefused as refused:
                yield refused

    def load(self, file: Path, topic: str, partition: int) -> Snapshot:
        """The snapshot in a file, which must be sound and of this venue and partition."""
        try:
            blob = file.read_bytes()
        except OSError as fault:
            raise SnapshotRefused(file, f"cannot be read ({fault.strerror})") from fault
        head, engine = _checked(file, blob)
        try:
            home, venue = (str(head["topic"]), int(head["partition"])), str(head["venue"])
            state = VenueState(int(head["next_offset"]), int(head["reports"]), int(head["time_ns"]), engine)
            last_record = str(head["last_record"])
        except (KeyError, TypeError, ValueError) as fault:
            raise SnapshotRefused(file, f"its head cannot be read ({fault!r})") from fault
        if home != (topic, partition):
            raise SnapshotRefused(file, f"is of {home[0]}[{home[1]}], not of {topic}[{partition}]")
        if venue != self.venue:
            raise SnapshotRefused(file, "is of a venue with other instruments or controls")
        return Snapshot(topic, partition, state, last_record, file)

    def _encoded(self, snapshot: Snapshot) -> bytes:
        state = snapshot.state
        head = {
            "topic": snapshot.topic,
            "partition": snapshot.partition,
            "next_offset": state.next_offset,
            "reports": state.reports,
            "time_ns": state.time_ns,
            "venue": self.venue,
            "last_record": snapshot.last_record,
        }
        text = json.dumps(head, sort_keys=True).encode()
        digest = hashlib.sha256(text + state.engine).digest()
        return _FRONT.pack(_MAGIC, _VERSION, len(text), len(state.engine), digest) + text + state.engine

    def _sync_folder(self) -> None:
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _checked(file: Path, blob: bytes) -> tuple[dict[str, Any], bytes]:
    if len(blob) < _FRONT.size:
        raise SnapshotRefused(file, f"{len(blob)} bytes are too few")
    magic, version, head_bytes, engine_bytes, digest = _FRONT.unpack_from(blob)
    if magic != _MAGIC or version != _VERSION:
        raise SnapshotRefused(file, f"is no snapshot of a venue of version {_VERSION}")
    rest = blob[_FRONT.size :]
    if len(rest) != head_bytes + engine_bytes:
        raise SnapshotRefused(file, f"has {len(rest)} bytes where its front says {head_bytes + engine_bytes}")
    if hashlib.sha256(rest).digest() != digest:
        raise SnapshotRefused(file, "its hash does not match: it is damaged")
    try:
        head = json.loads(rest[:head_bytes])
    except ValueError as fault:
        raise SnapshotRefused(file, f"its head cannot be read ({fault})") from fault
    if not isinstance(head, dict):
        raise SnapshotRefused(file, "its head is no table")
    return head, rest[head_bytes:]
