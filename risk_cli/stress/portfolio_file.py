"""A desk's positions from CSV or Parquet: a table of `risk_client.positions`, with the file's places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risk_cli.refusals import BadInput
from risk_cli.sheets import Sheet, read_sheet
from risk_client.faults import TableFaults
from risk_client.positions import COLUMNS, Position, Positions, joined, read_positions, spots


@dataclass(frozen=True, slots=True)
class Desk:
    """Positions, and the files that they stand in; None where no file names them."""

    positions: Positions
    sheets: tuple[Sheet | None, ...]
    sheet: NDArray[np.int8]  # (P,) into `sheets`

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, row: int) -> Position:
        """One row as a record."""
        return self.positions[row]

    def take(self, rows: NDArray[Any]) -> Desk:
        """The same with these rows alone, given by place or by flag."""
        return Desk(self.positions.take(rows), self.sheets, self.sheet[rows])

    def place(self, row: int) -> str:
        """Where a row stands, for complaints."""
        sheet = self.sheets[self.sheet[row]]
        return "the underlyings" if sheet is None else sheet.place(int(self.positions.source[row]))

    def fault(self, row: int, column: str, reason: str) -> BadInput:
        """A complaint about one cell of a row."""
        return BadInput(f"{self.place(row)}, column {column}: {reason}")


def read_portfolio(path: Path, command: str = "stress") -> Desk:
    """All positions, in the order of the file."""
    sheet = read_sheet(path, COLUMNS, command)
    try:
        return _of(read_positions(sheet.columns, len(sheet)), sheet)
    except TableFaults as found:
        raise sheet.faults(found) from None


def spot_desk(names: Sequence[str], quantity: float) -> Desk:
    """Plain positions in underlyings, one each, that no file names."""
    return _of(spots(names, quantity), None)


def both(first: Desk, second: Desk) -> Desk:
    """The rows of two desks, one after the other."""
    sheet = np.concatenate([first.sheet, second.sheet + np.int8(len(first.sheets))])
    return Desk(joined(first.positions, second.positions), (*first.sheets, *second.sheets), sheet)


def _of(positions: Positions, sheet: Sheet | None) -> Desk:
    return Desk(positions, (sheet,), np.zeros(len(positions), np.int8))
