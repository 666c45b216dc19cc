"""How results leave a command: a table to read, JSON, CSV, or a Parquet file."""

from __future__ import annotations

import csv
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from risk_cli.extras import extra_needed
from risk_cli.refusals import BadInput, CannotDo

Rows = Sequence[Mapping[str, Any]]
ByColumn = Mapping[str, Sequence[Any]]  # the same, for answers of very many rows
# A pipe has no width of its own: wide enough that no cell of ours is cut.
PIPE_WIDTH = 180


@dataclass(frozen=True, slots=True)
class Form:
    """What the caller asked for: `--json`, `--csv`, `--parquet PATH`, or none for a table."""

    json: bool = False
    csv: bool = False
    parquet: Path | None = None

    def __post_init__(self) -> None:
        if self.json and self.csv:
            raise BadInput("--json and --csv: only one can go to stdout")
        check_writable("--parquet", self.parquet)


def show(
    form: Form,
    command: str,
    tables: Sequence[RenderableType],
    body: object | Callable[[], object],
    rows: Rows | ByColumn,
    columns: Sequence[str] = (),
) -> None:
    """Writes an answer: `tables` to read, `body` as JSON, `rows` as CSV and Parquet.

    `columns` are the rows' keys, to be given where there may be no rows. A `body` that is a function is
    called only where JSON is asked for.
    """
    if form.parquet is not None:
        write_parquet(form.parquet, command, rows, columns)
    if form.json:
        json.dump(
            without_nan(body() if callable(body) else body),
            sys.stdout,
            indent=2,
            ensure_ascii=False,
            allow_nan=False,
        )
        sys.stdout.write("\n")
    elif form.csv:
        _write_csv(rows, columns)
    else:
        console = Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH, highlight=False)
        for table in tables:
            console.print(table)


def plain_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1
) -> RenderableType:
    """A titled table whose first `left` columns are words and whose others are numbers."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return Group(Text(title, style="bold"), table, "")


def money(value: float) -> str:
    """Currency without cents, thousands apart."""
    if not math.isfinite(value):
        return "—"
    return f"{value:,.0f}" if round(value) else "0"


def without_nan(value: Any) -> Any:
    """The same with None for numbers that JSON has no way to write."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(one) for one in value]
    return value


def rows_of(columns: ByColumn) -> list[dict[str, Any]]:
    """Columns as one mapping for each row."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _write_csv(rows: Rows | ByColumn, columns: Sequence[str]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if isinstance(rows, Mapping):
        writer.writerow(rows)
        writer.writerows(zip(*(map(cell, column) for column in rows.values()), strict=True))
        return
    names = list(columns or rows[0])
    writer.writerow(names)
    writer.writerows([cell(row[name]) for name in names] for row in rows)


def cell(value: object) -> object:
    """As CSV has it: repr keeps every digit of a double; an empty cell stands for what is not known."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return repr(value)
    # A spreadsheet would take it for a formula; names of files come from anywhere.
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def check_writable(option: str, path: Path | None) -> None:
    """Refuses a file that cannot be written, before the work for it is done."""
    if path is None:
        return
    if path.is_dir():
        raise CannotDo(f"{option}: {path} is a folder")
    if not path.parent.is_dir():
        raise CannotDo(f"{option}: there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise CannotDo(f"{option}: {path} cannot be written")


def expect_apart(outputs: Mapping[str, Path | None], inputs: Mapping[str, Path | None]) -> None:
    """Refuses to write over a file that is read."""
    for option, path in outputs.items():
        for other, given in inputs.items():
            if path and given and path.exists() and given.exists() and path.samefile(given):
                raise BadInput(f"{option}: {path} is {other}, and would be written over")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file beside `path` to write, which takes its place when it is whole; else CannotDo names the file."""
    if path.exists() and not path.is_file():
        yield path  # a pipe or a device
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield beside
        os.replace(beside, path)
    except OSError as error:
        raise CannotDo(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        beside.unlink(missing_ok=True)


def write_parquet(path: Path, command: str, rows: Rows | ByColumn, columns: Sequence[str] = ()) -> None:
    """Writes rows as a Parquet file, one column per key."""
    with extra_needed(command):
        import pyarrow as pa
        import pyarrow.parquet as pq
    if isinstance(rows, Mapping):
        table = pa.table({name: list(column) for name, column in rows.items()})
    elif rows:
        table = pa.Table.from_pylist([dict(row) for row in rows])
    else:
        table = pa.table({name: [] for name in columns})
    with whole_file(path) as beside:
        pq.write_table(table, beside)
