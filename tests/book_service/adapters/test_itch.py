"""ITCH to events: each message by hand, random sessions against a slow obvious book, hostile bytes."""

from __future__ import annotations

import gzip
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from book_service import raw_events
from book_service.adapters.errors import ItchError
from book_service.adapters.itch import ItchAdapter, replay
from book_service.adapters.itch_orders import OrderLevels
from protos.market.v1 import market_pb2 as market

MIDNIGHT_NS = 1_700_000_000_000_000_000
DELTA, TRADE, STATUS = market.EVENT_KIND_BOOK_DELTA, market.EVENT_KIND_TRADE, market.EVENT_KIND_STATUS
BUY, SELL = market.SIDE_BUY, market.SIDE_SELL


class Session:
    """Writes messages by the specification's tables, one byte string after another."""

    def __init__(self):
        self.pieces = []
        self.time = 34_200 * 10**9

    def write(self, kind, locate, *fields):
        self.time += 1
        head = kind + locate.to_bytes(2, "big") + b"\0\0" + self.time.to_bytes(6, "big")
        body = head + b"".join(
            field if isinstance(field, bytes) else field[0].to_bytes(field[1], "big") for field in fields
        )
        self.pieces.append(len(body).to_bytes(2, "big") + body)

    def add(self, ref, side, shares, price, locate=1, stock=b"AAPL    ", mpid=None):
        tail = [] if mpid is None else [mpid]
        self.write(b"F" if mpid else b"A", locate, (ref, 8), side, (shares, 4), stock, (price, 4), *tail)

    def execute(self, ref, shares, locate=1):
        self.write(b"E", locate, (ref, 8), (shares, 4), (7, 8))

    def execute_at(self, ref, shares, price, printable=b"Y", locate=1):
        self.write(b"C", locate, (ref, 8), (shares, 4), (7, 8), printable, (price, 4))

    def cancel(self, ref, shares, locate=1):
        self.write(b"X", locate, (ref, 8), (shares, 4))

    def delete(self, ref, locate=1):
        self.write(b"D", locate, (ref, 8))

    def replace(self, old, new, shares, price, locate=1):
        self.write(b"U", locate, (old, 8), (new, 8), (shares, 4), (price, 4))

    def bytes(self):
        return b"".join(self.pieces)


def adapter():
    return ItchAdapter("nasdaq", MIDNIGHT_NS)


def seen(events):
    """Events as tuples: a delta or a trade (kind, symbol, side, price, quantity), a status (.., state)."""
    columns = {name: values.tolist() for name, values in events.columns.items()}
    return [
        (kind, events.symbols[place], state)
        if kind == STATUS
        else (kind, events.symbols[place], side, price, quantity)
        for kind, place, side, price, quantity, state in zip(
            columns["kind"],
            columns["symbol_index"],
            columns["side"],
            columns["price"],
            columns["quantity"],
            columns["state"],
            strict=True,
        )
    ]


def test_an_orders_life_by_hand():
    session = Session()
    session.add(10, b"B", 300, 1_875_000)
    session.add(11, b"B", 50, 1_875_000, mpid=b"NITE")
    session.add(12, b"S", 80, 1_876_000)
    session.execute(10, 100)
    session.execute_at(12, 30, 1_875_500)
    session.execute_at(12, 10, 1_875_500, printable=b"N")
    session.cancel(10, 20)
    session.replace(10, 20, 75, 1_874_000)
    session.delete(11)
    session.delete(12)
    feed = adapter()
    events = feed.feed(session.bytes())
    assert seen(events) == [
        (DELTA, "AAPL", BUY, 187.5, 300.0),
        (DELTA, "AAPL", BUY, 187.5, 350.0),
        (DELTA, "AAPL", SELL, 187.6, 80.0),
        (TRADE, "AAPL", SELL, 187.5, 100.0),
        (DELTA, "AAPL", BUY, 187.5, 250.0),
        (TRADE, "AAPL", BUY, 187.55, 30.0),
        (DELTA, "AAPL", SELL, 187.6, 50.0),
        (DELTA, "AAPL", SELL, 187.6, 40.0),
        (DELTA, "AAPL", BUY, 187.5, 230.0),
        (DELTA, "AAPL", BUY, 187.5, 50.0),  # the replace: 180 go from the old level
        (DELTA, "AAPL", BUY, 187.4, 75.0),  # and 75 come to the new one
        (DELTA, "AAPL", BUY, 187.5, 0.0),
        (DELTA, "AAPL", SELL, 187.6, 0.0),
    ]
    assert events.columns["source_sequence"].tolist() == list(range(1, 14))
    first = MIDNIGHT_NS + 34_200 * 10**9 + 1
    assert events.columns["source_time_ns"].tolist() == [
        first + step for step in (0, 1, 2, 3, 3, 4, 4, 5, 6, 7, 7, 8, 9)
    ]
    assert feed._orders.open_orders == 1


def test_trades_that_change_no_displayed_book():
    session = Session()
    session.write(b"P", 1, (0, 8), b"B", (25, 4), b"AAPL    ", (1_875_000, 4), (7, 8))
    session.write(b"Q", 1, (4_294_967_297, 8), b"AAPL    ", (1_870_000, 4), (8, 8), b"O")
    session.write(b"Q", 1, (0, 8), b"AAPL    ", (0, 4), (9, 8), b"C")  # a cross without shares
    session.write(b"B", 1, (7, 8))
    feed = adapter()
    assert seen(feed.feed(session.bytes())) == [
        (TRADE, "AAPL", SELL, 187.5, 25.0),
        (TRADE, "AAPL", BUY, 187.0, 4_294_967_297.0),
    ]
    assert feed.counts.broken_trades == 1


def test_trading_states():
    session = Session()
    reason = b"\x20    "
    for state in (b"T", b"H", b"Q", b"P", b"T"):
        session.write(b"H", 1, b"AAPL    ", state, reason)
    session.write(b"h", 1, b"AAPL    ", b"B", b"H")  # another market's halt is none of ours
    session.write(b"h", 1, b"AAPL    ", b"Q", b"H")
    session.write(b"H", 1, b"AAPL    ", b"T", reason)  # still halted operationally
    session.write(b"h", 1, b"AAPL    ", b"Q", b"T")
    session.write(b"S", 0, b"M")  # trading goes on after market hours
    session.write(b"S", 0, b"E")
    opened, halted, auction = (
        market.TRADING_STATE_OPEN,
        market.TRADING_STATE_HALTED,
        market.TRADING_STATE_AUCTION,
    )
    states = [opened, halted, auction, halted, opened, halted, halted, opened, market.TRADING_STATE_CLOSED]
    assert seen(adapter().feed(session.bytes())) == [(STATUS, "AAPL", state) for state in states]


def test_symbols_come_from_the_directory_or_from_adds():
    session = Session()
    session.write(
        b"R",
        5,
        b"MSFT    ",
        *(b"Q", b"N"),
        (100, 4),
        *(b"N", b"C", b"Z ", b"P", b"N", b" ", b"1", b"N"),
        (0, 4),
        b"N",
    )
    session.add(1, b"B", 5, 10_000, locate=5, stock=b"MSFT    ")
    session.add(2, b"B", 5, 10_000, locate=9, stock=b"\xff\x01      ")
    session.add(3, b"B", 5, 10_000, locate=7, stock=b"MSFT    ")  # a name taken already
    events = adapter().feed(session.bytes())
    assert [row[1] for row in seen(events)] == ["MSFT", "#9", "#7"]


def test_what_concerns_no_open_order_is_counted():
    session = Session()
    session.execute(1, 5)
    session.add(2, b"B", 5, 10_000)
    session.delete(2)
    session.cancel(2, 1)
    session.replace(2, 3, 9, 10_000)
    session.delete(3)  # its replace had no order
    feed = adapter()
    assert [row[4] for row in seen(feed.feed(session.bytes()))] == [5.0, 0.0]
    assert feed.counts.unknown_orders == 4


def test_more_than_there_is_takes_what_there_is():
    session = Session()
    session.add(1, b"S", 5, 10_000)
    session.execute(1, 9)
    assert seen(adapter().feed(session.bytes()))[1:] == [
        (TRADE, "AAPL", BUY, 1.0, 5.0),
        (DELTA, "AAPL", SELL, 1.0, 0.0),
    ]


@pytest.mark.parametrize("together", [True, False])
def test_an_order_that_is_added_twice_is_refused(together):
    session = Session()
    session.add(1, b"B", 5, 10_000)
    session.add(1, b"B", 5, 10_000)
    pieces = [session.bytes()] if together else session.pieces
    feed = adapter()
    for piece in pieces[:-1]:
        feed.feed(piece)
    with pytest.raises(ItchError, match="order 1 is added"):
        feed.feed(pieces[-1])


def test_open_orders_are_limited():
    session = Session()
    for ref in range(1, 5):
        session.add(ref, b"B", 5, 10_000)
    feed = ItchAdapter("nasdaq", 0, _orders=OrderLevels(open_orders_max=3))
    with pytest.raises(ItchError, match="more than 3 orders are open"):
        feed.feed(session.bytes())


class SlowBook:
    """One message at a time, one dict entry an order; what the adapter must agree with."""

    def __init__(self):
        self.orders, self.levels, self.events = {}, {}, []

    def change(self, key, by):
        self.levels[key] = self.levels.get(key, 0) + by
        locate, side, price = key
        self.events.append((DELTA, locate, side, price / 10_000, float(self.levels[key])))

    def cut(self, ref, shares, printed=None):
        if ref not in self.orders:
            return None
        locate, side, price, left = self.orders[ref]
        taken = left if shares is None else min(shares, left)
        if taken and printed is not None:
            at = price if printed == "own" else printed
            self.events.append((TRADE, locate, 1 - side, at / 10_000, float(taken)))
        if taken:
            self.change((locate, side, price), -taken)
        if taken == left:
            del self.orders[ref]
        else:
            self.orders[ref] = (locate, side, price, left - taken)
        return locate, side

    def add(self, ref, locate, side, shares, price):
        if shares:
            self.orders[ref] = (locate, side, price, shares)
            self.change((locate, side, price), shares)


def random_session(rng, messages):
    """A session and what the slow book says of it: few prices, chains of replaces, some unknown orders."""
    session, book = Session(), SlowBook()
    fresh = 0
    for _ in range(messages):
        kind = rng.choice(list("AFECXDU"), p=[0.3, 0.05, 0.1, 0.05, 0.15, 0.15, 0.2])
        price, shares = int(rng.integers(1, 6)) * 10_000, int(rng.integers(0, 9))
        known = list(book.orders)
        # Mostly the newest, so that whole lives fall in one piece.
        ref = known[-1 - int(rng.integers(min(4, len(known))))] if known and rng.random() < 0.95 else 10**6
        locate = book.orders[ref][0] if ref in book.orders else 1
        if kind in "AF":
            fresh += 1
            locate, side = int(rng.integers(1, 4)), int(rng.integers(2))
            stock, mpid = f"S{locate}      ".encode()[:8], b"MPID" if kind == "F" else None
            session.add(fresh, b"BS"[side : side + 1], shares, price, locate, stock, mpid)
            book.add(fresh, locate, side, shares, price)
        elif kind == "E":
            session.execute(ref, shares, locate)
            book.cut(ref, shares, "own")
        elif kind == "C":
            printable = bool(rng.integers(2))
            session.execute_at(ref, shares, price, b"Y" if printable else b"N", locate)
            book.cut(ref, shares, price if printable else None)
        elif kind == "X":
            session.cancel(ref, shares, locate)
            book.cut(ref, shares)
        elif kind == "D":
            session.delete(ref, locate)
            book.cut(ref, None)
        else:
            fresh += 1
            session.replace(ref, fresh, shares, price, locate)
            was = book.cut(ref, None)
            if was is not None:
                book.add(fresh, *was, shares, price)
    return session, book


def test_random_sessions_agree_with_the_slow_book_however_they_are_cut(seed):
    rng = np.random.default_rng(seed)
    for _ in range(40):
        session, book = random_session(rng, int(rng.integers(1, 400)))
        stream = session.bytes()
        cuts = [0, *sorted(rng.integers(0, len(stream) + 1, int(rng.integers(0, 6)))), len(stream)]
        feed, got = adapter(), []
        for start, end in pairwise(cuts):
            got += seen(feed.feed(stream[start:end]))
        feed.finish()
        expected = [(kind, f"S{locate}", *rest) for kind, locate, *rest in book.events]
        assert got == expected
        standing = {key: quantity for key, quantity in book.levels.items() if quantity}
        assert (
            dict(
                zip(zip(*(c.tolist() for c in feed._orders.levels()[:3])), feed._orders.levels()[3].tolist())
            )
            == standing
        )
        assert feed._orders.open_orders == len(book.orders)


def test_a_snapshot_is_every_level_with_its_edges_marked():
    session = Session()
    session.add(1, b"B", 5, 10_000, locate=1, stock=b"ONE     ")
    session.add(2, b"S", 6, 10_100, locate=1, stock=b"ONE     ")
    session.add(3, b"B", 7, 20_000, locate=2, stock=b"TWO     ")
    feed = adapter()
    feed.feed(session.bytes())
    snapshot = feed.snapshot()
    columns = {name: values.tolist() for name, values in snapshot.columns.items()}
    first, last = market.EVENT_FLAG_FIRST, market.EVENT_FLAG_LAST
    assert columns["flags"] == [first, last, first | last]
    assert columns["price"] == [1.0, 1.01, 2.0]
    assert columns["quantity"] == [5.0, 6.0, 7.0]
    assert [snapshot.symbols[place] for place in columns["symbol_index"]] == ["ONE", "ONE", "TWO"]
    assert columns["source_sequence"] == [3, 4, 2]
    assert adapter().snapshot().batch().symbols == []


def test_records_are_of_one_symbol_each_and_read_back(seed, tmp_path):
    session, book = random_session(np.random.default_rng(seed), 500)
    path = tmp_path / "session.itch"
    path.write_bytes(session.bytes() + b"\0\0")
    got = {}
    for events in replay(path, adapter(), piece_bytes=700):
        for symbol, record in events.by_symbol(events_max=10):
            read = raw_events.decode(record.SerializeToString())
            assert (read.symbols, read.source) == ((symbol,), "nasdaq")
            assert len(read) <= 10
            got.setdefault(symbol, []).extend(
                zip(read.kind.tolist(), read.price.tolist(), read.quantity.tolist(), strict=True)
            )
            assert int(read.source_sequence[-1]) == len(got[symbol])
    expected = {}
    for kind, locate, _, price, quantity in book.events:
        expected.setdefault(f"S{locate}", []).append((kind, price, quantity))
    assert got == expected


kinds = st.sampled_from(
    [
        (b"A", 36),
        (b"E", 31),
        (b"C", 36),
        (b"X", 23),
        (b"D", 19),
        (b"U", 35),
        (b"P", 44),
        (b"H", 25),
        (b"Q", 40),
    ]
)
small = st.sampled_from(b"\x00\x00\x00\x00\x01\x02BSHTQ\xff")


@settings(max_examples=60)
@given(
    st.lists(
        kinds.flatmap(
            lambda k: st.tuples(
                st.just(k[0]),
                st.binary(min_size=k[1] - 1, max_size=k[1] - 1)
                | st.lists(small, min_size=k[1] - 1, max_size=k[1] - 1).map(bytes),
            )
        ),
        max_size=25,
    )
)
def test_well_framed_nonsense_is_refused_or_gives_events_of_the_topic(messages):
    feed = adapter()
    stream = b"".join((len(body) + 1).to_bytes(2, "big") + kind + body for kind, body in messages)
    try:
        events = feed.feed(stream)
    except ItchError:
        return
    assert len(events) <= 2 * len(messages)
    if len(events):
        raw_events.decode(events.batch().SerializeToString())
    assert (feed._orders.levels()[3] > 0).all()


def test_a_packed_file_is_unpacked_and_one_that_is_damaged_is_refused(tmp_path):
    session = Session()
    for ref in range(1, 400):
        session.add(ref, b"B", ref, 1_000_000 + ref)
    plain, packed = tmp_path / "day.itch", tmp_path / "day.itch.gz"
    plain.write_bytes(session.bytes())
    packed.write_bytes(gzip.compress(session.bytes()))
    events = [
        [events.columns["price"].tolist() for events in replay(path, ItchAdapter("x", MIDNIGHT_NS))]
        for path in (plain, packed)
    ]
    assert events[0] == events[1]
    whole = packed.read_bytes()
    for damaged in (whole[:-20], whole[:100] + b"\xff" * 50 + whole[150:], b"not packed"):
        packed.write_bytes(damaged)
        with pytest.raises(ItchError, match="packed file breaks off or is damaged"):
            list(replay(packed, ItchAdapter("x", MIDNIGHT_NS)))
