"""CSV and Parquet files as columns of text; every complaint names file, row and column."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from risk_cli.extras import extra_needed
from risk_cli.refusals import BadInput

PARQUET_SUFFIXES = (".parquet", ".pq")


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table of text cells; `places` names each row as the file's reader would find it."""

    file: str
    columns: Mapping[str, Sequence[str]]
    places: Sequence[str]

    def __len__(self) -> int:
        return len(self.places)

    def fault(self, row: int, column: str, reason: str) -> BadInput:
        """A complaint about one cell."""
        return BadInput(f"{self.file}, {self.places[row]}, column {column}: {reason}")

    def text(self, row: int, column: str) -> str:
        """A cell without surrounding blanks; empty if the column is not there."""
        return self.columns[column][row] if column in self.columns else ""

    def number(self, row: int, column: str, default: float | None = None) -> float:
        """A finite number; an empty cell is `default`, or a complaint without one."""
        text = self.text(row, column)
        if not text:
            if default is None:
                raise self.fault(row, column, "is missing")
            return default
        try:
            value = float(text)
        except ValueError:
            raise self.fault(row, column, f"{text!r} is not a number") from None
        if not math.isfinite(value):
            raise self.fault(row, column, f"{text!r} is not a finite number")
        return value

    def choice(self, row: int, column: str, choices: Sequence[str]) -> str:
        """A cell that is empty or one of `choices`, whatever its case."""
        text = self.text(row, column)
        for choice in choices:
            if text.lower() == choice.lower():
                return choice
        if text:
            raise self.fault(row, column, f"{text!r} is none of {', '.join(choices)}")
        return ""


def read_sheet(path: Path, known: Sequence[str] | None, command: str) -> Sheet:
    """Reads a CSV or Parquet file; with `known`, a column of another name is refused."""
    try:
        sheet = _parquet(path, command) if path.suffix.lower() in PARQUET_SUFFIXES else _csv(path)
    except OSError as error:
        raise BadInput(f"{path.name}: cannot be read: {error.strerror or error}") from error
    if known is not None:
        for name in sheet.columns:
            if name not in known:
                raise BadInput(f"{path.name}: unknown column {name!r}; columns are {', '.join(known)}")
    if not len(sheet):
        raise BadInput(f"{path.name}: has no rows")
    return sheet


def _csv(path: Path) -> Sheet:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header)
            rows: list[list[str]] = []
            places: list[str] = []
            for row in reader:
                if not any(cell.strip() for cell in row):
                    continue
                if len(row) != len(header):
                    raise BadInput(
                        f"{path.name}, line {reader.line_num}: has {len(row)} columns, "
                        f"the header has {len(header)}"
                    )
                rows.append([cell.strip() for cell in row])
                places.append(f"line {reader.line_num}")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path.name}: is not UTF-8 text (byte {error.start})") from error
    except csv.Error as error:
        raise BadInput(f"{path.name}, line {reader.line_num}: is not CSV: {error}") from error
    cells = list(zip(*rows, strict=True)) if rows else [()] * len(header)
    return Sheet(path.name, dict(zip(header, cells, strict=True)), places)


def _check_header(path: Path, header: Sequence[str]) -> None:
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
        raise BadInput(f"{path.name}: is not a Parquet file: {error}") from error
    columns = {name: tuple(_cell(v) for v in table[name].to_pylist()) for name in table.column_names}
    return Sheet(path.name, columns, [f"row {number + 1}" for number in range(table.num_rows)])


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.date().isoformat()
    if isinstance(value, date):
        return value.isoformat()
    return str(value).strip()
