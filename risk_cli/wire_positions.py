"""Positions of a file as a request takes them."""

from __future__ import annotations

from collections.abc import Sequence

from protos.risk.v1 import risk_pb2 as wire
from risk_cli.refusals import BadInput
from risk_cli.sheets import Sheet
from risk_cli.stress.book import Layout
from risk_cli.stress.market_file import Dividends
from risk_cli.stress.portfolio_file import Desk
from risk_client import portfolios
from risk_client.columns import Texts
from risk_client.dividend_tables import COLUMNS as DIVIDEND_COLUMNS
from risk_client.dividend_tables import dividends_of
from risk_client.faults import TableFaults


def portfolio_message(layout: Layout, name: str, dividends: Dividends) -> wire.Portfolio:
    """The positions of a layout with the dividends of what it holds; its groups are the layout's cells."""
    cells = tuple(f"{number}" for number in range(len(layout.cells)))
    try:
        message = portfolios.portfolio_message(
            layout.positions.positions, name, layout.underlyings, Texts(layout.cell.astype("int32"), cells)
        )
    except TableFaults as found:
        raise _told(found, layout.positions) from None
    paid = [(symbol, day.isoformat(), amount) for symbol in dividends for day, amount in dividends[symbol]]
    if paid:
        table = dict(zip(DIVIDEND_COLUMNS, map(list, zip(*paid, strict=True)), strict=True))
        message.dividends.CopyFrom(dividends_of(table, layout.underlyings))
    return message


def instruments_message(desk: Desk, underlyings: Sequence[str]) -> wire.Positions:
    """Rows in their order; each must be on one of a stored portfolio's `underlyings`."""
    try:
        return portfolios.positions_message(desk.positions, tuple(underlyings))
    except TableFaults as found:
        raise _told(found, desk) from None


def _told(found: TableFaults, desk: Desk) -> BadInput:
    """The faults by the places of the one file that they stand in."""
    sheet: Sheet | None = desk.sheets[0]
    return BadInput(str(found)) if sheet is None else sheet.faults(found)
