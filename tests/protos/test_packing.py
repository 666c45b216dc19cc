"""Columns go in and come out unchanged, and a column that cannot be what it says is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from protos import packing
from protos.market.v1 import market_pb2
from protos.risk.v1 import risk_pb2

COLUMNS = {
    (market_pb2.RawBatch, "bid"): np.float64,
    (market_pb2.RawBatch, "source_time_ns"): np.int64,
    (market_pb2.RawBatch, "source_sequence"): np.uint64,
    (market_pb2.RawBatch, "symbol_index"): np.uint32,
    (risk_pb2.OptionColumns, "is_call"): np.bool_,
}


@pytest.mark.parametrize(("where", "dtype"), COLUMNS.items(), ids=lambda value: str(value))
@given(data=st.data())
def test_what_is_written_is_what_any_reader_gets(where, dtype, data):
    message_type, field = where
    values = data.draw(arrays.arrays(dtype, st.integers(0, 300)))
    message = message_type()
    packing.write(message, field, values)
    received = message_type.FromString(message.SerializeToString())
    np.testing.assert_array_equal(packing.read(received, field), values)
    # protobuf's own slow path must agree in both directions.
    by_protobuf = message_type()
    getattr(by_protobuf, field).extend(values.tolist())
    assert by_protobuf.SerializeToString() == message.SerializeToString()


@given(arrays.arrays(np.int64, st.integers(0, 100)))
def test_zigzag_columns(values):
    from protos.book.v1 import book_pb2

    message = book_pb2.Book()
    packing.write(message, "bid_price_ticks", values)
    np.testing.assert_array_equal(packing.read(message, "bid_price_ticks"), values)


def test_writing_twice_appends():
    message = market_pb2.RawBatch()
    packing.write(message, "bid", [1.0, 2.0])
    packing.write(message, "bid", [3.0])
    assert list(message.bid) == [1.0, 2.0, 3.0]


def test_special_values_survive():
    message = market_pb2.RawBatch()
    values = np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324])
    packing.write(message, "bid", values)
    assert packing.read(message, "bid").tobytes() == values.tobytes()


def test_a_reader_owns_its_array():
    message = market_pb2.RawBatch(bid=[1.0, 2.0])
    values = packing.read(message, "bid")
    message.bid[0] = 9.0
    assert values[0] == 1.0


def test_strided_and_big_endian_arrays():
    message = market_pb2.RawBatch()
    packing.write(message, "bid", np.arange(10.0)[::3])
    packing.write(message, "bid", np.arange(3, dtype=">f8"))
    assert list(message.bid) == [0.0, 3.0, 6.0, 9.0, 0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("field", "values", "says"),
    [
        ("source_time_ns", [1, 2.5], r"source_time_ns\[1\]: cannot hold"),
        ("source_time_ns", [np.nan], r"source_time_ns\[0\]: cannot hold"),
        ("source_time_ns", np.array([1, 2**63], np.uint64), r"source_time_ns\[1\]"),
        ("source_sequence", [3, -1], r"source_sequence\[1\]"),
        ("symbol_index", [0, 2**32], r"symbol_index\[1\]"),
        ("bid", ["x"], "bid: cannot hold values of type"),
        ("bid", [[1.0, 2.0]], "bid: needs one dimension"),
        ("bid", [None], "bid: cannot hold values of type object"),
        ("no_such", [1.0], "no such field"),
        ("source", [1.0], "is not a packed column"),
        ("symbols", [1.0], "is not a packed column"),
    ],
)
def test_values_that_do_not_fit_are_refused(field, values, says):
    message = market_pb2.RawBatch()
    with pytest.raises(packing.PackingError, match=says):
        packing.write(message, field, values)
    assert message.ByteSize() == 0


def test_columns_spread_and_default():
    message = market_pb2.RawBatch(bid=[1.0, 2.0, 3.0], ask=[9.0])
    rows = packing.row_count(message, ["bid", "ask", "price"])
    assert rows == 3
    assert packing.column(message, "ask", rows).tolist() == [9.0, 9.0, 9.0]
    assert packing.column(message, "price", rows).tolist() == [0.0, 0.0, 0.0]
    assert packing.column(message, "price", rows, default=7.0).tolist() == [7.0, 7.0, 7.0]
    with pytest.raises(ValueError, match="read-only"):
        packing.column(message, "ask", rows)[0] = 1.0


def test_columns_of_unequal_length_are_refused_by_name():
    message = market_pb2.RawBatch(bid=[1.0, 2.0, 3.0], ask=[9.0, 8.0])
    with pytest.raises(packing.PackingError, match="ask: has 2 entries where the message has 3 rows"):
        packing.row_count(message, ["bid", "ask"])
    with pytest.raises(packing.PackingError, match="ask"):
        packing.column(message, "ask", 3)


def test_too_many_rows_are_refused(monkeypatch):
    monkeypatch.setattr(packing, "MAX_ROWS", 2)
    with pytest.raises(packing.PackingError, match="bid: 3 rows are more than the 2"):
        packing.row_count(market_pb2.RawBatch(bid=[1.0, 2.0, 3.0]), ["bid", "ask"])


def test_a_place_outside_the_table_names_its_row():
    message = market_pb2.RawBatch(symbols=["A", "B"], symbol_index=[0, 1, 2])
    with pytest.raises(packing.PackingError, match=r"symbol_index\[2\]: 2 is outside symbols, which has 2"):
        packing.names(message, "symbols", "symbol_index", 3)


@given(st.binary(max_size=200))
def test_hostile_bytes_end_in_a_known_error_or_in_columns_that_can_be_read(junk):
    fields = ["symbol_index", "kind", "source_time_ns", "bid", "flags", "state"]
    try:
        message = market_pb2.RawBatch.FromString(junk)
    except DecodeError:
        return
    try:
        rows = packing.row_count(message, fields)
        for field in fields:
            assert packing.column(message, field, rows).shape == (rows,)
        packing.names(message, "symbols", "symbol_index", rows)
    except packing.PackingError as fault:
        assert fault.field in fields
