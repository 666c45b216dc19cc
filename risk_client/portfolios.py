"""Positions of a table as the messages that the service takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos import osi, packing
from protos.risk.v1 import risk_pb2 as wire
from risk_client.columns import Texts, columns_of
from risk_client.dividend_tables import dividends_of
from risk_client.faults import Fault, Faults, TableFaults
from risk_client.positions import COLUMNS, FUTURE, KINDS, OPTION, SPOT, Positions, read_positions
from risk_client.tables import refused

UNGROUPED = "(no group)"  # rows without a group, beside others that have one
_KIND_OF = {
    OPTION: wire.INSTRUMENT_KIND_OPTION,
    FUTURE: wire.INSTRUMENT_KIND_FUTURE,
    SPOT: wire.INSTRUMENT_KIND_SPOT,
}
# What the service calls the columns of a caller's table.
CALLERS_NAMES = {
    "underlying_index": "underlying",
    "group_index": "group",
    "expiry_time_ns": "expiry",
    "is_call": "right",
    "american": "exercise",
}


def positions_of(table: Any) -> Positions:
    """Positions of a caller's table; raises InvalidRequest naming the table's columns and rows."""
    columns, rows = columns_of(table)
    for name in columns:
        if name not in COLUMNS:
            raise refused(name, f"is no column of positions; they are {', '.join(COLUMNS)}")
    if not rows:
        raise refused("symbol", "the table has no rows")
    try:
        return read_positions(columns, rows)
    except TableFaults as faults:
        raise faults.as_request() from None


def portfolio_of(table: Any, name: str | None = None, dividends: Any = None) -> wire.Portfolio:
    """A caller's table as a portfolio; its name may stand in the column portfolio, the same in all rows.

    `dividends` is a table with the columns underlying, ex_date and amount; what is not held is passed over.
    """
    positions = positions_of(table)
    named = positions.portfolio
    if name is None:
        if len(named.distinct) > 1:
            row = int(np.flatnonzero(named.codes)[0])
            why = f"is {named[row]!r} after {named[0]!r}: put one portfolio at a time, or give name="
            raise refused("portfolio", why, row)
        name = named[0]
    try:
        message = portfolio_message(positions, name, named_in(positions), positions.group)
    except TableFaults as faults:
        raise faults.as_request() from None
    if dividends is not None:
        message.dividends.CopyFrom(dividends_of(dividends, tuple(message.underlyings)))
    return message


def trade_of(table: Any, underlyings: tuple[str, ...]) -> wire.Positions:
    """A caller's table as positions in the underlyings of a stored portfolio."""
    positions = positions_of(table)
    try:
        return positions_message(positions, underlyings)
    except TableFaults as faults:
        raise faults.as_request() from None


def named_in(positions: Positions) -> tuple[str, ...]:
    """The underlyings, in the order in which rows first name them."""
    return positions.underlying.named().distinct


def portfolio_message(
    positions: Positions, name: str, underlyings: tuple[str, ...], groups: Texts
) -> wire.Portfolio:
    """Positions in their order. Raises TableFaults by `source` rows."""
    grouped = any(groups.distinct)
    message = wire.Portfolio(
        portfolio=name,
        underlyings=underlyings,
        # The service has no group without a name.
        groups=[one or UNGROUPED for one in groups.distinct] if grouped else (),
        positions=positions_message(positions, underlyings),
    )
    if grouped:
        packing.write(message.positions, "group_index", groups.codes.astype(np.uint32))
    return message


def positions_message(positions: Positions, underlyings: tuple[str, ...]) -> wire.Positions:
    """Positions in their order, on `underlyings`. Raises TableFaults by `source` rows."""
    place = {name: number for number, name in enumerate(underlyings)}
    _check(positions, place)
    names = positions.underlying
    index = np.array([place.get(one, 0) for one in names.distinct], np.uint32)
    kinds = np.array([_KIND_OF[number] for number in range(len(KINDS))], np.int32)
    is_option = positions.kind == OPTION
    usual = np.array([osi.is_american(one) for one in positions.root.distinct], np.bool_)
    american = np.where(positions.american < 0, positions.root.spread(usual), positions.american == 1)
    expires = ~np.isnat(positions.expiry_day)
    seconds = positions.expiry_day.astype("datetime64[s]").astype(np.int64) + osi.CLOSE_UTC_S
    message = wire.Positions(symbol=_symbols(positions, is_option))
    columns: dict[str, NDArray[Any]] = {
        "underlying_index": names.spread(index),
        "kind": kinds[positions.kind],
        "quantity": positions.quantity,
        "multiplier": positions.multiplier,
        "expiry_time_ns": np.where(expires, seconds, 0) * 1_000_000_000,
        "strike": positions.strike,
        "is_call": positions.is_call,
        "american": american & is_option,
    }
    for name, values in columns.items():
        packing.write(message, name, values)
    return message


def _check(positions: Positions, place: dict[str, int]) -> None:
    faults = Faults(len(positions))
    in_years = ~np.isnan(positions.expiry_years)
    faults.add(in_years, "expiry", lambda _: "must be a date for a service, not years")
    unknown = positions.underlying.where(lambda one: one not in place)
    for column, apart in (("underlying", True), ("symbol", False)):
        faults.add(
            unknown & (positions.named_apart == apart),
            column,
            lambda row: (
                f"{positions.underlying[row]} is no underlying of the portfolio, which has "
                + ", ".join(place)
            ),
        )
    try:
        faults.settle()
    except TableFaults as found:
        named = (Fault(int(positions.source[one.row]), one.column, one.why) for one in found.named)
        raise TableFaults(tuple(named), found.rows) from None


def _symbols(positions: Positions, is_option: NDArray[np.bool_]) -> list[str]:
    """The padded symbols of options, the underlyings of everything else."""
    symbol, name = positions.symbol, positions.underlying
    # Of a listed option the last 15 characters are what stands behind its root.
    padded = [f"{one[:-15].strip():<6}{one[-15:]}".upper() for one in symbol.distinct]
    codes = np.where(positions.listed, symbol.codes + np.int32(len(name.distinct)), name.codes)
    said = (*name.distinct, *padded)
    symbols = [said[code] for code in codes.tolist()]
    for row in np.flatnonzero(is_option & ~positions.listed).tolist():
        day = positions.expiry_day[row].item()
        is_call, strike = bool(positions.is_call[row]), float(positions.strike[row])
        symbols[row] = osi.symbol_of(positions.root[row], day, is_call, strike)
    return symbols
