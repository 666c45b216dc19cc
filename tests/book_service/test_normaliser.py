"""The normaliser's rules one by one, and its fast way against its slow one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from book_service import normaliser as module
from book_service import raw_events
from book_service.normaliser import Dropped, Normaliser, NormaliserRules
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


rows = st.tuples(
    st.integers(0, 2),
    st.sampled_from([1, 1, 1, 1, 1, 0, 2, -1]),
    st.sampled_from([99.0, 100.0, 100.5, 140.0, 210.0, 0.0, np.nan]),
    st.booleans(),
    st.integers(0, 40),
)


@given(st.lists(st.lists(rows, min_size=1, max_size=12), min_size=1, max_size=5))
def test_the_fast_way_agrees_with_the_slow_one(batches):
    rules = NormaliserRules(band_confirmations=2, stale_after_ns=15)
    fast, slow = Normaliser(rules), Normaliser(rules)
    numbers = [0, 0, 0]
    slow_only = lambda *_: False  # noqa: E731
    for content in batches:
        index, steps, price, crossed, time = map(np.array, zip(*content, strict=True))
        sequence = [_next(numbers, place, step) for place, step in zip(index, steps, strict=True)]
        events = batch(
            symbols=("A", "B", "C"),
            symbol_index=index,
            source_sequence=sequence,
            source_time_ns=time,
            bid=price,
            ask=np.where(crossed, price * 0.9, price),
        )
        by_fast = fast.apply(events, ORIGIN)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module.Normaliser, "_all_ordinary", slow_only)
            by_slow = slow.apply(events, ORIGIN)
        assert by_fast.batch == by_slow.batch or str(by_fast.batch) == str(by_slow.batch)
        assert by_fast.dropped == by_slow.dropped
    assert str(fast._streams) == str(slow._streams)
