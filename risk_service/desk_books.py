"""Which books are live, what of them must be worked out again, and which of them an engine refuses."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import gpu_kernels as gk
from risk_service.desk_risk import BookNumbers, DeskRisk
from risk_service.live_risk import RiskCalculator
from risk_service.market_state import MarketState
from risk_service.portfolios import HeldPortfolio
from risk_service.positions import Positions, with_fills
from risk_service.valuation import Book
from risk_service.vol_marks import VolMarks

# Symbols from which on the market is looked through for those that no portfolio names any more.
SYMBOLS_MIN = 4_096


@dataclass(slots=True)
class DeskBooks:
    """The books of the live loop over one `DeskRisk`. Used by one thread."""

    risk: DeskRisk
    books: dict[str, Book] = field(default_factory=dict)
    _taken: Iterable[HeldPortfolio] = ()
    _put: dict[str, HeldPortfolio] = field(default_factory=dict)  # as it was put, without fills
    _filled: set[str] = field(default_factory=set)
    _dirty: set[str] = field(default_factory=set)  # underlyings
    _refused: dict[str, str] = field(default_factory=dict)  # books and why
    _new: set[str] = field(default_factory=set)  # books of which nothing has been told
    _stale: bool = False  # the desk does not hold the books at hand
    _second: int = -1
    _symbols_max: int = SYMBOLS_MIN

    def touch(self, underlying: str) -> None:
        """An underlying, or an option on it, has changed."""
        self._dirty.add(underlying)

    def is_dirty(self, book: Book) -> bool:
        """Whether its last numbers are not those of the market as it is."""
        current = self.books.get(book.held.name) is book
        return not current or self._stale or not self._dirty.isdisjoint(book.held.underlyings)

    def take(self, held: Iterable[HeldPortfolio], positions: Positions, market: MarketState) -> list[str]:
        """These portfolios and their fills are the live ones from now on; names of those that are gone."""
        if held is self._taken and not self._filled:
            return []
        self._taken = held
        now = {portfolio.name: portfolio for portfolio in held}
        gone = [name for name in self.books if name not in now]
        for name in gone:
            del self.books[name], self._put[name]
            self._refused.pop(name, None)
            self._stale = True
        for name, portfolio in now.items():
            if self._put.get(name) is not portfolio or name in self._filled:
                same = self._put.get(name) is portfolio
                quantities = positions.quantities(name)
                self._put[name] = portfolio
                self._take_book(
                    name, with_fills(portfolio, quantities) if quantities else portfolio, market, same
                )
        self._filled.clear()
        self._free_slots(market)
        return gone

    def _free_slots(self, market: MarketState) -> None:
        """Symbols that portfolios named once, and of which the market never spoke, must not pile up."""
        if market.symbols > self._symbols_max:
            market.free(slots for book in self.books.values() for slots in book.slots())
            self._symbols_max = max(SYMBOLS_MIN, 2 * market.symbols)

    def _take_book(self, name: str, held: HeldPortfolio, market: MarketState, same: bool) -> None:
        """A book's positions as they are now."""
        old = self.books.get(name)
        if same and old is not None and held.symbols == old.held.symbols:
            book = replace(old, held=held)
        else:
            book = Book.of(held, market)
        self.books[name] = book
        self._new.add(name)
        self._refused.pop(name, None)
        self._stale = True

    def filled(self, names: Iterable[str]) -> None:
        """Fills have changed what these portfolios hold; `take` takes that in."""
        self._filled.update(names)

    def measure(self, market: MarketState, marks: VolMarks) -> list[Book]:
        """Works out what has changed; the books whose numbers are others now."""
        if market.valuation_time_ns != self._second:
            self._dirty = set(self._names())
        self._dirty |= self.risk.awaited()
        # What is held of an underlying may have changed for one book: the others are told when it ticks.
        ticked = self._dirty
        if self._stale:
            self._dirty = self._dirty | self._hold()
        if not (self._dirty or self._new):
            return []
        self._second = market.valuation_time_ns
        try:
            self.risk.measure(market, marks, self._dirty)
        except gk.GpuKernelsError:
            # One book that the engine refuses must not cost the others their numbers.
            self._find_refused(market, marks)
            self._hold()
            self._dirty = set(self._names())
            self.risk.measure(market, marks, self._dirty)
        changed = [book for book in self.books.values() if self._to_tell(book, ticked)]
        self._dirty = set()
        self._new.clear()
        return changed

    def numbers(self, name: str) -> BookNumbers | str:
        """A book's numbers as they were measured last; a text is why there are none."""
        if name in self._refused:
            return self._refused[name]
        return self.risk.numbers(
            bisect_left(self.risk.desk.holders, name, key=lambda one: one.book.held.name)
        )

    def _to_tell(self, book: Book, ticked: set[str]) -> bool:
        return book.held.name in self._new or not ticked.isdisjoint(book.held.underlyings)

    def _names(self) -> Iterable[str]:
        return (name for book in self.books.values() for name in book.held.underlyings)

    def _hold(self) -> set[str]:
        """Lays the books out; the underlyings of which something has changed."""
        self._stale = False
        return self.risk.hold(
            [book for name, book in sorted(self.books.items()) if name not in self._refused]
        )

    def _find_refused(self, market: MarketState, marks: VolMarks) -> None:
        alone = RiskCalculator(self.risk.engine, self.risk.scenarios, 0.975)
        for name, book in self.books.items():
            if name in self._refused:
                continue
            try:
                alone.measure(market, book, marks)
            except gk.GpuKernelsError as refusal:
                self._refused[name] = f"not measured: {refusal}"
