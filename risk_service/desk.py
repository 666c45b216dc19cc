"""All live books laid out by underlying, each contract once however many books hold it.

A contract is a call or a put. A call and a put of the same terms are one strike: they have one vol, and under
scenarios one of them tells the other's P&L (gpu_kernels.shared_book). With dividends to come they are two.

A cell is one underlying of one book. Cells are numbered book by book, in the order of the book's underlyings,
so that a book's numbers lie side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.shared_book import SharedPoints, SharedRows
from risk_service.desk_block import Block, Holder, Pairs
from risk_service.held_dividends import HeldDividends
from risk_service.valuation import Book
from risk_service.vol_marks import Contracts

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_STRIKE_TERMS = ("expiry_time_ns", "strike", "call", "put", "american", "last_ex_ns")


class Futures(NamedTuple):
    """Futures of all cells, underlying by underlying."""

    first: Integers  # of each block, and their number
    cell: Integers  # in the order of blocks
    expiry_time_ns: Integers
    size: Floats
    schedule: Integers  # of dividends, in those of the strikes


@dataclass(frozen=True, slots=True)
class Desk:
    """The live books, and their contracts sorted by underlying."""

    holders: tuple[Holder, ...]
    blocks: tuple[Block, ...]
    slots: Integers  # of the blocks
    first_cell: Integers  # of each book, and the number of cells at its end
    home: Integers  # of each cell: its place in the order of blocks
    strikes: Contracts
    strike_of: Integers  # of each contract
    is_call: NDArray[np.bool_]  # of each contract
    shared: SharedRows  # the blocks as kernels take them
    points: SharedPoints  # of all blocks, without spots
    futures: Futures

    @classmethod
    def of(cls, books: Sequence[Book], before: Desk | None = None) -> Desk:
        """Lays the books out; what the same cells hold as `before` is taken from there."""
        known = {} if before is None else {id(one.book): one for one in before.holders}
        holders = tuple(known.get(id(book)) or Holder.of(book) for book in books)
        first_cell = _edges([len(book.held.underlyings) for book in books])
        places: dict[int, list[tuple[int, int]]] = {}  # slot to (book, underlying of the book)
        for number, book in enumerate(books):
            for place, slot in enumerate(book.underlying_slots.tolist()):
                places.setdefault(slot, []).append((number, place))
        old = {} if before is None else {block.slot: block for block in before.blocks}
        blocks = [
            _block(slot, held_by, holders, first_cell, old.get(slot))
            for slot, held_by in sorted(places.items())
        ]
        return cls._joined(holders, blocks, first_cell)

    @classmethod
    def _joined(cls, holders: tuple[Holder, ...], blocks: list[Block], first_cell: Integers) -> Desk:
        """The blocks one after the other."""
        rows, contracts = _edges([len(b.strikes) for b in blocks]), _edges([len(b.contracts) for b in blocks])
        first_block_cell = _edges([len(b.cells) for b in blocks])
        cell = _join([b.cells for b in blocks], np.int64)
        home = np.empty(len(cell), np.int64)
        home[cell] = np.arange(len(cell))
        stated = HeldDividends.joined(holder.book.held.dividends for holder in holders)
        strikes = _strikes(stated, blocks)
        spots = np.concatenate([b.spots for b in blocks]) if blocks else np.zeros((0, 2))
        owned, gross = np.ascontiguousarray(spots.T)
        by_strike, by_contract = (
            _stacked([getattr(b, n) for b in blocks]) for n in ("by_strike", "by_contract")
        )
        sign = _join([b.sign for b in blocks], np.float64)
        return cls(
            holders=holders,
            blocks=tuple(blocks),
            slots=np.array([b.slot for b in blocks], np.int64),
            first_cell=first_cell,
            home=home,
            strikes=strikes,
            strike_of=_join(
                [b.strike_of + at for b, at in zip(blocks, rows.tolist(), strict=False)], np.int64
            ),
            is_call=_join([b.contracts["is_call"] for b in blocks], np.bool_),
            shared=SharedRows(rows, first_block_cell, cell, strikes.strike, sign, *by_strike),
            points=SharedPoints(
                np.zeros(0, np.int64), np.zeros(0), contracts, *by_contract, owned, owned, gross
            ),
            futures=_futures(stated, blocks, first_block_cell),
        )

    @property
    def books(self) -> tuple[Book, ...]:
        """In the order of their numbers."""
        return tuple(holder.book for holder in self.holders)

    @property
    def cells(self) -> int:
        """How many there are."""
        return int(self.first_cell[-1])

    def cells_of(self, book: int) -> slice:
        """The cells of a book, one per underlying in its own order."""
        return slice(int(self.first_cell[book]), int(self.first_cell[book + 1]))

    def where(self, cell: int) -> tuple[Block, int]:
        """The block of a cell, and its place among the block's cells."""
        home, first = int(self.home[cell]), self.shared.first_cell
        place = int(np.searchsorted(first, home, side="right")) - 1
        return self.blocks[place], home - int(first[place])


def _block(
    slot: int,
    held_by: list[tuple[int, int]],
    holders: Sequence[Holder],
    first_cell: Integers,
    old: Block | None,
) -> Block:
    cells = np.array([first_cell[number] + place for number, place in held_by], np.int64)
    contents = tuple(holders[number].contents[place] for number, place in held_by)
    if old is not None and old.contents == contents:
        return old if np.array_equal(old.cells, cells) else replace(old, cells=cells)
    number, place = held_by[0]
    name = holders[number].book.held.underlyings[place]
    return Block.of(name, slot, cells, [(holders[number], place) for number, place in held_by])


def _strikes(stated: HeldDividends, blocks: Sequence[Block]) -> Contracts:
    columns: dict[str, Any] = {name: _column(blocks, name) for name in _STRIKE_TERMS}
    underlying = np.repeat([b.slot for b in blocks], [len(b.strikes) for b in blocks]).astype(np.int64)
    if not len(stated):
        return Contracts(underlying=underlying, **columns)
    return Contracts(
        underlying=underlying, **columns, dividends=stated, place=stated.places(_column(blocks, "dividends"))
    )


def _column(blocks: Sequence[Block], name: str) -> NDArray[Any]:
    return np.concatenate([b.terms[name] for b in blocks]) if blocks else np.zeros(0)


def _stacked(pairs: Sequence[Pairs]) -> tuple[Integers, NDArray[np.int32], Floats, Floats]:
    return (
        _edges(_join([one.first[1:] - one.first[:-1] for one in pairs], np.int64)),
        _join([one.cell for one in pairs], np.int32),
        _join([one.weight for one in pairs], np.float64),
        _join([one.other for one in pairs], np.float64),
    )


def _futures(stated: HeldDividends, blocks: Sequence[Block], first_cell: Integers) -> Futures:
    own = [b.futures for b in blocks]
    return Futures(
        _edges([len(one) for one in own]),
        _join([one["cell"] + at for one, at in zip(own, first_cell.tolist(), strict=False)], np.int64),
        _join([one["expiry_time_ns"] for one in own], np.int64),
        _join([one["size"] for one in own], np.float64),
        stated.places(_join([one["dividends"] for one in own], np.int64)),
    )


def _join(parts: Sequence[NDArray[Any]], kind: type) -> NDArray[Any]:
    return np.concatenate(parts).astype(kind, copy=False) if parts else np.zeros(0, kind)


def _edges(sizes: Sequence[int] | Integers) -> Integers:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)))
