"""Depth of one instrument as numbers: levels with what stands up to each. No terminal, no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from protos.book.v1.book_pb2 import Book
from protos.market.v1.market_pb2 import TradingState

_STATE = "TRADING_STATE_"


@dataclass(frozen=True, slots=True)
class Level:
    """One price with all that rests there; `up_to_here` counts the better levels in."""

    price: float  # currency
    price_ticks: int
    quantity: int
    orders: int
    up_to_here: int


@dataclass(frozen=True, slots=True)
class Ladder:
    """A book's two sides, best first."""

    symbol: str
    tick_size: float
    decimals: int  # that every price of this tick size needs
    time_ns: int
    state: str  # empty: not told
    as_of: str  # the last log record that the book contains
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]

    @property
    def mid(self) -> float | None:
        """Between the best prices, currency."""
        return (self.bids[0].price + self.asks[0].price) / 2 if self.bids and self.asks else None

    @property
    def spread_ticks(self) -> int | None:
        """From the best bid to the best ask."""
        return self.asks[0].price_ticks - self.bids[0].price_ticks if self.bids and self.asks else None

    @property
    def imbalance(self) -> float | None:
        """Of all shown: 1 when only bids are there, -1 when only asks."""
        bid, ask = (side[-1].up_to_here if side else 0 for side in (self.bids, self.asks))
        return (bid - ask) / (bid + ask) if bid + ask else None

    @property
    def deepest(self) -> int:
        """The larger side's quantity."""
        return max((side[-1].up_to_here for side in (self.bids, self.asks) if side), default=0)

    def price_text(self, price: float) -> str:
        """A price with the digits that its tick size needs."""
        return f"{price:,.{self.decimals}f}"

    def time_text(self) -> str:
        """The book's own time, UTC; empty before its first message."""
        if not self.time_ns:
            return ""
        return f"{datetime.fromtimestamp(self.time_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC"


def ladder_of(book: Book) -> Ladder:
    """Reads a message of book_service."""
    tick = book.tick_size
    sides = (
        _levels(tick, book.bid_price_ticks, book.bid_quantity, book.bid_orders),
        _levels(tick, book.ask_price_ticks, book.ask_quantity, book.ask_orders),
    )
    origin = book.as_of
    state = TradingState.Name(book.state).removeprefix(_STATE).lower()
    return Ladder(
        symbol=book.symbol,
        tick_size=tick,
        decimals=_decimals(tick),
        time_ns=book.time_ns,
        state="" if state == "unspecified" else state,
        as_of=f"{origin.topic} {origin.partition}@{origin.offset}" if origin.topic else "",
        bids=sides[0],
        asks=sides[1],
    )


def body_of(ladder: Ladder) -> dict[str, Any]:
    """For JSON."""
    return {
        "symbol": ladder.symbol,
        "tick_size": ladder.tick_size,
        "time_ns": ladder.time_ns,
        "state": ladder.state,
        "as_of": ladder.as_of,
        "mid": ladder.mid,
        "spread_ticks": ladder.spread_ticks,
        "imbalance": ladder.imbalance,
        "bids": [_entry(level) for level in ladder.bids],
        "asks": [_entry(level) for level in ladder.asks],
    }


def rows_of(ladder: Ladder) -> list[dict[str, Any]]:
    """For CSV and Parquet: bids, then asks, best first."""
    return [
        {"symbol": ladder.symbol, "side": name, "level": number, **_entry(level)}
        for name, side in (("bid", ladder.bids), ("ask", ladder.asks))
        for number, level in enumerate(side, 1)
    ]


def _levels(
    tick: float, prices: Sequence[int], quantities: Sequence[int], orders: Sequence[int]
) -> tuple[Level, ...]:
    levels: list[Level] = []
    total = 0
    for price, quantity, count in zip(prices, quantities, orders, strict=True):
        total += quantity
        levels.append(Level(price * tick, price, quantity, count, total))
    return tuple(levels)


def _decimals(tick: float) -> int:
    exponent = Decimal(repr(tick)).normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _entry(level: Level) -> dict[str, Any]:
    return {
        "price": level.price,
        "price_ticks": level.price_ticks,
        "quantity": level.quantity,
        "orders": level.orders,
        "up_to_here": level.up_to_here,
    }
