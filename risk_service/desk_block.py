"""One underlying of the desk: the contracts on it, each once, and who holds how much of each.

Only what is held takes room: a holder costs its own positions, however many contracts and holders there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from gpu_kernels.premium_sums import Holdings
from protos.risk.v1.risk_pb2 import INSTRUMENT_KIND_FUTURE
from risk_service.valuation import Book

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Weights = Floats | csr_array

# What makes two positions the same contract, in the order in which contracts are sorted.
_TERMS = (
    ("expiry_time_ns", np.int64),
    ("strike", np.float64),
    ("call", np.int64),
    ("put", np.int64),
    ("american", np.bool_),
    ("last_ex_ns", np.int64),
    ("dividends", np.int64),
    ("is_call", np.bool_),
)
_POSITION = np.dtype([*_TERMS, ("size", np.float64)])
_FUTURE = np.dtype(
    [("cell", np.int32), ("expiry_time_ns", np.int64), ("size", np.float64), ("dividends", np.int64)]
)
# A matrix of weights has its zeros written out when it has no more than so many times the numbers held.
DENSE_RATIO = 4


@dataclass(frozen=True, slots=True)
class Holder:
    """One book, its positions sorted by underlying; made once per book."""

    book: Book
    option_rows: Integers  # of the portfolio
    options: NDArray[np.void]
    first_option: Integers  # of each underlying, and their number
    future_rows: Integers
    futures: NDArray[np.void]
    first_future: Integers
    spots: Floats  # (underlyings, 2): units of each underlying itself, with sign and without
    contents: tuple[bytes, ...]  # says what is held of each underlying

    @classmethod
    def of(cls, book: Book) -> Holder:
        """Sizes are quantities times multipliers."""
        held = book.held
        size, count = held.quantity * held.multiplier, len(held.underlyings)
        place = held.underlying_index[book.option_rows]
        order = np.argsort(place, kind="stable")
        options = np.zeros(len(order), _POSITION)
        for name in ("expiry_time_ns", "strike", "call", "put", "american", "last_ex_ns"):
            options[name] = getattr(book.contracts, name)[order]
        options["dividends"] = book.contracts.dividend_keys(order)
        rows = book.option_rows[order]
        options["is_call"], options["size"] = held.is_call[rows], size[rows]
        is_future = held.kind[book.linear_rows] == INSTRUMENT_KIND_FUTURE
        spot_rows, future_rows = book.linear_rows[~is_future], book.linear_rows[is_future]
        future_rows = future_rows[np.argsort(held.underlying_index[future_rows], kind="stable")]
        futures = np.zeros(len(future_rows), _FUTURE)
        futures["expiry_time_ns"], futures["size"] = held.expiry_time_ns[future_rows], size[future_rows]
        futures["dividends"] = held.dividends.keys(held.underlying_index[future_rows])
        at, own = held.underlying_index[spot_rows], size[spot_rows]
        spots = np.zeros((count, 2))
        np.add.at(spots, at, np.stack((own, np.abs(own)), axis=1))
        edges = np.arange(count + 1)
        first_option = np.searchsorted(place[order], edges)
        first_future = np.searchsorted(held.underlying_index[future_rows], edges)
        parts = zip(_cut(options, first_option), _cut(futures, first_future), spots, strict=True)
        contents = tuple(
            blake2b(b"".join((a.tobytes(), b"|", b.tobytes(), c.tobytes())), digest_size=16).digest()
            for a, b, c in parts
        )
        return cls(
            book=book,
            option_rows=rows,
            options=options,
            first_option=first_option,
            future_rows=future_rows,
            futures=futures,
            first_future=first_future,
            spots=spots,
            contents=contents,
        )

    def option_span(self, place: int) -> slice:
        """Its options on an underlying."""
        return slice(int(self.first_option[place]), int(self.first_option[place + 1]))

    def spot_rows(self, place: int) -> Integers:
        """Rows of the portfolio that are the underlying itself."""
        held, rows = self.book.held, self.book.linear_rows
        own = (held.underlying_index[rows] == place) & (held.kind[rows] != INSTRUMENT_KIND_FUTURE)
        found: Integers = rows[own]
        return found

    def future_span(self, place: int) -> slice:
        """Its futures on an underlying."""
        return slice(int(self.first_future[place]), int(self.first_future[place + 1]))


class Pairs(NamedTuple):
    """What is held of a column of options: those of option n from first[n] to first[n + 1]."""

    first: Integers
    cell: NDArray[np.int32]  # of the block
    weight: Floats
    other: Floats  # sizes without sign, or the puts of a row that is a call


@dataclass(frozen=True, slots=True)
class Block:
    """An underlying's contracts, sorted by their terms, and what its cells (its holders' parts) hold."""

    name: str
    slot: int
    cells: Integers  # their numbers on the desk
    contents: tuple[bytes, ...]  # what each cell holds
    contracts: NDArray[np.void]
    american: Integers  # contracts
    terms: NDArray[np.void]  # of the strikes
    strike_of: Integers
    strikes: Integers  # the first contract of each
    sign: Floats  # of each strike: 1 where it is valued as a call, -1 as a put
    by_contract: Pairs  # other: sizes without sign
    by_strike: Pairs  # other: the puts where there is a call
    spots: Floats  # (cells, 2): units of the underlying itself, with sign and without
    futures: NDArray[np.void]
    first_future: Integers  # of each cell
    first_position: Integers  # of each cell
    contract_of: NDArray[np.int32]  # of each option position, cell by cell

    @classmethod
    def of(cls, name: str, slot: int, cells: Integers, holders: Sequence[tuple[Holder, int]]) -> Block:
        """Lays out what the holders have of it, each at a place of its own."""
        parts = [holder.options[holder.option_span(place)] for holder, place in holders]
        positions = _stacked(parts, _POSITION)
        counts = np.array([len(part) for part in parts], np.int64)
        cell = np.repeat(np.arange(len(parts), dtype=np.int32), counts)
        columns = {term: np.ascontiguousarray(positions[term]) for term, _ in _TERMS}
        order = _order([*columns.values(), cell])
        other_terms = _changes([column[order] for term, column in columns.items() if term != "is_call"])
        own_row = columns["last_ex_ns"][order] != 0  # a put's P&L is not that of a call less a forward's then
        is_new = _changes([columns["is_call"][order]]) | other_terms
        contract = np.cumsum(is_new) - 1
        contracts = positions[order[is_new]]
        strike_of = np.cumsum((other_terms | own_row)[is_new]) - 1
        strikes = np.flatnonzero(np.diff(strike_of, prepend=-1))
        is_call, size = contracts["is_call"], positions["size"][order]
        has_call = np.zeros(len(strikes), np.bool_)
        has_call[strike_of[is_call]] = True
        by_contract = _pairs(contract, cell[order], size, np.abs(size), len(contracts))
        held = np.repeat(np.arange(len(contracts)), np.diff(by_contract.first))
        puts = np.where(has_call[strike_of] & ~is_call, 1.0, 0.0)[held] * by_contract.weight
        strike_held = strike_of[held]
        again = np.lexsort((by_contract.cell, strike_held))
        by_strike = _pairs(
            *(strike_held[again], by_contract.cell[again], by_contract.weight[again], puts[again]),
            len(strikes),
        )
        contract_of = np.empty(len(order), np.int32)
        contract_of[order] = contract
        future_parts = [holder.futures[holder.future_span(place)] for holder, place in holders]
        futures, future_counts = _stacked(future_parts, _FUTURE), [len(part) for part in future_parts]
        futures["cell"] = np.repeat(np.arange(len(future_parts)), future_counts)
        return cls(
            name=name,
            slot=slot,
            cells=cells,
            contents=tuple(holder.contents[place] for holder, place in holders),
            contracts=contracts,
            american=np.flatnonzero(contracts["american"]),
            terms=contracts[strikes],
            strike_of=strike_of,
            strikes=strikes,
            sign=np.where(has_call, 1.0, -1.0),
            by_contract=by_contract,
            by_strike=by_strike,
            spots=np.stack([holder.spots[place] for holder, place in holders]),
            futures=futures,
            first_future=_edges(future_counts),
            first_position=_edges(counts),
            contract_of=contract_of,
        )

    def holdings(self, rows: Integers) -> Holdings:
        """Who holds how much of these contracts."""
        first, cell, weight, gross = self.by_contract
        if len(rows) == len(self.contracts):
            return Holdings(first, cell, weight, gross)
        counts = np.diff(first)
        asked = np.zeros(len(counts), np.bool_)
        asked[rows] = True
        kept = np.repeat(asked, counts)
        return Holdings(_edges(counts[rows]), cell[kept], weight[kept], gross[kept])

    def weights(self, rows: Integers, *, signed: bool = True) -> Weights:
        """How much each cell holds of these contracts, (cells, rows); sparse where few hold much of it."""
        held = self.holdings(rows)
        weight, shape = held.weight if signed else held.gross, (len(self.cells), len(rows))
        places = held.cell, np.repeat(np.arange(len(rows)), np.diff(held.first))
        if shape[0] * shape[1] > DENSE_RATIO * len(weight):
            return csr_array((weight, places), shape=shape)
        dense = np.zeros(shape)
        dense[places] = weight
        return dense


def _order(keys: list[NDArray[np.generic]]) -> NDArray[np.intp]:
    """Sorts by the first key, then the second and so on; a key that is the same everywhere costs nothing."""
    telling = [key for key in keys if key.size and (key != key[0]).any()]
    return np.lexsort(telling[::-1]) if telling else np.arange(len(keys[0]))


def _changes(columns: list[NDArray[np.generic]]) -> NDArray[np.bool_]:
    """Where a row is another than the one before it."""
    found = np.zeros(len(columns[0]), np.bool_)
    found[:1] = True
    for column in columns:
        found[1:] |= column[1:] != column[:-1]
    return found


def _pairs(option: Integers, cell: NDArray[np.int32], weight: Floats, other: Floats, options: int) -> Pairs:
    """Sums of what a cell holds of an option in several positions; these are sorted by option and cell."""
    start = np.flatnonzero(_changes([option, cell]))
    if not start.size:
        return Pairs(np.zeros(options + 1, np.int64), cell, weight, other)
    first = _edges(np.bincount(option[start], minlength=options))
    return Pairs(first, cell[start], np.add.reduceat(weight, start), np.add.reduceat(other, start))


def _stacked(parts: Sequence[NDArray[np.void]], kind: np.dtype[np.void]) -> NDArray[np.void]:
    """The rows one after the other; where NumPy joins records it compares their fields part by part."""
    whole = np.empty(sum(map(len, parts)), kind)
    first = 0
    for part in parts:
        whole[first : first + len(part)] = part
        first += len(part)
    return whole


def _cut(rows: NDArray[np.void], first: Integers) -> list[NDArray[np.void]]:
    return [rows[low:high] for low, high in pairwise(first.tolist())]


def _edges(sizes: Sequence[int] | Integers) -> Integers:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)))
