"""Positions as columns: the same as one reads them row by row, from any kind of table, faults by row."""

from __future__ import annotations

import random
from datetime import date, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos import osi
from risk_client import InvalidRequest
from risk_client.columns import Texts, columns_of
from risk_client.faults import NAMED_MAX, TableFaults
from risk_client.portfolios import portfolio_of, positions_of
from risk_client.positions import read_positions

KINDS = {
    "pandas": pd.DataFrame,
    "polars": lambda columns: pl.DataFrame(columns, strict=False),
    "arrow": pa.table,
    "numpy": lambda columns: {name: np.array(values, object) for name, values in columns.items()},
}
ROWS = {
    "symbol": ["SPXW  270319P04800000", "NVDA261218C00130000", "NVDA", None, None],
    "quantity": [-10, 25.5, -400, 3, -40],
    "group": ["vol", "names", "names", "vol", ""],
    "underlying": [None, None, None, "SPX", "NVDA"],
    "kind": [None, None, None, "Future", "option"],
    "expiry": [None, None, None, date(2026, 12, 18), date(2027, 1, 15)],
    "strike": [None, None, None, None, 110.0],
    "right": [None, "c", None, None, "P"],
    "exercise": [None, "E", None, None, None],
    "multiplier": [None, None, None, 50.0, 100.0],
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_of_table_gives_the_same_positions(kind):
    found = positions_of(KINDS[kind](ROWS))
    rows = [found[row] for row in range(5)]
    assert [one.label for one in rows] == [
        "SPXW 270319P04800000",
        "NVDA261218C00130000",
        "NVDA",
        "SPX future 2026-12-18",
        "NVDA 2027-01-15 110 P",
    ]
    assert [one.underlying for one in rows] == ["SPX", "NVDA", "NVDA", "SPX", "NVDA"]
    assert [one.kind for one in rows] == ["option", "option", "spot", "future", "option"]
    assert [one.quantity for one in rows] == ROWS["quantity"]
    assert [one.multiplier for one in rows] == [100.0, 100.0, 1.0, 50.0, 100.0]
    assert [one.strike for one in rows] == [4800.0, 130.0, 0.0, 0.0, 110.0]
    assert [one.expiry for one in rows] == [
        date(2027, 3, 19), date(2026, 12, 18), None, date(2026, 12, 18), date(2027, 1, 15)
    ]  # fmt: skip
    assert [one.is_call for one in rows] == [False, True, False, False, False]
    assert found.american.tolist() == [-1, 0, -1, -1, -1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_message_has_a_row_for_each_row(kind):
    message = portfolio_of(KINDS[kind](ROWS), "desk")
    positions = message.positions
    assert list(positions.symbol) == [
        "SPXW  270319P04800000", "NVDA  261218C00130000", "NVDA", "SPX", "NVDA  270115P00110000"
    ]  # fmt: skip
    assert list(message.underlyings) == ["SPX", "NVDA"]
    assert [message.underlyings[one] for one in positions.underlying_index] == [
        "SPX", "NVDA", "NVDA", "SPX", "NVDA"
    ]  # fmt: skip
    assert [message.groups[one] for one in positions.group_index] == [
        "vol", "names", "names", "vol", "(no group)"
    ]  # fmt: skip
    # SPXW is cash-settled, NVDA is not; the second row says E.
    assert list(positions.american) == [False, False, False, False, True]
    closes = [0 if not one else one // 10**9 % 86_400 for one in positions.expiry_time_ns]
    assert closes == [72_000, 72_000, 0, 72_000, 72_000]
    day = positions.expiry_time_ns[0] // (86_400 * 10**9)
    assert date(1970, 1, 1) + timedelta(days=day) == date(2027, 3, 19)


# ---- symbols ----------------------------------------------------------------------------------------------


def one_by_one(symbol):
    try:
        return osi.parse(symbol)
    except ValueError:
        return None


def test_a_million_symbols_are_read_as_one(seed):
    """Sound ones, and sound ones with a character changed, added or left out."""
    draw = random.Random(seed)
    symbols = []
    for _ in range(5_000):
        root = "".join(draw.choices("ABCXYZ", k=1) + draw.choices("AZ09.^/", k=draw.randint(0, 5)))
        day = date(2000, 1, 1) + timedelta(days=draw.randrange(36_524))
        symbol = osi.symbol_of(root, day, draw.random() < 0.5, draw.randint(1, 10**8 - 1) / 1000)
        symbol = symbol.replace(" ", "") if draw.random() < 0.4 else symbol
        place, change = draw.randrange(len(symbol)), draw.random()
        if change < 0.4:
            put = draw.choice(["", "0", "1", "3", "9", "C", "P", "a", " ", "é", "٣", "\0", "-"])
            symbol = symbol[:place] + put + symbol[place + (draw.random() < 0.7) :]
        symbols.append(symbol.rstrip("\0"))
    many = osi.parse_many(symbols)
    assert 0.5 < many.found.mean() < 0.95
    for row, symbol in enumerate(symbols):
        alone = one_by_one(symbol)
        if many.found[row]:
            told = many.root[row], many.expiry[row].item(), bool(many.is_call[row]), many.strike[row]
            assert alone is not None, symbol
            assert told == (alone.root, alone.expiry, alone.is_call, alone.strike)
        # What it leaves to `parse` has an unusual number of blanks, or is wrong.
        elif alone is not None:
            assert " " in symbol
            assert len(symbol) != osi.LENGTH


def test_every_day_of_a_century_and_none_else():
    texts = [f"{n:06d}" for n in range(0, 1_000_000)]
    found = osi.parse_many([f"A{one}C00001000" for one in texts])
    days = [date(2000, 1, 1) + timedelta(days=n) for n in range(36_525)]
    assert found.expiry[found.found].tolist() == days
    assert [text for text, ok in zip(texts, found.found, strict=True) if ok] == [f"{d:%y%m%d}" for d in days]


def test_small_letters_are_as_good():
    found = positions_of({"symbol": ["spx   261120c05800000", "nvda261120p00100000"], "quantity": [1, 2]})
    assert [found[row].underlying for row in range(2)] == ["SPX", "NVDA"]
    message = portfolio_of({"symbol": ["spx   261120c05800000"], "quantity": [1]}, "small")
    assert list(message.positions.symbol) == ["SPX   261120C05800000"]


def test_blanks_beyond_the_usual_are_read_too():
    found = positions_of({"symbol": ["A         270319P04800000"], "quantity": [1.0]})
    assert (found[0].underlying, found[0].strike) == ("A", 4800.0)


# ---- faults -----------------------------------------------------------------------------------------------


def refused(**columns):
    with pytest.raises(InvalidRequest) as caught:
        positions_of(pd.DataFrame({**ROWS, **columns}))
    return [(one.column, one.row) for one in caught.value.violations], str(caught.value)


def changed(column, **cells):
    return {column: [cells.get(f"row{row}", value) for row, value in enumerate(ROWS[column])]}


@pytest.mark.parametrize(
    ("column", "row", "value", "says"),
    [
        ("quantity", 2, "many", "'many' is not a number"),
        ("quantity", 2, None, "is missing"),
        ("quantity", 2, float("inf"), "not a finite number"),
        ("symbol", 0, "SPXW  271319P04800000", "271319 is no date"),
        ("symbol", 0, "SPXW  270319P048", "no OSI symbol"),
        ("kind", 3, "swap", "none of option, future, spot"),
        ("strike", 4, None, "is missing"),
        ("strike", 4, -1.0, "must be above 0 and at most 1e+12, got -1"),
        ("strike", 4, 0.0, "must be above 0"),
        ("quantity", 2, 1e13, "at most 1e+12 either way"),
        ("quantity", 2, "1_000", "'1_000' is not a number"),
        ("strike", 1, 131.0, "is not the symbol's, 130"),
        ("right", 4, None, "is missing: C or P"),
        ("right", 1, "P", "is not the symbol's, C"),
        ("exercise", 1, "B", "none of E, A"),
        ("expiry", 4, None, "is missing"),
        ("expiry", 3, None, "a future has one"),
        ("expiry", 1, date(2027, 1, 15), "is not the symbol's, 2026-12-18"),
        ("expiry", 4, "soon", "neither a date"),
        ("expiry", 4, "201", "between 0 and 200 years"),
        ("multiplier", 4, None, "is missing"),
        ("multiplier", 4, 0.0, "must be above 0 and at most 1e+09, got 0"),
        ("underlying", 4, None, "is missing, and so is symbol"),
    ],
)
def test_a_bad_cell_is_named_by_column_and_row(column, row, value, says):
    where, said = refused(**changed(column, **{f"row{row}": value}))
    assert where == [(column, row)]
    assert says in said


def test_of_many_bad_rows_the_first_are_named_and_all_are_counted():
    rows = 10_000
    quantity = np.ones(rows)
    quantity[17::3] = np.nan
    kind = np.array(["spot"] * rows, object)
    kind[5] = "swap"
    with pytest.raises(InvalidRequest) as caught:
        positions_of(pd.DataFrame({"symbol": "A", "quantity": quantity, "kind": kind}))
    named = [(one.column, one.row) for one in caught.value.violations]
    assert named[:3] == [("kind", 5), ("quantity", 17), ("quantity", 20)]
    assert len(named) == NAMED_MAX
    assert f"(and {len(range(17, rows, 3)):,} more rows are wrong)" in str(caught.value)


def test_a_row_is_counted_once():
    columns, rows = columns_of({"symbol": ["A", "B"], "quantity": ["x", 1], "kind": ["swap", None]})
    with pytest.raises(TableFaults) as caught:
        read_positions(columns, rows)
    assert (caught.value.rows, len(caught.value.named)) == (1, 1)


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ({"symbol": ["A"], "quantity": [1], "multipler": [2]}, "multipler"),
        ({"symbol": ["A"]}, "quantity"),
        ({"quantity": [1]}, "symbol"),
        ({"symbol": [], "quantity": []}, "symbol"),
    ],
)
def test_columns_that_are_missing_or_unknown_are_named(table, field):
    with pytest.raises(InvalidRequest) as caught:
        positions_of(table)
    assert caught.value.violations[0].column == field


def test_what_is_no_table_is_a_type_error():
    with pytest.raises(TypeError, match="list"):
        positions_of([1, 2])
    with pytest.raises(TypeError, match="2 and 3 rows"):
        positions_of({"symbol": ["A"] * 3, "quantity": [1, 2]})


def test_two_portfolios_in_one_table_need_a_name():
    table = {"portfolio": ["alpha", "alpha", "beta"], "symbol": list("ABC"), "quantity": [1, 2, 3]}
    with pytest.raises(InvalidRequest) as caught:
        portfolio_of(table, None)
    assert caught.value.violations[0].field == "portfolio[2]"
    assert portfolio_of(table, "both").portfolio == "both"
    assert portfolio_of({name: values[:2] for name, values in table.items()}, None).portfolio == "alpha"


def test_an_expiry_in_years_is_no_date_for_a_service():
    columns = changed("expiry", row4="0.5")
    with pytest.raises(InvalidRequest) as caught:
        portfolio_of(pd.DataFrame({**ROWS, **columns}), "desk")
    assert caught.value.violations[0].field == "expiry[4]"


# ---- columns ----------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(["", "a", " a", "b", "c", "nan"]), max_size=30))
def test_texts_are_what_they_were(cells):
    column = Texts.of(cells)
    assert [column[row] for row in range(len(cells))] == [one.strip() for one in cells]
    named = column.named()
    assert [named[row] for row in range(len(cells))] == [one.strip() for one in cells]
    assert list(named.distinct) == list(dict.fromkeys(one.strip() for one in cells))


def test_numbers_in_a_column_of_names_are_written_as_they_are():
    found = positions_of(pd.DataFrame({"symbol": ["A", "B"], "quantity": [1, 2], "group": [7, 12]}))
    assert (found[0].group, found[1].group) == ("7", "12")
