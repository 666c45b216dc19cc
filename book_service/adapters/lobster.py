"""LOBSTER's message and orderbook files (CSV without a header) to market.data.raw.

Columns as on LOBSTER's page "Data Structure" (lobsterdata.com). A message is time (seconds after midnight),
type, order id, size, price (dollars times 10,000) and direction (1 buy, -1 sell limit order). A row of the
orderbook is ask price, ask size, bid price, bid size, level after level, as the book stands after the message
on the same line; an empty level has size 0. Types: 1 submission, 2 cancellation, 3 deletion, 4 execution of a
visible order, 5 of a hidden one, 6 cross trade, 7 halt (price -1), quoting (0) or trading (1) resumes.

The first row becomes a snapshot, each following one the deltas from the row before: a level that leaves the
visible range is taken away and comes back when it is seen again, so the book is always LOBSTER's row. Each
message must explain the change of its level where both rows show it; one that does not is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from book_service.adapters.errors import LobsterError
from book_service.adapters.plain_numbers import plain_numbers
from book_service.adapters.raw_columns import RawColumns
from protos.market.v1.market_pb2 import (
    EVENT_FLAG_FIRST,
    EVENT_FLAG_LAST,
    EVENT_KIND_BOOK_DELTA,
    EVENT_KIND_BOOK_SNAPSHOT,
    EVENT_KIND_STATUS,
    EVENT_KIND_TRADE,
    SIDE_BUY,
    SIDE_SELL,
    TRADING_STATE_AUCTION,
    TRADING_STATE_HALTED,
    TRADING_STATE_OPEN,
)

PRICE_SCALE = 10_000
LINES = 4_000  # read at once: what is made of them should fit the processor's cache
LEVELS_MAX = 200
LINE_BYTES_MAX = 200 * 4 * 24
_MESSAGE_COLUMNS = ("time", "type", "order id", "size", "price", "direction")
_HALT = 7
_STATES = {-1: TRADING_STATE_HALTED, 0: TRADING_STATE_AUCTION, 1: TRADING_STATE_OPEN}
_CHANGES = {1: 1, 2: -1, 3: -1, 4: -1}  # how a message changes its level
_TRADES = (4, 5, 6)
_EXACT = 2.0**53


@dataclass(frozen=True, slots=True)
class Lobster:
    """One day of one symbol. `midnight_ns` is the day's midnight in New York, since the Unix epoch."""

    source: str
    symbol: str
    midnight_ns: int
    messages: Path
    orderbook: Path

    def events(self, lines: int = LINES) -> Iterator[RawColumns]:
        """Events in order, in pieces; LobsterError names file, line and column."""
        before: NDArray[np.float64] | None = None
        sequence, first_line = 1, 1
        with (
            self.messages.open("rb") as messages,
            self.orderbook.open("rb") as orderbook,
        ):
            while True:
                said = _numbers(messages, self.messages, first_line, lines, 6)
                rows = _numbers(orderbook, self.orderbook, first_line, lines, None)
                if len(rows):
                    self._check_width(rows, before, first_line)
                if len(said) != len(rows):
                    longer = self.messages if len(said) > len(rows) else self.orderbook
                    line = first_line + min(len(said), len(rows))
                    raise LobsterError(f"{longer} line {line}: the other file has no such line")
                if not len(said):
                    return
                self._check_messages(said, first_line)
                piece = self._piece(said, rows, before, first_line, sequence)
                sequence, first_line, before = sequence + len(piece), first_line + len(said), rows[-1]
                yield piece

    def _check_width(
        self, rows: NDArray[np.float64], before: NDArray[np.float64] | None, first_line: int
    ) -> None:
        width = rows.shape[1]
        if width % 4 or not 0 < width <= 4 * LEVELS_MAX:
            raise LobsterError(f"{self.orderbook}: {width} columns are no whole levels")
        if before is not None and len(before) != width:
            raise LobsterError(f"{self.orderbook} line {first_line}: has {width} columns, not {len(before)}")

    def _check_messages(self, said: NDArray[np.float64], first_line: int) -> None:
        time, kind, order, size, price, direction = said.T
        whole = [kind, order, size, price]
        faults = (
            ("time", ~((time >= 0.0) & (time < 172_800.0))),
            ("type", ~((kind >= 1) & (kind <= 7)) | (kind != np.floor(kind))),
            *(
                (name, ~(np.abs(v) < _EXACT) | (v != np.floor(v)))
                for name, v in zip(_MESSAGE_COLUMNS[1:5], whole, strict=True)
            ),
            ("size", (size < 0.0)),
            ("price", np.where(kind == _HALT, np.abs(price) > 1.0, price <= 0.0)),
            ("direction", np.abs(direction) != 1.0),
        )
        for name, bad in faults:
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                value = said[row, _MESSAGE_COLUMNS.index(name)]
                raise LobsterError(f"{self.messages} line {first_line + row}, {name}: {value:g} cannot be")

    def _piece(
        self,
        said: NDArray[np.float64],
        rows: NDArray[np.float64],
        before: NDArray[np.float64] | None,
        first_line: int,
        sequence: int,
    ) -> RawColumns:
        snapshot = _NOTHING
        if before is None:
            snapshot = _snapshot(rows[0])
            previous = np.vstack((rows[:1], rows[:-1]))
        else:
            previous = np.vstack((before[None, :], rows[:-1]))
        checked = slice(1, None) if before is None else slice(None)
        self._check_explained(
            said[checked], previous[checked], rows[checked], first_line + len(said) - len(said[checked])
        )
        parts = [_said(said), snapshot, *(_deltas(previous, rows, side) for side in (SIDE_BUY, SIDE_SELL))]
        events = np.concatenate(parts)
        events = events[np.argsort(events["row"], kind="stable")]
        columns: dict[str, NDArray[Any]] = {
            name: events[name] for name in ("kind", "price", "quantity", "side", "flags", "state")
        }
        columns["symbol_index"] = np.zeros(len(events), np.int64)
        times = np.rint(said[:, 0] * 1e9).astype(np.int64)
        columns["source_time_ns"] = times[events["row"]] + self.midnight_ns
        columns["source_sequence"] = np.arange(sequence, sequence + len(events), dtype=np.uint64)
        return RawColumns(self.source, (self.symbol,), columns)

    def _check_explained(
        self, said: NDArray[np.float64], previous: NDArray[np.float64], rows: NDArray[np.float64], line: int
    ) -> None:
        """A message's change of its level is the one that the two rows around it show."""
        change = np.select([said[:, 1] == kind for kind in _CHANGES], list(_CHANGES.values()), 0) * said[:, 3]
        for side, direction in ((SIDE_BUY, 1.0), (SIDE_SELL, -1.0)):
            price = said[:, 4:5]
            seen = (said[:, 5] == direction) & (change != 0.0)
            quantity = []
            for book in (previous, rows):
                prices, sizes = _side(book, side)
                quantity.append(np.where(prices == price, sizes, 0.0).sum(axis=1))
                worst = np.where(sizes[:, -1] > 0.0, prices[:, -1], np.inf if side else -np.inf)
                seen &= (price[:, 0] <= worst) if side else (price[:, 0] >= worst)
            wrong = np.flatnonzero(seen & (quantity[1] - quantity[0] != change))
            if wrong.size:
                row = int(wrong[0])
                why = f"the message changes {said[row, 4]:g} by {change[row]:g}, the orderbook by "
                raise LobsterError(
                    f"{self.messages} line {line + row}, size: {why}{quantity[1][row] - quantity[0][row]:g}"
                )


_EVENT = np.dtype(
    [
        ("row", np.int64),
        ("kind", np.int32),
        ("price", np.float64),
        ("quantity", np.float64),
        ("side", np.int32),
        ("flags", np.uint32),
        ("state", np.int32),
    ]
)
_NOTHING = np.zeros(0, _EVENT)


def _side(rows: NDArray[np.float64], side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Prices and sizes of one side, best first."""
    first = 0 if side == SIDE_SELL else 2
    return rows[:, first::4], rows[:, first + 1 :: 4]


def _said(said: NDArray[np.float64]) -> NDArray[Any]:
    """Trades and trading states."""
    told = np.flatnonzero(
        np.isin(said[:, 1], (*_TRADES, _HALT)) & ((said[:, 3] > 0.0) | (said[:, 1] == _HALT))
    )
    events = np.zeros(len(told), _EVENT)
    rows, halt = said[told], said[told, 1] == _HALT
    events["row"] = told
    events["kind"] = np.where(halt, EVENT_KIND_STATUS, EVENT_KIND_TRADE)
    events["price"] = np.where(halt, 0.0, rows[:, 4] / PRICE_SCALE)
    events["quantity"] = np.where(halt, 0.0, rows[:, 3])
    # The direction is the resting order's; the side of a trade is the aggressor's.
    events["side"] = np.where(~halt & (rows[:, 5] == 1.0), SIDE_SELL, SIDE_BUY)
    for price, state in _STATES.items():
        events["state"][halt & (rows[:, 4] == price)] = state
    return events


def _snapshot(row: NDArray[np.float64]) -> NDArray[Any]:
    parts = []
    for side in (SIDE_BUY, SIDE_SELL):
        prices, sizes = _side(row[None, :], side)
        filled = sizes[0] > 0.0
        events = np.zeros(int(filled.sum()), _EVENT)
        events["price"], events["quantity"] = prices[0][filled] / PRICE_SCALE, sizes[0][filled]
        events["side"] = side
        parts.append(events)
    events = np.concatenate(parts)
    if not len(events):
        events = np.zeros(1, _EVENT)  # a book without levels is one row without quantity
    events["kind"] = EVENT_KIND_BOOK_SNAPSHOT
    events["flags"][0] |= EVENT_FLAG_FIRST
    events["flags"][-1] |= EVENT_FLAG_LAST
    return events


def _deltas(previous: NDArray[np.float64], rows: NDArray[np.float64], side: int) -> NDArray[Any]:
    """What turns each previous row into its row: levels gone, then levels new or changed."""
    old, new = _side(previous, side), _side(rows, side)
    moved = np.flatnonzero((old[0] != new[0]).any(axis=1))
    gone = (old[1] > 0.0) & (new[1] == 0.0)
    set_to = (new[1] > 0.0) & (old[1] != new[1])
    if moved.size:
        # Levels of these rows stand at other places: each is looked for by its price.
        (old_prices, old_sizes), (new_prices, new_sizes) = ((p[moved], s[moved]) for p, s in (old, new))
        gone[moved] = (old_sizes > 0.0) & (_held(new_prices, new_sizes, old_prices) == 0.0)
        set_to[moved] = (new_sizes > 0.0) & (_held(old_prices, old_sizes, new_prices) != new_sizes)
    gone_places, set_places = np.nonzero(gone), np.nonzero(set_to)
    events = np.zeros(len(gone_places[0]) + len(set_places[0]), _EVENT)
    events["row"] = np.concatenate((gone_places[0], set_places[0]))
    events["kind"], events["side"] = EVENT_KIND_BOOK_DELTA, side
    events["price"] = np.concatenate((old[0][gone_places], new[0][set_places])) / PRICE_SCALE
    events["quantity"][len(gone_places[0]) :] = new[1][set_places]
    return events


def _held(
    prices: NDArray[np.float64], sizes: NDArray[np.float64], at: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The size that a row has at each of the prices `at` of the same row; 0 where it has none."""
    held = np.zeros_like(at)
    for level in range(prices.shape[1]):
        held += np.where(at == prices[:, level : level + 1], sizes[:, level : level + 1], 0.0)
    return held


def _numbers(
    file: BinaryIO, path: Path, first_line: int, lines: int, columns: int | None
) -> NDArray[np.float64]:
    """The next lines as numbers; `columns` of each are read, None reads all, as many as the first has."""
    raw = list(islice(iter(partial(file.readline, LINE_BYTES_MAX), b""), lines))
    if not raw:
        return np.zeros((0, columns or 4))
    width = columns or raw[0].count(b",") + 1
    plain = plain_numbers(b"".join(raw), len(raw), width, decimals_first=columns is not None)
    numbers = _read_slowly(raw, path, first_line, columns) if plain is None else plain
    bad = ~np.isfinite(numbers)
    bad |= np.zeros_like(bad) if columns else (np.abs(numbers) >= _EXACT)
    if columns is None:
        bad[:, 1::2] |= numbers[:, 1::2] < 0.0
    if bad.any():
        row, column = (int(place[0]) for place in np.nonzero(bad))
        raise LobsterError(
            f"{path} line {first_line + row}, column {column + 1}: {numbers[row, column]:g} cannot be"
        )
    return numbers


def _read_slowly(raw: list[bytes], path: Path, first_line: int, columns: int | None) -> NDArray[np.float64]:
    """Whatever is a number for NumPy; LobsterError names what is none."""
    text = [line.decode("ascii", "replace") for line in raw]
    if not all(map(str.strip, text)):
        raise _fault(text, path, first_line, columns)
    try:
        numbers: NDArray[np.float64] = np.loadtxt(
            text, delimiter=",", ndmin=2, comments=None, usecols=None if columns is None else range(columns)
        )
    except ValueError as error:
        raise _fault(text, path, first_line, columns) from error
    if len(numbers) != len(text):
        raise _fault(text, path, first_line, columns)
    return numbers


def _fault(text: list[str], path: Path, first_line: int, columns: int | None) -> LobsterError:
    """The first cell that is no number, or line that has too few cells."""
    wanted = columns or text[0].count(",") + 1
    for place, line in enumerate(text):
        cells = line.rstrip("\r\n").split(",")
        where = f"{path} line {first_line + place}"
        if len(cells) < wanted or (columns is None and len(cells) != wanted):
            return LobsterError(f"{where}: has {len(cells)} columns, needs {wanted}")
        for number, cell in enumerate(cells[:wanted], 1):
            try:
                float(cell)
            except ValueError:
                return LobsterError(f"{where}, column {number}: {cell[:40]!r} is no number")
    return LobsterError(f"{path} from line {first_line}: cannot be read as numbers")
