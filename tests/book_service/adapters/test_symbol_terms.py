"""A source's symbols and prices in the house's terms."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest

from book_service.adapters.errors import PlanError, SymbolError
from book_service.adapters.raw_columns import RawColumns
from book_service.adapters.symbol_terms import SymbolTerms


def events(symbols, index, **columns):
    made = {name: np.asarray(values, np.float64) for name, values in columns.items()}
    made |= {"symbol_index": np.asarray(index, np.int64), "kind": np.ones(len(index), np.int32)}
    return RawColumns("x", tuple(symbols), made)


def test_symbols_are_renamed_and_others_left_out():
    given = events(["AAPL", "MSFT", "IBM"], [0, 1, 2, 0], price=[1.0, 2.0, 3.0, 4.0])
    all_of_them = SymbolTerms({"AAPL": "AAPL.O"}).apply(given)
    assert all_of_them.symbols == ("AAPL.O", "MSFT", "IBM")
    assert len(all_of_them) == 4
    terms = SymbolTerms({"AAPL": "AAPL.O"}, only_mapped=True)
    mapped = terms.apply(given)
    assert [mapped.symbols[place] for place in mapped.columns["symbol_index"]] == ["AAPL.O", "AAPL.O"]
    assert mapped.columns["price"].tolist() == [1.0, 4.0]
    assert terms.left_out == 2


def test_a_table_that_grows_is_learnt_again():
    terms = SymbolTerms({"B": "BB"}, tick_size={"BB": 0.5})
    assert terms.apply(events(["A"], [0])).symbols == ("A",)
    later = terms.apply(events(["A", "B"], [1], price=[1.5000000001]))
    assert later.symbols == ("A", "BB")
    assert later.columns["price"].tolist() == [1.5]


@pytest.mark.parametrize("tick", [0.01, 0.05, 0.0001, 0.25, 0.125, 1.0, 5.0, 1e-8, 0.03])
def test_noise_of_a_price_goes_and_the_double_nearest_to_the_decimal_stays(tick, seed):
    rng = np.random.default_rng(seed)
    ticks = rng.integers(1, 2_000_000, 500)
    wanted = [float(int(count) * Decimal(repr(tick))) for count in ticks]
    noise = 1 + rng.uniform(-1e-15, 1e-15, 500)
    terms = SymbolTerms(default_tick_size=tick)
    for name in ("bid", "ask", "price"):
        assert terms.apply(events("A", [0] * 500, **{name: wanted * noise})).columns[name].tolist() == wanted
    assert terms.off_grid == 0


def test_what_is_no_price_on_the_grid_is_let_alone():
    given = [100.005, 0.0, -1.0, math.nan, math.inf, 1e300]
    terms = SymbolTerms(default_tick_size=0.01)
    found = terms.apply(events("A", [0] * 6, price=given)).columns["price"]
    assert np.array_equal(found, given, equal_nan=True)
    assert terms.off_grid == 2  # the midpoint, and what no double holds to the tick


def test_two_symbols_never_become_one():
    with pytest.raises(PlanError, match="map"):
        SymbolTerms({"A": "X", "B": "X"})
    terms = SymbolTerms({"A": "B"})
    with pytest.raises(SymbolError, match="'A' and 'B' would both be 'B'"):
        terms.apply(events(["A", "B"], [0]))
    assert SymbolTerms({"A": "B"}, only_mapped=True).apply(events(["A", "B"], [0, 1])).symbols == ("B", "B")


@pytest.mark.parametrize("tick", [-0.01, math.nan, math.inf])
def test_bad_ticks_are_refused(tick):
    with pytest.raises(PlanError, match="AAA"):
        SymbolTerms(tick_size={"AAA": tick})
