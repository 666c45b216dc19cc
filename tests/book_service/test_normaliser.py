"""The normaliser's rules one by one, and its fast way against its slow one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from book_service import normaliser as module
from book_service import raw_events, source_stream
from book_service.normaliser import Dropped, FailoverRules, Normaliser, NormaliserRules
from protos import packing
from protos.market.v1 import market_pb2 as market

ORIGIN = market.Origin(topic="market.data.raw", partition=1, offset=7)


def batch(source="sim", symbols=("AAA",), **columns):
    message = market.RawBatch(source=source, symbols=symbols)
    rows = max(len(np.atleast_1d(values)) for values in columns.values())
    columns.setdefault("symbol_index", np.zeros(rows, int))
    columns.setdefault("kind", [market.EVENT_KIND_QUOTE])
    for name, values in columns.items():
        packing.write(message, name, values)
    return raw_events.decode(message.SerializeToString())


def flags_of(result):
    return packing.column(result.batch, "flags", packing.row_count(result.batch, ["flags"])).tolist()


def quotes(sequence, mids, **more):
    mids = np.asarray(mids, float)
    return batch(source_sequence=sequence, bid=mids - 0.01, ask=mids + 0.01, **more)


def test_clean_quotes_pass_unchanged_and_say_where_they_came_from():
    result = Normaliser().apply(quotes([1, 2], [100.0, 100.1], source_time_ns=[5, 6]), ORIGIN)
    assert result.batch.origin == ORIGIN
    assert result.batch.origin_index == [0, 1]
    assert list(result.batch.bid) == [99.99, 100.1 - 0.01]
    assert list(result.batch.source_time_ns) == [5, 6]
    assert flags_of(result) == [0, 0]
    assert result.dropped == {}


def test_house_symbols_replace_the_sources():
    mapped = Normaliser(house_symbols={("sim", "AAA"): "AAA.N"}).apply(quotes([1], [100.0]), ORIGIN)
    assert mapped.batch.symbols == ["AAA.N"]


def test_duplicates_are_dropped_and_gaps_marked():
    clean = Normaliser()
    result = clean.apply(quotes([1, 2, 2, 1, 5], [100.0] * 5), ORIGIN)
    assert list(result.batch.origin_index) == [0, 1, 4]
    assert flags_of(result) == [0, 0, market.EVENT_FLAG_GAP]
    assert result.dropped == {Dropped.DUPLICATE: 2}
    assert result.batch.dropped == 2
    # The same over batches.
    assert flags_of(clean.apply(quotes([9], [100.0]), ORIGIN)) == [market.EVENT_FLAG_GAP]
    assert clean.apply(quotes([9], [100.0]), ORIGIN).dropped == {Dropped.DUPLICATE: 1}


def test_a_source_that_numbers_anew_is_heard_again():
    """As after a restart of its feed: later times tell it from what is only sent again."""
    clean = Normaliser()
    clean.apply(quotes(range(1, 1001), [100.0] * 1000, source_time_ns=range(1, 1001)), ORIGIN)
    again = clean.apply(quotes(range(1, 31), [101.0] * 30, source_time_ns=range(971, 1001)), ORIGIN)
    assert again.dropped == {Dropped.DUPLICATE: 30}
    for restarts, few in enumerate((30, 3, 30), 1):
        times = range(2_000 * restarts, 2_000 * restarts + few)
        restarted = clean.apply(quotes(range(1, few + 1), [101.0] * few, source_time_ns=times), ORIGIN)
        assert restarted.dropped == {}
        assert flags_of(restarted) == [GAP] + [0] * (few - 1)


def test_one_wild_number_silences_nobody():
    clean = Normaliser()
    clean.apply(quotes([1, 2], [100.0, 100.0], source_time_ns=[1, 2]), ORIGIN)
    assert flags_of(clean.apply(quotes([2**64 - 1], [100.0], source_time_ns=[3]), ORIGIN)) == [GAP]
    rest = clean.apply(quotes([3, 4], [100.0, 100.0], source_time_ns=[4, 5]), ORIGIN)
    assert (flags_of(rest), rest.dropped) == ([GAP, 0], {})


def test_a_book_whose_source_numbers_anew_waits_for_a_snapshot():
    clean = Normaliser()
    clean.apply(book([(DELTA, BUY, 99.0, 5.0, 0)], [1], source_time_ns=[5]), ORIGIN)
    anew = book([(DELTA, BUY, 98.0, 5.0, 0)], [1], source_time_ns=[9])
    assert flags_of(clean.apply(anew, ORIGIN)) == [GAP]
    assert clean.depth("sim", "AAA", 5) is None


def test_a_stream_may_be_joined_anywhere():
    assert flags_of(Normaliser().apply(quotes([500], [100.0]), ORIGIN)) == [0]


def test_sources_and_symbols_are_numbered_apart():
    clean = Normaliser()
    clean.apply(quotes([1], [100.0]), ORIGIN)
    two = quotes([1, 2], [50.0, 100.0], symbols=("BBB", "AAA"), symbol_index=[0, 1])
    assert flags_of(clean.apply(two, ORIGIN)) == [0, 0]
    assert clean.apply(quotes([1], [100.0], source="other"), ORIGIN).dropped == {}


def test_crossed_quotes_are_marked_and_move_no_reference():
    clean = Normaliser()
    events = batch(source_sequence=[1, 2, 3], bid=[100.0, 900.0, 100.0], ask=[100.1, 100.0, 100.1])
    assert flags_of(clean.apply(events, ORIGIN)) == [0, market.EVENT_FLAG_CROSSED, 0]


def test_a_jump_is_marked_until_it_is_confirmed():
    clean = Normaliser(NormaliserRules(band_confirmations=3))
    result = clean.apply(quotes([1, 2, 3, 4, 5], [100.0, 200.0, 200.0, 200.0, 201.0]), ORIGIN)
    out = market.EVENT_FLAG_OUT_OF_BAND
    assert flags_of(result) == [0, out, out, 0, 0]


def test_a_single_spike_leaves_the_reference_alone():
    result = Normaliser().apply(quotes([1, 2, 3], [100.0, 200.0, 100.0]), ORIGIN)
    assert flags_of(result) == [0, market.EVENT_FLAG_OUT_OF_BAND, 0]


def test_cheap_options_may_move_by_the_absolute_band():
    assert flags_of(Normaliser().apply(quotes([1, 2], [0.05, 0.60]), ORIGIN)) == [0, 0]


def test_old_events_are_marked_stale_by_the_sources_clock():
    clean = Normaliser(NormaliserRules(stale_after_ns=10))
    result = clean.apply(quotes([1, 2, 3], [100.0] * 3, source_time_ns=[100, 95, 80]), ORIGIN)
    assert flags_of(result) == [0, 0, market.EVENT_FLAG_STALE]
    assert flags_of(clean.apply(quotes([4], [100.0], source_time_ns=[89]), ORIGIN)) == [
        market.EVENT_FLAG_STALE
    ]


@pytest.mark.parametrize(
    "bad",
    [{"bid": [np.nan]}, {"ask": [np.inf]}, {"bid": [-1.0]}, {"ask_quantity": [-5.0]}, {"rate": [np.nan]}],
)
def test_bad_values_are_dropped(bad):
    events = batch(**{"bid": [1.0], "ask": [2.0], **bad})
    result = Normaliser().apply(events, ORIGIN)
    assert result.dropped == {Dropped.BAD_VALUE: 1}
    assert len(result.batch.origin_index) == 0


def test_negative_rates_are_no_bad_values():
    events = batch(kind=[market.EVENT_KIND_REFERENCE], rate=[-0.01])
    assert Normaliser().apply(events, ORIGIN).dropped == {}


def test_unknown_kinds_are_dropped():
    assert Normaliser().apply(batch(kind=[42], bid=[1.0]), ORIGIN).dropped == {Dropped.UNKNOWN_KIND: 1}


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (market.RawBatch(symbols=["A"], symbol_index=[0], kind=[1]), "source: is empty"),
        (market.RawBatch(source="s", symbols=["A"]), "has no events"),
        (market.RawBatch(source="s", symbols=["A"], symbol_index=[1], kind=[1]), r"symbol_index\[0\]"),
        (market.RawBatch(source="s", symbols=["A", "A"], symbol_index=[1], kind=[1]), "twice"),
        (market.RawBatch(source="s", symbols=["A"], kind=[1, 1, 1], bid=[1.0, 2.0]), "bid: has 2 entries"),
    ],
)
def test_what_is_no_batch_is_refused(message, says):
    with pytest.raises(ValueError, match=says):
        raw_events.decode(message.SerializeToString())


@given(st.binary(max_size=120))
def test_hostile_bytes_are_refused_or_normalised(junk):
    try:
        events = raw_events.decode(junk)
    except Exception as fault:  # noqa: BLE001 - the point is to see which kinds come
        assert isinstance(fault, ValueError) or type(fault).__name__ == "DecodeError"
        return
    Normaliser().apply(events, ORIGIN)


def _next(numbers, place, step):
    numbers[place] = max(0, numbers[place] + step)
    return numbers[place]


def book(rows, sequence=None, **more):
    """Rows (kind, side, price, quantity, flags) as a batch of one symbol."""
    kind, side, price, quantity, flags = zip(*rows, strict=True)
    numbers = {} if sequence is None else {"source_sequence": sequence}
    return batch(kind=kind, side=side, price=price, quantity=quantity, flags=flags, **numbers, **more)


DELTA, SNAPSHOT, QUOTE = (
    market.EVENT_KIND_BOOK_DELTA,
    market.EVENT_KIND_BOOK_SNAPSHOT,
    market.EVENT_KIND_QUOTE,
)
FIRST, LAST, GAP = market.EVENT_FLAG_FIRST, market.EVENT_FLAG_LAST, market.EVENT_FLAG_GAP
BUY, SELL = market.SIDE_BUY, market.SIDE_SELL


def quotes_of(result):
    """The quotes that books gave: (place of the cause, bid, its quantity, ask, its quantity, flags)."""
    out = result.batch
    rows = packing.row_count(out, ["kind"])
    names = ("origin_index", "bid", "bid_quantity", "ask", "ask_quantity", "flags")
    columns = [packing.column(out, name, rows).tolist() for name in names]
    return [
        row
        for kind, *row in zip(packing.column(out, "kind", rows).tolist(), *columns, strict=True)
        if kind == QUOTE
    ]


def test_a_books_best_prices_are_published_once_a_batch_after_their_cause():
    clean = Normaliser()
    result = clean.apply(
        book(
            [(DELTA, BUY, 99.0, 5.0, 0), (DELTA, SELL, 101.0, 3.0, 0), (DELTA, BUY, 98.0, 1.0, 0)],
            [1, 2, 3],
            source_time_ns=[7, 8, 9],
        ),
        ORIGIN,
    )
    assert list(result.batch.kind) == [DELTA, DELTA, DELTA, QUOTE]
    assert list(result.batch.origin_index) == [0, 1, 2, 2]
    assert list(result.batch.source_time_ns) == [7, 8, 9, 9]
    assert list(result.batch.side) == [BUY, SELL, BUY, 0]
    assert quotes_of(result) == [[2, 99.0, 5.0, 101.0, 3.0, 0]]
    assert quotes_of(clean.apply(book([(DELTA, BUY, 98.0, 2.0, 0)], [4]), ORIGIN)) == []
    assert quotes_of(clean.apply(book([(DELTA, BUY, 99.0, 0.0, 0)], [5]), ORIGIN)) == [
        [0, 98.0, 2.0, 101.0, 3.0, 0]
    ]
    assert clean.depth("sim", "AAA", 5) == ([(98.0, 2.0)], [(101.0, 3.0)])
    assert clean.depth("sim", "BBB", 5) is None


def test_a_quote_from_a_book_comes_right_after_its_cause():
    events = batch(
        symbols=("A", "B"),
        symbol_index=[1, 0, 1],
        kind=[DELTA, DELTA, QUOTE],
        price=[99.0, 50.0, 0.0],
        quantity=[1.0, 2.0, 0.0],
        bid=[0.0, 0.0, 98.0],
        ask=[0.0, 0.0, 99.0],
    )
    out = Normaliser().apply(events, ORIGIN).batch
    assert list(out.origin_index) == [0, 0, 1, 1, 2]
    assert list(out.kind) == [DELTA, QUOTE, DELTA, QUOTE, QUOTE]
    assert list(out.symbol_index) == [1, 1, 0, 0, 1]
    assert list(out.bid) == [0.0, 99.0, 0.0, 50.0, 98.0]


def test_a_gap_loses_the_book_until_a_whole_snapshot():
    clean = Normaliser()
    clean.apply(book([(DELTA, BUY, 99.0, 5.0, 0)], [1]), ORIGIN)
    lost = clean.apply(book([(DELTA, BUY, 98.0, 5.0, 0), (DELTA, BUY, 97.0, 5.0, 0)], [3, 4]), ORIGIN)
    assert flags_of(lost) == [GAP]  # the one that shows the gap is passed on, so that consumers know
    assert lost.dropped == {Dropped.AWAITING_SNAPSHOT: 1}
    assert clean.depth("sim", "AAA", 5) is None
    half = clean.apply(book([(SNAPSHOT, BUY, 90.0, 1.0, FIRST)], [5]), ORIGIN)
    assert (half.dropped, quotes_of(half)) == ({}, [])
    whole = clean.apply(
        book([(SNAPSHOT, SELL, 110.0, 2.0, LAST), (DELTA, SELL, 109.0, 1.0, 0)], [6, 7]), ORIGIN
    )
    assert quotes_of(whole) == [[1, 90.0, 1.0, 109.0, 1.0, 0]]


def test_a_gap_within_a_snapshot_loses_it():
    clean = Normaliser()
    clean.apply(book([(SNAPSHOT, BUY, 90.0, 1.0, FIRST)], [1]), ORIGIN)
    rest = clean.apply(
        book([(SNAPSHOT, BUY, 89.0, 1.0, 0), (SNAPSHOT, BUY, 88.0, 1.0, LAST)], [3, 4]), ORIGIN
    )
    assert rest.dropped == {Dropped.AWAITING_SNAPSHOT: 1}
    assert clean.depth("sim", "AAA", 5) is None


def test_a_gap_that_a_quote_shows_loses_the_book_too():
    clean = Normaliser()
    clean.apply(book([(DELTA, BUY, 99.0, 5.0, 0)], [1]), ORIGIN)
    clean.apply(quotes([5], [100.0]), ORIGIN)
    assert clean.apply(book([(DELTA, BUY, 99.0, 5.0, 0)], [6]), ORIGIN).dropped == {
        Dropped.AWAITING_SNAPSHOT: 1
    }


def test_a_gap_that_the_source_declares_loses_the_book():
    clean = Normaliser()
    clean.apply(book([(DELTA, BUY, 99.0, 5.0, 0)]), ORIGIN)
    clean.apply(book([(DELTA, BUY, 98.0, 5.0, GAP)]), ORIGIN)
    assert clean.depth("sim", "AAA", 5) is None


def test_a_book_joined_in_its_midst_waits_for_a_snapshot():
    clean = Normaliser()
    joined = clean.apply(book([(DELTA, BUY, 99.0, 5.0, 0)], [500]), ORIGIN)
    assert joined.dropped == {Dropped.AWAITING_SNAPSHOT: 1}
    snapshot = clean.apply(book([(SNAPSHOT, BUY, 99.0, 5.0, FIRST | LAST)], [501]), ORIGIN)
    assert quotes_of(snapshot) == [[0, 99.0, 5.0, 0.0, 0.0, 0]]


@pytest.mark.parametrize(
    "bad",
    [
        (DELTA, BUY, 0.0, 5.0, 0),
        (DELTA, 7, 98.0, 5.0, 0),
        (DELTA, BUY, 98.0, -1.0, 0),
        (SNAPSHOT, BUY, 0.0, 1.0, 0),
    ],
)
def test_a_bad_event_of_a_book_is_dropped_and_the_book_with_it(bad):
    clean = Normaliser()
    clean.apply(book([(DELTA, BUY, 99.0, 5.0, 0)], [1]), ORIGIN)
    assert clean.apply(book([bad], [2]), ORIGIN).dropped == {Dropped.BAD_VALUE: 1}
    assert clean.depth("sim", "AAA", 5) is None


def test_a_snapshot_of_an_empty_book_needs_no_price():
    clean = Normaliser()
    clean.apply(book([(DELTA, BUY, 99.0, 5.0, 0)], [1]), ORIGIN)
    result = clean.apply(book([(SNAPSHOT, BUY, 0.0, 0.0, FIRST | LAST)], [2]), ORIGIN)
    assert quotes_of(result) == [[0, 0.0, 0.0, 0.0, 0.0, 0]]


def test_quotes_from_books_are_judged_like_any_other():
    clean = Normaliser()
    crossed = clean.apply(book([(DELTA, BUY, 99.0, 5.0, 0), (DELTA, SELL, 98.0, 3.0, 0)]), ORIGIN)
    assert quotes_of(crossed) == [[1, 99.0, 5.0, 98.0, 3.0, market.EVENT_FLAG_CROSSED]]
    clean.apply(book([(DELTA, SELL, 98.0, 0.0, 0), (DELTA, SELL, 101.0, 1.0, 0)]), ORIGIN)
    jump = clean.apply(
        book([(DELTA, BUY, 199.0, 5.0, 0), (DELTA, SELL, 101.0, 0.0, 0), (DELTA, SELL, 201.0, 1.0, 0)]),
        ORIGIN,
    )
    assert quotes_of(jump) == [[2, 199.0, 5.0, 201.0, 1.0, market.EVENT_FLAG_OUT_OF_BAND]]


RANKED = FailoverRules(sources=("first", "second"), silent_after_ns=100, return_after_events=3)


def passed(clean, source, time, count=1, **more):
    result = clean.apply(
        quotes([0] * count, [100.0] * count, source=source, source_time_ns=[time], **more), ORIGIN
    )
    return len(result.batch.origin_index), flags_of(result), result.dropped


def test_a_standby_is_followed_and_takes_over_when_the_first_is_silent():
    clean = Normaliser(failover=RANKED)
    over = market.EVENT_FLAG_FAILOVER
    assert passed(clean, "first", 1_000) == (1, [0], {})
    assert passed(clean, "second", 1_000) == (0, [], {Dropped.STANDBY: 1})
    assert passed(clean, "second", 1_100)[0] == 0  # just not too long
    assert passed(clean, "second", 1_101) == (1, [over], {})
    assert clean.active_source("AAA") == "second"
    assert passed(clean, "first", 1_102, 2) == (0, [], {Dropped.STANDBY: 2})  # back, but not for long enough
    assert passed(clean, "second", 1_103) == (1, [over], {})
    assert passed(clean, "first", 1_104) == (1, [0], {})
    assert passed(clean, "second", 1_105)[0] == 0


def test_sources_that_are_not_ranked_pass():
    assert passed(Normaliser(failover=RANKED), "third", 5) == (1, [0], {})


def test_one_wild_time_silences_nobody():
    clean = Normaliser(failover=RANKED)
    passed(clean, "first", 1_000)
    assert passed(clean, "second", 10**15)[0] == 0
    assert passed(clean, "first", 1_010)[0] == 1


def test_a_source_without_a_book_is_no_good():
    clean = Normaliser(failover=RANKED)
    for source in RANKED.sources:
        clean.apply(book([(DELTA, BUY, 99.0, 5.0, 0)], [1], source=source), ORIGIN)
    clean.apply(book([(DELTA, BUY, 98.5, 5.0, 0)], [3], source="first"), ORIGIN)
    result = clean.apply(book([(DELTA, BUY, 99.5, 5.0, 0)], [2], source="second"), ORIGIN)
    over = market.EVENT_FLAG_FAILOVER
    assert flags_of(result) == [over, over]
    assert quotes_of(result) == [[0, 99.5, 5.0, 0.0, 0.0, over]]


def test_failover_goes_by_the_houses_symbol():
    house = {("first", "AAA"): "X", ("second", "BBB"): "X"}
    clean = Normaliser(house_symbols=house, failover=RANKED)
    passed(clean, "first", 1_000)
    assert passed(clean, "second", 1_001, symbols=("BBB",)) == (0, [], {Dropped.STANDBY: 1})
    assert passed(clean, "second", 1_001, symbols=("AAA",))[0] == 1  # that is another instrument


rows = st.tuples(
    st.integers(0, 2),
    st.sampled_from([1, 1, 1, 1, 1, 1, 1, 0, 2, -1]),
    st.sampled_from([QUOTE, QUOTE, market.EVENT_KIND_TRADE, DELTA, DELTA, DELTA, SNAPSHOT, 9]),
    st.sampled_from([99.0, 100.0, 100.5, 140.0, 210.0, 0.0, np.nan]),
    st.booleans(),
    st.integers(0, 40),
    st.sampled_from([0, 0, 0, 0, FIRST, LAST, FIRST | LAST, GAP]),
    st.integers(0, 2),
)


def hostile_batch(content, numbers, source):
    index, steps, kind, price, crossed, time, flags, side = map(np.array, zip(*content, strict=True))
    return batch(
        source=source,
        symbols=("A", "B", "C"),
        symbol_index=index,
        source_sequence=[_next(numbers, place, step) for place, step in zip(index, steps, strict=True)],
        source_time_ns=time,
        kind=kind,
        bid=price,
        ask=np.where(crossed, price * 0.9, price),
        price=price,
        quantity=np.where(crossed, 0.0, 3.0),
        flags=flags,
        side=side,
    )


def by(normaliser, events, few_events, *, slow):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FEW_EVENTS", few_events)
        patch.setattr(source_stream, "MANY_DELTAS", 2)
        if slow:
            patch.setattr(module, "ordinary_symbols", lambda streams, *_: np.zeros(len(streams), bool))
        return normaliser.apply(events, ORIGIN)


contents = st.tuples(st.sampled_from(["first", "second", "other"]), st.lists(rows, min_size=1, max_size=12))


@settings(deadline=None)
@given(st.lists(contents, min_size=1, max_size=6))
def test_columns_single_events_and_the_slow_way_agree(batches):
    rules = NormaliserRules(band_confirmations=2, stale_after_ns=15)
    ranked = FailoverRules(sources=("first", "second"), silent_after_ns=8, return_after_events=3)
    columns, singly, slow = (Normaliser(rules, failover=ranked) for _ in range(3))
    numbers = {source: [0, 0, 0] for source in ("first", "second", "other")}
    for source, content in batches:
        events = hostile_batch(content, numbers[source], source)
        results = [
            by(columns, events, 0, slow=False),
            by(singly, events, 10**9, slow=False),
            by(slow, events, 0, slow=True),
        ]
        for other in results[1:]:
            assert str(results[0].batch) == str(other.batch)
            assert results[0].dropped == other.dropped
    assert str(columns) == str(singly) == str(slow)
