"""Our own venue as a source: what the normaliser makes of it is the matching core's own book."""

from __future__ import annotations

import numpy as np

from book_service import raw_events
from book_service.adapters.venue_book import VenueSource
from book_service.matching import ORDER_DTYPE, MatchingEngine
from book_service.normaliser import Normaliser, NormaliserRules
from protos import packing
from protos.book.v1.book_pb2 import Book
from protos.market.v1 import market_pb2 as market
from protos.orders.v1.orders_pb2 import ExecutionBatch

ORIGIN = market.Origin(topic="market.data.raw", partition=0, offset=0)
TICK = 0.25


def book_of(engine, levels):
    book = Book(symbol="AAA", tick_size=TICK, time_ns=77)
    for side, rows in zip(("bid", "ask"), engine.depth(0, levels), strict=True):
        packing.write(book, f"{side}_price_ticks", rows["price"])
        packing.write(book, f"{side}_quantity", rows["quantity"].astype(np.int64))
    return book


def trades_of(reports):
    batch = ExecutionBatch(symbols=["AAA"], tick_size=[TICK])
    packing.write(batch, "symbol_index", np.zeros(len(reports), int))
    for name, column in (
        ("kind", "kind"),
        ("side", "side"),
        ("price", "price_ticks"),
        ("quantity", "quantity"),
        ("time", "time_ns"),
    ):
        packing.write(batch, column, np.ascontiguousarray(reports[name]))
    return batch


def test_books_and_trades_reach_the_normaliser_as_they_are(seed):
    rng = np.random.default_rng(seed)
    engine, source = MatchingEngine(1), VenueSource("house")
    clean = Normaliser(NormaliserRules(band_relative=100.0))
    fresh, traded = 0, 0
    for _ in range(40):
        orders = np.zeros(20, ORDER_DTYPE)
        fresh += 20
        orders["order_id"] = np.arange(fresh - 20, fresh) + 1
        orders["account"] = 1
        orders["side"] = rng.integers(0, 2, 20)
        orders["price"] = 400 + rng.integers(-9, 10, 20)
        orders["quantity"] = rng.integers(1, 50, 20)
        orders["time"] = fresh
        reports = engine.process(orders)
        printed = reports[reports["kind"] == 1]
        for events, count in (
            (source.trades(trades_of(reports)), len(printed)),
            (source.book(book_of(engine, 6)), None),
        ):
            assert count is None or len(events) == count
            for symbol, record in events.by_symbol():
                assert symbol == "AAA"
                result = clean.apply(raw_events.decode(record.SerializeToString()), ORIGIN)
                assert (result.dropped, result.batch.source) == ({}, "house")
                if count:
                    assert list(result.batch.price) == (printed["price"] * TICK).tolist()
                    assert packing.column(result.batch, "side", count).tolist() == printed["side"].tolist()
                    traded += count
        expected = tuple(
            [(row["price"] * TICK, row["quantity"]) for row in side] for side in engine.depth(0, 6)
        )
        assert clean.depth("house", "AAA", 6) == expected
    assert traded > 0


def test_a_book_of_nothing_and_one_unchanged():
    source = VenueSource("house")
    empty = source.book(Book(symbol="AAA", tick_size=TICK))
    assert empty.columns["flags"].tolist() == [market.EVENT_FLAG_FIRST | market.EVENT_FLAG_LAST]
    assert empty.columns["quantity"].tolist() == [0.0]
    assert len(source.book(Book(symbol="AAA", tick_size=TICK))) == 0
    assert len(source.trades(ExecutionBatch())) == 0
