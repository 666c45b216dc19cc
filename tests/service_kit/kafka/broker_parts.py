"""What tests of the in-memory broker are made of: record batches, and a clock that only a test moves."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

HEADER = struct.Struct(">qiibIhiqqqhii")


def batch(
    records: int,
    payload: bytes = b"",
    *,
    producer: int = -1,
    epoch: int = -1,
    sequence: int = -1,
    time_ms: int = 0,
    magic: int = 2,
) -> bytes:
    """A record batch by the protocol's description; what is in the records does not matter here."""
    length = HEADER.size - 12 + len(payload)
    last = records - 1
    head = (0, length, -1, magic, 0, 0, last, time_ms, time_ms, producer, epoch, sequence, records)
    return HEADER.pack(*head) + payload


@dataclass
class Clock:
    """Calls what is due when the test says that time has passed."""

    now_s: float = 0.0
    _due: list[tuple[float, int, _Call]] = field(default_factory=list)
    _made: int = 0

    def later(self, wait_s: float, then: Callable[[], None]) -> _Call:
        self._made += 1
        call = _Call(then)
        self._due.append((self.now_s + wait_s, self._made, call))
        return call

    def pass_s(self, seconds: float) -> None:
        ends = self.now_s + seconds
        while due := [one for one in self._due if one[0] <= ends]:
            first = min(due, key=lambda one: one[:2])
            self._due.remove(first)
            self.now_s = first[0]
            first[2].run()
        self.now_s = ends

    @property
    def waiting(self) -> int:
        """Calls that are still to come."""
        return sum(not one.cancelled for _, _, one in self._due)


@dataclass
class _Call:
    then: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True

    def run(self) -> None:
        if not self.cancelled:
            self.then()
