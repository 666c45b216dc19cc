"""Positions of a file as a request takes them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime

import numpy as np

from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from risk_cli.refusals import BadInput
from risk_cli.stress import osi
from risk_cli.stress.book import Layout
from risk_cli.stress.market_file import CLOSE_UTC
from risk_cli.stress.portfolio_file import Position

_KINDS = {
    "option": wire.INSTRUMENT_KIND_OPTION,
    "future": wire.INSTRUMENT_KIND_FUTURE,
    "spot": wire.INSTRUMENT_KIND_SPOT,
}


def portfolio_message(layout: Layout, name: str) -> wire.Portfolio:
    """The positions of a layout; its groups are the layout's cells."""
    message = wire.Portfolio(
        portfolio=name,
        underlyings=layout.underlyings,
        groups=[f"{number}" for number in range(len(layout.cells))],
        positions=_message(layout.positions, layout.underlyings),
    )
    packing.write(message.positions, "group_index", layout.cell)
    return message


def instruments_message(rows: Sequence[Position], underlyings: Sequence[str]) -> wire.Positions:
    """`rows` in their order; each must be on one of a stored portfolio's `underlyings`."""
    for one in rows:
        if one.underlying not in underlyings:
            raise BadInput(
                f"{one.place}, column {one.name_column}: {one.underlying} is no underlying of the portfolio, "
                f"which has {', '.join(underlyings)}"
            )
    return _message(rows, underlyings)


def _message(rows: Sequence[Position], underlyings: Sequence[str]) -> wire.Positions:
    place = {name: number for number, name in enumerate(underlyings)}
    american = [osi.is_american(one.root) if one.american is None else one.american for one in rows]
    message = wire.Positions(symbol=[_symbol(one) for one in rows])
    columns: dict[str, Sequence[object]] = {
        "underlying_index": [place[one.underlying] for one in rows],
        "kind": [_KINDS[one.kind] for one in rows],
        "quantity": [one.quantity for one in rows],
        "multiplier": [one.multiplier for one in rows],
        "expiry_time_ns": [_expiry_ns(one) for one in rows],
        "strike": [one.strike for one in rows],
        "is_call": [one.is_call for one in rows],
        "american": [flag and one.kind == "option" for flag, one in zip(american, rows, strict=True)],
    }
    for name, values in columns.items():
        packing.write(message, name, np.asarray(values))
    return message


def _symbol(position: Position) -> str:
    if position.kind != "option":
        return position.underlying
    return osi.symbol_of(position.root, _day(position), position.is_call, position.strike)


def _day(position: Position) -> date:
    if isinstance(position.expiry, date):
        return position.expiry
    raise BadInput(f"{position.place}, column expiry: must be a date with --server, not years")


def _expiry_ns(position: Position) -> int:
    if position.expiry is None:
        return 0
    return int(datetime.combine(_day(position), CLOSE_UTC, UTC).timestamp()) * 1_000_000_000
