"""The audit log: every batch of orders and what it caused, append-only, each record hashed over the last.

One folder per partition of orders.incoming, one file per day (of the orders' own times) or size; the form of
a file is in `audit_chain`. A chain shows any change within it. That its end was cut off shows only against a
mark that is kept elsewhere: each record of orders.executed carries one (`venue_output.audit_mark`).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from book_service.audit_chain import (
    BUFFER_BYTES,
    RECORD,
    SUFFIX,
    AuditBroken,
    AuditRecord,
    Head,
    Position,
    chained,
    files_of,
    records,
)
from service_kit.errors import ServiceKitError

__all__ = [
    "AuditBroken",
    "AuditBusy",
    "AuditLog",
    "AuditRecord",
    "Chain",
    "Mark",
    "Verification",
    "chain_folder",
    "read",
    "verify",
]

FILE_BYTES_MAX: Final = 256 << 20
MARK_HEADER: Final = "audit-mark"
_HEX_DIGITS: Final = 64


class AuditBusy(ServiceKitError):
    """Another process writes this chain."""


@dataclass(frozen=True, slots=True)
class Mark:
    """So many records a chain had, and the last one's hash (hex): written down outside of it."""

    records: int
    head: str

    def to_bytes(self) -> bytes:
        """As a header of a Kafka record."""
        return f"{self.records}:{self.head}".encode()

    @classmethod
    def from_bytes(cls, value: bytes) -> Mark | None:
        """None for what is no mark."""
        records, _, head = value.decode("ascii", "replace").partition(":")
        return cls(int(records), head) if records.isdigit() and len(head) == _HEX_DIGITS else None


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain that was read, its records numbered from `first_record`; `head` is its last hash, in hex."""

    folder: Path
    topic: str
    partition: int
    files: int
    first_record: int
    records: int
    first_offset: int | None
    last_offset: int | None
    head: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found. `chains` hold what is sound: of the broken chain, what comes before `broken`."""

    chains: tuple[Chain, ...]
    broken: AuditBroken | None

    @property
    def sound(self) -> bool:
        """Whether every record is as it was written."""
        return self.broken is None


def verify(
    path: Path, expected_head: str | None = None, marks: Mapping[tuple[str, int], Mark] | None = None
) -> Verification:
    """Reads a file, the folder of one partition, or all folders below; names the first record that is broken.

    `expected_head`: the hash that the (last) chain must end with. `marks`: by topic and partition, a record
    that the chain must have; below a folder of all partitions none may be missing.
    """
    path, marks = Path(path), marks or {}
    chains: list[Chain] = []
    for files in _chains(path):
        chain, broken = _verify_chain(files, marks, whole=path.is_dir())
        chains.append(chain)
        if broken is not None:
            return Verification(tuple(chains), broken)
    if path.is_dir() and not files_of(path):
        for topic, partition in sorted(set(marks) - {(one.topic, one.partition) for one in chains}):
            why = f"there is no chain of {topic}[{partition}], which has a mark elsewhere"
            return Verification(tuple(chains), AuditBroken(path, 0, why))
    if expected_head is not None and (not chains or chains[-1].head != expected_head):
        last = chains[-1] if chains else None
        at = last.first_record + last.records if last else 0
        why = f"the chain ends before it, with head {last.head if last else 'none'}, not {expected_head}"
        return Verification(tuple(chains), AuditBroken(last.folder if last else path, at, why))
    return Verification(tuple(chains), None)


def read(folder: Path) -> Iterator[AuditRecord]:
    """The records of one partition's folder, oldest first; raises AuditBroken at the first that is bad."""
    position = Position()
    for place, file in enumerate(files_of(Path(folder))):
        yield from records(file, position, first=place == 0)


def chain_folder(root: Path, topic: str, partition: int) -> Path:
    """Where the chain of one partition is kept."""
    return root / f"{topic}-{partition}"


class AuditLog:
    """Appends to the chain of one partition; made anew, it goes on where the last whole record ends."""

    def __init__(self, root: Path, topic: str, partition: int, file_bytes_max: int = FILE_BYTES_MAX) -> None:
        self._folder = chain_folder(root, topic, partition)
        self._topic, self._partition, self._file_bytes_max = topic, partition, file_bytes_max
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self._folder)
        self._out: BinaryIO | None = None
        self._last_record = b""
        try:
            self._position = self._go_on()
        except BaseException:
            self._lock.close()
            raise

    @property
    def next_offset(self) -> int:
        """The first offset of the topic that is not in the chain yet."""
        last = self._position.last_offset
        return 0 if last is None else last + 1

    @property
    def head(self) -> str:
        """The chain's last hash, in hex."""
        return self._position.head.hex()

    @property
    def mark(self) -> Mark | None:
        """Where the chain is, to be kept elsewhere; None before its first record."""
        return Mark(self._position.number, self._last_record.hex()) if self._last_record else None

    def append(self, offset: int, time_ns: int, orders: bytes, executions: bytes) -> bool:
        """Adds a record; False for an offset that the chain has passed: it is being replayed."""
        if offset < self.next_offset:
            return False
        out = self._file_for(time_ns)
        position = self._position
        front = RECORD.pack(position.number, offset, time_ns, len(orders), len(executions))
        digest = chained(position.head, front, orders, executions)
        for part in (front, orders, executions, digest):
            out.write(part)
        length = len(front) + len(orders) + len(executions) + len(digest)
        position.passed(offset, digest, position.end_bytes + length)
        self._last_record = digest
        return True

    def flush(self) -> None:
        """Returns when all that was appended is on the disk."""
        if self._out is not None:
            self._out.flush()
            os.fsync(self._out.fileno())

    def close(self) -> None:
        """Flushes and lets another process write."""
        try:
            self._close_file()
        finally:
            self._lock.close()

    def _close_file(self) -> None:
        if self._out is not None:
            self.flush()
            self._out.close()
            self._out = None

    def _go_on(self) -> Position:
        position = Position()
        # Only the last file is read again: the others were when they were the last, and `verify` reads all.
        for file in files_of(self._folder)[-1:]:
            try:
                for _ in records(file, position, first=True):
                    pass
            except AuditBroken as fault:
                if not fault.torn:
                    raise
                _set_aside(file, position.end_bytes)
            if position.end_bytes == 0:
                file.unlink()  # the process died while it wrote the head
                return self._go_on()
            self._out = file.open("ab", buffering=BUFFER_BYTES)
        return position

    def _file_for(self, time_ns: int) -> BinaryIO:
        day, position = _day(time_ns), self._position
        if self._out is not None and day <= position.day and position.end_bytes < self._file_bytes_max:
            return self._out
        self._close_file()
        day = max(day, position.day)
        head = Head(
            self._topic, self._partition, day, position.number, self.next_offset, position.head.hex()
        ).to_bytes()
        name = f"{position.number:012d}-{day}{SUFFIX}"
        self._out = (self._folder / name).open("xb", buffering=BUFFER_BYTES)
        self._out.write(head)
        position.day, position.head, position.end_bytes = day, chained(position.head, head), len(head)
        return self._out


def _verify_chain(
    files: list[Path], marks: Mapping[tuple[str, int], Mark], *, whole: bool
) -> tuple[Chain, AuditBroken | None]:
    position, broken, begun, mark = Position(), None, 0, None
    try:
        for file in files:
            begun += 1
            for _ in records(file, position, first=begun == 1):
                mark = marks.get((position.topic, position.partition))
                if mark and mark.records == position.number and mark.head != position.head.hex():
                    why = f"its hash is {position.head.hex()}, its mark elsewhere says {mark.head}"
                    raise AuditBroken(file, position.number - 1, why)
        if whole and mark and position.number < mark.records:
            why = f"the end is cut off: the chain had {mark.records} records, by its mark elsewhere"
            raise AuditBroken(files[-1], position.number, why)
    except AuditBroken as fault:
        broken = fault
    chain = Chain(
        folder=files[0].parent,
        topic=position.topic,
        partition=position.partition,
        files=begun,
        first_record=position.first_record,
        records=position.number - position.first_record,
        first_offset=position.first_offset,
        last_offset=position.last_offset,
        head=position.head.hex(),
    )
    return chain, broken


def _chains(path: Path) -> list[list[Path]]:
    """The files of each chain at or below the path, in order."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no audit log is there")
    if path.is_file():
        return [[path]]
    folders = [path, *sorted(one for one in path.iterdir() if one.is_dir())]
    return [files for files in map(files_of, folders) if files]


def _set_aside(file: Path, end_bytes: int) -> None:
    """Cuts a record that a crash has left half written; its bytes are kept beside the file."""
    with file.open("rb") as source:
        source.seek(end_bytes)
        torn = source.read()
    file.with_suffix(f".torn-at-{end_bytes}").write_bytes(torn)
    os.truncate(file, end_bytes)


def _day(time_ns: int) -> str:
    """The UTC day of a message's time; before 1970 or after 9999 the nearest day there is."""
    seconds = min(max(time_ns // 1_000_000_000, 0), 253_402_300_799)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _locked(folder: Path) -> BinaryIO:
    lock = (folder / "writer.lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as fault:
        lock.close()
        raise AuditBusy(f"audit log {folder}: another process writes it") from fault
    return lock
