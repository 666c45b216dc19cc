"""numpy, pandas, polars and arrow in, the same kind out, over a real service: the kernels' numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from served import PATIENCE_S

import gpu_kernels as gk
from gpu_kernels.dividend_schedules import CashDividends
from protos.risk.v1 import risk_pb2 as wire
from risk_client import InvalidRequest, RiskClient, RowStatus

GREEKS = ("price", "delta", "gamma", "vega", "theta", "rho", "vanna", "volga", "charm")
ROWS = 7


@pytest.fixture(scope="module")
def engine():
    return gk.engine("auto")


@pytest.fixture
def columns(seed):
    draw = np.random.default_rng(seed)
    return {
        "spot": draw.uniform(80, 120, ROWS),
        "strike": draw.uniform(80, 120, ROWS),
        "expiry": draw.uniform(0.1, 2, ROWS),
        "vol": draw.uniform(0.1, 0.6, ROWS),
        "rate": draw.uniform(0, 0.05, ROWS),
        "is_call": draw.random(ROWS) < 0.5,
    }


def as_frame(kind, columns):
    columns = {"book": [f"b{row}" for row in range(len(columns["spot"]))], **columns}
    if kind == "pandas":
        return pd.DataFrame(columns, index=[f"row {len(columns['book']) - row}" for row in range(ROWS)])
    if kind == "polars":
        return pl.DataFrame(columns)
    table = pa.table(columns).replace_schema_metadata({"desk": "one"})
    return table if kind == "arrow table" else table.to_batches()[0]


KINDS = ("pandas", "polars", "arrow table", "arrow batch")


def column(frame, name):
    return np.asarray(frame[name])


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_comes_back_with_results(client, engine, columns, kind):
    frame = as_frame(kind, columns)
    answer = client.greeks(frame, dividend_yield=0.01)
    assert type(answer) is type(frame)
    wanted = engine.greeks(gk.Options(**columns, dividend_yield=0.01))
    for name in GREEKS:
        np.testing.assert_array_equal(column(answer, name), getattr(wanted, name))
    assert set(column(answer, "status")) == {RowStatus.OK}
    for name in ("book", *columns):
        np.testing.assert_array_equal(column(answer, name), column(frame, name))
    assert "delta" not in (frame.schema.names if kind.startswith("arrow") else frame.columns)


def test_pandas_keeps_its_index_and_says_where_the_numbers_come_from(client, columns):
    frame = as_frame("pandas", columns)
    frame.attrs["desk"] = "one"
    answer = client.price(frame)
    assert answer.index.equals(frame.index)
    assert answer.attrs["desk"] == "one"
    assert answer.attrs["provenance"]["engine"]
    assert "provenance" not in frame.attrs


def test_arrow_keeps_its_metadata_and_says_where_the_numbers_come_from(client, columns):
    metadata = client.price(as_frame("arrow table", columns)).schema.metadata
    assert metadata[b"desk"] == b"one"
    assert json.loads(metadata[b"gpu_risk.provenance"])["method"] == "price"


@pytest.mark.parametrize(
    ("kind", "make"), [(pd.Series, pd.Series), (pl.Series, pl.Series), (pa.Array, pa.array)]
)
def test_single_columns_come_back_as_their_kind(client, engine, columns, kind, make):
    answer = client.price(**{name: make(values) for name, values in columns.items()}, dividend_yield=0.02)
    assert isinstance(answer["price"], kind)
    assert isinstance(answer.status, kind)
    wanted = engine.price(gk.Options(**columns, dividend_yield=0.02))
    np.testing.assert_array_equal(np.asarray(answer["price"]), wanted.price)
    assert answer.provenance.engine


def test_series_of_pandas_keep_their_index_and_must_share_it(client):
    spot = pd.Series([90.0, 100.0], index=["x", "y"])
    answer = client.price(spot=spot, strike=100, expiry=1, vol=0.2)
    assert list(answer["price"].index) == ["x", "y"]
    with pytest.raises(InvalidRequest, match="vol: has another index") as refused:
        client.price(spot=spot, strike=100, expiry=1, vol=pd.Series([0.2, 0.3], index=["y", "x"]))
    assert refused.value.violations[0].column == "vol"


@pytest.mark.parametrize("kind", KINDS)
def test_vols_come_back_from_prices(client, engine, columns, kind):
    prices = engine.price(gk.Options(**columns)).price
    frame = as_frame(kind, {name: v for name, v in columns.items() if name != "vol"} | {"mid": prices})
    answer = client.implied_volatility(frame, price="mid", prefix="iv_")
    np.testing.assert_allclose(column(answer, "iv_vol"), columns["vol"], rtol=1e-9)
    # And on to Greeks at those vols, without renaming a column.
    again = client.greeks(answer, vol="iv_vol")
    np.testing.assert_allclose(column(again, "price"), prices, rtol=1e-12)


def test_a_price_already_there_is_not_overwritten(client, columns):
    frame = as_frame("pandas", columns).assign(price=1.0)
    with pytest.raises(InvalidRequest, match="price: is in the table already"):
        client.price(frame)
    answer = client.price(frame, prefix="model_")
    assert list(answer["price"]) == [1.0] * ROWS
    assert list(answer.columns[-2:]) == ["model_price", "model_status"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_gap_is_a_bad_row_and_no_fault_of_the_others(client, columns, kind):
    columns["spot"][3] = np.nan
    frame = as_frame(kind, columns)
    if kind == "pandas":
        frame["spot"] = frame["spot"].astype("Float64")
    answer = client.price(frame)
    status = column(answer, "status")
    assert status[3] == RowStatus.INVALID_INPUT
    assert (np.delete(status, 3) == RowStatus.OK).all()
    assert np.isnan(column(answer, "price")[3])


GAP = [True, None, False, True]
BAD = {
    "text": ({"strike": ["100", "1o5"]}, "options.strike[0]: needs a number, not '100'"),
    "one text among numbers": ({"strike": [100.0, "x"]}, "options.strike[1]: needs a number, not 'x'"),
    "dates": ({"expiry": pd.to_datetime(["2030-01-01"] * 2)}, "given in years"),
    "flags for numbers": ({"vol": [True, False]}, "options.vol[0]: holds true and false"),
    "flag of two": ({"is_call": [1, 2]}, "options.is_call[1]: needs true or false, not 2"),
    "X and Y": ({"is_call": ["X", "Y"]}, "options.is_call[0]: needs true or false, not 'X'"),
    "no strike": ({"strike": None}, "options.strike: is missing"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_column_is_named_with_its_row(client, case):
    change, says = BAD[case]
    good = {"spot": [100.0, 101.0], "strike": [100.0, 100.0], "expiry": [1.0, 1.0], "vol": [0.2, 0.2]}
    columns = {name: values for name, values in {**good, **change}.items() if values is not None}
    with pytest.raises(InvalidRequest) as refused:
        client.price(pd.DataFrame(columns))
    assert says in str(refused.value)
    violation = refused.value.violations[0]
    assert violation.column == f"options.{next(iter(change))}"
    assert (violation.row is None) == ("[" not in violation.field)


@pytest.mark.parametrize("make", [pl.Series, pa.array, lambda one: pd.Series(one, dtype="boolean")])
def test_a_gap_in_flags_is_named_by_its_row(client, make):
    with pytest.raises(InvalidRequest) as refused:
        client.price(spot=100, strike=100, expiry=1, vol=0.2, is_call=make(GAP))
    assert refused.value.violations[0].field == "options.is_call[1]"


def test_what_is_no_table_or_no_column_is_refused(client, columns):
    frame = as_frame("polars", columns)
    with pytest.raises(TypeError, match="collect"):
        client.price(frame.lazy())
    with pytest.raises(TypeError, match="dict"):
        client.price({"spot": 1.0})
    with pytest.raises(TypeError, match="'sigma'"):
        client.price(frame, sigma=0.2)
    with pytest.raises(InvalidRequest, match="mid: is no column of the table"):
        client.implied_volatility(frame.drop("vol"), price="mid")
    with pytest.raises(TypeError, match="pandas and polars"):
        client.price(spot=pd.Series([1.0]), strike=pl.Series([1.0]), expiry=1, vol=0.2)
    with pytest.raises(InvalidRequest, match=r"options.vol: has 2 entries where there are 7 rows"):
        client.price(frame, vol=[0.1, 0.2])
    with pytest.raises(InvalidRequest, match="needs one dimension"):
        client.price(spot=np.ones((2, 2)), strike=1, expiry=1, vol=0.2)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_an_empty_table_stays_empty(client, columns, kind):
    frame = as_frame(kind, columns)[:0] if kind != "arrow table" else as_frame(kind, columns).slice(0, 0)
    answer = client.greeks(frame)
    assert len(answer) == 0
    assert len(column(answer, "delta")) == 0


def test_one_value_for_every_row_of_a_table(client, columns):
    frame = as_frame("polars", columns).select("book")
    answer = client.price(frame, spot=100, strike=100, expiry=1, vol=0.2)
    assert answer["price"].n_unique() == 1
    assert len(answer) == ROWS


def test_rows_beyond_one_message_travel_in_parts(address, engine, seed):
    draw = np.random.default_rng(seed)
    # A request of this many rows would have 67 MB, and the service takes at most 2 million rows at once.
    rows = 2_100_001
    columns = {"spot": draw.uniform(80, 120, rows), "strike": 100.0, "expiry": draw.uniform(0.1, 2, rows)}
    columns |= {"vol": draw.uniform(0.1, 0.6, rows), "is_call": draw.random(rows) < 0.5}
    with RiskClient(address, deadline_s=PATIENCE_S) as client:
        answer = client.price(
            pl.DataFrame({name: columns[name] for name in columns if name != "strike"}), strike=100
        )
    np.testing.assert_array_equal(answer["price"].to_numpy(), engine.price(gk.Options(**columns)).price)


@pytest.mark.parametrize("chunk_rows", [1, 3, ROWS - 1, ROWS])
def test_parts_of_any_size_make_the_same_answer(address, engine, columns, chunk_rows):
    with RiskClient(address, deadline_s=PATIENCE_S, chunk_rows=chunk_rows) as client:
        greeks = client.greeks(**columns)
        vols = client.implied_volatility(greeks["price"], **{k: v for k, v in columns.items() if k != "vol"})
    np.testing.assert_array_equal(greeks["gamma"], engine.greeks(gk.Options(**columns)).gamma)
    np.testing.assert_allclose(vols["vol"], columns["vol"], rtol=1e-9)


def test_row_states_are_those_of_the_service():
    assert {f"ROW_STATUS_{one.name}": int(one) for one in RowStatus} == dict(wire.RowStatus.items())


def test_the_example_of_the_page_runs(address, capsys):
    page = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
    [example] = [one for one in re.findall(r"```python\n(.*?)```", page, re.S) if "chain =" in one]
    names: dict[str, object] = {}
    exec(compile(example.replace("localhost:50051", address), "docs/client.md", "exec"), names)
    chain = names["chain"]
    assert list(chain["status"]) == [RowStatus.OK] * 3
    assert chain["iv_vol"].between(0.15, 0.35).all()
    assert "delta" in capsys.readouterr().out


def test_letters_of_calls_and_exercise_are_taken(client):
    asked = {"spot": 100.0, "strike": 100.0, "expiry": 1.0, "vol": 0.2}
    letters = client.price(**asked, is_call=["C", "p"], american=["E", "A"])
    plain = client.price(**asked, is_call=[True, False], american=[False, True])
    np.testing.assert_array_equal(letters["price"], plain["price"])
    with pytest.raises(InvalidRequest, match=r"options.is_call\[1\]"):
        client.price(**asked, is_call=["C", "X"])


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_deadline_is_a_time(client, seconds):
    with pytest.raises(ValueError, match="deadline_s"):
        client.list_engines(deadline_s=seconds)


PAID = {"AAA": [(0.4, 2.0), (0.1, 1.0)], "BBB": [(0.2, 3.0)], "none held": [(0.1, 1.0)]}


def _on_dividends(engine, owner):
    """The kernels' own answer; each row has its underlying's dividends by time."""
    lists = [sorted(PAID.get(name, ())) for name in owner]
    return engine.greeks(
        gk.Options(
            spot=100.0, strike=[90.0, 100.0, 110.0, 95.0], expiry=0.5, vol=0.25, rate=0.03,
            dividends=CashDividends.per_option(lists),
        )
    )  # fmt: skip


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table])
def test_dividends_go_by_a_column_of_the_table(address, engine, make):
    owner = ["AAA", "BBB", "AAA", "CCC"]
    wanted = _on_dividends(engine, owner)
    table = make({"underlying": owner, "strike": [90.0, 100.0, 110.0, 95.0]})
    given = {"spot": 100.0, "expiry": 0.5, "vol": 0.25, "rate": 0.03}
    with RiskClient(address, deadline_s=PATIENCE_S, chunk_rows=3) as client:
        got = client.greeks(table, dividends=PAID, paid_by="underlying", **given)
        assert list(np.asarray(got["delta"])) == wanted.delta.tolist()
        priced = client.price(strike=[90.0, 100.0], dividends=PAID["AAA"], **given)
        assert priced["price"][0] == wanted.price[0]
        prices = wanted.price.tolist()
        vols = client.implied_volatility(
            prices, strike=table["strike"], spot=100.0, expiry=0.5, rate=0.03, dividends=PAID, paid_by=owner
        )
    np.testing.assert_allclose(np.asarray(vols["vol"]), 0.25, rtol=1e-8)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"dividends": PAID}, "paid_by"),
        ({"paid_by": ["A"]}, "paid_by"),
        ({"dividends": [(0.1, 1.0)], "paid_by": ["A"]}, "dividends"),
        ({"dividends": [0.1, 1.0]}, "dividends"),
        ({"dividends": {"A": [(0.1, 1.0), (0.2, -1.0)]}, "paid_by": ["A"]}, "dividends['A'][1]"),
        ({"dividends": {"A": [("soon", 1.0)]}, "paid_by": ["A"]}, "dividends['A']"),
        ({"dividends": 1.0}, "dividends"),
        ({"dividends": PAID, "paid_by": ["A", "B"]}, "paid_by"),
    ],
)
def test_dividends_that_are_none_are_named(client, given, field):
    with pytest.raises(InvalidRequest) as refused:
        client.price(spot=100.0, strike=[90.0, 95.0, 100.0], expiry=1.0, vol=0.2, **given)
    assert refused.value.violations[0].field == field
