"""Cash dividends as callers give them: of a book, by underlying and day; of options, by years from today."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from risk_client.columns import Texts, columns_of, numbers, texts
from risk_client.faults import Faults, TableFaults, needs
from risk_client.tables import refused

COLUMNS = ("underlying", "ex_date", "amount")
_DAY_NS = 86_400 * 1_000_000_000


def dividends_of(table: Any, underlyings: tuple[str, ...]) -> wire.PortfolioDividends:
    """The dividends of a caller's table that are of these underlyings; InvalidRequest names column and row.

    `ex_date` is a day, from whose beginning (UTC) shares trade without the dividend; `amount` is currency per
    unit of the underlying.
    """
    columns, rows = columns_of(table)
    for name in COLUMNS:
        if name not in columns:
            raise refused(name, f"is no column of the dividends; they are {', '.join(COLUMNS)}")
    faults = Faults(rows)
    names, days = texts(columns["underlying"]), texts(columns["ex_date"])
    faults.add(names.where(lambda one: not one), "underlying", lambda _: "is missing")
    faults.add(
        days.where(lambda one: _day(one) is None),
        "ex_date",
        lambda row: f"{days[row]!r} is no date (YYYY-MM-DD)" if days[row] else "is missing",
    )
    amount, wrong = numbers(columns["amount"])
    said = texts(columns["amount"]) if wrong.any() else Texts.of([""] * rows)
    faults.add(wrong, "amount", lambda row: f"{said[row]!r} is not a number")
    faults.add(np.isnan(amount), "amount", lambda _: "is missing")
    sound = (amount >= 0.0) & np.isfinite(amount)
    faults.add(needs(amount, sound), "amount", lambda row: f"must be 0 or more, got {amount[row]:g}")
    try:
        faults.settle()
    except TableFaults as found:
        raise found.as_request() from None
    place = {name: number for number, name in enumerate(underlyings)}
    held = names.where(place.__contains__)
    since = [(_day(one) or date(1970, 1, 1)).toordinal() for one in days.distinct]
    day = days.spread(np.array(since, np.int64) - date(1970, 1, 1).toordinal())
    index = names.spread(np.array([place.get(one, 0) for one in names.distinct], np.uint32))
    message = wire.PortfolioDividends()
    packing.write(message, "underlying_index", index[held])
    packing.write(message, "ex_time_ns", day[held] * _DAY_NS)
    packing.write(message, "amount", amount[held])
    return message


def option_dividends(
    given: Any, paid_by: Any = None
) -> tuple[wire.DividendColumns, NDArray[np.uint32] | None]:
    """Dividends of options, and which each row has (None: all have the same); refuses by name.

    `given` are pairs of (years from today, amount per unit) for every row; or a mapping from names to such
    pairs, and `paid_by` says the name of each row. A name that is not in the mapping pays nothing.
    """
    by_name = isinstance(given, Mapping)
    if by_name and paid_by is None:
        raise refused("paid_by", "is missing: it says which of the dividends each row has")
    if paid_by is not None and not by_name:
        raise refused("dividends", "must be a mapping from what paid_by says to pairs of (years, amount)")
    schedules = {str(name): pairs for name, pairs in given.items()} if by_name else {"": given}
    found = [
        _pairs(f"dividends[{name!r}]" if by_name else "dividends", schedules[name]) for name in schedules
    ]
    pairs = np.concatenate([np.empty((0, 2)), *found])
    columns = wire.DividendColumns()
    packing.write(
        columns, "schedule", np.repeat(np.arange(len(found)), [len(one) for one in found]).astype("u4")
    )
    packing.write(columns, "ex_date", pairs[:, 0])
    packing.write(columns, "amount", pairs[:, 1])
    if not by_name:
        return columns, None
    said = texts(columns_of({"paid_by": np.atleast_1d(np.asarray(paid_by))})[0]["paid_by"])
    number = {name: place for place, name in enumerate(schedules)}
    return columns, said.spread(np.array([number.get(one, len(found)) for one in said.distinct], np.uint32))


def _pairs(field: str, given: Any) -> NDArray[np.float64]:
    """Rows of years and amounts."""
    try:
        pairs = np.array(list(given), np.float64)
    except (TypeError, ValueError, OverflowError):
        pairs = np.empty(1)
    if not pairs.size:
        return np.empty((0, 2))
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise refused(field, "needs pairs of (years from today, amount)")
    wrong = ~(np.isfinite(pairs).all(axis=1) & (pairs[:, 1] >= 0.0))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        years, amount = pairs[row].tolist()
        raise refused(
            field, f"needs finite years and an amount of 0 or more, not {years:g} and {amount:g}", row
        )
    return pairs


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
