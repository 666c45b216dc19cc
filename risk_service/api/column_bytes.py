"""Answers in columns as the bytes of their message, written once.

A message made first and serialised afterwards copies every column twice more; 10,000 rows of price and Greeks
are 730 KB, and fresh memory for them costs more than the kernel. The server sends bytes as they are.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from typing import Any, Generic, TypeVar, cast

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from gpu_kernels.results import Result

MessageT = TypeVar("MessageT", bound=Message)

_LENGTH_DELIMITED = 2
# Statuses are enum numbers: below this one is one byte on the wire, its own.
_ONE_BYTE_VARINT = 0x80
_NO_ONE_BYTE = "a status is no enum number of one byte"


class ColumnBytes(Generic[MessageT]):
    """Writes one kind of message: float64 columns, then a column of statuses, then the provenance."""

    def __init__(self, kind: type[MessageT], columns: Sequence[str]) -> None:
        fields = kind.DESCRIPTOR.fields_by_name
        wrong = [name for name in columns if fields[name].type != FieldDescriptor.TYPE_DOUBLE]
        if wrong or sys.byteorder != "little":
            raise TypeError(f"{kind.DESCRIPTOR.full_name}: {wrong} are no columns of doubles")
        self._columns = [_tag(fields[name]) for name in columns]
        self._status, self._provenance = _tag(fields["status"]), _tag(fields["provenance"])
        # One row has every byte at a known place: written at once it costs a quarter of as many parts.
        self._row_heads = [tag + _varint(8) for tag in self._columns]
        self._row_status = self._status + _varint(1)
        doubles = "".join(f"{len(head)}sd" for head in self._row_heads)
        self._row = struct.Struct(f"<{doubles}{len(self._row_status)}sB")

    @property
    def row_bytes(self) -> int:
        """What one row weighs: a double per column, and its status."""
        return 8 * len(self._columns) + 1

    def written(self, result: Result, provenance: Message) -> MessageT:
        """The message of a kernel's result, as bytes in the place of the message."""
        *columns, statuses = result.columns()
        if statuses.size == 1:
            return cast(MessageT, self._one_row(columns, statuses) + self._came(provenance))
        status = np.ascontiguousarray(statuses, np.uint8)
        rows = status.size
        if rows and int(status.max()) >= _ONE_BYTE_VARINT:
            raise ValueError(_NO_ONE_BYTE)
        length = _varint(8 * rows)
        parts: list[Any] = []
        for tag, values in zip(self._columns, columns, strict=True):
            column = np.ascontiguousarray(values, np.float64)
            if column.size != rows:
                raise ValueError(f"a column has {column.size} rows, status {rows}")
            parts += (tag, length, column.data)
        parts += (self._status, _varint(rows), status.data, self._came(provenance))
        return cast(MessageT, b"".join(parts))

    def _one_row(self, columns: Sequence[Any], status: Any) -> bytes:
        code = status.item()
        if code >= _ONE_BYTE_VARINT:
            raise ValueError(_NO_ONE_BYTE)
        values: list[Any] = []
        for head, column in zip(self._row_heads, columns, strict=True):
            values += (head, column.item())
        return self._row.pack(*values, self._row_status, code)

    def _came(self, provenance: Message) -> bytes:
        came = provenance.SerializeToString()
        return self._provenance + _varint(len(came)) + came


def _tag(field: Any) -> bytes:
    return _varint(field.number << 3 | _LENGTH_DELIMITED)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
