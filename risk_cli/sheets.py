"""CSV and Parquet files as columns; every complaint names file, row and column."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risk_cli.extras import extra_needed
from risk_cli.refusals import BadInput
from risk_client.columns import Column, Texts, columns_of, numbers, texts
from risk_client.faults import TableFaults

PARQUET_SUFFIXES = (".parquet", ".pq")
ROWS_AT_ONCE = 1 << 16
FAULTS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table; `lines` numbers each row as the file's reader would find it."""

    file: str
    columns: Mapping[str, Column]
    lines: NDArray[np.int64]
    unit: str = "line"  # of a text file; "row" of others

    def __len__(self) -> int:
        return len(self.lines)

    def place(self, row: int) -> str:
        """Where a row stands."""
        return f"{self.file}, {self.unit} {self.lines[row]}"

    def labels(self, column: str) -> list[str]:
        """A column that names rows; a row without a name has its number for one."""
        said = self.texts(column)
        names = map(said.distinct.__getitem__, said.codes.tolist())
        return [one or f"{self.unit} {line}" for one, line in zip(names, self.lines.tolist(), strict=True)]

    def fault(self, row: int, column: str, reason: str) -> BadInput:
        """A complaint about one cell."""
        return BadInput(f"{self.place(row)}, column {column}: {reason}")

    def faults(self, found: TableFaults) -> BadInput:
        """Complaints about several cells, one a line; of many the first, and how many more there are."""
        shown = found.named[:FAULTS_SHOWN]
        said = [f"{self.place(one.row)}, column {one.column}: {one.why}" for one in shown]
        if found.rows > len(shown):
            said.append(f"{self.file}: {found.rows - len(shown):,} more rows are wrong")
        return BadInput("\nrisk: ".join(said))

    def texts(self, column: str) -> Texts:
        """A column as texts; all empty if it is not there."""
        if column in self.columns:
            return texts(self.columns[column])
        return Texts(np.zeros(len(self), np.int32), ("",))

    def numbers(self, column: str, default: float | None = None) -> NDArray[np.float64]:
        """Finite numbers; an empty cell is `default`, or a complaint without one."""
        values, wrong = numbers(self.columns[column])
        missing = np.isnan(values) & ~wrong
        if default is not None:
            values = np.where(missing, default, values)
            missing = np.zeros(len(values), np.bool_)
        bad = np.flatnonzero(wrong | missing | np.isinf(values))
        if bad.size:
            row = int(bad[0])
            text = self.texts(column)[row]
            why = "is not a number" if wrong[row] else "is not a finite number"
            raise self.fault(row, column, "is missing" if missing[row] else f"{text!r} {why}")
        return values

    def choices(self, column: str, choices: Sequence[str]) -> NDArray[np.int64]:
        """Each cell as the number of a choice, whatever its case; -1 where it is empty."""
        said = self.texts(column)
        place = {one.lower(): number for number, one in enumerate(choices)} | {"": -1}
        found: NDArray[np.int64] = said.spread(
            np.array([place.get(one.lower(), -2) for one in said.distinct], np.int64)
        )
        bad = np.flatnonzero(found == -2)
        if bad.size:
            row = int(bad[0])
            raise self.fault(row, column, f"{said[row]!r} is none of {', '.join(choices)}")
        return found


def read_sheet(path: Path, known: Sequence[str] | None, command: str) -> Sheet:
    """Reads a CSV or Parquet file; with `known`, a column of another name is refused."""
    try:
        sheet = (
            _parquet(path, command) if path.suffix.lower() in PARQUET_SUFFIXES else _csv(path, known or ())
        )
    except OSError as error:
        raise BadInput(f"{path.name}: cannot be read: {error.strerror or error}") from error
    if known is not None:
        for name in sheet.columns:
            if name not in known:
                raise BadInput(f"{path.name}: unknown column {name!r}; columns are {', '.join(known)}")
    if not len(sheet):
        raise BadInput(f"{path.name}: has no rows")
    return sheet


def _csv(path: Path, known: Sequence[str]) -> Sheet:
    reader: Any = None
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            header = [name.lower() if name.lower() in known else name for name in header]
            _check_header(path, header)
            columns = [_Coding() for _ in header]
            lines: list[NDArray[np.int64]] = []
            for rows, at in _blocks(reader, path, len(header)):
                lines.append(np.array(at, np.int64))
                for coding, cells in zip(columns, zip(*rows, strict=True), strict=True):
                    coding.add(cells)
    except UnicodeDecodeError as error:
        raise BadInput(f"{path.name}: is not UTF-8 text (byte {error.start})") from error
    except csv.Error as error:
        raise BadInput(f"{path.name}, line {reader.line_num}: is not CSV: {error}") from error
    found = [coding.texts() for coding in columns]
    numbered = np.concatenate([np.empty(0, np.int64), *lines])
    # A row of nothing but commas is a blank one.
    said = np.zeros(len(numbered), np.bool_)
    for one in found:
        said |= one.where(bool)
    if not said.all():
        found, numbered = [one.take(said) for one in found], numbered[said]
    return Sheet(path.name, dict(zip(header, found, strict=True)), numbered)


def _blocks(reader: Any, path: Path, width: int) -> Iterator[tuple[list[list[str]], list[int]]]:
    """Rows with their line numbers, so many at once; blank lines are passed over."""
    while True:
        rows: list[list[str]] = []
        lines: list[int] = []
        for row in islice(reader, ROWS_AT_ONCE):
            rows.append(row)
            lines.append(reader.line_num)
        if not rows:
            return
        if set(map(len, rows)) != {width}:
            kept = [place for place, row in enumerate(rows) if any(cell.strip() for cell in row)]
            rows, lines = [rows[place] for place in kept], [lines[place] for place in kept]
            for row, line in zip(rows, lines, strict=True):
                if len(row) != width:
                    raise BadInput(
                        f"{path.name}, line {line}: has {len(row)} columns, the header has {width}"
                    )
        if rows:
            yield rows, lines


class _Coding:
    """A column that grows block by block, equal cells kept once."""

    def __init__(self) -> None:
        self._place: dict[str, int] = {}
        self._codes: list[NDArray[np.int32]] = []

    def add(self, cells: Sequence[str]) -> None:
        new = [one for one in dict.fromkeys(cells) if one not in self._place]
        self._place.update(zip(new, count(len(self._place)), strict=False))
        self._codes.append(np.fromiter(map(self._place.__getitem__, cells), np.int32, len(cells)))

    def texts(self) -> Texts:
        codes = np.concatenate([np.empty(0, np.int32), *self._codes])
        return Texts(codes, tuple(one.strip() for one in self._place))


def _check_header(path: Path, header: Sequence[str]) -> None:
    for sign, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(header) == 1 and sign in header[0]:
            raise BadInput(f"{path.name}, line 1: columns are separated by {name}: they must be by commas")
    if not header or not all(header):
        raise BadInput(f"{path.name}, line 1: the header is empty or has a column without a name")
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise BadInput(f"{path.name}, line 1: column {min(twice)!r} is there twice")


def _parquet(path: Path, command: str) -> Sheet:
    with extra_needed(command):
        import pyarrow as pa
        import pyarrow.parquet as pq
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise BadInput(f"{path.name}: is not a Parquet file of one table: {error}") from error
    for field in table.schema:
        if pa.types.is_nested(field.type):
            raise BadInput(
                f"{path.name}, column {field.name!r}: has {field.type} in its cells, not one value"
            )
    columns, rows = columns_of(table)
    return Sheet(path.name, columns, np.arange(1, rows + 1), "row")
