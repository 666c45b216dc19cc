"""The CSV and Parquet replayer: what it reads, and errors that name file, line and column."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from book_service import raw_events
from book_service.adapters.errors import TabularError
from book_service.adapters.tabular import TableMapping, replay

COLUMNS = {
    "symbol": "ticker",
    "kind": "what",
    "source_time_ns": "ts",
    "source_sequence": "seq",
    "bid": "bid",
    "ask": "ask",
    "price": "px",
    "quantity": "qty",
    "side": "side",
    "state": "state",
}
MAPPING = TableMapping("vendor", COLUMNS, time_unit="us")
TEXT = """\
ts,seq,ticker,what,bid,ask,px,qty,side,state,remark
1700000000000000.5,1,AAA,quote,99.5,100.5,,,,,x
1700000000000001,2,"B,B",trade,,,50,7,sell,,"two
lines"
1700000000000002,3,AAA,status,,,,,,halted,
"""


def csv_file(folder, text=TEXT):
    path = folder / "data.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read_all(path, mapping=MAPPING, rows=10_000):
    """Columns over all pieces, with names for symbols."""
    found = {}
    for events in replay(path, mapping, rows):
        columns = dict(events.columns)
        found.setdefault("symbol", []).extend(events.symbols[place] for place in columns.pop("symbol_index"))
        for name, values in columns.items():
            found.setdefault(name, []).extend(values.tolist())
        raw_events.decode(events.batch().SerializeToString())
    return found


EXPECTED = {
    "symbol": ["AAA", "B,B", "AAA"],
    "kind": [1, 2, 6],
    "source_time_ns": [1_700_000_000_000_000_500, 1_700_000_000_000_001_000, 1_700_000_000_000_002_000],
    "source_sequence": [1, 2, 3],
    "bid": [99.5, 0.0, 0.0],
    "ask": [100.5, 0.0, 0.0],
    "price": [0.0, 50.0, 0.0],
    "quantity": [0.0, 7.0, 0.0],
    "side": [0, 1, 0],
    "state": [0, 0, 2],
}


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_a_csv_file(tmp_path, rows):
    assert read_all(csv_file(tmp_path), rows=rows) == EXPECTED


def test_a_parquet_file_says_the_same(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    stamps = [datetime.datetime(2023, 11, 14, 22, 13, 20, micro, datetime.UTC) for micro in range(3)]
    table = arrow.table(
        {
            "ts": arrow.array(stamps, arrow.timestamp("us", "UTC")),
            "seq": arrow.array([1, 2, 3], arrow.int32()),
            "ticker": arrow.array(["AAA", "B,B", "AAA"]).dictionary_encode(),
            "what": ["quote", "trade", "status"],
            "bid": [99.5, None, None],
            "ask": arrow.array([100.5, 0, 0], arrow.float32()),
            "px": arrow.array([0, 50, 0], arrow.int64()),
            "qty": arrow.array(["0", "7", ""]),
            "side": ["buy", "sell", "buy"],
            "state": ["", "", "halted"],
            "remark": [[1], [2], [3]],
        }
    )
    path = tmp_path / "data.parquet"
    parquet.write_table(table, path)
    expected = EXPECTED | {
        "source_time_ns": [1_700_000_000_000_000_000 + 1_000 * micro for micro in range(3)]
    }
    for rows in (1, 2, 100):
        assert read_all(path, TableMapping("vendor", COLUMNS), rows) == expected
    with pytest.raises(TabularError, match=r"column ts: holds timestamps, so the time unit must be ns"):
        read_all(path)
    for bad, column, says in (
        ("what", ["quote", "trade", "x"], r"data.parquet row 3, column what: 'x' is none of quote"),
        ("qty", ["1", "z", "1"], r"data.parquet row 2, column qty: 'z' is no number"),
        ("seq", [1, 2, -3], r"data.parquet row 3, column seq: '-3' is no such number"),
        ("ticker", ["A", None, "B"], r"data.parquet row 2, column ticker: '' is no symbol"),
    ):
        place = table.column_names.index(bad)
        parquet.write_table(table.set_column(place, bad, arrow.array(column)), path)
        for rows in (1, 100):
            with pytest.raises(TabularError, match=says):
                read_all(path, TableMapping("vendor", COLUMNS), rows)


def test_constants_hold_for_all_rows(tmp_path):
    mapping = TableMapping("v", {"price": "px"}, {"symbol": "ES", "kind": "trade", "quantity": "2"})
    found = read_all(csv_file(tmp_path, "px\n5\n6\n"), mapping)
    assert found == {"symbol": ["ES"] * 2, "kind": [2, 2], "price": [5.0, 6.0], "quantity": [2.0, 2.0]}


@pytest.mark.parametrize(
    ("unit", "cell", "ns"),
    [
        ("s", "1700000000.123456789", 1_700_000_000_123_456_789),
        ("ms", "1700000000123.25", 1_700_000_000_123_250_000),
        ("ns", "1700000000123456789", 1_700_000_000_123_456_789),
        ("ns", "", 0),
    ],
)
def test_times_keep_every_nanosecond(tmp_path, unit, cell, ns):
    mapping = TableMapping("v", {"source_time_ns": "t", "price": "p"}, {"symbol": "A", "kind": "2"}, unit)
    assert read_all(csv_file(tmp_path, f"t,p\n{cell},1\n"), mapping)["source_time_ns"] == [ns]


MINIMAL = TableMapping("v", {"symbol": "s", "price": "p", "source_time_ns": "t", "kind": "k"}, time_unit="s")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1: has no names of columns"),
        ("s,p,t\n", r"line 1: has no column 'k'; it has s, p, t"),
        ("s,p,t,k,k\n", "line 1: has more than one column 'k'"),
        ("s,p,t,k\nA,1,1,quote\nA,1,1\n", "data.csv line 3: has 3 columns, the header 4"),
        ("s,p,t,k\nA,1,1,quote\nA,x,1,quote\n", "data.csv line 3, column p: 'x' is no number"),
        ("s,p,t,k\nA,1,soon,quote\n", "data.csv line 2, column t: 'soon' is no such number"),
        ("s,p,t,k\nA,1,1e30,quote\n", "line 2, column t: '1e30' is no such number"),
        ("s,p,t,k\nA,1,1e999999999,quote\n", "line 2, column t: '1e999999999' is no such number"),
        ("s,p,t,k\nA,1,nan,quote\n", "line 2, column t: 'nan' is no such number"),
        ("s,p,t,k\nA,1,1,Quote\nA,1,1,queue\n", "line 3, column k: 'queue' is none of quote, trade"),
        ("s,p,t,k\n,1,1,quote\n", "line 2, column s: '' is no symbol"),
        ('s,p,t,k\n"A\nB",1,1,quote\n', "line 3, column s"),
        ("s,p,t,k\nA\xff,1,1,quote\n".encode("latin-1"), "is not UTF-8"),
        ('s,p,t,k\n"A"x,1,1,quote\n', "line 2: .*expected after"),
        ("s,p,t,k\n" + "A" * (1 << 20), "line 2: has more than 1048576 characters"),
        ('s,p,t,k\n"' + "A\n" * 200_000, "field larger than field limit"),
    ],
)
@pytest.mark.parametrize("rows", [1, 100])
def test_errors_name_file_line_and_column(tmp_path, text, says, rows):
    with pytest.raises(TabularError, match=says):
        read_all(csv_file(tmp_path, text), MINIMAL, rows)


@pytest.mark.parametrize(
    ("columns", "constants", "unit", "says"),
    [
        ({"symbol": "a", "kind": "b", "colour": "c"}, {}, "ns", "'colour' is no column of the topic"),
        ({"symbol": "a", "kind": "b"}, {"kind": "trade"}, "ns", "'kind' is given twice"),
        ({"symbol": "a"}, {}, "ns", "'kind' is missing"),
        ({"symbol": "a", "kind": "b"}, {}, "min", "time unit 'min' is none of ns"),
    ],
)
def test_mappings_that_cannot_be(columns, constants, unit, says):
    with pytest.raises(TabularError, match=says):
        TableMapping("v", columns, constants, unit)


def test_files_that_are_no_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "data.parquet"
    for content in (b"", b"PAR1" + bytes(100) + b"PAR1", bytes(1_000)):
        path.write_bytes(content)
        with pytest.raises(TabularError, match=r"data.parquet"):
            read_all(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from(list(b'\x00,"\n\r-\xff9eA'))), max_size=4),
    st.binary(max_size=30),
)
def test_hostile_files_are_refused_or_read(tmp_path, changes, junk):
    text = bytearray(b"s,p,t,k\nA,1.5,1700000000,quote\nB,2,1,trade\n")
    for place, byte in changes:
        text[place % len(text)] = byte
    try:
        found = read_all(csv_file(tmp_path, bytes(text) + junk), MINIMAL, 1)
    except TabularError:
        return
    assert all(np.isscalar(value) for values in found.values() for value in values)
