"""NASDAQ TotalView-ITCH 5.0 to market.data.raw: level deltas, trades and trading states.

| ITCH message | event |
|---|---|
| A, F add · X cancel · D delete | book delta |
| E executed · C executed with price | trade at the order's (C: the given) price, then book delta |
| U replace | book delta of the old level, then of the new one |
| P trade with a hidden order · Q cross | trade |
| H trading action · h operational halt at this market · S end of system hours | status |

A C marked non-printable gives no trade: a later Q carries it. Side is the aggressor's, the opposite of the
resting order's; Nasdaq fills in P's since 2014 with B always, so there it says nothing. A broken trade (B)
takes back a print, which market.data.raw cannot say: it is counted. Other messages carry nothing that the
topic holds. After an ItchError the adapter's state is that of no moment of the stream: begin anew.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from book_service.adapters.errors import AdapterError, ItchError
from book_service.adapters.itch_messages import PRICE_SCALE, ItchDecoder, ItchMessages
from book_service.adapters.itch_orders import Changes, Cuts, OrderLevels, Starts
from book_service.adapters.raw_columns import RawColumns, SymbolCounters
from protos.market.v1.market_pb2 import (
    EVENT_FLAG_FIRST,
    EVENT_FLAG_LAST,
    EVENT_KIND_BOOK_DELTA,
    EVENT_KIND_BOOK_SNAPSHOT,
    EVENT_KIND_STATUS,
    EVENT_KIND_TRADE,
    TRADING_STATE_AUCTION,
    TRADING_STATE_CLOSED,
    TRADING_STATE_HALTED,
    TRADING_STATE_OPEN,
)

PIECE_BYTES = 1 << 20
_LOCATES = 1 << 16
_STATES = {
    b"H": TRADING_STATE_HALTED,
    b"P": TRADING_STATE_HALTED,
    b"Q": TRADING_STATE_AUCTION,
    b"T": TRADING_STATE_OPEN,
}
_FIRST_IN_MESSAGE = 0  # a trade comes before the change of the book that it makes
_ALL = -1  # shares of a cut that takes all that is left


@dataclass(slots=True)
class ItchCounts:
    """What did not become an event."""

    unknown_types: int = 0
    unknown_orders: int = 0
    broken_trades: int = 0


@dataclass(slots=True)
class ItchAdapter:
    """One session of one market. `midnight_ns` is the day's midnight in New York, since the Unix epoch."""

    source: str
    midnight_ns: int
    counts: ItchCounts = field(default_factory=ItchCounts)
    market: bytes = b"Q"  # the market code of operational halts that concern this feed
    _decoder: ItchDecoder = field(default_factory=ItchDecoder)
    _orders: OrderLevels = field(default_factory=OrderLevels)
    _counters: SymbolCounters = field(default_factory=SymbolCounters)
    _symbols: list[str] = field(default_factory=list)
    _place: NDArray[np.int64] = field(default_factory=lambda: np.full(_LOCATES, -1, np.int64))
    _action: dict[int, int] = field(default_factory=dict)  # locate -> state by trading actions
    _halted: set[int] = field(default_factory=set)  # locates under an operational halt
    _time_ns: int = 0

    def feed(self, piece: bytes) -> RawColumns:
        """The events of the messages that are whole by the end of `piece`."""
        messages = self._decoder.decode(piece)
        self.counts.unknown_types += messages.unknown
        self._learn_symbols(messages)
        starts, cuts = _starts(messages), _cuts(messages)
        try:
            changes = self._orders.apply(starts, cuts)
        except AdapterError as error:
            raise ItchError(self._decoder.offset, str(error)) from error
        self.counts.unknown_orders += changes.unknown
        self.counts.broken_trades += len(messages.rows.get(b"B", ()))
        times = messages.times_ns()
        parts = (
            _deltas(times, changes),
            *_trades(messages, times, cuts, changes),
            self._states(messages, times),
        )
        return self._columns(np.concatenate(parts))

    @property
    def bytes_taken(self) -> int:
        """Of the stream, so far."""
        return self._decoder.offset

    def finish(self) -> None:
        """Says that the stream is over; ItchError if it broke off within a message."""
        self._decoder.finish()

    def snapshot(self) -> RawColumns:
        """Every book in full as it stands, for consumers that join or have missed something."""
        locate, side, price, quantity = self._orders.levels()
        flags = np.zeros(len(locate), np.uint32)
        edge = np.flatnonzero(np.diff(locate, prepend=-1))
        flags[edge] |= EVENT_FLAG_FIRST
        flags[np.append(edge[1:], len(locate))[: len(edge)] - 1] |= EVENT_FLAG_LAST
        index = self._place[locate]
        columns: dict[str, NDArray[Any]] = {
            "symbol_index": index,
            "kind": np.full(len(locate), EVENT_KIND_BOOK_SNAPSHOT, np.int32),
            "source_time_ns": np.full(len(locate), self.midnight_ns + self._time_ns, np.int64),
            "source_sequence": self._counters.number(index),
            "price": price / PRICE_SCALE,
            "quantity": quantity.astype(np.float64),
            "side": side.astype(np.int32),
            "flags": flags,
        }
        return RawColumns(self.source, tuple(self._symbols), columns)

    def _learn_symbols(self, messages: ItchMessages) -> None:
        for kind in (b"R", b"A", b"F", b"P", b"Q", b"H", b"h"):
            rows = messages.rows.get(kind)
            if rows is None:
                continue
            locates = rows["locate"].astype(np.int64)
            new, first = np.unique(locates, return_index=True)
            fresh = self._place[new] < 0
            for locate, row in zip(new[fresh].tolist(), first[fresh].tolist(), strict=True):
                self._place[locate] = len(self._symbols)
                self._symbols.append(_symbol(bytes(rows["stock"][row]), locate, self._symbols))

    def _states(self, messages: ItchMessages, times: NDArray[np.int64]) -> NDArray[Any]:
        """Trading states, message by message: there are few."""
        said: list[tuple[int, bytes, NDArray[Any]]] = []
        for kind in (b"H", b"h", b"S"):
            rows = messages.rows.get(kind, ())
            said.extend((int(messages.places[kind][at]), kind, row) for at, row in enumerate(rows))
        said.sort(key=lambda entry: entry[0])
        found = [
            (place, int(times[place]), locate, state)
            for place, kind, row in said
            for locate, state in self._meaning(kind, row)
        ]
        events = _empty(len(found))
        if found:
            place, time, locate, state = np.array(found, np.int64).T
            events["moment"], events["time"], events["locate"] = place * 4 + _FIRST_IN_MESSAGE, time, locate
            events["kind"], events["state"] = EVENT_KIND_STATUS, state
        return events

    def _meaning(self, kind: bytes, row: NDArray[Any]) -> Iterator[tuple[int, int]]:
        """(locate, state) of everything that a message of kind S, H or h says."""
        locate = int(row["locate"])
        if kind == b"S":
            if row["event"] == b"E":
                known = np.flatnonzero(self._place >= 0).tolist()
                yield from ((each, TRADING_STATE_CLOSED) for each in known)
            return
        if kind == b"H":
            state = _STATES.get(bytes(row["state"]))
            if state is None:
                return
            self._action[locate] = state
        elif row["market"] == self.market:
            (self._halted.add if row["action"] == b"H" else self._halted.discard)(locate)
        else:
            return
        yield (
            locate,
            TRADING_STATE_HALTED if locate in self._halted else self._action.get(locate, TRADING_STATE_OPEN),
        )

    def _columns(self, events: NDArray[Any]) -> RawColumns:
        events = _taken(events, np.argsort(events["moment"], kind="stable"))
        if len(events):
            self._time_ns = int(events["time"].max())
        index = self._place[events["locate"]]
        known = index >= 0
        if not known.all():
            events, index = events[known], index[known]
        columns: dict[str, NDArray[Any]] = {
            "symbol_index": index,
            "kind": events["kind"],
            "source_time_ns": events["time"] + self.midnight_ns,
            "source_sequence": self._counters.number(index),
            "price": events["price"] / PRICE_SCALE,
            "quantity": events["quantity"].astype(np.float64),
            "side": events["side"],
            "state": events["state"],
        }
        return RawColumns(self.source, tuple(self._symbols), columns)


def replay(path: Path, adapter: ItchAdapter, piece_bytes: int = PIECE_BYTES) -> Iterator[RawColumns]:
    """Events of a BinaryFILE, piece by piece; one that ends in .gz is unpacked on the way."""
    opened: Any = gzip.open if path.suffix == ".gz" else Path.open
    with opened(path, "rb") as file:
        while piece := _read(file, piece_bytes, adapter):
            events = adapter.feed(piece)
            if len(events):
                yield events
    adapter.finish()


def _read(file: BinaryIO, piece_bytes: int, adapter: ItchAdapter) -> bytes:
    try:
        return file.read(piece_bytes)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ItchError(adapter.bytes_taken, f"the packed file breaks off or is damaged: {error}") from error


_EVENT = np.dtype(
    [
        ("moment", np.int64),  # place of the message times 4, plus the place within it
        ("time", np.int64),
        ("locate", np.int64),
        ("kind", np.int32),
        ("price", np.int64),
        ("quantity", np.int64),
        ("side", np.int32),
        ("state", np.int32),
    ]
)


def _empty(rows: int) -> NDArray[Any]:
    return np.zeros(rows, _EVENT)


def _taken(events: NDArray[Any], order: NDArray[np.intp]) -> NDArray[Any]:
    """Events in another order; as plain bytes, since NumPy copies a record with fields field by field."""
    taken: NDArray[Any] = events.view(f"V{_EVENT.itemsize}")[order].view(_EVENT)
    return taken


def _symbol(stock: bytes, locate: int, taken: list[str]) -> str:
    text = stock.decode("latin-1").rstrip(" \0")
    if not text.isascii() or not text.isprintable() or not text or text in taken:
        return f"#{locate}"  # what the feed calls it is no name of its own
    return text


def _stacked(messages: ItchMessages, kinds: bytes) -> tuple[list[NDArray[Any]], Any, NDArray[np.intp]]:
    """Rows and places of several types, and the order that puts them as they came in the stream."""
    present = [bytes([code]) for code in kinds if bytes([code]) in messages.rows]
    rows = [messages.rows[kind] for kind in present]
    places = np.concatenate([np.empty(0, np.int64), *(messages.places[kind] for kind in present)])
    return rows, places, np.argsort(places, kind="stable")


def _column(rows: list[NDArray[Any]], name: str, dtype: Any, missing: int = 0) -> NDArray[Any]:
    parts = [
        part[name].astype(dtype) if name in (part.dtype.names or ()) else np.full(len(part), missing, dtype)
        for part in rows
    ]
    return np.concatenate([np.empty(0, dtype), *parts])


def _starts(messages: ItchMessages) -> Starts:
    rows, places, order = _stacked(messages, b"AFU")
    added = [part for part in rows if "new_ref" not in (part.dtype.names or ())]
    replaced = [part for part in rows if "new_ref" in (part.dtype.names or ())]
    refs = (_column(added, "ref", np.uint64), _column(replaced, "new_ref", np.uint64))
    _, cut_places, cut_order = _stacked(messages, b"ECXDU")
    replaces = np.full(len(places), -1, np.int64)
    count = sum(len(part) for part in replaced)
    if count:
        # The replaced orders' rows in `_cuts`: each replace is there at its own place.
        replaces[-count:] = np.searchsorted(cut_places[cut_order], places[-count:])
    return Starts(
        place=places[order],
        ref=np.concatenate(refs)[order],
        locate=_column(rows, "locate", np.int64)[order],
        side=(_column(rows, "side", "S1") == b"S").astype(np.int64)[order],
        price=_column(rows, "price", np.int64)[order],
        shares=_column(rows, "shares", np.int64)[order],
        replaces=replaces[order],
    )


def _cuts(messages: ItchMessages) -> Cuts:
    rows, places, order = _stacked(messages, b"ECXDU")
    # Of a replace `shares` is the new order's.
    parts = [
        np.full(len(part), _ALL, np.int64)
        if "new_ref" in (part.dtype.names or ())
        else _column([part], "shares", np.int64, _ALL)
        for part in rows
    ]
    shares = np.concatenate([np.empty(0, np.int64), *parts])
    return Cuts(places[order], _column(rows, "ref", np.uint64)[order], shares[order])


def _deltas(times: NDArray[np.int64], changes: Changes) -> NDArray[Any]:
    events = _empty(len(changes.moment))
    events["moment"], events["time"], events["locate"] = (
        changes.moment,
        times[changes.moment >> 2],
        changes.locate,
    )
    events["kind"], events["price"] = EVENT_KIND_BOOK_DELTA, changes.price
    events["quantity"], events["side"] = changes.quantity, changes.side
    return events


def _trades(
    messages: ItchMessages, times: NDArray[np.int64], cuts: Cuts, changes: Changes
) -> Iterator[NDArray[Any]]:
    """Prints: of displayed orders (E, C), of hidden ones (P), of crosses (Q)."""
    for kind in (b"E", b"C"):
        rows = messages.rows.get(kind)
        if rows is None:
            continue
        at = np.searchsorted(cuts.place, messages.places[kind])
        events = _prints(messages.places[kind], times, changes.cut_locate[at])
        events["price"] = changes.cut_price[at] if kind == b"E" else rows["price"]
        events["quantity"], events["side"] = changes.cut_shares[at], 1 - changes.cut_side[at]
        shown = (changes.cut_locate[at] >= 0) & (changes.cut_shares[at] > 0)
        yield events[shown if kind == b"E" else shown & (rows["printable"] == b"Y")]
    for kind in (b"P", b"Q"):
        rows = messages.rows.get(kind)
        if rows is None:
            continue
        events = _prints(messages.places[kind], times, rows["locate"])
        events["price"], events["quantity"] = rows["price"], rows["shares"]
        if kind == b"P":
            events["side"] = rows["side"] != b"S"
        yield events[(rows["shares"] > 0) & (rows["price"] > 0)]


def _prints(places: NDArray[np.intp], times: NDArray[np.int64], locate: NDArray[Any]) -> NDArray[Any]:
    events = _empty(len(places))
    events["moment"], events["time"] = places * 4 + _FIRST_IN_MESSAGE, times[places]
    events["locate"], events["kind"] = locate, EVENT_KIND_TRADE
    return events
