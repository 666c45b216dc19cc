"""What a consumer hands out: where a record was, what it carried, and its decoded value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")
Headers = tuple[tuple[str, bytes], ...]

# Start offsets with a meaning of their own; the numbers are the Kafka protocol's.
END = -1
BEGINNING = -2
# Where the group's committed offset says, or where `start` says when there is none.
COMMITTED = -1001


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Record:
    """One Kafka record; `timestamp_ms` counts from the Unix epoch, -1 when the broker gave none."""

    topic: str
    partition: int
    offset: int
    key: str
    value: bytes
    headers: Headers
    timestamp_ms: int
    # A deletion in a compacted topic: there is no value, `value` is empty.
    tombstone: bool = False

    @classmethod
    def of(cls, message: Any) -> Record:
        """From the client library's own message; its stubs type every field as optional."""
        value = message.value()
        _, timestamp_ms = message.timestamp()
        return cls(
            topic=message.topic(),
            partition=message.partition(),
            offset=message.offset(),
            # Values name their symbol or portfolio themselves, so a strange key spoils nothing.
            key=(message.key() or b"").decode("utf-8", "replace"),
            value=value or b"",
            headers=tuple((name, content or b"") for name, content in message.headers() or ()),
            timestamp_ms=timestamp_ms,
            tombstone=value is None,
        )

    @property
    def source(self) -> Partition:
        """The partition that the record came from."""
        return Partition(self.topic, self.partition)


@dataclass(frozen=True, slots=True)
class Message(Generic[T]):
    """A record with its decoded value."""

    value: T
    record: Record
