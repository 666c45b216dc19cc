"""A book as several, one for each of its groups, so that each group has P&L of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risk_service.held_dividends import HeldDividends
from risk_service.valuation import Book
from risk_service.vol_marks import Contracts

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_PER_ROW = (
    *("underlying_index", "kind", "quantity", "multiplier", "expiry_time_ns"),
    *("strike", "is_call", "american", "group_index"),
)
_PER_CONTRACT = ("underlying", "call", "put", "expiry_time_ns", "strike", "american", "last_ex_ns")


@dataclass(frozen=True, slots=True)
class BookParts:
    """A book's parts, each with the underlyings that it holds; a cell is one underlying of one part."""

    book: Book
    parts: tuple[Book, ...]
    underlying: Integers  # of each cell, in the book's order
    group: Integers  # of each cell

    @classmethod
    def by_group(cls, book: Book) -> BookParts:
        """One part for each group that has positions."""
        held = book.held
        groups = np.unique(held.group_index) if held.groups else np.zeros(1, np.int64)
        if len(groups) < 2:
            return cls.whole(book)
        parts, underlying, group = [], [], []
        for number in groups.tolist():
            rows = np.flatnonzero(held.group_index == number)
            kept = np.unique(held.underlying_index[rows])
            parts.append(_part(book, rows, kept))
            underlying.append(kept)
            group.append(np.full(len(kept), number))
        return cls(book, tuple(parts), np.concatenate(underlying), np.concatenate(group))

    @classmethod
    def whole(cls, book: Book) -> BookParts:
        """The book as it is."""
        count, held = len(book.held.underlyings), book.held
        group = int(held.group_index[0]) if len(held) and held.groups else 0
        return cls(book, (book,), np.arange(count), np.full(count, group))

    @property
    def more_cells(self) -> int:
        """How many more there are than the whole book has."""
        return len(self.underlying) - len(self.book.held.underlyings)

    def by_underlying(self, of_cells: Floats) -> Floats:
        """Sums of the cells' numbers, one per underlying of the book."""
        return np.bincount(self.underlying, of_cells, len(self.book.held.underlyings)).astype(np.float64)

    def sums_by_group(self, of_cells: Floats) -> Floats:
        """Sums of the cells' numbers, one per group that the book names."""
        return np.bincount(self.group, of_cells, len(self.book.held.groups)).astype(np.float64)


def _part(book: Book, rows: Integers, kept: Integers) -> Book:
    """These positions alone, on these underlyings."""
    held, stated = book.held, book.held.dividends
    columns: dict[str, Any] = {name: getattr(held, name)[rows] for name in _PER_ROW}
    columns["underlying_index"] = np.searchsorted(kept, columns["underlying_index"])
    mine = np.isin(stated.underlying, kept)
    dividends = HeldDividends(
        np.searchsorted(kept, stated.underlying[mine]), stated.ex_time_ns[mine], stated.amount[mine]
    )
    own = replace(
        held,
        underlyings=tuple(held.underlyings[one] for one in kept.tolist()),
        symbols=tuple(held.symbols[row] for row in rows.tolist()),
        dividends=dividends,
        **columns,
    )
    options = np.flatnonzero(own.is_option)
    at = np.searchsorted(book.option_rows, rows[options])
    contracts = Contracts(
        **{name: getattr(book.contracts, name)[at] for name in _PER_CONTRACT},
        dividends=dividends if len(dividends) else None,
        place=own.underlying_index[options],
    )
    return Book(own, book.underlying_slots[kept], options, np.flatnonzero(~own.is_option), contracts)
