"""An exchange-style JSON feed to market.data.raw: snapshots, numbered updates, trades, recovery from gaps.

Messages to us, each of one symbol, `sequence` counting that symbol's messages:

    {"type": "snapshot", "symbol": "AAA", "sequence": 7, "time_ns": 1, "bids": [["99.5", "10"]], "asks": []}
    {"type": "update",   "symbol": "AAA", "sequence": 8, "time_ns": 2, "bids": [["99.5", "0"]], "asks": []}
    {"type": "trade",    "symbol": "AAA", "sequence": 9, "time_ns": 3,
     "price": 99.5, "quantity": 4, "side": "buy"}
    {"type": "status",   "symbol": "AAA", "sequence": 10, "time_ns": 4, "state": "halted"}

Prices and quantities are numbers or decimal strings; a quantity is what is now at that price. From us:
`{"op": "subscribe", "symbols": ["AAA"]}`, which the exchange answers with a snapshot of each. A message of
any other type (a heartbeat) is let pass. What is numbered and comes before the snapshot is kept, up to a
limit, and taken after it. A number that skips means that something is lost: one row says so at once (the
beginning of a snapshot, flagged GAP), the symbol is subscribed anew, and nothing of it is passed on until its
snapshot.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import numpy as np

from book_service.adapters.errors import FeedError
from book_service.adapters.raw_columns import RawColumns, SymbolCounters
from protos.market.v1.market_pb2 import (
    EVENT_FLAG_FIRST,
    EVENT_FLAG_GAP,
    EVENT_FLAG_LAST,
    EVENT_KIND_BOOK_DELTA,
    EVENT_KIND_BOOK_SNAPSHOT,
    EVENT_KIND_STATUS,
    EVENT_KIND_TRADE,
    SIDE_BUY,
    SIDE_SELL,
    TRADING_STATE_AUCTION,
    TRADING_STATE_CLOSED,
    TRADING_STATE_HALTED,
    TRADING_STATE_OPEN,
)

WAITING_MAX = 10_000  # messages of one symbol kept for its snapshot
_SIDES: Final = {"buy": SIDE_BUY, "sell": SIDE_SELL}
_STATES: Final = {
    "open": TRADING_STATE_OPEN,
    "halted": TRADING_STATE_HALTED,
    "auction": TRADING_STATE_AUCTION,
    "closed": TRADING_STATE_CLOSED,
}
_NUMBERED: Final = frozenset({"snapshot", "update", "trade", "status"})
_COLUMNS: Final = (
    ("symbol_index", np.int64),
    ("kind", np.int32),
    ("source_time_ns", np.int64),
    ("price", np.float64),
    ("quantity", np.float64),
    ("side", np.int32),
    ("flags", np.uint32),
    ("state", np.int32),
)
_Row = tuple[int, int, int, float, float, int, int, int]  # as _COLUMNS
_INT64_MAX: Final = 2**63 - 1


@dataclass(slots=True)
class _Symbol:
    place: int
    last: int | None = None  # sequence of the last message passed on; None: waits for a snapshot
    waiting: deque[dict[str, Any]] = field(default_factory=deque)


@dataclass(frozen=True, slots=True)
class Taken:
    """What messages gave: events, and the symbols to subscribe to anew."""

    events: RawColumns
    resubscribe: tuple[str, ...]


@dataclass(slots=True)
class JsonFeed:
    """The state of one feed's subscriptions, over any number of connections."""

    source: str
    symbols: tuple[str, ...]
    waiting_max: int = WAITING_MAX
    _state: dict[str, _Symbol] = field(init=False)
    _counters: SymbolCounters = field(default_factory=SymbolCounters)
    _time_ns: int = 0

    def __post_init__(self) -> None:
        self._state = {symbol: _Symbol(place) for place, symbol in enumerate(self.symbols)}

    def subscription(self, symbols: Iterable[str] | None = None) -> str:
        """The message that asks for symbols; all of them by default."""
        return json.dumps({"op": "subscribe", "symbols": list(self.symbols if symbols is None else symbols)})

    def take(self, text: str) -> Taken:
        """Takes a message; FeedError names what is wrong with it, and then nothing has changed."""
        message = _parse(text)
        kind = message.get("type")
        if kind not in _NUMBERED:
            return self._taken([], ())
        symbol = message.get("symbol")
        state = self._state.get(symbol) if isinstance(symbol, str) else None
        if state is None:
            raise FeedError(f"symbol: {str(symbol)[:40]!r} was not subscribed to")
        sequence = _whole(message, "sequence")
        rows = _rows(message, state.place)
        if kind == "snapshot":
            return self._snapshot(state, symbol, sequence, rows)
        if state.last is None:
            if len(state.waiting) >= self.waiting_max:
                state.waiting.clear()
                return self._taken([], (self.symbols[state.place],))
            state.waiting.append(message)
            return self._taken([], ())
        if sequence <= state.last:
            return self._taken([], ())
        if sequence > state.last + 1:
            state.waiting.append(message)
            return self._taken([self._lose(state)], (self.symbols[state.place],))
        state.last = sequence
        return self._taken(rows, ())

    def disconnected(self) -> RawColumns:
        """Everything must be asked for anew; says of every symbol that was known that it no longer is."""
        lost = [self._lose(state) for state in self._state.values() if state.last is not None]
        for state in self._state.values():
            state.waiting.clear()
        return self._taken(lost, ()).events

    def _snapshot(self, state: _Symbol, symbol: Any, sequence: int, rows: list[_Row]) -> Taken:
        if state.last is not None and sequence <= state.last:
            return self._taken([], ())
        state.last = sequence
        waiting, state.waiting = state.waiting, deque()
        while waiting:
            message = waiting.popleft()
            number = _whole(message, "sequence")
            if number <= state.last:
                continue
            if number > state.last + 1:
                state.waiting = deque([message, *waiting])
                return self._taken([*rows, self._lose(state)], (symbol,))
            state.last = number
            rows = [*rows, *_rows(message, state.place)]
        return self._taken(rows, ())

    def _lose(self, state: _Symbol) -> _Row:
        state.last = None
        flags = EVENT_FLAG_FIRST | EVENT_FLAG_GAP
        return (state.place, EVENT_KIND_BOOK_SNAPSHOT, self._time_ns, 0.0, 0.0, 0, flags, 0)

    def _taken(self, rows: list[_Row], resubscribe: tuple[str, ...]) -> Taken:
        self._time_ns = max((row[2] for row in rows), default=self._time_ns)
        table = list(zip(*rows, strict=True)) or [()] * len(_COLUMNS)
        columns = {name: np.array(table[at], dtype) for at, (name, dtype) in enumerate(_COLUMNS)}
        columns["source_sequence"] = self._counters.number(columns["symbol_index"])
        return Taken(RawColumns(self.source, self.symbols, columns), resubscribe)


def _parse(text: str) -> dict[str, Any]:
    try:
        message = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise FeedError(f"no JSON: {error}") from error
    if not isinstance(message, dict):
        raise FeedError("the message is no JSON object")
    return message


def _no_constant(name: str) -> NoReturn:
    raise FeedError(f"{name} is no JSON number")


def _rows(message: dict[str, Any], place: int) -> list[_Row]:
    """A message's events; FeedError names the field that cannot be read."""
    time_ns = _whole(message, "time_ns")
    kind = message["type"]
    if kind == "status":
        state = _one_of(message, "state", _STATES)
        return [(place, EVENT_KIND_STATUS, time_ns, 0.0, 0.0, 0, 0, state)]
    if kind == "trade":
        price = _number(message.get("price"), "price", above_zero=True)
        quantity = _number(message.get("quantity"), "quantity")
        return [(place, EVENT_KIND_TRADE, time_ns, price, quantity, _one_of(message, "side", _SIDES), 0, 0)]
    event = EVENT_KIND_BOOK_DELTA if kind == "update" else EVENT_KIND_BOOK_SNAPSHOT
    rows: list[_Row] = [
        (place, event, time_ns, price, quantity, side, 0, 0)
        for name, side in (("bids", SIDE_BUY), ("asks", SIDE_SELL))
        for price, quantity in _levels(message, name)
    ]
    return rows if kind == "update" else _marked(rows, place, time_ns)


def _marked(rows: list[_Row], place: int, time_ns: int) -> list[_Row]:
    """A snapshot's rows with the first and the last marked; an empty book is one row of no quantity."""
    rows = rows or [(place, EVENT_KIND_BOOK_SNAPSHOT, time_ns, 0.0, 0.0, 0, 0, 0)]
    for at, flag in ((0, EVENT_FLAG_FIRST), (-1, EVENT_FLAG_LAST)):
        row = rows[at]
        rows[at] = (*row[:6], row[6] | flag, row[7])
    return rows


def _levels(message: dict[str, Any], name: str) -> Iterable[tuple[float, float]]:
    levels = message.get(name, [])
    if not isinstance(levels, list):
        raise FeedError(f"{name}: is no list")
    for at, level in enumerate(levels):
        if not isinstance(level, list) or len(level) != 2:
            raise FeedError(f"{name}[{at}]: is not [price, quantity]")
        price = _number(level[0], f"{name}[{at}] price", above_zero=True)
        yield price, _number(level[1], f"{name}[{at}] quantity")


def _whole(message: dict[str, Any], name: str) -> int:
    value = message.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _INT64_MAX:
        raise FeedError(f"{name}: {str(value)[:40]!r} is no whole number from 0 to 2^63 - 1")
    return value


def _number(value: object, name: str, *, above_zero: bool = False) -> float:
    try:
        number = (
            float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
        )
    except (ValueError, OverflowError):
        number = math.nan
    if not 0.0 <= number < math.inf or (above_zero and number == 0.0):
        raise FeedError(f"{name}: {str(value)[:40]!r} is no such number")
    return number


def _one_of(message: dict[str, Any], name: str, known: Mapping[str, int]) -> int:
    value = message.get(name)
    found = known.get(value) if isinstance(value, str) else None
    if found is None:
        raise FeedError(f"{name}: {str(value)[:40]!r} is none of {', '.join(known)}")
    return found
