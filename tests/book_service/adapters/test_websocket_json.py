"""The JSON feed: its rules one by one, then over a local server that hangs up, skips and talks nonsense."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from book_service import raw_events
from book_service.adapters.errors import FeedError
from book_service.adapters.json_feed import JsonFeed
from book_service.adapters.websocket import WebSocketLimits
from book_service.adapters.websocket_json import Backoff, WebSocketFeed
from book_service.normaliser import Dropped, Normaliser
from protos.market.v1 import market_pb2 as market
from tests.book_service.adapters.websocket_server import Server, server_frame

ORIGIN = market.Origin(topic="market.data.raw", partition=0, offset=0)
FIRST, LAST, GAP = market.EVENT_FLAG_FIRST, market.EVENT_FLAG_LAST, market.EVENT_FLAG_GAP
DELTA, TRADE, SNAPSHOT = (
    market.EVENT_KIND_BOOK_DELTA,
    market.EVENT_KIND_TRADE,
    market.EVENT_KIND_BOOK_SNAPSHOT,
)
STATUS, BUY, SELL = market.EVENT_KIND_STATUS, market.SIDE_BUY, market.SIDE_SELL


def message(kind, sequence, symbol="AAA", **fields):
    return {"type": kind, "symbol": symbol, "sequence": sequence, "time_ns": sequence * 10, **fields}


def snapshot(sequence, bids=(), asks=(), **more):
    return message("snapshot", sequence, bids=list(bids), asks=list(asks), **more)


def update(sequence, bids=(), asks=(), **more):
    return message("update", sequence, bids=list(bids), asks=list(asks), **more)


def rows(events):
    names = ("kind", "side", "price", "quantity", "flags")
    return list(zip(*(events.columns[name].tolist() for name in names), strict=True))


def taken(feed, *messages):
    """Rows and resubscriptions of messages one after another."""
    found = [feed.take(json.dumps(each)) for each in messages]
    return [row for each in found for row in rows(each.events)], [
        s for each in found for s in each.resubscribe
    ]


LOST = (SNAPSHOT, 0, 0.0, 0.0, FIRST | GAP)


def test_a_snapshot_then_updates_trades_and_states():
    feed = JsonFeed("x", ("AAA",))
    events, again = taken(
        feed,
        snapshot(7, [["99.5", "10"], [99, 2]], [["100.5", "3"]]),
        update(8, bids=[["99.5", "0"]], asks=[["100", "1"]]),
        message("trade", 9, price=100, quantity="1", side="buy"),
        message("status", 10, state="halted"),
    )
    assert events == [
        (SNAPSHOT, BUY, 99.5, 10.0, FIRST),
        (SNAPSHOT, BUY, 99.0, 2.0, 0),
        (SNAPSHOT, SELL, 100.5, 3.0, LAST),
        (DELTA, BUY, 99.5, 0.0, 0),
        (DELTA, SELL, 100.0, 1.0, 0),
        (TRADE, BUY, 100.0, 1.0, 0),
        (STATUS, 0, 0.0, 0.0, 0),
    ]
    assert again == []
    events = feed.take(json.dumps(message("status", 11, state="open"))).events
    assert events.columns["state"].tolist() == [market.TRADING_STATE_OPEN]
    assert events.columns["source_time_ns"].tolist() == [110]
    assert events.columns["source_sequence"].tolist() == [8]


def test_what_comes_before_the_snapshot_is_taken_after_it():
    feed = JsonFeed("x", ("AAA",))
    assert taken(feed, update(7, [[99, 1]]), update(8, [[98, 1]]), update(9, [[97, 1]])) == ([], [])
    assert taken(feed, snapshot(8, [[50, 1]])) == (
        [(SNAPSHOT, BUY, 50.0, 1.0, FIRST | LAST), (DELTA, BUY, 97.0, 1.0, 0)],
        [],
    )


def test_a_gap_is_said_and_healed_by_a_new_snapshot():
    feed = JsonFeed("x", ("AAA", "BBB"))
    taken(feed, snapshot(1), snapshot(1, symbol="BBB"))
    assert taken(feed, update(3, [[99, 1]])) == ([LOST], ["AAA"])
    assert taken(feed, update(4, [[98, 1]])) == ([], [])
    assert taken(feed, update(2, [[77, 1]], symbol="BBB")) == ([(DELTA, BUY, 77.0, 1.0, 0)], [])
    assert taken(feed, snapshot(3, [[50, 1]])) == (
        [(SNAPSHOT, BUY, 50.0, 1.0, FIRST | LAST), (DELTA, BUY, 98.0, 1.0, 0)],
        [],
    )


def test_a_gap_within_what_waited_asks_again():
    feed = JsonFeed("x", ("AAA",))
    taken(feed, update(5, [[99, 1]]), update(7, [[98, 1]]))
    assert taken(feed, snapshot(4)) == (
        [(SNAPSHOT, 0, 0.0, 0.0, FIRST | LAST), (DELTA, BUY, 99.0, 1.0, 0), LOST],
        ["AAA"],
    )
    assert taken(feed, snapshot(6))[0] == [(SNAPSHOT, 0, 0.0, 0.0, FIRST | LAST), (DELTA, BUY, 98.0, 1.0, 0)]


def test_what_is_old_is_left_out():
    feed = JsonFeed("x", ("AAA",))
    taken(feed, snapshot(5))
    assert taken(feed, update(5, [[1, 1]]), update(4, [[1, 1]]), snapshot(5, [[9, 9]])) == ([], [])


def test_what_waits_is_limited():
    feed = JsonFeed("x", ("AAA",), waiting_max=3)
    assert taken(feed, *(update(number) for number in range(1, 4))) == ([], [])
    assert taken(feed, update(4)) == ([], ["AAA"])
    assert not feed._state["AAA"].waiting


def test_a_lost_connection_is_said_of_every_symbol_that_was_known():
    feed = JsonFeed("x", ("AAA", "BBB"))
    taken(feed, snapshot(5))
    lost = feed.disconnected()
    assert rows(lost) == [LOST]
    assert lost.symbols[int(lost.columns["symbol_index"][0])] == "AAA"
    assert len(feed.disconnected()) == 0
    assert taken(feed, snapshot(1))[0] == [(SNAPSHOT, 0, 0.0, 0.0, FIRST | LAST)]  # the exchange began anew


def test_the_normaliser_sees_the_loss_and_the_recovery():
    feed, clean = JsonFeed("x", ("AAA",)), Normaliser()

    def normalised(events):
        return clean.apply(raw_events.decode(events.batch().SerializeToString()), ORIGIN)

    for each in (snapshot(1, [[99, 1]], [[101, 1]]), update(2, [[99.5, 2]])):
        normalised(feed.take(json.dumps(each)).events)
    assert clean.depth("x", "AAA", 1) == ([(99.5, 2.0)], [(101.0, 1.0)])
    assert normalised(feed.take(json.dumps(update(4, [[98, 1]]))).events).dropped == {}
    assert clean.depth("x", "AAA", 1) is None
    assert (
        Dropped.AWAITING_SNAPSHOT
        not in normalised(feed.take(json.dumps(snapshot(4, [[97, 1]]))).events).dropped
    )
    assert clean.depth("x", "AAA", 1) == ([(97.0, 1.0)], [])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[1]", "no JSON object"),
        ('{"type": "trade", "price": NaN}', "NaN is no JSON number"),
        (json.dumps(update(1, symbol="ZZZ")), "symbol: 'ZZZ' was not subscribed to"),
        (json.dumps(message("update", 1, symbol=[1])), "symbol: "),
        (json.dumps(update(-1)), "sequence: '-1' is no whole number"),
        (json.dumps(update(1.5)), "sequence: '1.5' is no whole number"),
        (json.dumps(update(2**64)), "sequence"),
        (json.dumps(update(1) | {"time_ns": True}), "time_ns: 'True'"),
        (json.dumps(update(1, bids=[["x", 1]])), r"bids\[0\] price: 'x' is no such number"),
        (json.dumps(update(1, asks=[[1, 2], [1, "inf"]])), r"asks\[1\] quantity: 'inf' is no such number"),
        (json.dumps(update(1, asks=[[0, 2]])), r"asks\[0\] price: '0' is no such number"),
        (json.dumps(update(1, asks=[[1, -2]])), r"asks\[0\] quantity: '-2'"),
        (json.dumps(update(1, asks=[[1, 2, 3]])), r"asks\[0\]: is not \[price, quantity\]"),
        (json.dumps(update(1) | {"bids": 7}), "bids: is no list"),
        (json.dumps(message("trade", 1, price=1, quantity=1, side="up")), "side: 'up' is none of buy, sell"),
        (json.dumps(message("trade", 1, price=True, quantity=1, side="buy")), "price: 'True'"),
        (json.dumps(message("status", 1, state="odd")), "state: 'odd' is none of open"),
        ('{"type": "update", "symbol": "AAA", "sequence": ' + "9" * 5_000 + "}", "no JSON"),
    ],
)
def test_bad_messages_name_their_field_and_change_nothing(text, says):
    feed = JsonFeed("x", ("AAA",))
    before = str(feed)
    with pytest.raises(FeedError, match=says):
        feed.take(text)
    assert str(feed) == before


def test_messages_of_other_types_are_let_pass():
    assert taken(JsonFeed("x", ("AAA",)), {"type": "heartbeat"}, {}) == ([], [])


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["AAA", "1.5"]),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(
    ["symbol", "sequence", "time_ns", "bids", "asks", "price", "quantity", "side", "state"]
)
hostile = st.builds(
    lambda kind, changes, sequence: json.dumps(
        message(kind, sequence, bids=[[1, 2]], price=1, quantity=2, side="buy", state="open") | changes
    ),
    st.sampled_from(["snapshot", "update", "trade", "status"]),
    st.dictionaries(names, json_values, max_size=2),
    st.integers(0, 6),
)


@given(st.lists(hostile | st.text(max_size=20), max_size=12))
def test_hostile_messages_are_refused_or_give_events_of_the_topic(texts):
    feed = JsonFeed("x", ("AAA",), waiting_max=5)
    for text in texts:
        try:
            found = feed.take(text)
        except FeedError:
            continue
        assert len(feed._state["AAA"].waiting) <= 6
        if len(found.events):
            raw_events.decode(found.events.batch().SerializeToString())


def test_waits_double_up_to_the_most_and_half_is_chance():
    backoff = Backoff(least_s=1.0, most_s=10.0)
    assert [backoff.wait_s(failures, 1.0) for failures in (1, 2, 3, 4, 5, 10_000)] == [1, 2, 4, 8, 10, 10]
    assert backoff.wait_s(3, 0.0) == 2.0


async def events_until(feed, wanted):
    """Rows in order until there are `wanted`."""
    found = []
    async with asyncio.timeout(30), aclosing(feed.events()) as stream:
        async for events in stream:
            found += rows(events)
            if len(found) >= wanted:
                return found
    raise AssertionError("the feed ended")


def client(server, symbols=("AAA",), **more):
    waits = []

    async def sleep(seconds):
        waits.append(seconds)
        await asyncio.sleep(0)

    feed = WebSocketFeed(
        server.url, JsonFeed("x", symbols), backoff=Backoff(1.0, 8.0), sleep=sleep, chance=lambda: 1.0, **more
    )
    return feed, waits


async def good(peer):
    await peer.shake_hands()
    assert await peer.subscription() == ["AAA"]
    peer.text(snapshot(1, [[99, 1]]))
    peer.text(update(2, [[98, 1]]))
    await peer.receive()


SNAP, UPDATE = (SNAPSHOT, BUY, 99.0, 1.0, FIRST | LAST), (DELTA, BUY, 98.0, 1.0, 0)


async def test_disconnects_of_every_kind_are_survived():
    async def hangs_up_at_once(peer):
        peer.hang_up()

    async def hangs_up_in_the_midst_of_a_message(peer):
        await peer.shake_hands()
        await peer.subscription()
        peer.text(snapshot(1, [[99, 1]]))
        peer.write(server_frame(1, json.dumps(update(2)).encode())[:20])
        await peer.writer.drain()
        peer.writer.close()
        await peer.reader.read()

    async def says_goodbye(peer):
        await peer.shake_hands()
        await peer.subscription()
        peer.text(snapshot(1, [[99, 1]]))
        peer.write(server_frame(8, b"\x03\xe9"))
        await peer.receive()

    async def breaks_the_rules(peer):
        await peer.shake_hands()
        await peer.subscription()
        peer.text(snapshot(1, [[99, 1]]))
        peer.write(b"\xff\xff")
        await peer.receive()

    scripts = (
        hangs_up_at_once,
        hangs_up_at_once,
        hangs_up_in_the_midst_of_a_message,
        says_goodbye,
        breaks_the_rules,
        good,
    )
    async with Server(*scripts) as server:
        feed, waits = client(server)
        assert await events_until(feed, 8) == [SNAP, LOST, SNAP, LOST, SNAP, LOST, SNAP, UPDATE]
        assert server.connections == 6
        # Two hung up at once: the wait doubles; after data it begins at the least again.
        assert waits == [1.0, 2.0, 1.0, 1.0, 1.0]
        assert feed.counts.connections == 4


async def test_what_came_before_a_fault_is_not_lost_and_the_fault_does_not_wait():
    async def good_then_bad(peer):
        await peer.shake_hands()
        await peer.subscription()
        peer.write(server_frame(1, json.dumps(snapshot(1, [[99, 1]])).encode()) + b"\xff\xff")
        await peer.receive()

    async with Server(good_then_bad, good) as server:
        feed, _ = client(server)
        assert await events_until(feed, 4) == [SNAP, LOST, SNAP, UPDATE]
        assert "reserved bits" in feed.counts.last_fault


async def test_nobody_there_is_tried_again():
    async with Server(good) as server:
        feed, waits = client(server)
        url, feed.url = feed.url, "ws://127.0.0.1:1/"

        async def then_there(seconds):
            waits.append(seconds)
            if len(waits) == 3:
                feed.url = url

        feed.sleep = then_there
        assert await events_until(feed, 2) == [SNAP, UPDATE]
        assert waits == [1.0, 2.0, 4.0]


async def test_a_gap_is_healed_over_the_same_connection():
    async def skips(peer):
        await peer.shake_hands()
        assert await peer.subscription() == ["AAA", "BBB"]
        peer.text(snapshot(1, [[99, 1]]))
        peer.text(update(5, [[98, 1]]))
        assert await peer.subscription() == ["AAA"]
        peer.text(snapshot(4, [[99, 1]]))
        await peer.receive()

    async with Server(skips) as server:
        feed, _ = client(server, ("AAA", "BBB"))
        assert await events_until(feed, 4) == [SNAP, LOST, SNAP, UPDATE]
        assert (server.connections, feed.counts.resubscriptions) == (1, 1)


async def test_bad_messages_are_counted_and_too_many_end_the_connection():
    async def nonsense(peer):
        await peer.shake_hands()
        await peer.subscription()
        peer.text(snapshot(1, [[99, 1]]))
        for _ in range(5):
            peer.text({"type": "update", "symbol": "?"})
        await peer.receive()

    async with Server(nonsense, good) as server:
        feed, _ = client(server, bad_in_a_row_max=4)
        assert await events_until(feed, 4) == [SNAP, LOST, SNAP, UPDATE]
        assert feed.counts.bad_messages == 5
        assert "5 bad messages in a row" in feed.counts.last_fault


async def test_a_silent_server_is_left_for_the_next():
    async def silent(peer):
        await peer.shake_hands()
        await peer.subscription()
        assert (await peer.receive())[0] == 9
        await peer.receive()

    async with Server(silent, good) as server:
        feed, _ = client(server, limits=WebSocketLimits(idle_s=0.05))
        assert await events_until(feed, 2) == [SNAP, UPDATE]
        assert server.connections >= 2
