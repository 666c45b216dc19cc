"""LOBSTER files: a sample worked out by hand, random books of many orders, files that are wrong."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from book_service import raw_events
from book_service.adapters.errors import LobsterError
from book_service.adapters.lobster import Lobster
from book_service.depth import Level
from book_service.normaliser import Normaliser, NormaliserRules
from protos.market.v1 import market_pb2 as market

MIDNIGHT_NS = 1_340_236_800_000_000_000
ORIGIN = market.Origin(topic="market.data.raw", partition=0, offset=0)

# The first two lines are the example of LOBSTER's page; the rest was worked out by hand on two levels.
# Rows: ask 1, size, bid 1, size, ask 2, size, bid 2, size.
MESSAGES = """\
34713.685155243,1,206833312,100,118600,-1
34714.133632201,3,206833312,100,118600,-1
34714.2,4,206833000,300,118500,1
34714.3,4,206833001,8500,118500,1
34714.4,5,0,50,118450,1
34714.5,1,206833400,40,118450,1
34714.6,2,206833401,100,118700,-1
34714.7,7,0,0,-1,-1
34714.8,7,0,0,1,-1
34714.9,1,206833402,7,118650,-1
"""
ROWS = """\
118600,9484,118500,8800,118700,22700,118400,14930
118600,9384,118500,8800,118700,22700,118400,14930
118600,9384,118500,8500,118700,22700,118400,14930
118600,9384,118400,14930,118700,22700,118300,20
118600,9384,118400,14930,118700,22700,118300,20
118600,9384,118450,40,118700,22700,118400,14930
118600,9384,118450,40,118700,22600,118400,14930
118600,9384,118450,40,118700,22600,118400,14930
118600,9384,118450,40,118700,22600,118400,14930
118600,9384,118450,40,118650,7,118400,14930
"""
DELTA, TRADE, SNAPSHOT = (
    market.EVENT_KIND_BOOK_DELTA,
    market.EVENT_KIND_TRADE,
    market.EVENT_KIND_BOOK_SNAPSHOT,
)
STATUS, BUY, SELL = market.EVENT_KIND_STATUS, market.SIDE_BUY, market.SIDE_SELL


def day(folder, messages=MESSAGES, rows=ROWS):
    paths = folder / "message.csv", folder / "orderbook.csv"
    for path, text in zip(paths, (messages, rows), strict=True):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Lobster("lobster", "XYZ", MIDNIGHT_NS, *paths)


def events_of(lobster, lines=10_000):
    out = []
    for piece in lobster.events(lines):
        names = ("source_time_ns", "kind", "side", "price", "quantity", "flags", "state")
        out += zip(*(piece.columns[name].tolist() for name in names), strict=True)
    return out


def test_events_by_hand(tmp_path):
    first, last = market.EVENT_FLAG_FIRST, market.EVENT_FLAG_LAST
    expected = [
        (34713.685155243, SNAPSHOT, BUY, 11.85, 8800, first, 0),
        (34713.685155243, SNAPSHOT, BUY, 11.84, 14930, 0, 0),
        (34713.685155243, SNAPSHOT, SELL, 11.86, 9484, 0, 0),
        (34713.685155243, SNAPSHOT, SELL, 11.87, 22700, last, 0),
        (34714.133632201, DELTA, SELL, 11.86, 9384, 0, 0),
        (34714.2, TRADE, SELL, 11.85, 300, 0, 0),  # a buy order was executed: a seller came
        (34714.2, DELTA, BUY, 11.85, 8500, 0, 0),
        (34714.3, TRADE, SELL, 11.85, 8500, 0, 0),
        (34714.3, DELTA, BUY, 11.85, 0, 0, 0),
        (34714.3, DELTA, BUY, 11.83, 20, 0, 0),  # comes into the visible range
        (34714.4, TRADE, SELL, 11.845, 50, 0, 0),  # of a hidden order: no change of the book
        (34714.5, DELTA, BUY, 11.83, 0, 0, 0),  # leaves the visible range
        (34714.5, DELTA, BUY, 11.845, 40, 0, 0),
        (34714.6, DELTA, SELL, 11.87, 22600, 0, 0),
        (34714.7, STATUS, 0, 0, 0, 0, market.TRADING_STATE_HALTED),
        (34714.8, STATUS, 0, 0, 0, 0, market.TRADING_STATE_OPEN),
        (34714.9, DELTA, SELL, 11.87, 0, 0, 0),
        (34714.9, DELTA, SELL, 11.865, 7, 0, 0),
    ]
    expected = [(MIDNIGHT_NS + round(time * 1e9), *rest) for time, *rest in expected]
    for lines in (1, 2, 3, 10_000):
        assert events_of(day(tmp_path), lines) == expected


def replayed(lobster, lines):
    """The normaliser's book after each line of the files."""
    clean, books = Normaliser(NormaliserRules(band_absolute=1e9)), []
    for piece in lobster.events(1):
        for _, record in piece.by_symbol():
            result = clean.apply(raw_events.decode(record.SerializeToString()), ORIGIN)
            assert not result.dropped
        books.append(clean.depth("lobster", "XYZ", 100))
    assert len(books) == lines
    return books


def rows_as_books(rows):
    books = []
    for line in rows.splitlines():
        cells = [float(cell) for cell in line.split(",")]
        levels = [Level(price / 10_000, size) for price, size in zip(cells[::2], cells[1::2], strict=True)]
        filled = [[level for level in side if level.quantity] for side in (levels[1::2], levels[::2])]
        books.append(tuple(filled))
    return books


def test_the_replayed_book_is_lobsters_own_after_every_line(tmp_path):
    assert replayed(day(tmp_path), 10) == rows_as_books(ROWS)


def random_day(rng, lines, levels):
    """A day by a book kept in full: every order possible, `levels` visible."""
    orders, said, rows, fresh = {}, [], [], 0
    while len(rows) < lines:
        before = visible(orders, levels)
        kind = int(rng.choice([1, 1, 1, 2, 3, 4]))
        if kind == 1 or not orders:
            kind, fresh, direction = 1, fresh + 1, int(rng.choice([-1, 1]))
            price = 1_000_000 + 100 * int(rng.integers(1, 15)) * -direction
            ref, size = fresh, int(rng.integers(1, 50))
            orders[ref] = (direction, price, size)
        else:
            ref = int(rng.choice(list(orders)))
            direction, price, size = orders[ref]
            if kind == 2 and size > 1:
                size = int(rng.integers(1, size))
            elif kind == 2:
                kind = 3
            left = orders[ref][2] - size
            orders[ref] = (direction, price, left)
            if not left:
                del orders[ref]
        after = visible(orders, levels)
        if before == after:
            continue  # LOBSTER tells only what touches the visible range
        said.append(f"{34_200 + len(said) * 0.001:.9f},{kind},{ref},{size},{price},{direction}")
        rows.append(",".join(str(cell) for cell in after))
    return "\n".join(said) + "\n", "\n".join(rows) + "\n"


def visible(orders, levels):
    totals = {}
    for direction, price, size in orders.values():
        totals[direction, price] = totals.get((direction, price), 0) + size
    asks = sorted((price, size) for (direction, price), size in totals.items() if direction == -1)
    bids = sorted(
        ((price, size) for (direction, price), size in totals.items() if direction == 1), reverse=True
    )
    cells = []
    for level in range(levels):
        cells += asks[level] if level < len(asks) else (9_999_999_999, 0)
        cells += bids[level] if level < len(bids) else (-9_999_999_999, 0)
    return cells


def test_random_days_replay_to_their_own_rows(tmp_path, seed):
    rng = np.random.default_rng(seed)
    for levels in (1, 3, 10):
        messages, rows = random_day(rng, 150, levels)
        assert replayed(day(tmp_path, messages, rows), 150) == rows_as_books(rows)


def test_a_message_outside_the_visible_range_need_not_be_explained(tmp_path):
    far = "34715.0,1,206833500,5,{},{}\n"
    for price, direction in ((118_300, 1), (118_800, -1)):
        lobster = day(tmp_path, MESSAGES + far.format(price, direction), ROWS + ROWS.splitlines()[-1] + "\n")
        assert len(events_of(lobster)) == 18
    inside = day(tmp_path, MESSAGES + far.format(118_420, 1), ROWS + ROWS.splitlines()[-1] + "\n")
    with pytest.raises(
        LobsterError, match="line 11, size: the message changes 118420 by 5, the orderbook by 0"
    ):
        events_of(inside)


def test_a_book_of_nothing_is_a_snapshot_of_nothing(tmp_path):
    rows = "9999999999,0,-9999999999,0\n"
    lobster = day(tmp_path, "1.0,7,0,0,-1,1\n", rows)
    flags = market.EVENT_FLAG_FIRST | market.EVENT_FLAG_LAST
    assert [event[1:6] for event in events_of(lobster)] == [(STATUS, 0, 0, 0, 0), (SNAPSHOT, 0, 0, 0, flags)]
    assert replayed(lobster, 1) == [([], [])]


LINES = MESSAGES.splitlines(keepends=True)


@pytest.mark.parametrize(
    ("line", "text", "says"),
    [
        (2, "34714.2,x,1,300,118500,1\n", r"message.csv line 3, column 2: 'x' is no number"),
        (2, "34714.2,4,1,300,118500\n", r"message.csv line 3: has 5 columns, needs 6"),
        (2, "34714.2,9,1,300,118500,1\n", r"message.csv line 3, type: 9 cannot be"),
        (2, "-1,4,1,300,118500,1\n", r"message.csv line 3, time: -1 cannot be"),
        (2, "34714.2,4,1,300.5,118500,1\n", r"message.csv line 3, size: 300.5 cannot be"),
        (2, "34714.2,4,1,300,0,1\n", r"message.csv line 3, price: 0 cannot be"),
        (2, "34714.2,4,1,300,118500,2\n", r"message.csv line 3, direction: 2 cannot be"),
        (2, "nan,4,1,300,118500,1\n", r"message.csv line 3, column 1: nan cannot be"),
        (
            2,
            "34714.2,4,1,299,118500,1\n",
            r"line 3, size: the message changes 118500 by -299, the orderbook by -300",
        ),
        (2, "\n", r"message.csv line 3: has 1 columns, needs 6"),
        (9, "", r"orderbook.csv line 10: the other file has no such line"),
    ],
)
@pytest.mark.parametrize("lines", [1, 4, 100])
def test_errors_name_file_line_and_column(tmp_path, line, text, says, lines):
    broken = "".join([*LINES[:line], text, *LINES[line + 1 :]])
    with pytest.raises(LobsterError, match=says):
        events_of(day(tmp_path, messages=broken), lines)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("1,2,3\n", "3 columns are no whole levels"),
        ("1,-2,3,4\n", "line 1, column 2: -2 cannot be"),
        ("1,2,3,4\n1,2,3,4,5,6,7,8\n", "has 8 columns"),
    ],
)
def test_orderbooks_that_are_none(tmp_path, rows, says):
    for lines in (1, 100):
        with pytest.raises(LobsterError, match=says):
            events_of(day(tmp_path, rows=rows), lines)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, len(MESSAGES) - 1), st.sampled_from(b"\x000,.\n-\xffe9n")), max_size=4),
    st.binary(max_size=40),
    st.booleans(),
)
def test_hostile_files_are_refused_or_read(tmp_path, changes, junk, of_messages):
    text = bytearray((MESSAGES if of_messages else ROWS).encode())
    for place, byte in changes:
        text[place % len(text)] = byte
    content = bytes(text) + junk
    lobster = day(tmp_path, content, ROWS) if of_messages else day(tmp_path, MESSAGES, content)
    try:
        events = events_of(lobster, 3)
    except LobsterError:
        return
    assert len(events) >= 1


def test_times_keep_their_nanoseconds(tmp_path):
    times = [event[0] for event in events_of(day(tmp_path))]
    assert times[0] == MIDNIGHT_NS + 34_713_685_155_243
    assert all(earlier <= later for earlier, later in pairwise(times))
