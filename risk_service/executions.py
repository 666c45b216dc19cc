"""What orders.executed says of fills, checked record by record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protos import packing
from protos.market.v1.market_pb2 import SIDE_BUY, SIDE_SELL
from protos.orders.v1.orders_pb2 import REPORT_KIND_TRADE, ExecutionBatch

TICK_SIZE_MAX = 1e9  # beyond it, and beyond the quantity below, it is a mistake of units
FILL_QUANTITY_MAX = 1e12

_COLUMNS = (
    *("symbol_index", "kind", "account", "maker_account", "side", "price_ticks", "quantity"),
    *("reason", "order_id", "maker_id", "taker_id", "leaves", "maker_leaves", "sequence", "time_ns"),
)


@dataclass(frozen=True, slots=True)
class Fill:
    """A signed quantity (bought above 0) at a price, in the currency of the symbol."""

    account: int
    symbol: str
    quantity: float
    price: float


@dataclass(frozen=True, slots=True)
class Executions:
    """One record of orders.executed: its fills, and which of its partition's reports it holds."""

    fills: tuple[Fill, ...]  # two of each trade
    rows: tuple[int, ...]  # of the trades
    first_report: int
    reports: int
    numbered: bool  # by a venue, whose reports are counted through a partition

    def fills_from(self, report: int) -> tuple[Fill, ...]:
        """The fills of that report of the partition and of those after it."""
        before = sum(self.first_report + row < report for row in self.rows)
        return self.fills[2 * before :]


def decode_fills(value: bytes) -> Executions:
    """A record of orders.executed; what is no batch raises ValueError naming column and row."""
    batch = ExecutionBatch.FromString(value)
    rows = packing.row_count(batch, _COLUMNS)
    packing.names(batch, "symbols", "symbol_index", rows)
    if len(batch.tick_size) != len(batch.symbols):
        raise ValueError(f"tick_size has {len(batch.tick_size)} entries for {len(batch.symbols)} symbols")
    for place, tick in enumerate(batch.tick_size):
        if not 0.0 < tick <= TICK_SIZE_MAX:
            raise ValueError(f"tick_size[{place}] must be positive and at most {TICK_SIZE_MAX:g}, not {tick}")
    columns = {name: packing.column(batch, name, rows) for name in _COLUMNS[:7]}
    trades = np.flatnonzero(columns["kind"] == REPORT_KIND_TRADE)
    _check(columns, trades)
    fills = []
    for row in trades.tolist():
        place = int(columns["symbol_index"][row])
        symbol, tick = batch.symbols[place], batch.tick_size[place]
        price = int(columns["price_ticks"][row]) * tick
        bought = float(columns["quantity"][row]) * (1.0 if columns["side"][row] == SIDE_BUY else -1.0)
        fills.append(Fill(int(columns["account"][row]), symbol, bought, price))
        fills.append(Fill(int(columns["maker_account"][row]), symbol, -bought, price))
    return Executions(
        tuple(fills), tuple(trades.tolist()), batch.first_report, rows, batch.HasField("origin")
    )


def _check(columns: dict[str, NDArray[np.generic]], trades: NDArray[np.intp]) -> None:
    """Of trades: which side bought, and a quantity that can be one."""
    sides = columns["side"][trades]
    for row in trades[(sides != SIDE_BUY) & (sides != SIDE_SELL)].tolist():
        raise ValueError(f"side[{row}] is neither buy nor sell")
    quantities = columns["quantity"][trades].astype(np.float64)
    for row in trades[~((quantities > 0.0) & (quantities <= FILL_QUANTITY_MAX))].tolist():
        raise ValueError(f"quantity[{row}] must be positive and at most {FILL_QUANTITY_MAX:g}")
