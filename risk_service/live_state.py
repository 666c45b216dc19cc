"""What the logs have made: the market, portfolios and fills, and the books measured by them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from protos.risk.v1.risk_pb2 import Portfolio
from risk_service.analytics_bars import BarBook
from risk_service.desk_books import DeskBooks
from risk_service.executions import Executions
from risk_service.live_snapshot import LastNumber, LiveSnapshot, Measured
from risk_service.market_events import MarketEvents, Tick
from risk_service.market_file import MarketFile
from risk_service.market_state import LOGGED_AT_ANY_TIME, MarketState
from risk_service.portfolios import PortfolioStore
from risk_service.positions import Positions
from risk_service.service_metrics import ServiceMetrics
from risk_service.valuation import Book
from risk_service.vol_marks import VolMarks
from service_kit.kafka.records import Message, Record

LOG = logging.getLogger(__name__)

Headers = tuple[tuple[str, bytes], ...]


@dataclass(slots=True)
class LiveState:
    """Changed by the live loop's thread alone; only the store may be read by others."""

    store: PortfolioStore
    positions: Positions
    books: DeskBooks
    metrics: ServiceMetrics
    market: MarketState = field(default_factory=MarketState)
    market_file: MarketFile | None = None
    bars: BarBook = field(default_factory=BarBook)
    marks: VolMarks = field(default_factory=VolMarks)
    headers: Headers = ()  # of the newest market record: a number's trace goes on from there

    def take_market(self, messages: Iterable[Message[MarketEvents | Tick]]) -> None:
        """Applies records of the market."""
        ticks = 0
        for message in messages:
            ticks += self._apply(message)
        self.metrics.took(ticks)

    def take_fills(self, messages: Iterable[Message[Executions]]) -> None:
        """Applies fills."""
        for message in messages:
            record = message.record
            self.books.filled(self.positions.apply(message.value, record.partition, record.offset))

    def take_portfolios(self, messages: Iterable[Message[Portfolio | None]]) -> list[str]:
        """Applies changes of portfolios; the names of those that are gone."""
        for message in messages:
            if message.value is None:
                self.store.apply_delete(message.record.key, message.record.offset)
            else:
                self.store.apply(message.value, message.record.offset)
        return self.books.take(self.store.all(), self.positions, self.market)

    def measure(self) -> list[Book]:
        """Works out what has changed; the books whose numbers are others now."""
        with self.metrics.measure_seconds.time():
            return self.books.measure(self.market, self.marks)

    def touch_all(self) -> None:
        """Every book is to be measured anew."""
        for book in self.books.books.values():
            for name in book.held.underlyings:
                self.books.touch(name)

    def save_when_due(self, now: float) -> None:
        """Keeps the market in its file, if there is one."""
        if self.market_file is not None:
            self.market_file.save_when_due(self.market, now)

    def snapshot(
        self, last: Mapping[str, LastNumber], is_due: Callable[[str], bool], away: str, silent_ns: int
    ) -> LiveSnapshot:
        """Copies of it all, with the last numbers of books that nothing has changed since."""
        market = self.market.copy()
        market.away, market.silent_ns = away, silent_ns
        marks = self.marks.copy()
        measured: dict[str, Measured] = {}
        for name, number in last.items():
            if len(number.pnl) and not self.books.is_dirty(number.book) and not is_due(name):
                measured[name] = number.at(market, marks, self.books.risk.engine)
        return LiveSnapshot(
            market=market,
            marks=marks,
            books=dict(self.books.books),
            measured=measured,
            fills=self.positions.all_quantities(),
            executions_snapshot_id=self.positions.snapshot_id(),
            bars=self.bars.history(),
        )

    def close(self) -> None:
        """Waits for what is being written."""
        if self.market_file is not None:
            self.market_file.close()

    def _apply(self, message: Message[MarketEvents | Tick]) -> int:
        """How many events of this record count."""
        record = message.record
        if self.market_file is not None:
            if self.market_file.is_known(record):
                return 0
            self.market_file.note(record)
        self.headers = record.headers
        passed_over = self.market.from_the_future
        changed = self.market.apply(
            message.value, record.key, record.partition, record.offset, _logged_ns(record)
        )
        if self.market.from_the_future > passed_over:
            self.metrics.from_the_future.inc()
            LOG.warning("%s[%d] at %d is of the future", record.topic, record.partition, record.offset)
            return 0
        self.bars.take(record.key, message.value)
        if changed:
            self.books.touch(record.key)
        return len(message.value)


def _logged_ns(record: Record) -> int:
    """When the broker took it, in nanoseconds since 1970."""
    # Below 0 where the broker tells none.
    return record.timestamp_ms * 1_000_000 if record.timestamp_ms >= 0 else LOGGED_AT_ANY_TIME
