"""Arrays in and out of packed protobuf columns at the speed of a copy.

protobuf writes a repeated field value by value (tens of nanoseconds each), yet on the wire a packed column of
fixed-width numbers is just the array's little-endian bytes behind a tag and a length. So a column is written
by merging those bytes, and read through the buffer that protobuf exports.

Columns obey one rule: one entry per row, or one entry that holds for all rows, or none, which means zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from numpy.typing import ArrayLike, NDArray

MAX_ROWS = (
    50_000_000  # rows in one message; more is a mistake or an attack, and would not fit protobuf's 2 GiB
)

_LENGTH_DELIMITED = 2
_ONE_BYTE_VARINT_MAX = 0x7F

# Field types whose packed form is a plain array, and the element type they have on the wire.
_FIXED_WIDTH: dict[int, np.dtype[Any]] = {
    FieldDescriptor.TYPE_DOUBLE: np.dtype("<f8"),
    FieldDescriptor.TYPE_FLOAT: np.dtype("<f4"),
    FieldDescriptor.TYPE_FIXED64: np.dtype("<u8"),
    FieldDescriptor.TYPE_SFIXED64: np.dtype("<i8"),
    FieldDescriptor.TYPE_FIXED32: np.dtype("<u4"),
    FieldDescriptor.TYPE_SFIXED32: np.dtype("<i4"),
}
# Field types that are varints on the wire, and the element type that they hold.
_VARINT: dict[int, np.dtype[Any]] = {
    FieldDescriptor.TYPE_BOOL: np.dtype(np.bool_),
    FieldDescriptor.TYPE_ENUM: np.dtype(np.int32),
    FieldDescriptor.TYPE_INT32: np.dtype(np.int32),
    FieldDescriptor.TYPE_INT64: np.dtype(np.int64),
    FieldDescriptor.TYPE_UINT32: np.dtype(np.uint32),
    FieldDescriptor.TYPE_UINT64: np.dtype(np.uint64),
    FieldDescriptor.TYPE_SINT32: np.dtype(np.int32),
    FieldDescriptor.TYPE_SINT64: np.dtype(np.int64),
}
_ZIGZAG = (FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_SINT64)


class PackingError(ValueError):
    """A column that cannot be what it says; names the column and, where there is one, the row."""

    def __init__(self, field: str, why: str, row: int | None = None) -> None:
        self.field, self.row, self.why = field, row, why
        super().__init__(f"{field}[{row}]: {why}" if row is not None else f"{field}: {why}")


def write(message: Message, field: str, values: ArrayLike) -> None:
    """Appends `values` to the packed column `field`; refuses values that the column's type cannot hold."""
    descriptor = _column(message, field)
    if descriptor.type in _FIXED_WIDTH:
        array = _exactly(values, _FIXED_WIDTH[descriptor.type], field)
        _merge(message, descriptor, array)
        return
    array = _exactly(values, _VARINT[descriptor.type], field)
    if descriptor.type not in _ZIGZAG and _fits_one_byte(array):
        _merge(message, descriptor, array.astype(np.uint8))
    else:
        getattr(message, field).extend(array.tolist())


def head(message: type[Message], field: str, nbytes: int) -> bytes:
    """What stands before the little-endian bytes of a fixed-width packed column, `nbytes` of them."""
    descriptor = cast("FieldDescriptor", message.DESCRIPTOR.fields_by_name[field])
    if descriptor.type not in _FIXED_WIDTH or not descriptor.is_repeated:
        raise PackingError(field, f"is not a fixed-width column of {message.DESCRIPTOR.full_name}")
    return _head(descriptor, nbytes)


def part(message: type[Message], field: str, content: bytes) -> bytes:
    """A message inside a message, from its own bytes."""
    descriptor = cast("FieldDescriptor", message.DESCRIPTOR.fields_by_name[field])
    if descriptor.type != FieldDescriptor.TYPE_MESSAGE:
        raise PackingError(field, f"is not a message of {message.DESCRIPTOR.full_name}")
    return _head(descriptor, len(content)) + content


def read(message: Message, field: str) -> NDArray[Any]:
    """The column as it stands, as a new array of the column's own type."""
    descriptor = _column(message, field)
    values = getattr(message, field)
    dtype = _FIXED_WIDTH.get(descriptor.type) or _VARINT[descriptor.type]
    array: NDArray[Any] = np.asarray(values, dtype=dtype) if len(values) else np.empty(0, dtype)
    return array


def row_count(message: Message, fields: Iterable[str]) -> int:
    """Rows of a message: its longest column. Refuses a column of another length that is neither 0 nor 1."""
    lengths = {field: len(getattr(message, field)) for field in fields}
    rows = max(lengths.values(), default=0)
    if rows > MAX_ROWS:
        longest = max(lengths, key=lambda field: lengths[field])
        raise PackingError(longest, f"{rows} rows are more than the {MAX_ROWS} that one message may have")
    for field, length in lengths.items():
        if length not in (0, 1, rows):
            raise PackingError(field, f"has {length} entries where the message has {rows} rows")
    return rows


def column(message: Message, field: str, rows: int, default: float | None = None) -> NDArray[Any]:
    """The column spread over `rows`; a column of no entries is `default`, or zero, in every row.

    The array is read-only where one entry was spread, so that no caller writes through it by accident.
    """
    values = read(message, field)
    if values.size == rows:
        return values
    if values.size == 0:
        return np.broadcast_to(np.asarray(0 if default is None else default, values.dtype), (rows,))
    if values.size == 1:
        return np.broadcast_to(values, (rows,))
    raise PackingError(field, f"has {values.size} entries where the message has {rows} rows")


def names(message: Message, table: str, index: str, rows: int) -> NDArray[np.uint32]:
    """The column `index` of places in the string table `table`, each checked to be in it."""
    places = column(message, index, rows)
    size = len(getattr(message, table))
    outside = np.flatnonzero(places >= size)
    if outside.size:
        row = int(outside[0])
        raise PackingError(index, f"{int(places[row])} is outside {table}, which has {size} entries", row)
    return places


def _column(message: Message, field: str) -> FieldDescriptor:
    descriptor = cast("FieldDescriptor | None", message.DESCRIPTOR.fields_by_name.get(field))
    if descriptor is None:
        raise PackingError(field, f"{message.DESCRIPTOR.full_name} has no such field")
    packed = descriptor.type in _FIXED_WIDTH or descriptor.type in _VARINT
    if not (packed and descriptor.is_repeated):
        raise PackingError(field, f"is not a packed column of {message.DESCRIPTOR.full_name}")
    return descriptor


def _exactly(values: ArrayLike, dtype: np.dtype[Any], field: str) -> NDArray[Any]:
    """`values` as a contiguous array of `dtype`, refused where the conversion would change a value."""
    array = np.atleast_1d(np.asarray(values))
    if array.ndim != 1:
        raise PackingError(field, f"needs one dimension, has {array.ndim}")
    if array.dtype == dtype:
        return np.ascontiguousarray(array)
    if array.dtype.kind not in "biuf":
        raise PackingError(field, f"cannot hold values of type {array.dtype}")
    with np.errstate(invalid="ignore", over="ignore"):
        converted = np.ascontiguousarray(array, dtype=dtype)
    if not np.can_cast(array.dtype, dtype, "safe"):
        _refuse_changed(array, converted, field)
    return converted


def _refuse_changed(array: NDArray[Any], converted: NDArray[Any], field: str) -> None:
    with np.errstate(invalid="ignore"):
        same = converted.astype(array.dtype) == array
        # A wrap around the sign survives the way back between integers of one width.
        same &= (converted < 0) == (array < 0)
    if array.dtype.kind == "f":
        same |= np.isnan(array) if converted.dtype.kind == "f" else np.zeros_like(same)
    if not same.all():
        row = int(np.flatnonzero(~same)[0])
        raise PackingError(field, f"cannot hold {array[row]!r} as {converted.dtype}", row)


def _fits_one_byte(array: NDArray[Any]) -> bool:
    return bool(array.size == 0 or (int(array.min()) >= 0 and int(array.max()) <= _ONE_BYTE_VARINT_MAX))


def _merge(message: Message, descriptor: FieldDescriptor, array: NDArray[Any]) -> None:
    if array.size == 0:
        return
    # One join is one copy; protobuf's own parse is the second and last.
    message.MergeFromString(b"".join((_head(descriptor, array.nbytes), array.data)))


def _head(descriptor: FieldDescriptor, nbytes: int) -> bytes:
    return _varint(descriptor.number << 3 | _LENGTH_DELIMITED) + _varint(nbytes)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > _ONE_BYTE_VARINT_MAX:
        encoded.append(value & _ONE_BYTE_VARINT_MAX | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
