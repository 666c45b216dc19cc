"""All live books laid out by underlying, each contract once however many books hold it.

A cell is one underlying of one book. Cells are numbered book by book, in the order of the book's underlyings,
so that a book's numbers lie side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from risk_service.valuation import Book
from risk_service.vol_marks import Contracts

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_TERMS = np.dtype(
    [
        ("underlying", np.int64),
        ("call", np.int64),
        ("put", np.int64),
        ("expiry_time_ns", np.int64),
        ("strike", np.float64),
        ("american", np.bool_),
        ("is_call", np.bool_),
    ]
)


@dataclass(frozen=True, slots=True)
class Block:
    """One underlying: its contracts `start` to `stop`, the cells that hold it, and how much each holds."""

    name: str
    slot: int
    start: int
    stop: int
    cells: Integers
    weights: Floats  # (cells, contracts): quantity times multiplier
    gross_weights: Floats  # the same, sizes added up without sign
    linear: Floats  # (cells,)
    gross_linear: Floats


@dataclass(frozen=True, slots=True)
class Desk:
    """The live books, and their contracts sorted by underlying."""

    books: tuple[Book, ...]
    contracts: Contracts
    is_call: NDArray[np.bool_]
    blocks: tuple[Block, ...]
    first_cell: Integers  # of each book, and the number of cells at its end
    contract_of_row: tuple[Integers, ...]  # per book and option row, which contract

    @classmethod
    def of(cls, books: Sequence[Book]) -> Desk:
        """Lays the books out; made anew when one of them changes."""
        terms = [_terms(book) for book in books]
        every = np.concatenate(terms) if terms else np.zeros(0, _TERMS)
        unique, inverse = np.unique(every, return_inverse=True)
        edges = np.cumsum([0, *(len(one) for one in terms)])
        rows = tuple(inverse[low:high] for low, high in pairwise(edges))
        first_cell = np.cumsum([0, *(len(book.held.underlyings) for book in books)])
        contracts = Contracts(
            **{name: np.ascontiguousarray(unique[name]) for name in _TERMS.names or () if name != "is_call"}
        )
        return cls(
            books=tuple(books),
            contracts=contracts,
            is_call=np.ascontiguousarray(unique["is_call"]),
            blocks=_blocks(books, contracts, rows, first_cell),
            first_cell=first_cell,
            contract_of_row=rows,
        )

    @property
    def cells(self) -> int:
        """How many there are."""
        return int(self.first_cell[-1])

    def cells_of(self, book: int) -> slice:
        """The cells of a book, one per underlying in its own order."""
        return slice(int(self.first_cell[book]), int(self.first_cell[book + 1]))


def _terms(book: Book) -> NDArray[np.void]:
    terms = np.zeros(len(book.contracts), _TERMS)
    for name in _TERMS.names or ():
        if name != "is_call":
            terms[name] = getattr(book.contracts, name)
    terms["is_call"] = book.held.is_call[book.option_rows]
    return terms


def _blocks(
    books: Sequence[Book], contracts: Contracts, rows: Sequence[Integers], first_cell: Integers
) -> tuple[Block, ...]:
    cells: dict[int, list[tuple[int, int]]] = {}  # slot to (book, underlying of the book)
    names: dict[int, str] = {}
    for number, book in enumerate(books):
        for place, slot in enumerate(book.underlying_slots.tolist()):
            cells.setdefault(slot, []).append((number, place))
            names[slot] = book.held.underlyings[place]
    return tuple(
        _block(names[slot], slot, held_by, books, contracts, rows, first_cell)
        for slot, held_by in sorted(cells.items())
    )


def _block(
    name: str,
    slot: int,
    held_by: list[tuple[int, int]],
    books: Sequence[Book],
    contracts: Contracts,
    rows: Sequence[Integers],
    first_cell: Integers,
) -> Block:
    start, stop = (int(np.searchsorted(contracts.underlying, slot, side)) for side in ("left", "right"))
    weights, gross = np.zeros((2, len(held_by), stop - start))
    linear, gross_linear = np.zeros((2, len(held_by)))
    for row, (number, place) in enumerate(held_by):
        book = books[number]
        held = book.held
        size = held.quantity * held.multiplier
        mine = book.option_rows[held.underlying_index[book.option_rows] == place]
        options = rows[number][np.searchsorted(book.option_rows, mine)] - start
        np.add.at(weights[row], options, size[mine])
        np.add.at(gross[row], options, np.abs(size[mine]))
        others = book.linear_rows[held.underlying_index[book.linear_rows] == place]
        linear[row], gross_linear[row] = size[others].sum(), np.abs(size[others]).sum()
    numbers = np.array([first_cell[number] + place for number, place in held_by], np.int64)
    return Block(name, slot, start, stop, numbers, weights, gross, linear, gross_linear)
