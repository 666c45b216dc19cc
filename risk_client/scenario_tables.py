"""Scenarios of a table: a row for each, a column for each underlying."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.risk.v1 import risk_pb2 as wire
from risk_client.columns import Column, Floats, columns_of, numbers, texts
from risk_client.faults import Faults, TableFaults
from risk_client.scenarios import shocks
from risk_client.tables import refused

VOL_SUFFIX = ".vol"
DEFAULT = "default"  # the column that holds for underlyings without one of their own
DAYS_PER_YEAR = 365.0
_OTHERS = ("name", "rate", "elapsed_days", "weight")


def scenarios_of(table: Any, underlyings: tuple[str, ...]) -> wire.ScenarioColumns:
    """The scenarios of a caller's table for these underlyings; raises InvalidRequest naming column and row.

    Columns: one per underlying with its move as a simple return (-0.1: it falls by a tenth), `SYMBOL.vol`
    with the absolute change of its vol, `default` and `default.vol` for the underlyings without a column;
    `name`, `rate` (absolute change), `elapsed_days`, `weight`. Without `name` the index of pandas names them.
    """
    columns, rows = columns_of(table)
    if not rows:
        raise refused(next(iter(columns), "name"), "the table has no scenarios")
    _check_names(columns, underlyings)
    reading = _Reading(columns, rows)
    spot = np.stack([reading.move(one) for one in underlyings], axis=1)
    vol = np.stack([reading.number(_own(columns, one, VOL_SUFFIX), 0.0) for one in underlyings], axis=1)
    rate, days = reading.number("rate", 0.0), reading.number("elapsed_days", 0.0)
    weights = reading.number("weight", None) if "weight" in columns else None
    try:
        reading.faults.settle()
    except TableFaults as faults:
        raise faults.as_request() from None
    return shocks(
        np.log1p(spot),
        vol if vol.any() else None,
        rate if rate.any() else None,
        elapsed=days / DAYS_PER_YEAR if days.any() else 0.0,
        names=scenario_names(table),
        weights=weights,
    )


def scenario_names(table: Any) -> list[str]:
    """What the rows are called; numbers from 1 where they have no names."""
    columns, rows = columns_of(table)
    if "name" in columns:
        said = texts(columns["name"])
        return [said[row] or str(row + 1) for row in range(rows)]
    pandas = sys.modules.get("pandas")
    is_frame = pandas is not None and isinstance(table, pandas.DataFrame)
    if pandas is not None and is_frame and not isinstance(table.index, pandas.RangeIndex):
        return [str(one) for one in table.index]
    return [str(row + 1) for row in range(rows)]


def _own(columns: Mapping[str, Column], underlying: str, suffix: str = "") -> str:
    """The column that tells of an underlying: its own, else the default's."""
    return f"{underlying}{suffix}" if f"{underlying}{suffix}" in columns else f"{DEFAULT}{suffix}"


def _check_names(columns: Mapping[str, Column], underlyings: tuple[str, ...]) -> None:
    """Every underlying has a column; where a default stands in, no column may be a slip of the pen."""
    lacking = [one for one in underlyings if one not in columns]
    if lacking and DEFAULT not in columns:
        raise refused(lacking[0], f"is no column of the scenarios, and neither is {DEFAULT!r}")
    if DEFAULT not in columns and f"{DEFAULT}{VOL_SUFFIX}" not in columns:
        return  # moves of what is not held may stand in a table for several books
    held = {*underlyings, DEFAULT}
    for name in columns:
        if name.removesuffix(VOL_SUFFIX) not in held and name not in _OTHERS:
            raise refused(name, "is no underlying of the portfolio, where 'default' would stand in for it")


class _Reading:
    """Columns of scenarios as numbers, faults gathered."""

    def __init__(self, columns: Mapping[str, Column], rows: int) -> None:
        self._columns = columns
        self._rows = rows
        self.faults = Faults(rows)

    def move(self, underlying: str) -> Floats:
        """Simple returns of an underlying."""
        name = _own(self._columns, underlying)
        values = self.number(name, None)
        wrong: NDArray[np.bool_] = values <= -1.0
        self.faults.add(wrong, name, lambda row: f"{values[row]:g} is a fall by everything or more")
        return np.where(wrong, 0.0, values)

    def number(self, name: str, default: float | None) -> Floats:
        """A column of finite numbers; `default` where it is not there or a cell is empty."""
        if name not in self._columns:
            return np.full(self._rows, 0.0 if default is None else default)
        column = self._columns[name]
        values, wrong = numbers(column)
        said = texts(column) if wrong.any() else None
        self.faults.add(wrong, name, lambda row: f"{said[row] if said else ''!r} is not a number")
        self.faults.add(np.isinf(values), name, lambda row: f"{values[row]} is not a finite number")
        missing = np.isnan(values)
        if default is None:
            self.faults.add(missing, name, lambda _: "is missing")
        return np.where(missing, 0.0 if default is None else default, values)
