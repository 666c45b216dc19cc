"""Kafka's wire format: the fields that requests are read from and answers are made of."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")

_INT8, _INT16 = struct.Struct(">b"), struct.Struct(">h")
_INT32, _INT64 = struct.Struct(">i"), struct.Struct(">q")


class Malformed(ValueError):
    """Bytes that are no request."""


class Reader:
    """Takes one field after another from a request."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def int8(self) -> int:
        """A signed byte."""
        return self._number(_INT8)

    def int16(self) -> int:
        """Two bytes."""
        return self._number(_INT16)

    def int32(self) -> int:
        """Four bytes."""
        return self._number(_INT32)

    def int64(self) -> int:
        """Eight bytes."""
        return self._number(_INT64)

    def string(self) -> str:
        """Text that must be there."""
        text = self.optional_string()
        if text is None:
            raise Malformed("a text is missing")
        return text

    def optional_string(self) -> str | None:
        """Text, or nothing."""
        size = self.int16()
        if size < 0:
            return None
        try:
            return self._take(size).decode()
        except UnicodeDecodeError as fault:
            raise Malformed(f"a text is no UTF-8: {fault}") from fault

    def blob(self) -> bytes:
        """Bytes; none where they are left out."""
        size = self.int32()
        return b"" if size < 0 else self._take(size)

    def array(self, read: Callable[[], T]) -> list[T]:
        """Each item by `read`; none where the array is left out."""
        return self.optional_array(read) or []

    def optional_array(self, read: Callable[[], T]) -> list[T] | None:
        """Each item by `read`, or nothing."""
        count = self.int32()
        if count < 0:
            return None
        if count > len(self._data) - self._at:
            raise Malformed(f"an array of {count} items in {len(self._data)} bytes")
        return [read() for _ in range(count)]

    def _number(self, kind: struct.Struct) -> int:
        try:
            (value,) = kind.unpack_from(self._data, self._at)
        except struct.error as fault:
            raise Malformed("the request ends too early") from fault
        self._at += kind.size
        return int(value)

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise Malformed("the request ends too early")
        part = self._data[self._at : end]
        self._at = end
        return part


int8, int16, int32, int64 = _INT8.pack, _INT16.pack, _INT32.pack, _INT64.pack


def string(text: str) -> bytes:
    """Text with its length before it."""
    encoded = text.encode()
    return _INT16.pack(len(encoded)) + encoded


def optional_string(text: str | None) -> bytes:
    """Text, or the sign for none."""
    return _INT16.pack(-1) if text is None else string(text)


def blob(data: bytes) -> bytes:
    """Bytes with their length before them."""
    return _INT32.pack(len(data)) + data


def array(items: Iterable[bytes]) -> bytes:
    """Encoded items with their number before them."""
    parts = list(items)
    return _INT32.pack(len(parts)) + b"".join(parts)


# How long a client is to hold back: it never is.
NO_THROTTLE = int32(0)


def topic(request: Reader, part: Callable[[str], bytes]) -> bytes:
    """One topic of a request, each of its partitions answered by `part`."""
    name = request.string()
    return string(name) + array(request.array(lambda: part(name)))
