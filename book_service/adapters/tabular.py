"""Any CSV or Parquet file of market data to market.data.raw, by a mapping of its columns.

    columns = {"symbol": "ticker", "source_time_ns": "ts", "price": "px", "quantity": "qty"}
    mapping = TableMapping("vendor", columns, constants={"kind": "trade"}, time_unit="us")
    for events in replay(Path("trades.csv"), mapping): ...

An empty cell is 0, as in the topic; only a symbol and a kind must be there. A column that the mapping does
not name is not read.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np
from numpy.typing import NDArray

from book_service.adapters.errors import TabularError
from book_service.adapters.raw_columns import RawColumns

ROWS = 50_000  # read at once
LINE_CHARACTERS_MAX = 1 << 20
SYMBOLS_MAX = 1_000_000
_DIGITS_MAX = 20  # of a 64-bit whole number

_UNITS: Final = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
# As in RawBatch.
_WORDS: Final[Mapping[str, Mapping[str, int]]] = {
    "kind": {"quote": 1, "trade": 2, "delta": 3, "snapshot": 4, "reference": 5, "status": 6},
    "side": {"": 0, "buy": 0, "b": 0, "bid": 0, "sell": 1, "s": 1, "ask": 1},
    "state": {"": 0, "open": 1, "halted": 2, "auction": 3, "closed": 4},
}
_FLOATS: Final = frozenset(
    {"bid", "ask", "bid_quantity", "ask_quantity", "price", "quantity", "rate", "dividend_yield"}
)
_INTEGERS: Final[Mapping[str, type[np.int64 | np.uint64 | np.uint32]]] = {
    "source_time_ns": np.int64,
    "source_sequence": np.uint64,
    "flags": np.uint32,
}
_TARGETS: Final = frozenset({"symbol", *_WORDS, *_FLOATS, *_INTEGERS})


@dataclass(frozen=True, slots=True)
class TableMapping:
    """Which column of the file is which of the topic, and what is the same in all rows.

    The topic's columns are those of RawBatch, and `symbol`. `kind`, `side` and `state` are read as words
    (quote, trade, delta, snapshot, reference, status; buy, sell; open, halted, auction, closed) or as the
    topic's own numbers. Times are whole or decimal numbers of `time_unit` since the Unix epoch, or a Parquet
    file's timestamps.
    """

    source: str
    columns: Mapping[str, str]
    constants: Mapping[str, str] = field(default_factory=dict)
    time_unit: str = "ns"

    def __post_init__(self) -> None:
        unknown = sorted((set(self.columns) | set(self.constants)) - _TARGETS)
        if unknown:
            raise TabularError(f"mapping: {unknown[0]!r} is no column of the topic")
        twice = sorted(set(self.columns) & set(self.constants))
        if twice:
            raise TabularError(f"mapping: {twice[0]!r} is given twice")
        missing = sorted({"symbol", "kind"} - set(self.columns) - set(self.constants))
        if missing:
            raise TabularError(f"mapping: {missing[0]!r} is missing")
        if self.time_unit not in _UNITS:
            raise TabularError(f"mapping: time unit {self.time_unit!r} is none of {', '.join(_UNITS)}")


@dataclass(frozen=True, slots=True)
class _Rows:
    """Some rows of a file: cells by the topic's names, and what to call a row in an error."""

    cells: Mapping[str, Sequence[Any] | NDArray[Any]]
    count: int
    where: Callable[[int], str]


def replay(path: Path, mapping: TableMapping, rows_at_once: int = ROWS) -> Iterator[RawColumns]:
    """Events of a .csv or .parquet file in order, in pieces; TabularError names file, line and column."""
    symbols: dict[str, int] = {}
    pieces = (
        _parquet(path, mapping, rows_at_once)
        if path.suffix == ".parquet"
        else _csv(path, mapping, rows_at_once)
    )
    for rows in pieces:
        columns = _converted(rows, mapping, symbols)
        yield RawColumns(mapping.source, tuple(symbols), columns)


def _converted(rows: _Rows, mapping: TableMapping, symbols: dict[str, int]) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {}
    cells = dict(rows.cells) | {name: [value] * rows.count for name, value in mapping.constants.items()}
    for name, values in cells.items():
        if name == "symbol":
            columns["symbol_index"] = _symbol_index(values, symbols, rows, mapping)
        elif name in _WORDS:
            columns[name] = _words(name, values, rows, mapping)
        elif name in _FLOATS:
            columns[name] = _floats(name, values, rows, mapping)
        else:
            scale = _UNITS[mapping.time_unit] if name == "source_time_ns" else 1
            columns[name] = _integers(name, values, scale, rows, mapping)
    return columns


def _fault(rows: _Rows, mapping: TableMapping, row: int, name: str, cell: object, why: str) -> TabularError:
    column = mapping.columns.get(name, f"the constant {name}")
    return TabularError(f"{rows.where(row)}, column {column}: {str(cell)[:40]!r} {why}")


def _symbol_index(
    values: Sequence[Any] | NDArray[Any], symbols: dict[str, int], rows: _Rows, mapping: TableMapping
) -> NDArray[np.int64]:
    for row, symbol in enumerate(values):
        if symbol not in symbols:
            if not symbol or not isinstance(symbol, str) or not symbol.isprintable():
                raise _fault(rows, mapping, row, "symbol", symbol, "is no symbol")
            if len(symbols) >= SYMBOLS_MAX:
                raise _fault(rows, mapping, row, "symbol", symbol, f"is one symbol more than {SYMBOLS_MAX}")
            symbols[symbol] = len(symbols)
    return np.array([symbols[symbol] for symbol in values], np.int64)


def _words(
    name: str, values: Sequence[Any] | NDArray[Any], rows: _Rows, mapping: TableMapping
) -> NDArray[np.int32]:
    known = _WORDS[name]
    numbers = {str(number): number for number in known.values()}
    meaning = {value: known.get(str(value).lower(), numbers.get(str(value))) for value in set(values)}
    if None in meaning.values():
        row = next(row for row, value in enumerate(values) if meaning[value] is None)
        raise _fault(rows, mapping, row, name, values[row], f"is none of {', '.join(filter(None, known))}")
    return np.array([meaning[value] for value in values], np.int32)


def _floats(
    name: str, values: Sequence[Any] | NDArray[Any], rows: _Rows, mapping: TableMapping
) -> NDArray[np.float64]:
    if isinstance(values, np.ndarray):
        return values.astype(np.float64)
    try:
        return np.array([float(value or 0.0) for value in values])
    except ValueError:
        row = next(
            row for row, value in enumerate(values) if not _reads(lambda cell: float(cell or 0.0), value)
        )
        raise _fault(rows, mapping, row, name, values[row], "is no number") from None


def _integers(
    name: str, values: Sequence[Any] | NDArray[Any], scale: int, rows: _Rows, mapping: TableMapping
) -> NDArray[Any]:
    dtype = _INTEGERS[name]
    limits = np.iinfo(dtype)

    def whole(cell: Any) -> int:
        if scale == 1 and cell:
            number = int(cell)
        else:
            exact = Decimal(str(cell or 0))
            # Of a number like 1e999999999 the digits must never be written out.
            if exact.adjusted() > _DIGITS_MAX:
                raise ValueError(name)
            number = int(exact * scale)
        if not limits.min <= number <= limits.max:
            raise ValueError(name)
        return number

    try:
        return np.array([whole(value) for value in values], dtype)
    except (ValueError, OverflowError, InvalidOperation):
        row = next(row for row, value in enumerate(values) if not _reads(whole, value))
        raise _fault(rows, mapping, row, name, values[row], "is no such number") from None


def _reads(convert: Callable[[Any], object], cell: Any) -> bool:
    try:
        convert(cell)
    except (ValueError, OverflowError, InvalidOperation):
        return False
    return True


def _csv(path: Path, mapping: TableMapping, rows_at_once: int) -> Iterator[_Rows]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(_lines(file, path), strict=True)
        try:
            header = next(reader, None)
            if not header:
                raise TabularError(f"{path} line 1: has no names of columns")
            places = _places(path, header, mapping)
            while True:
                found: list[list[str]] = []
                numbers: list[int] = []
                for row in reader:
                    if len(row) != len(header):
                        why = f"has {len(row)} columns, the header {len(header)}"
                        raise TabularError(f"{path} line {reader.line_num}: {why}")
                    found.append(row)
                    numbers.append(reader.line_num)
                    if len(found) >= rows_at_once:
                        break
                if not found:
                    return
                cells = {name: [row[place] for row in found] for name, place in places.items()}
                lines = numbers
                yield _Rows(cells, len(found), lambda row, lines=lines: f"{path} line {lines[row]}")  # type: ignore[misc]
        except csv.Error as error:
            raise TabularError(f"{path} line {reader.line_num}: {error}") from error
        except UnicodeDecodeError as error:
            raise TabularError(f"{path} after line {reader.line_num}: is not UTF-8") from error


def _places(path: Path, header: Sequence[str], mapping: TableMapping) -> dict[str, int]:
    for column in mapping.columns.values():
        if header.count(column) != 1:
            many = "no column" if column not in header else "more than one column"
            raise TabularError(f"{path} line 1: has {many} {column!r}; it has {', '.join(header)[:200]}")
    return {name: header.index(column) for name, column in mapping.columns.items()}


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    number = 0
    while line := file.readline(LINE_CHARACTERS_MAX):
        number += 1
        if len(line) == LINE_CHARACTERS_MAX:
            raise TabularError(f"{path} line {number}: has more than {LINE_CHARACTERS_MAX} characters")
        yield line


def _parquet(path: Path, mapping: TableMapping, rows_at_once: int) -> Iterator[_Rows]:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise TabularError("reading Parquet needs pyarrow: install gpu-risk[dataframes]") from error
    try:
        with parquet.ParquetFile(path) as file:
            _places(path, file.schema_arrow.names, mapping)
            first = 0
            for batch in file.iter_batches(rows_at_once, columns=sorted(set(mapping.columns.values()))):
                cells = {
                    name: _cells(batch.column(column), path, column, mapping.time_unit)
                    for name, column in mapping.columns.items()
                }
                start = first
                yield _Rows(cells, len(batch), lambda row, start=start: f"{path} row {start + row + 1}")  # type: ignore[misc]
                first += len(batch)
    except (arrow.ArrowException, OSError) as error:
        raise TabularError(f"{path}: {error}") from error


def _cells(column: Any, path: Path, name: str, time_unit: str) -> Sequence[Any] | NDArray[Any]:
    """A column's values without nulls: floats as an array, timestamps in nanoseconds, others as text."""
    import pyarrow as arrow

    kind = column.type
    if arrow.types.is_timestamp(kind):
        if time_unit != "ns":
            raise TabularError(f"{path}, column {name}: holds timestamps, so the time unit must be ns")
        column, kind = column.cast(arrow.timestamp("ns", kind.tz)).cast(arrow.int64()), arrow.int64()
    if arrow.types.is_floating(kind):
        floats: NDArray[Any] = column.fill_null(0).to_numpy(zero_copy_only=False)
        return floats
    if arrow.types.is_integer(kind):
        whole: list[Any] = column.fill_null(0).to_pylist()
        return whole
    return ["" if value is None else str(value) for value in column.to_pylist()]
