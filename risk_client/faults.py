"""What is wrong with a table, gathered: the first rows by name, all of them by number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risk_client.errors import InvalidRequest, Violation

NAMED_MAX = 20  # rows that are named; the rest are counted


@dataclass(frozen=True, slots=True)
class Fault:
    """One cell that is wrong; rows count from 0."""

    row: int
    column: str
    why: str


class TableFaults(Exception):
    """A table that cannot be used: its first faults, and how many rows have one."""

    def __init__(self, named: tuple[Fault, ...], rows: int) -> None:
        super().__init__(f"{rows} rows are wrong, first {named[0].column}[{named[0].row}]: {named[0].why}")
        self.named = named
        self.rows = rows

    def as_request(self) -> InvalidRequest:
        """The same as an error of the client."""
        violations = tuple(Violation(f"{one.column}[{one.row}]", one.why) for one in self.named)
        more = f" (and {self.rows - 1:,} more rows are wrong)" if self.rows > 1 else ""
        return InvalidRequest(f"{violations[0].field}: {violations[0].why}{more}", violations)


class Faults:
    """Gathers faults column by column; of each row the first one counts."""

    def __init__(self, rows: int) -> None:
        self._wrong = np.zeros(rows, np.bool_)
        self._named: list[Fault] = []

    def add(self, wrong: NDArray[np.bool_], column: str, why: Callable[[int], str]) -> None:
        """Rows that are wrong in a column; `why` says it of one row."""
        rows = np.flatnonzero(wrong & ~self._wrong)
        self._wrong[rows] = True
        self._named.extend(Fault(row, column, why(row)) for row in rows[:NAMED_MAX].tolist())

    @property
    def sound(self) -> NDArray[np.bool_]:
        """The rows of which nothing is known to be wrong."""
        return ~self._wrong

    def settle(self) -> None:
        """Raises TableFaults if any row is wrong."""
        if self._named:
            named = sorted(self._named, key=lambda one: one.row)[:NAMED_MAX]
            raise TableFaults(tuple(named), int(np.count_nonzero(self._wrong)))


def needs(values: NDArray[Any], test: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Rows where a number is there and does not pass."""
    failed: NDArray[np.bool_] = ~test & ~np.isnan(values)
    return failed
