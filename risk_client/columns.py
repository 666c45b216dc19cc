"""Columns of any table, as few values as it has: equal texts are kept once, numbers are one array.

A million rows of a desk's book hold some dozens of groups and some thousands of contracts. What is read,
checked or compared is read, checked and compared once for each of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risk_client.tables import Kind, frame_column, frame_columns, frame_kind, unmasked

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Texts:
    """A column of texts: that of row r is `distinct[codes[r]]`. An empty one is missing."""

    codes: NDArray[np.int32]
    distinct: tuple[str, ...]

    @classmethod
    def of(cls, cells: Sequence[Any]) -> Texts:
        """Of cells of any kind, in words and without surrounding blanks."""
        place = dict(zip(dict.fromkeys(cells), count(), strict=False))
        codes = np.fromiter(map(place.__getitem__, cells), np.int32, len(cells))
        return cls(codes, tuple(map(_words, place)))

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, row: int) -> str:
        return self.distinct[int(self.codes[row])]

    def where(self, test: Callable[[str], bool]) -> Flags:
        """The rows whose text passes."""
        return self.spread(np.fromiter(map(test, self.distinct), np.bool_, len(self.distinct)))

    def spread(self, by_distinct: NDArray[Any]) -> NDArray[Any]:
        """What is known of each distinct text, by row."""
        return by_distinct[self.codes] if len(self.distinct) else by_distinct[:0]

    def take(self, rows: NDArray[Any]) -> Texts:
        """The same of these rows alone."""
        return Texts(self.codes[rows], self.distinct)

    def named(self) -> Texts:
        """The same without doubles and without what no row says, in the order in which rows first say it."""
        used, first = np.unique(self.codes, return_index=True)
        place: dict[str, int] = {}
        new = np.zeros(len(self.distinct), np.int32)
        for code in used[np.argsort(first, kind="stable")].tolist():
            new[code] = place.setdefault(self.distinct[code], len(place))
        return Texts(self.spread(new), tuple(place))


Column = Texts | Floats


def columns_of(table: Any) -> tuple[dict[str, Column], int]:
    """The columns of a table of pandas, polars or arrow, or of a mapping of arrays; and how many rows."""
    kind = frame_kind(table)
    if kind is not None:
        names = frame_columns(table, kind)
        return {name: _column(frame_column(table, kind, name), kind) for name in names}, len(table)
    if not isinstance(table, Mapping):
        raise TypeError(f"a table of pandas, polars or arrow is needed, not {type(table).__name__}")
    columns = {str(name): _of_array(unmasked(values)) for name, values in table.items()}
    lengths = {len(one) for one in columns.values()}
    if len(lengths) > 1:
        raise TypeError(f"columns of {' and '.join(map(str, sorted(lengths)))} rows in one table")
    return columns, max(lengths, default=0)


def texts(column: Column) -> Texts:
    """A column as texts: numbers as they are written, NaN as nothing."""
    if isinstance(column, Texts):
        return column
    values, codes = np.unique(column, return_inverse=True)
    return Texts(codes.astype(np.int32), tuple(map(_written, values.tolist())))


def numbers(column: Column) -> tuple[Floats, Flags]:
    """A column as numbers, NaN where it is empty; and the rows that hold no number at all."""
    if not isinstance(column, Texts):
        return column, np.zeros(len(column), np.bool_)
    try:
        values = np.array([float(one or "nan") for one in column.distinct], np.float64)
    except ValueError:
        values = np.array([_number(one) for one in column.distinct], np.float64)
    # Who writes "nan" writes no number; an empty cell is another thing. Nor is 1_000 one, which Python takes.
    odd = [
        bool(one) and (value != value or "_" in one)
        for one, value in zip(column.distinct, values.tolist(), strict=True)
    ]
    wrong = np.array(odd, np.bool_)
    return column.spread(values), column.spread(wrong)


def _written(number: float) -> str:
    if math.isnan(number):
        return ""
    return f"{number:.0f}" if number.is_integer() else repr(number)


def _number(text: str) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def _column(given: Any, kind: Kind) -> Column:
    if kind == "arrow":
        return _of_arrow(given)
    if kind == "polars":
        return _of_polars(given)
    return _of_pandas(given)


def _of_pandas(series: Any) -> Column:
    import pandas as pd

    if pd.api.types.is_numeric_dtype(series.dtype) and not pd.api.types.is_bool_dtype(series.dtype):
        return np.ascontiguousarray(series.to_numpy(np.float64, na_value=np.nan))
    codes, distinct = pd.factorize(series, use_na_sentinel=True)
    return _coded(codes, list(distinct))


def _of_polars(series: Any) -> Column:
    if series.dtype.is_numeric() and not series.dtype.is_decimal():
        return np.ascontiguousarray(series.to_numpy(), np.float64)
    return Texts.of(series.to_list())


def _of_arrow(column: Any) -> Column:
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # older ones answer so where there are no rows
            column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return np.ascontiguousarray(column.to_numpy(zero_copy_only=False), np.float64)
    try:
        # Decimals have no code in every version of arrow.
        coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return Texts.of(column.to_pylist())
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return _coded(codes, coded.dictionary.to_pylist())


def _of_array(array: NDArray[Any]) -> Column:
    if array.ndim != 1:
        raise TypeError(f"a column has one dimension, not {array.ndim}")
    if array.dtype.kind in "fiu":
        return np.ascontiguousarray(array, np.float64)
    return Texts.of(array.astype("datetime64[D]").tolist() if array.dtype.kind == "M" else array.tolist())


def _coded(codes: NDArray[Any], distinct: Sequence[Any]) -> Texts:
    """Codes below zero are missing."""
    return Texts(np.where(codes < 0, len(distinct), codes).astype(np.int32), (*map(_words, distinct), ""))


def _words(value: object) -> str:
    if isinstance(value, str):
        return value.strip()
    if value is None or value != value or type(value).__name__ in ("NAType", "NaTType"):
        return ""
    if isinstance(value, datetime):
        return value.date().isoformat()
    return value.isoformat() if isinstance(value, date) else str(value).strip()
