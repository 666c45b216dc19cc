"""The market state in a file, so that a start need not read the whole log: what was true at a prefix of it.

The file is replaced as a whole. It names the last record of each partition behind it; at the start that
record is read again, and another one in its place means another log.
"""

from __future__ import annotations

import io
import json
import logging
import os
import zlib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from risk_service.market_state import Clocks, MarketState
from service_kit.errors import SettingError
from service_kit.kafka.records import Record

LOG = logging.getLogger(__name__)

VERSION = 1


@dataclass(frozen=True, slots=True)
class StoredMarket:
    """A state, and the fingerprint of the last record of each partition that it is made of."""

    state: MarketState
    last: Mapping[int, int]

    def save(self, path: Path) -> None:
        """Replaces the file; a crash leaves the old one or the new one."""
        symbols, data, offsets, clocks = self.state.parts()
        head = {
            "version": VERSION,
            "symbols": symbols,
            "offsets": {str(partition): at for partition, at in offsets.items()},
            "last": {str(partition): mark for partition, mark in self.last.items()},
            "clocks": list(clocks),
        }
        content = io.BytesIO()
        np.savez(content, head=np.frombuffer(json.dumps(head).encode(), np.uint8), data=data)
        body = content.getvalue()
        beside = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            with beside.open("wb") as file:
                file.write(zlib.crc32(body).to_bytes(4, "little") + body)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except OSError:
            # On a full disk half a file would keep it full.
            beside.unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: Path) -> StoredMarket | None:
        """What was saved last; None, with a word in the log, where there is nothing that can be read."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        if zlib.crc32(content[4:]) != int.from_bytes(content[:4], "little") or len(content) < 4:
            LOG.warning("%s is damaged, the market is read from the beginning of its log", path)
            return None
        with np.load(io.BytesIO(content[4:]), allow_pickle=False) as parts:
            head, data = json.loads(parts["head"].tobytes()), parts["data"]
        if head["version"] != VERSION:
            LOG.warning("%s is of another version, the market is read from the beginning", path)
            return None
        offsets = {int(partition): at for partition, at in head["offsets"].items()}
        try:
            state = MarketState.of_parts(head["symbols"], data, offsets, Clocks(*head["clocks"]))
        except ValueError as fault:
            LOG.warning("%s is of another version, the market is read from the beginning: %s", path, fault)
            return None
        return cls(state, {int(partition): mark for partition, mark in head["last"].items()})


def fingerprint(record: Record) -> int:
    """Tells a record from any other that may stand in its place in another log."""
    return zlib.crc32(record.value, zlib.crc32(f"{record.key} {record.timestamp_ms}".encode()))


@dataclass(slots=True)
class MarketFile:
    """Saves the live loop's market now and then, in a thread of its own. Used by the loop's thread."""

    path: Path
    every_s: float
    _last: dict[int, int] = field(default_factory=dict)
    _expected: dict[int, tuple[int, int]] = field(default_factory=dict)  # offset and fingerprint
    _due: float = 0.0
    _writing: Future[None] | None = None
    _writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "market file"))

    def restore(self) -> tuple[MarketState, dict[int, int]] | None:
        """The state as it was saved, and where to read on: at the last record that is in it already."""
        stored = StoredMarket.load(self.path)
        if stored is None:
            return None
        _, _, offsets, _ = stored.state.parts()
        self._last = dict(stored.last)
        self._expected = {
            partition: (offsets[partition] - 1, mark) for partition, mark in stored.last.items()
        }
        return stored.state, {partition: at for partition, (at, _) in self._expected.items()}

    def is_known(self, record: Record) -> bool:
        """Whether the state has this record already; SettingError where another one was in its place."""
        expected = self._expected.pop(record.partition, None)
        if expected is None:
            return False
        offset, mark = expected
        if record.offset != offset or fingerprint(record) != mark:
            raise SettingError(
                "risk.market_file",
                f"{self.path} is of another log: {record.topic}[{record.partition}] has another record at "
                f"{record.offset}; remove the file to read the market from the beginning",
            )
        return True

    def note(self, record: Record) -> None:
        """The state has this record now."""
        self._last[record.partition] = fingerprint(record)

    def save_when_due(self, state: MarketState, now: float) -> None:
        """Begins to write the state, unless it is too soon or the last one is still being written."""
        if now < self._due or (self._writing is not None and not self._writing.done()):
            return
        fault = None if self._writing is None else self._writing.exception()
        if isinstance(fault, OSError):
            # The log has it all: without the file the next start takes longer, that is all.
            LOG.error("the market cannot be kept in %s, the last one that was stays: %s", self.path, fault)
        elif fault is not None:
            raise fault
        self._due = now + self.every_s
        if self._last and not self._expected:
            stored = StoredMarket(state.copy(), dict(self._last))
            self._writing = self._writer.submit(stored.save, self.path)

    def close(self) -> None:
        """Waits for what is being written."""
        self._writer.shutdown()
