"""The form of the audit log's files, and reading them with every record checked.

A file: magic, version, length of the head, head (JSON: topic, partition, day, first record, hash before),
then records: number, offset, time, two lengths | orders | executions | SHA-256(hash before, all of this).
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
from typing import BinaryIO, Final

from service_kit.errors import ServiceKitError

SUFFIX: Final = ".audit"
BUFFER_BYTES: Final = 1 << 20
RECORD: Final = struct.Struct("<QQqII")  # number, offset, time, bytes of orders, bytes of executions
_MAGIC: Final = b"GRAUDIT\0"
_VERSION: Final = 1
_FRONT: Final = struct.Struct("<8sII")
_HASH_BYTES: Final = 32
_GENESIS: Final = bytes(_HASH_BYTES)
_HEAD_BYTES_MAX: Final = 65_536


class AuditBroken(ServiceKitError):
    """A record of the audit log is not what was written; `record` counts from 0 over the whole chain."""

    def __init__(self, file: Path, record: int, why: str, torn: bool = False) -> None:
        super().__init__(file, record, why, torn)
        self.file, self.record, self.why, self.torn = file, record, why, torn

    def __str__(self) -> str:
        return f"audit log {self.file}: record {self.record}: {self.why}"


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One record of orders.incoming and the batch that it caused, as their bytes on Kafka."""

    number: int
    offset: int
    time_ns: int
    orders: bytes
    executions: bytes


@dataclass(slots=True)
class Position:
    """Where a reader is in a chain."""

    topic: str = ""
    partition: int = -1
    day: str = ""
    number: int = 0
    head: bytes = _GENESIS
    first_offset: int | None = None
    last_offset: int | None = None
    first_record: int = 0
    end_bytes: int = 0  # of the last sound record in the file

    def passed(self, offset: int, digest: bytes, end_bytes: int) -> None:
        """After one sound record."""
        if self.first_offset is None:
            self.first_offset = offset
        self.number, self.last_offset, self.head, self.end_bytes = self.number + 1, offset, digest, end_bytes


@dataclass(frozen=True, slots=True)
class Head:
    """What the front of a file says."""

    topic: str
    partition: int
    day: str
    first_record: int
    first_offset: int
    before: str

    def to_bytes(self) -> bytes:
        """The front of the file."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True).encode()
        return _FRONT.pack(_MAGIC, _VERSION, len(text)) + text


def files_of(folder: Path) -> list[Path]:
    """The files of one chain, in order."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def records(file: Path, position: Position, *, first: bool) -> Iterator[AuditRecord]:
    """Reads one file on from a position, which follows; `first`: the file may begin anywhere in its chain."""
    position.end_bytes = 0
    with file.open("rb", buffering=BUFFER_BYTES) as source:
        _take_head(file, source, position, first=first)
        while front := source.read(RECORD.size):
            yield _next_record(file, source, position, front)


def _take_head(file: Path, source: BinaryIO, position: Position, *, first: bool) -> None:
    front = source.read(_FRONT.size)
    if len(front) < _FRONT.size:
        raise AuditBroken(file, position.number, "the file ends within its head", torn=True)
    magic, version, length = _FRONT.unpack(front)
    if magic != _MAGIC or version != _VERSION or length > _HEAD_BYTES_MAX:
        raise AuditBroken(file, position.number, f"the file is no audit log of version {_VERSION}")
    text = source.read(length)
    if len(text) < length:
        raise AuditBroken(file, position.number, "the file ends within its head", torn=True)
    head, before = _head(file, position, text)
    if first:
        position.topic, position.partition = head.topic, head.partition
        position.first_record = position.number = head.first_record
        position.last_offset = head.first_offset - 1 if head.first_offset else None
    elif (head.topic, head.partition) != (position.topic, position.partition):
        raise AuditBroken(file, position.number, f"the file is of {head.topic}[{head.partition}]")
    elif head.first_record != position.number or before != position.head:
        why = f"the file begins with record {head.first_record} of another chain"
        raise AuditBroken(file, position.number, why)
    position.day = head.day
    position.head = chained(before, front + text)
    position.end_bytes = len(front) + length


def _head(file: Path, position: Position, text: bytes) -> tuple[Head, bytes]:
    try:
        fields = json.loads(text)
        numbers = (int(fields[name]) for name in ("partition", "first_record", "first_offset"))
        partition, first_record, first_offset = numbers
        before = bytes.fromhex(fields["before"])
        topic, day = str(fields["topic"]), str(fields["day"])
    except (ValueError, KeyError, TypeError) as fault:
        raise AuditBroken(file, position.number, f"the head of the file cannot be read ({fault})") from fault
    return Head(topic, partition, day, first_record, first_offset, before.hex()), before


def _next_record(file: Path, source: BinaryIO, position: Position, front: bytes) -> AuditRecord:
    if len(front) < RECORD.size:
        raise AuditBroken(file, position.number, "the file ends within this record", torn=True)
    number, offset, time_ns, orders_bytes, executions_bytes = RECORD.unpack(front)
    length = orders_bytes + executions_bytes + _HASH_BYTES
    # Compared first: a damaged length must not ask for gigabytes.
    if position.end_bytes + RECORD.size + length > os.fstat(source.fileno()).st_size:
        raise AuditBroken(file, position.number, "the file ends within this record", torn=True)
    body = source.read(length)
    orders, executions = body[:orders_bytes], body[orders_bytes:-_HASH_BYTES]
    digest = chained(position.head, front, orders, executions)
    if digest != body[-_HASH_BYTES:]:
        raise AuditBroken(
            file, position.number, "its hash does not follow from the record before and its bytes"
        )
    if number != position.number:
        raise AuditBroken(file, position.number, f"it calls itself record {number}")
    if position.last_offset is not None and offset <= position.last_offset:
        raise AuditBroken(file, position.number, f"offset {offset} comes after {position.last_offset}")
    position.passed(offset, digest, position.end_bytes + len(front) + len(body))
    return AuditRecord(number, offset, time_ns, orders, executions)


def chained(before: bytes, *parts: bytes) -> bytes:
    """The hash that follows from the one before and these bytes."""
    digest = hashlib.sha256(before)
    for part in parts:
        digest.update(part)
    return digest.digest()
