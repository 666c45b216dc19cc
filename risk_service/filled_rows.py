"""What a message says of positions made of fills: made when a fill changes them, priced at each tick."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from protos import packing
from protos.risk.v1.risk_pb2 import (
    ROW_STATUS_INVALID_INPUT,
    ROW_STATUS_NO_MARKET_DATA,
    FilledPositions,
    RiskMetrics,
)
from risk_service.market_state import MISSING, MarketState
from risk_service.positions import Positions
from risk_service.valuation import Book
from risk_service.vol_marks import is_osi

Floats = NDArray[np.float64]

# Units of the underlying in one option of an OSI symbol that no position gives the terms of.
OSI_MULTIPLIER = 100.0


@dataclass(slots=True)
class _Rows:
    """A book's fills; arrays have one entry per account and symbol."""

    book: Book
    symbols: list[str]
    slots: NDArray[np.int64]
    multiplier: Floats
    quantity: Floats
    average: Floats
    realised: Floats  # in currency
    outside: NDArray[np.bool_]  # held, and no position of the book: nothing says its terms
    message: FilledPositions  # but for what hangs on the market

    @classmethod
    def of(cls, book: Book, positions: Positions) -> _Rows:
        held = positions.of(book.held.name)
        symbols = [symbol for _, symbol, _ in held]
        rows = book.held.rows_of_fills()
        multiplier = np.array([_multiplier(book, symbol, rows) for symbol in symbols])
        quantity, average, realised = (
            np.array([getattr(one, name) for _, _, one in held])
            for name in ("quantity", "average_price", "realised")
        )
        # What is flat and has earned nothing is worth nothing, whatever its terms.
        realised = np.where(realised != 0.0, realised * multiplier, 0.0)
        known = np.array([symbol in rows for symbol in symbols], np.bool_)
        message = FilledPositions(symbol=symbols)
        packing.write(message, "account", [account for account, _, _ in held])
        packing.write(message, "quantity", quantity)
        packing.write(message, "average_price", average)
        packing.write(message, "realised", realised)
        return cls(
            *(book, symbols, np.full(len(symbols), MISSING), multiplier, quantity, average, realised),
            *((quantity != 0.0) & ~known, message),
        )

    def add_to(self, metrics: RiskMetrics, market: MarketState, snapshot_id: str) -> None:
        """Writes them at the market's prices."""
        if (self.slots == MISSING).any():
            self.slots = market.find(self.symbols)
        prices = market.spots(self.slots)
        unrealised = np.where(
            self.quantity != 0.0, self.quantity * (prices - self.average) * self.multiplier, 0.0
        )
        unknown = np.isnan(self.realised) | np.isnan(unrealised) | self.outside
        if unknown.any():
            self._name(metrics, unknown)
        metrics.filled.CopyFrom(self.message)
        packing.write(metrics.filled, "unrealised", unrealised)
        metrics.filled.executions_snapshot_id = snapshot_id
        metrics.pnl_realised = float(np.nansum(self.realised))
        metrics.pnl_unrealised = float(np.nansum(unrealised))

    def _name(self, metrics: RiskMetrics, unknown: NDArray[np.bool_]) -> None:
        """Fills that are not in the risk, or not in the P&L's sums, as rows after the portfolio's own."""
        named = {fault.symbol for fault in metrics.faults}
        no_terms = np.isnan(self.multiplier) | self.outside
        for row in np.flatnonzero(unknown).tolist():
            if self.symbols[row] not in named:
                status = ROW_STATUS_INVALID_INPUT if no_terms[row] else ROW_STATUS_NO_MARKET_DATA
                metrics.faults.add(row=metrics.positions + row, symbol=self.symbols[row], status=status)


@dataclass(slots=True)
class FilledRows:
    """The fills of every book as of its last change; a fill makes its book anew, so books tell them apart."""

    _rows: dict[str, _Rows] = field(default_factory=dict)

    def add_to(self, metrics: RiskMetrics, market: MarketState, book: Book, positions: Positions) -> None:
        """Writes a book's fills, what they have earned, and what they would earn at the market's prices."""
        rows = self._rows.get(book.held.name)
        if rows is None or rows.book is not book:
            rows = self._rows[book.held.name] = _Rows.of(book, positions)
        if rows.symbols:
            rows.add_to(metrics, market, positions.snapshot_id())

    def forget(self, name: str) -> None:
        """Drops what is kept of a book that is no more."""
        self._rows.pop(name, None)


def _multiplier(book: Book, symbol: str, rows: dict[str, int]) -> float:
    """The position's in that symbol, else what symbols of its kind have; NaN where nothing tells it."""
    row = rows.get(symbol)
    if row is not None:
        return float(book.held.multiplier[row])
    if symbol in book.held.underlyings:
        return 1.0
    return OSI_MULTIPLIER if is_osi(symbol) else math.nan
