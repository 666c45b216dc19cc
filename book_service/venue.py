"""Our own venue: order batches in, execution batches out, from the log alone.

One venue per partition of orders.incoming. A report's id is the record that caused it and the place in
that record's batch of reports, so the same log always gives the same ids.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from book_service.matching import ORDER_DTYPE, Controls, Instrument, MatchingEngine, SnapshotError
from book_service.order_events import OrderEvents
from protos import packing
from protos.book.v1.book_pb2 import Book
from protos.market.v1.market_pb2 import Origin
from protos.orders.v1.orders_pb2 import ExecutionBatch

_REPORT_COLUMNS = {
    "kind": "kind",
    "reason": "reason",
    "order_id": "order_id",
    "maker_id": "maker_id",
    "taker_id": "taker_id",
    "account": "account",
    "maker_account": "maker_account",
    "side": "side",
    "price": "price_ticks",
    "quantity": "quantity",
    "leaves": "leaves",
    "maker_leaves": "maker_leaves",
    "sequence": "sequence",
    "time": "time_ns",
}


def warm_up() -> None:
    """Compiles or loads the matching core now, so that no first order waits for it."""
    MatchingEngine(instruments=1).process(np.zeros(1, ORDER_DTYPE))


@dataclass(frozen=True, slots=True)
class Listed:
    """An instrument of our venue; prices are in its currency."""

    symbol: str
    tick_size: float
    reference_price: float | None = None
    multiplier: int = 1  # of a tick in the units of the controls' amounts, so that symbols add up

    def instrument(self) -> Instrument:
        """As the controls know it: in ticks."""
        reference = self.reference_price
        ticks = None if reference is None else round(reference / self.tick_size)
        return Instrument(self.symbol, self.multiplier, ticks)


@dataclass(frozen=True, slots=True)
class VenueState:
    """All that a venue needs to go on: its engine, and where in its log it is."""

    next_offset: int
    reports: int
    time_ns: int
    engine: bytes


@dataclass(slots=True)
class Venue:
    """The books of every instrument, as one partition's orders have made them."""

    listed: tuple[Listed, ...]
    controls: Controls | None = None
    _engine: MatchingEngine = field(init=False)
    _symbols: tuple[str, ...] = field(init=False)
    _place: dict[str, int] = field(init=False)
    _reports: int = 0
    _next_offset: int = 0
    _as_of: Origin = field(default_factory=Origin)
    _time_ns: int = 0

    def __post_init__(self) -> None:
        self._symbols = tuple(one.symbol for one in self.listed)
        self._place = {symbol: place for place, symbol in enumerate(self._symbols)}
        self._engine = MatchingEngine([one.instrument() for one in self.listed], self.controls)

    @classmethod
    def restored(
        cls, listed: tuple[Listed, ...], controls: Controls | None, state: VenueState, origin: Origin
    ) -> Venue:
        """A venue in a saved state, SnapshotError if it is none; `origin` is the last record covered."""
        venue = cls(listed, controls)
        engine = MatchingEngine.restore(state.engine)
        if engine.symbols != len(listed):
            raise SnapshotError(f"snapshot: it has {engine.symbols} symbols, the venue {len(listed)}")
        venue._engine = engine
        venue._reports, venue._next_offset, venue._time_ns = state.reports, state.next_offset, state.time_ns
        venue._as_of = origin
        return venue

    def state(self) -> VenueState:
        """What `restored` takes."""
        return VenueState(self._next_offset, self._reports, self._time_ns, self._engine.snapshot())

    @property
    def next_offset(self) -> int:
        """One past the last record that was applied."""
        return self._next_offset

    @property
    def reports(self) -> int:
        """How many reports the venue has made since its log began."""
        return self._reports

    @property
    def orders(self) -> int:
        """How many order messages the venue has taken since its log began."""
        return self._engine.sequence

    @property
    def time_ns(self) -> int:
        """The latest time that a message carried."""
        return self._time_ns

    def apply(self, events: OrderEvents, origin: Origin) -> ExecutionBatch:
        """Matches one batch and says what happened. Orders in unknown symbols are rejected, not lost."""
        # A symbol that we do not trade gets a place past the last one, which the core rejects by rule; all of
        # them share one, and the report keeps the batch's own name for it.
        unknown = len(self._symbols)
        places = np.array([self._place.get(symbol, unknown) for symbol in events.symbols], np.uint32)
        rows = events.rows.copy()
        rows["symbol"] = places[events.rows["symbol"]]
        before = self._engine.sequence
        reports = self._engine.process(rows)
        self._as_of, self._next_offset = origin, origin.offset + 1
        self._time_ns = max(self._time_ns, int(rows["time"].max()))
        batch = self._pack(events, reports, before)
        batch.origin.CopyFrom(origin)
        batch.first_report = self._reports
        self._reports += len(reports)
        return batch

    def book(self, symbol: str, levels: int) -> Book | None:
        """Depth of one instrument, best first; None for one that we do not trade."""
        place = self._place.get(symbol)
        if place is None:
            return None
        book = Book(
            symbol=symbol, tick_size=self.listed[place].tick_size, as_of=self._as_of, time_ns=self._time_ns
        )
        for side, rows in zip(("bid", "ask"), self._engine.depth(place, levels), strict=True):
            packing.write(book, f"{side}_price_ticks", rows["price"])
            packing.write(book, f"{side}_quantity", rows["quantity"].astype(np.int64))
            packing.write(book, f"{side}_orders", rows["orders"].astype(np.int64))
        return book

    def state_hash(self) -> str:
        """Names the logical state: equal after equal logs."""
        return self._engine.state_hash()

    def _pack(self, events: OrderEvents, reports: NDArray[np.void], before: int) -> ExecutionBatch:
        """Reports as columns, with a table of just the symbols that they are about."""
        strangers = [symbol for symbol in events.symbols if symbol not in self._place]
        names = [*self._symbols, *strangers]
        ticks = [*(one.tick_size for one in self.listed), *([0.0] * len(strangers))]
        present, index = np.unique(self._places(events, reports, before, strangers), return_inverse=True)
        batch = ExecutionBatch(symbols=[names[place] for place in present])
        packing.write(batch, "tick_size", [ticks[place] for place in present])
        packing.write(batch, "symbol_index", index)
        for name, column in _REPORT_COLUMNS.items():
            values = np.ascontiguousarray(reports[name])
            if name == "kind" or values.any():
                packing.write(batch, column, values)
        return batch

    def _places(
        self, events: OrderEvents, reports: NDArray[np.void], before: int, strangers: list[str]
    ) -> NDArray[np.int64]:
        """Each report's instrument; past the last one, the stranger that its order named."""
        places = reports["symbol"].astype(np.int64)
        if strangers:
            table = np.array([self._place.get(symbol, -1) for symbol in events.symbols])
            table[table < 0] = len(self._symbols) + np.arange(len(strangers))
            cause = (reports["sequence"] - np.uint64(before)).astype(np.int64)
            outside = places >= len(self._symbols)
            places[outside] = table[events.rows["symbol"][cause[outside]]]
        return places
