"""All live books laid out by underlying, each contract once however many books hold it.

A contract is a call or a put. A call and a put of the same terms are one strike: they have one vol, and under
scenarios one of them tells the other's P&L (gpu_kernels.shared_book).

A cell is one underlying of one book. Cells are numbered book by book, in the order of the book's underlyings,
so that a book's numbers lie side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.shared_book import SharedPoints, SharedRows
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
        ("last_ex_ns", np.int64),
        ("is_call", np.bool_),
    ]
)


@dataclass(frozen=True, slots=True)
class Block:
    """One underlying: its contracts and strikes, the cells that hold it, and how much each holds."""

    name: str
    slot: int
    start: int  # of its contracts
    stop: int
    first_strike: int
    end_strike: int
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
    strikes: Contracts
    strike_of: Integers  # of each contract
    blocks: tuple[Block, ...]
    slots: Integers  # of the blocks
    first_cell: Integers  # of each book, and the number of cells at its end
    contract_of_row: tuple[Integers, ...]  # per book and option row, which contract
    shared: SharedRows  # the blocks as kernels take them
    points: SharedPoints  # of all blocks, without spots

    @classmethod
    def of(cls, books: Sequence[Book]) -> Desk:
        """Lays the books out; made anew when one of them changes."""
        terms = [_terms(book) for book in books]
        every = np.concatenate(terms) if terms else np.zeros(0, _TERMS)
        unique, inverse = np.unique(every, return_inverse=True)
        edges = np.cumsum([0, *(len(one) for one in terms)])
        rows = tuple(inverse[low:high] for low, high in pairwise(edges))
        first_cell = np.cumsum([0, *(len(book.held.underlyings) for book in books)])
        # Copies: of one row, a column is contiguous where it lies, and what follows would change it.
        contracts, is_call = _columns(unique), unique["is_call"].copy()
        unique["is_call"] = False
        strikes, strike_of = np.unique(unique, return_inverse=True)
        blocks = _blocks(books, contracts, strike_of, rows, first_cell)
        shared = _shared(blocks, strikes["strike"], is_call, strike_of)
        return cls(
            books=tuple(books),
            contracts=contracts,
            is_call=is_call,
            strikes=_columns(strikes),
            strike_of=strike_of,
            blocks=blocks,
            slots=np.array([block.slot for block in blocks], np.int64),
            first_cell=first_cell,
            contract_of_row=rows,
            shared=shared,
            points=_points(blocks),
        )

    @property
    def cells(self) -> int:
        """How many there are."""
        return int(self.first_cell[-1])

    def cells_of(self, book: int) -> slice:
        """The cells of a book, one per underlying in its own order."""
        return slice(int(self.first_cell[book]), int(self.first_cell[book + 1]))


def with_quantities(desk: Desk, number: int, book: Book) -> tuple[Desk, set[str]] | None:
    """The desk with a book that holds other quantities of the same contracts, and their underlyings.

    None where its contracts are others: then the desk must be laid out anew. The weights are written in
    place: the desk that was given is none any more.
    """
    old = desk.books[number]
    if (
        book.held.underlyings != old.held.underlyings
        or not np.array_equal(book.option_rows, old.option_rows)
        or not np.array_equal(_terms(book), _terms(old))
    ):
        return None
    changed = set()
    before, after = (_held_by_place(desk, number, one) for one in (old, book))
    blocks = {block.slot: at for at, block in enumerate(desk.blocks)}
    for place, slot in enumerate(book.underlying_slots.tolist()):
        if not all(np.array_equal(a, b) for a, b in zip(before[place], after[place], strict=True)):
            _reweigh(desk, blocks[slot], int(desk.first_cell[number]) + place, after[place])
            changed.add(book.held.underlyings[place])
    books = (*desk.books[:number], book, *desk.books[number + 1 :])
    return replace(desk, books=books), changed


class _Held(NamedTuple):
    """What a book holds of an underlying: contracts, their sizes with and without sign, and of itself."""

    contracts: Integers
    size: Floats
    gross: Floats
    linear: Floats  # with sign and without


def _held_by_place(desk: Desk, number: int, book: Book) -> list[_Held]:
    held = book.held
    size, rows = held.quantity * held.multiplier, desk.contract_of_row[number]
    option_place = held.underlying_index[book.option_rows]
    linear_place, linear = held.underlying_index[book.linear_rows], size[book.linear_rows]
    count = len(held.underlyings)
    net = np.bincount(linear_place, linear, count)
    gross = np.bincount(linear_place, np.abs(linear), count)
    order = np.argsort(option_place, kind="stable")
    edges = np.searchsorted(option_place[order], np.arange(count + 1))
    found = []
    for place, (low, high) in enumerate(pairwise(edges.tolist())):
        mine = order[low:high]
        sizes = size[book.option_rows[mine]]
        found.append(_Held(rows[mine], sizes, np.abs(sizes), np.array([net[place], gross[place]])))
    return found


def _reweigh(desk: Desk, at: int, cell: int, held: _Held) -> None:
    """Writes what a cell holds, wherever it stands."""
    block, shared, points = desk.blocks[at], desk.shared, desk.points
    row = int(np.flatnonzero(block.cells == cell)[0])
    own = held.contracts - block.start
    width, strikes = block.stop - block.start, block.end_strike - block.first_strike
    weights, gross = np.zeros((2, width))
    np.add.at(weights, own, held.size)
    np.add.at(gross, own, held.gross)
    block.weights[row], block.gross_weights[row] = weights, gross
    block.linear[row], block.gross_linear[row] = held.linear
    strike = desk.strike_of[block.start : block.stop] - block.first_strike
    both, put = np.zeros((2, strikes))
    np.add.at(both, strike, weights)
    has_call = shared.sign[block.first_strike : block.end_strike] > 0.0
    beside = desk.is_call[block.start : block.stop] | ~has_call[strike]
    np.add.at(put, strike, np.where(beside, 0.0, weights))
    start = int(shared.first_pair[at]) + row * strikes
    shared.weight[start : start + strikes], shared.puts[start : start + strikes] = both, put
    shared.linear[int(shared.first_cell[at]) + row] = held.linear[0]
    start = int(points.first_pair[at]) + row * width
    points.weight[start : start + width], points.gross[start : start + width] = weights, gross
    points.gross_linear[int(shared.first_cell[at]) + row] = held.linear[1]


def _terms(book: Book) -> NDArray[np.void]:
    terms = np.zeros(len(book.contracts), _TERMS)
    for name in _TERMS.names or ():
        if name != "is_call":
            terms[name] = getattr(book.contracts, name)
    terms["is_call"] = book.held.is_call[book.option_rows]
    return terms


def _columns(terms: NDArray[np.void]) -> Contracts:
    columns: dict[str, Any] = {name: terms[name].copy() for name in _TERMS.names or () if name != "is_call"}
    return Contracts(**columns)


def _blocks(
    books: Sequence[Book],
    contracts: Contracts,
    strike_of: Integers,
    rows: Sequence[Integers],
    first_cell: Integers,
) -> tuple[Block, ...]:
    cells: dict[int, list[tuple[int, int]]] = {}  # slot to (book, underlying of the book)
    names: dict[int, str] = {}
    for number, book in enumerate(books):
        for place, slot in enumerate(book.underlying_slots.tolist()):
            cells.setdefault(slot, []).append((number, place))
            names[slot] = book.held.underlyings[place]
    return tuple(
        _block(names[slot], slot, held_by, books, contracts, strike_of, rows, first_cell)
        for slot, held_by in sorted(cells.items())
    )


def _block(
    name: str,
    slot: int,
    held_by: list[tuple[int, int]],
    books: Sequence[Book],
    contracts: Contracts,
    strike_of: Integers,
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
    first = int(strike_of[start]) if stop > start else (int(strike_of[start - 1]) + 1 if start else 0)
    end = int(strike_of[stop - 1]) + 1 if stop > start else first
    return Block(name, slot, start, stop, first, end, numbers, weights, gross, linear, gross_linear)


def _shared(
    blocks: Sequence[Block], strike: Floats, is_call: NDArray[np.bool_], strike_of: Integers
) -> SharedRows:
    has_call = np.zeros(len(strike), np.bool_)
    has_call[strike_of[is_call]] = True
    weight, puts = [], []
    for block in blocks:
        both = np.zeros((len(block.cells), block.end_strike - block.first_strike))
        own = strike_of[block.start : block.stop]
        np.add.at(both.T, own - block.first_strike, block.weights.T)
        beside = np.where(is_call[block.start : block.stop] | ~has_call[own], 0.0, block.weights)
        put = np.zeros_like(both)
        np.add.at(put.T, own - block.first_strike, beside.T)
        weight.append(both.ravel())
        puts.append(put.ravel())
    return SharedRows(
        first_row=_edges([block.end_strike - block.first_strike for block in blocks]),
        first_cell=_edges([len(block.cells) for block in blocks]),
        first_pair=_edges([one.size for one in weight])[:-1],
        cell=_joined([block.cells for block in blocks], np.int64),
        strike=np.ascontiguousarray(strike),
        sign=np.where(has_call, 1.0, -1.0),
        weight=_joined(weight, np.float64),
        puts=_joined(puts, np.float64),
        linear=_joined([block.linear for block in blocks], np.float64),
    )


def _points(blocks: Sequence[Block]) -> SharedPoints:
    return SharedPoints(
        chosen=np.zeros(0, np.int64),
        spot=np.zeros(0),
        first=_edges([block.stop - block.start for block in blocks]),
        first_pair=_edges([block.weights.size for block in blocks])[:-1],
        weight=_joined([block.weights.ravel() for block in blocks], np.float64),
        gross=_joined([block.gross_weights.ravel() for block in blocks], np.float64),
        gross_linear=_joined([block.gross_linear for block in blocks], np.float64),
    )


def _edges(sizes: list[int]) -> Integers:
    return np.cumsum([0, *sizes], dtype=np.int64)


def _joined(parts: Sequence[NDArray[Any]], kind: type) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, kind)
