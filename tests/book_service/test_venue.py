"""The venue: orders in columns to executions in columns, and the loop that rebuilds it from the log."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from book_service import order_events
from book_service.matching import ControlCommand, Controls
from book_service.order_log import KafkaOrderLog, by_partition
from book_service.replay import replay
from book_service.service_metrics import BookMetrics
from book_service.settings import BookServiceSettings, BookSettings
from book_service.venue import Listed, Venue
from book_service.wiring import venue_loop
from protos import packing, topics
from protos.control_commands import ControlRow, control_batch
from protos.market.v1.market_pb2 import Origin
from protos.orders.v1 import orders_pb2 as orders
from service_kit.errors import Unavailable
from service_kit.kafka.appender import Appender
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.embedded import EmbeddedBroker
from service_kit.kafka.lookup import LogLookup
from service_kit.kafka.metrics import KafkaMetrics
from service_kit.kafka.partitioning import partition_of
from service_kit.kafka.producer import Producer
from service_kit.kafka.records import BEGINNING, Partition
from service_kit.lifecycle import Stop

TICKS = {"AAA": 0.01, "BBB": 0.5}
LISTED = tuple(Listed(symbol, tick) for symbol, tick in TICKS.items())
ORIGIN = Origin(topic=topics.ORDERS_INCOMING, partition=0, offset=5)
BUY, SELL = 0, 1


def batch(*rows, symbols=("AAA",)):
    """Each row: (symbol index, order id, side, price in ticks, quantity)."""
    message = orders.OrderBatch(symbols=symbols, client="test")
    index, ids, sides, prices, quantities = (np.array(column) for column in zip(*rows, strict=True))
    packing.write(message, "symbol_index", index)
    packing.write(message, "action", [orders.ACTION_NEW])
    packing.write(message, "order_id", ids)
    packing.write(message, "account", ids)
    packing.write(message, "side", sides)
    packing.write(message, "price_ticks", prices)
    packing.write(message, "quantity", quantities)
    packing.write(message, "time_ns", [1_000])
    return message


def events(*rows, **more):
    return order_events.decode(batch(*rows, **more).SerializeToString())


def reports(executions):
    """(kind, symbol, order id, price, quantity) of each report."""
    count = len(executions.kind)
    columns = [packing.column(executions, name, count) for name in ("order_id", "price_ticks", "quantity")]
    names = [executions.symbols[place] for place in packing.column(executions, "symbol_index", count)]
    return list(zip(executions.kind, names, *(column.tolist() for column in columns), strict=True))


def test_a_trade_is_reported_with_both_sides_and_its_place():
    venue = Venue(LISTED)
    executions = venue.apply(events((0, 1, SELL, 100, 10), (0, 2, BUY, 101, 4)), ORIGIN)
    assert reports(executions) == [
        (orders.REPORT_KIND_ACCEPTED, "AAA", 1, 100, 10),
        (orders.REPORT_KIND_ACCEPTED, "AAA", 2, 101, 4),
        (orders.REPORT_KIND_TRADE, "AAA", 2, 100, 4),
    ]
    assert (executions.maker_id[2], executions.taker_id[2]) == (1, 2)
    assert (executions.account[2], executions.maker_account[2]) == (2, 1)
    assert executions.origin == ORIGIN
    assert executions.first_report == 0
    assert venue.apply(events((0, 3, BUY, 1, 1)), ORIGIN).first_report == 3


def test_batches_name_their_own_symbols_in_any_order():
    venue = Venue(LISTED)
    executions = venue.apply(events((0, 1, BUY, 9, 1), (1, 2, BUY, 8, 2), symbols=("BBB", "AAA")), ORIGIN)
    assert [name for _, name, *_ in reports(executions)] == ["BBB", "AAA"]
    ticks = dict(zip(executions.symbols, executions.tick_size, strict=True))
    assert ticks == TICKS
    assert list(venue.book("BBB", 5).bid_price_ticks) == [9]
    assert list(venue.book("AAA", 5).bid_price_ticks) == [8]


def test_an_order_in_an_unknown_symbol_is_rejected_under_its_own_name():
    venue = Venue(LISTED)
    executions = venue.apply(
        events((0, 1, BUY, 9, 1), (1, 2, BUY, 9, 1), (2, 3, BUY, 9, 1), symbols=("QQQ", "AAA", "YYY")), ORIGIN
    )
    rejected, accepted = orders.REPORT_KIND_REJECTED, orders.REPORT_KIND_ACCEPTED
    assert [(kind, name) for kind, name, *_ in reports(executions)] == [
        (rejected, "QQQ"),
        (accepted, "AAA"),
        (rejected, "YYY"),
    ]


def test_the_book_says_what_it_contains():
    venue = Venue(LISTED)
    venue.apply(
        events((0, 1, BUY, 99, 5), (0, 2, BUY, 99, 7), (0, 3, BUY, 98, 1), (0, 4, SELL, 101, 2)), ORIGIN
    )
    book = venue.book("AAA", 10)
    assert (list(book.bid_price_ticks), list(book.bid_quantity), list(book.bid_orders)) == (
        [99, 98],
        [12, 1],
        [2, 1],
    )
    assert list(book.ask_price_ticks) == [101]
    assert (book.as_of, book.tick_size, book.time_ns) == (ORIGIN, 0.01, 1_000)
    assert venue.book("ZZZ", 10) is None


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("account", 2**32 - 1, None),
        ("action", 300, "action"),
        ("side", 256, "side"),
        ("flags", 2**20, "flags"),
    ],
)
def test_a_code_that_the_core_would_cut_is_refused(column, value, says):
    message = batch((0, 1, BUY, 9, 1))
    message.ClearField(column)
    getattr(message, column).append(value)
    if says is None:
        order_events.decode(message.SerializeToString())
        return
    with pytest.raises(ValueError, match=says):
        order_events.decode(message.SerializeToString())


@given(st.binary(max_size=150))
def test_hostile_bytes_never_reach_the_core_unchecked(junk):
    venue = VENUE
    try:
        found = order_events.decode(junk)
    except ValueError:
        return
    except Exception as fault:  # noqa: BLE001 - which kinds come is the point
        assert type(fault).__name__ == "DecodeError"
        return
    venue.apply(found, ORIGIN)


VENUE = Venue(LISTED)


def test_orders_are_cut_by_the_partition_of_their_symbol():
    names = tuple(f"S{number}" for number in range(20))
    rows = [(number % 20, number + 1, BUY, 100 + number, 1) for number in range(200)]
    parts = by_partition(batch(*rows, symbols=names), 4)
    seen = {}
    for part in parts:
        homes = {partition_of(symbol, 4) for symbol in part.symbols}
        assert len(homes) == 1
        for place, order_id in zip(part.symbol_index, part.order_id, strict=True):
            seen[order_id] = part.symbols[place]
        assert list(part.order_id) == sorted(part.order_id)
    assert seen == {number + 1: names[number % 20] for number in range(200)}


def test_with_controls_an_instrument_without_a_reference_fails_closed():
    listed = (Listed("AAA", 0.01, 1.0), Listed("BBB", 0.5))
    venue = Venue(listed, Controls())
    executions = venue.apply(events((0, 1, BUY, 100, 1), (1, 2, BUY, 100, 1), symbols=("AAA", "BBB")), ORIGIN)
    kinds = [(kind, name) for kind, name, *_ in reports(executions)]
    assert kinds == [(orders.REPORT_KIND_ACCEPTED, "AAA"), (orders.REPORT_KIND_REJECTED, "BBB")]
    far = venue.apply(events((0, 3, BUY, 200, 1)), ORIGIN)
    assert list(far.kind) == [orders.REPORT_KIND_REJECTED]


def test_kill_cancels_everything_and_refuses_what_comes_after():
    venue = Venue((Listed("AAA", 0.01, 1.0), Listed("BBB", 0.5, 50.0)), Controls())
    venue.apply(events((0, 1, BUY, 100, 1), (1, 2, SELL, 101, 1), symbols=("AAA", "BBB")), ORIGIN)
    command = control_batch([ControlRow(ControlCommand.KILL)], 2_000)
    killed = venue.apply(order_events.decode(command.SerializeToString()), ORIGIN)
    assert sorted(killed.kind) == [
        orders.REPORT_KIND_ACCEPTED,
        orders.REPORT_KIND_CANCELLED,
        orders.REPORT_KIND_CANCELLED,
    ]
    assert not venue.book("AAA", 5).bid_price_ticks
    refused = venue.apply(events((0, 9, BUY, 100, 1)), ORIGIN)
    assert list(refused.kind) == [orders.REPORT_KIND_REJECTED]


def test_kill_of_one_account_leaves_the_others():
    venue = Venue((Listed("AAA", 0.01, 1.0),), Controls())
    venue.apply(events((0, 1, BUY, 100, 1), (0, 2, BUY, 99, 1)), ORIGIN)
    command = control_batch([ControlRow(ControlCommand.KILL, 1)], 2_000)
    venue.apply(order_events.decode(command.SerializeToString()), ORIGIN)
    assert list(venue.book("AAA", 5).bid_price_ticks) == [99]


def loop_on(broker, group="venue", listed_more=(), instruments=(), controls=False, **book):
    """A venue's loop as the service makes it."""
    listed = (*(f"{symbol}:{tick}" for symbol, tick in TICKS.items()), *listed_more)
    settings = BookServiceSettings(
        kafka=broker.settings(),
        book=BookSettings(
            instruments=instruments or listed,
            controls=controls,
            group=group,
            poll_records_max=100,
            commit_every_s=0.0,
            **book,
        ),
    )
    metrics = BookMetrics.on(CollectorRegistry())
    return venue_loop(settings, Producer(settings.kafka), LogLookup(settings.kafka), metrics, KafkaMetrics())


def leave(loop):
    """As a service that is told to stop leaves."""
    stop = Stop()
    stop.set()
    loop.run(stop)
    loop.consumer.close()


def turn_until(loop, done):
    """The book of AAA once it is as wanted; until its partition is held it is unavailable."""
    while True:
        loop.turn()
        try:
            book = loop.book("AAA", 10)
        except Unavailable:
            continue
        if done(book):
            return book


def executed(broker, count):
    """(origin offset, origin partition) of everything on orders.executed, once `count` batches are there."""
    found = []
    with Consumer(
        broker.settings(), [topics.ORDERS_EXECUTED], "reader", orders.ExecutionBatch.FromString
    ) as reader:
        reader.assign({Partition(topics.ORDERS_EXECUTED, number): BEGINNING for number in range(4)})
        while len(found) < count:
            found += [(m.value.origin.partition, m.value.origin.offset) for m in reader.poll(100, 1.0)]
        found += [(m.value.origin.partition, m.value.origin.offset) for m in reader.poll(100, 0.2)]
    return sorted(found)


def test_a_new_process_rebuilds_the_book_and_publishes_nothing_twice():
    with EmbeddedBroker() as broker:
        log = KafkaOrderLog(Appender(broker.settings()), 4)
        first = loop_on(broker)
        assert first.book("never traded", 10) is None
        places = [log.append(batch((0, n, SELL, 100 + n, n))) for n in range(1, 6)]
        before = turn_until(first, lambda book: len(book.ask_price_ticks) == 5)
        leave(first)

        second = loop_on(broker)
        places.append(log.append(batch((0, 7, BUY, 101, 1))))
        wanted = places[-1][0]
        after = turn_until(second, lambda book: book.as_of == wanted)
        leave(second)
        assert list(after.ask_price_ticks) == list(before.ask_price_ticks)[1:]
        assert executed(broker, 6) == sorted((one.partition, one.offset) for [one] in places)


def test_orders_from_the_future_are_set_aside_and_others_go_on():
    """One order with a time far ahead would hold every account's clock there for ever."""
    with EmbeddedBroker() as broker:
        appender = Appender(broker.settings())
        now = time.time_ns()
        for order_id, ahead_s in ((1, 0), (2, 30), (3, 3_600), (4, 2**32), (5, 31)):
            order = batch((0, order_id, SELL, 100 + order_id, 5))
            order.time_ns[:] = [now + ahead_s * 1_000_000_000]
            appender.append(topics.ORDERS_INCOMING, "AAA", order.SerializeToString())
        loop = loop_on(broker)
        book = turn_until(loop, lambda book: len(book.ask_price_ticks) == 3)
        leave(loop)
        assert list(book.ask_price_ticks) == [101, 102, 105]
        assert book.time_ns <= now + 60 * 1_000_000_000
        with Consumer(broker.settings(), [], "reader", bytes) as reader:
            home = Partition(topics.dead_letter(topics.ORDERS_INCOMING), 0)
            reader.assign({home: BEGINNING})
            letters = []
            while len(letters) < 2:
                letters += reader.poll(10, 0.5)
        said = [dict(one.record.headers) for one in letters]
        assert all(b"future" in b" ".join(one.values()) for one in said)
        moment = replay(broker.settings(), LISTED, None, partition_of("AAA", 4))
        assert moment.book("AAA", 5).ask_price_ticks == book.ask_price_ticks
