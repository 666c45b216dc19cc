"""Columns from numpy, pandas, polars and arrow, and answers as the same kind.

None of the three is imported here: what a caller hands over, the caller has imported.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from numpy.typing import NDArray

from risk_client.errors import InvalidRequest, Violation

Kind = Literal["numpy", "pandas", "polars", "arrow"]
_LETTERS = {"is_call": {"C": True, "P": False}, "american": {"A": True, "E": False}}
ARROW_PROVENANCE = b"gpu_risk.provenance"


def refused(field: str, why: str, row: int | None = None) -> InvalidRequest:
    """The error of a request that is not worth sending."""
    where = field if row is None else f"{field}[{row}]"
    return InvalidRequest(f"{where}: {why}", (Violation(where, why),))


def frame_kind(given: object) -> Kind | None:
    """Which kind of table it is, or None if it is none."""
    if _is(given, "pandas", "DataFrame"):
        return "pandas"
    if _is(given, "polars", "DataFrame"):
        return "polars"
    if _is(given, "polars", "LazyFrame"):
        raise TypeError("a LazyFrame has no rows yet: collect() it first")
    if _is(given, "pyarrow", "Table", "RecordBatch"):
        return "arrow"
    return None


def column_kind(given: object) -> Kind:
    """Which library a column is of; whatever numpy takes is numpy's."""
    if _is(given, "pandas", "Series"):
        return "pandas"
    if _is(given, "polars", "Series"):
        return "polars"
    if _is(given, "pyarrow", "Array", "ChunkedArray"):
        return "arrow"
    return "numpy"


def frame_columns(frame: Any, kind: Kind) -> list[str]:
    """The names of a table's columns."""
    return [str(name) for name in (frame.schema.names if kind == "arrow" else frame.columns)]


def frame_column(frame: Any, kind: Kind, name: str) -> Any:
    """One column of a table; refuses a name that is not there, or there twice."""
    count = frame_columns(frame, kind).count(name)
    if count != 1:
        raise refused(name, f"is {count or 'no'} column{'s' * (count > 1)} of the table")
    return frame[name]


def numbers(field: str, given: Any) -> NDArray[np.float64]:
    """A column as float64; what is missing becomes NaN, which is a bad row and no fault of the request."""
    array = _array(field, given)
    if array.dtype.kind in "fiu":
        return np.ascontiguousarray(array, np.float64)
    if array.dtype.kind == "b":
        raise refused(field, "holds true and false, not numbers", 0 if array.size else None)
    if array.dtype.kind in "mM":
        raise refused(field, "holds times; times to expiry are given in years", 0 if array.size else None)
    out = np.empty(array.size, np.float64)
    for row, value in enumerate(array.tolist()):
        out[row] = _number(field, value, row)
    return out


def flags(field: str, given: Any) -> NDArray[np.bool_]:
    """A column as booleans; 0 and 1 are taken, C and P of calls, A and E of exercise; others are refused."""
    array = _array(field, given)
    if array.dtype == np.bool_:
        return np.ascontiguousarray(array)
    out = np.empty(array.size, np.bool_)
    letters = _LETTERS.get(field.rpartition(".")[2], {})
    for row, value in enumerate(array.tolist()):
        if isinstance(value, str) and value.strip().upper() in letters:
            out[row] = letters[value.strip().upper()]
            continue
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise refused(field, f"needs true or false, not {value!r}", row)
        out[row] = value
    return out


def same_index(columns: Mapping[str, Any], index: Any = None) -> Any:
    """The index that the pandas columns share (`index`, if there is one already); refuses any other."""
    for name, column in columns.items():
        if column_kind(column) != "pandas":
            continue
        if index is None:
            index = column.index
        elif not index.equals(column.index):
            raise refused(name, "has another index than the rest")
    return index


def columns_like(kind: Kind, index: Any, answer: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """The columns of an answer as the kind that the question came in."""
    if kind == "numpy":
        return dict(answer)
    library = sys.modules["pyarrow" if kind == "arrow" else kind]
    if kind == "pandas":
        # An index fits only where there is a row for each of its entries.
        return {
            name: library.Series(values, index=index if len(index) == values.size else None, name=name)
            for name, values in answer.items()
        }
    if kind == "polars":
        return {name: library.Series(name, values) for name, values in answer.items()}
    return {name: library.array(values) for name, values in answer.items()}


def new_table(kind: Kind, columns: Mapping[str, Any]) -> Any:
    """Columns as a table of a library; a dictionary of arrays for numpy."""
    if kind == "numpy":
        return {name: np.asarray(values) for name, values in columns.items()}
    library = sys.modules["pyarrow" if kind == "arrow" else kind]
    return library.table(dict(columns)) if kind == "arrow" else library.DataFrame(dict(columns))


def with_columns(frame: Any, kind: Kind, answer: Mapping[str, NDArray[Any]], provenance: Message) -> Any:
    """The table with the columns of an answer behind its own, rows and index as they were.

    Where the numbers come from is in `attrs["provenance"]` (pandas) or the schema's metadata (arrow).
    """
    if kind == "numpy":
        return {**frame, **answer}
    if kind == "polars":
        series = sys.modules["polars"].Series
        return frame.with_columns([series(name, values) for name, values in answer.items()])
    came = MessageToDict(provenance, preserving_proto_field_name=True)
    if kind == "pandas":
        out = frame.assign(**answer)
        out.attrs = {**frame.attrs, "provenance": came}
        return out
    array = sys.modules["pyarrow"].array
    for name, values in answer.items():
        frame = frame.append_column(name, array(values))
    return frame.replace_schema_metadata(
        {**(frame.schema.metadata or {}), ARROW_PROVENANCE: json.dumps(came)}
    )


def unmasked(given: Any) -> NDArray[Any]:
    """Whatever numpy takes as an array; what is masked is missing, not the number under the mask."""
    array = np.asarray(given)
    if np.ma.is_masked(given):
        array = array.astype(object)
        array[np.ma.getmaskarray(given)] = None
    return array


def _is(given: object, library: str, *names: str) -> bool:
    module = sys.modules.get(library)
    return module is not None and isinstance(given, tuple(getattr(module, name) for name in names))


def _array(field: str, given: Any) -> NDArray[Any]:
    kind = column_kind(given)
    if kind == "numpy":
        try:
            array = np.atleast_1d(unmasked(given))
        except ValueError:
            raise refused(field, "needs one dimension, has rows of several lengths") from None
    elif kind == "arrow":
        array = given.to_numpy(zero_copy_only=False)
    else:
        array = given.to_numpy()
    if array.ndim != 1:
        raise refused(field, f"needs one dimension, has {array.ndim}")
    return array


def _number(field: str, value: Any, row: int) -> float:
    # pandas' own NA is no number and has no truth value.
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return float("nan")
    if isinstance(value, str | bytes | bool):
        raise refused(field, f"needs a number, not {value!r}", row)
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise refused(field, f"needs a number, not {value!r}", row) from None
