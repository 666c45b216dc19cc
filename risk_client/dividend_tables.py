"""Cash dividends of a table: a row for each, of an underlying, at a day, so much."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np

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


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
