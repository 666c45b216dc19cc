"""Books, scenarios, trades and instruments as tables of the caller's: the same numbers, tables back, own
words."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from served import PATIENCE_S
from worlds import osi

import risk_client
from protos.risk.v1 import risk_pb2 as wire
from risk_client import AsyncRiskClient, InvalidRequest, scenarios_of, shocks

BOOK = {
    "symbol": [osi("IDX", "P", 90.0), osi("IDX", "C", 110.0).replace(" ", ""), "IDX"],
    "quantity": [10.0, -5.0, 150.0],
    "group": ["vol", "vol", "spot"],
    "exercise": ["E", "E", None],
}
MOVES = {"name": ["crash", "calm"], "IDX": [-0.2, 0.01], "IDX.vol": [0.1, None], "elapsed_days": [0, 7]}
SAID = shocks(
    np.log1p([[-0.2], [0.01]]), [[0.1], [0.0]], elapsed=np.array([0, 7]) / 365, names=["crash", "calm"]
)
KINDS = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "arrow": pa.table, "numpy": dict}
SORTS = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "arrow": pa.Table, "numpy": dict}


def column(table, name):
    return np.asarray(table[name])


def as_message(client, name="tables"):
    """The book as the service has it, from the table that was put."""
    client.put_portfolio(pd.DataFrame(BOOK), name=name)
    return client.get_portfolio(name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_is_put_as_its_rows(client, kind):
    version = client.put_portfolio(KINDS[kind](BOOK), name=f"put {kind}")
    stored = client.get_portfolio(f"put {kind}")
    assert stored.version == version
    assert list(stored.positions.symbol) == [osi("IDX", "P", 90.0), osi("IDX", "C", 110.0), "IDX"]
    assert list(stored.positions.quantity) == BOOK["quantity"]
    assert list(stored.positions.multiplier) == [100.0, 100.0, 1.0]
    assert [stored.groups[one] for one in stored.positions.group_index] == BOOK["group"]
    assert client.put_portfolio(KINDS[kind](BOOK), version, name=f"put {kind}") == version + 1


@pytest.mark.parametrize("kind", KINDS)
def test_stress_of_tables_is_that_of_messages(client, kind):
    make = KINDS[kind]
    wanted = client.stress_test(as_message(client), SAID, by_group=True, by_position=True)
    for book in (make(BOOK), "tables"):
        found = client.stress_test(book, make(MOVES), by_group=True, by_position=True)
        np.testing.assert_array_equal(found.pnl, wanted.pnl)
        assert isinstance(found.by_scenario, SORTS[kind])
        assert column(found.by_scenario, "name").tolist() == ["crash", "calm"]
        np.testing.assert_array_equal(column(found.by_scenario, "pnl"), wanted.pnl)
        np.testing.assert_array_equal(column(found.by_scenario, "pnl.vol"), wanted.pnl_by_group[0])
        np.testing.assert_array_equal(column(found.by_scenario, "pnl.spot"), wanted.pnl_by_group[1])
    assert found.positions is None  # of a stored portfolio the caller has no table
    found = client.stress_test(make(BOOK), make(MOVES), by_position=True)
    assert isinstance(found.positions, SORTS[kind])
    np.testing.assert_array_equal(column(found.positions, "pnl.calm"), wanted.pnl_by_position[:, 1])
    assert column(found.positions, "symbol").tolist() == BOOK["symbol"]


@pytest.mark.parametrize("kind", KINDS)
def test_shortfall_of_tables_is_that_of_messages(client, kind):
    make = KINDS[kind]
    draw = np.random.default_rng(7).normal(0.0, 0.02, 300)
    asked = {"levels": (0.9, 0.975), "with_components": True, "with_pnl": True}
    wanted = client.expected_shortfall(as_message(client), shocks(np.log1p(draw)[:, None]), **asked)
    found = client.expected_shortfall(make(BOOK), make({"IDX": draw}), **asked)
    assert column(found.by_level, "expected_shortfall").tolist() == [
        one.expected_shortfall for one in wanted.tail
    ]
    np.testing.assert_array_equal(column(found.by_scenario, "pnl"), wanted.pnl)
    assert column(found.by_scenario, "name").tolist()[:2] == ["1", "2"]
    np.testing.assert_array_equal(column(found.by_group, "expected_shortfall"), wanted.component_by_group)
    parts = column(found.positions, "expected_shortfall")
    np.testing.assert_array_equal(parts, wanted.component_by_position)
    assert np.isclose(parts.sum(), wanted.tail[0].expected_shortfall)


@pytest.mark.parametrize("kind", KINDS)
def test_trades_and_instruments_may_be_tables(client, kind):
    as_message(client)
    make = KINDS[kind]
    rows = {"symbol": ["IDX", osi("IDX", "P", 90.0)], "quantity": [-100.0, 2.0], "exercise": [None, "E"]}
    trade = wire.Positions(
        symbol=["IDX", osi("IDX", "P", 90.0)],
        kind=[wire.INSTRUMENT_KIND_SPOT, wire.INSTRUMENT_KIND_OPTION],
        quantity=rows["quantity"],
        multiplier=[1.0, 100.0],
        underlying_index=[0, 0],
        strike=[0.0, 90.0],
        is_call=[False, False],
        expiry_time_ns=[0, client.get_portfolio("tables").positions.expiry_time_ns[0]],
    )
    wanted, found = client.what_if("tables", trade), client.what_if("tables", make(rows))
    assert found.after == wanted.after
    assert found.incremental == wanted.incremental != 0.0
    assert wanted.table is None
    assert column(found.table, "expected_shortfall").tolist() == [
        wanted.before.expected_shortfall, wanted.after.expected_shortfall
    ]  # fmt: skip
    hedged = client.hedge("tables", "delta", make({"symbol": ["IDX"], "quantity": [1e6]}))
    plain = client.hedge("tables", "delta")
    assert column(hedged.trades, "trade").tolist() == plain.trade.tolist()
    assert column(hedged.trades, "symbol").tolist() == ["IDX"]


def test_a_trade_under_scenarios_of_a_table_is_the_difference_of_two_shortfalls(client):
    """What it says is an ES with the trade, less one without, each asked for by itself."""
    as_message(client)
    draw = pd.DataFrame({"IDX": np.random.default_rng(3).normal(0.0, 0.03, 200)})
    trade = pd.DataFrame({"symbol": ["IDX"], "quantity": [-120.0]})
    both = pd.concat([pd.DataFrame(BOOK), trade], ignore_index=True).assign(group=None)
    asked = {"levels": (0.95,), "convention": "discrete"}
    found = client.what_if("tables", trade, level=0.95, scenarios=draw, convention="discrete")
    before = client.expected_shortfall(pd.DataFrame(BOOK), draw, **asked).tail[0].expected_shortfall
    after = client.expected_shortfall(both, draw, **asked).tail[0].expected_shortfall
    assert np.isclose(found.before.expected_shortfall, before, rtol=1e-12)
    assert np.isclose(found.incremental, after - before, rtol=1e-9)


def test_scenarios_in_fewer_words_follow_those_of_a_table(client):
    shock = wire.Shock(name="fall", spot=wire.ByUnderlying(other=-0.2), vol=wire.ByUnderlying(other=0.1))
    grid = wire.Ladder(name="grid", spot=[-0.2, 0.1], vol=[0.0, 0.1])
    found = client.stress_test(pd.DataFrame(BOOK), pd.DataFrame(MOVES), shocks=[shock], ladders=[grid])
    assert found.by_scenario["name"].tolist()[:3] == ["crash", "calm", "fall"]
    assert found.pnl.size == 2 + 1 + 4
    # The crash of the table is the shock, and one point of the grid.
    assert np.isclose(found.pnl[2], found.pnl[0], rtol=1e-12)
    assert np.isclose(found.pnl[3:], found.pnl[0], rtol=1e-12).any()


def test_one_portfolio_may_be_watched_by_its_name(client):
    as_message(client)
    watch = client.watch_risk("tables", deadline_s=PATIENCE_S)
    assert next(watch).portfolio == "tables"
    watch.close()


def test_the_twin_answers_the_same(address, client):
    wanted = client.stress_test(pd.DataFrame(BOOK), pd.DataFrame(MOVES), by_group=True)
    as_message(client)

    async def ask():
        async with AsyncRiskClient(address, deadline_s=PATIENCE_S) as twin:
            told = []
            moves = pd.DataFrame(MOVES)
            stress = await twin.stress_test("tables", moves, by_group=True, progress=told.append)
            with pytest.raises(InvalidRequest) as caught:
                await twin.put_portfolio(pd.DataFrame({**BOOK, "quantity": [1.0, np.nan, 2.0]}), name="x")
            assert caught.value.violations[0].field == "quantity[1]"
            assert told
            return stress

    pd.testing.assert_frame_equal(asyncio.run(ask()).by_scenario, wanted.by_scenario)


def test_the_index_of_pandas_names_scenarios_and_stays_with_positions(client):
    moves = pd.DataFrame({"default": [-0.1, 0.1]}, index=pd.to_datetime(["2020-03-16", "2020-03-24"]).date)
    book = pd.DataFrame(BOOK, index=["a", "b", "c"])
    found = client.stress_test(book, moves, named=["1987-10-19"], by_position=True)
    assert found.by_scenario["name"].tolist()[:2] == ["2020-03-16", "2020-03-24"]
    assert len(found.by_scenario) == 3
    assert found.positions.index.tolist() == ["a", "b", "c"]


# ---- what is wrong is told in the words of the table -----------------------------------------------


@pytest.mark.parametrize(
    ("moves", "field", "says"),
    [
        ({"IDX": [0.1, -1.0]}, "IDX[1]", "a fall by everything"),
        ({"IDX": [0.1, None]}, "IDX[1]", "is missing"),
        ({"IDX": ["a", "0.1"]}, "IDX[0]", "'a' is not a number"),
        ({"SPX": [0.1, 0.2]}, "IDX", "is no column of the scenarios"),
        ({"default": [0.1, 0.2], "IDZ": [0.1, 0.1]}, "IDZ", "no underlying of the portfolio"),
        ({"IDX": [0.1, 0.2], "IDX.vol": [float("inf"), 0.0]}, "IDX.vol[0]", "finite"),
    ],
)
def test_a_bad_scenario_is_named_by_column_and_row(client, moves, field, says):
    with pytest.raises(InvalidRequest) as caught:
        client.stress_test(pd.DataFrame(BOOK), pd.DataFrame(moves))
    assert (caught.value.violations[0].field, says in str(caught.value)) == (field, True)


def test_a_table_for_several_books_may_name_more_than_is_held():
    moves = scenarios_of({"IDX": [0.1], "SPX": [0.3], "SPX.vol": [0.3]}, ("IDX",))
    assert list(moves.spot_return.values) == [np.log1p(0.1)]
    assert not moves.HasField("vol_change")


def test_what_the_service_refuses_is_named_by_the_tables_column(client):
    table = pd.DataFrame({**BOOK, "strike": [None, None, None], "multiplier": [None, 1e13, None]})
    with pytest.raises(InvalidRequest) as caught:
        client.put_portfolio(table, name="refused")
    assert [(one.column, one.row) for one in caught.value.violations] == [("multiplier", 1)]
    with pytest.raises(InvalidRequest) as caught:
        client.what_if("tables", {"symbol": ["IDY"], "quantity": [1.0]})
    assert [(one.column, one.row) for one in caught.value.violations] == [("symbol", 0)]


def test_a_portfolio_that_changes_meanwhile_is_not_mixed_up(client):
    """Numbers of underlyings mean nothing in another version."""
    job = risk_client.risk_requests.stress_test("tables", pd.DataFrame(MOVES))
    as_message(client)
    steps = job.requests(1)
    assert (job.rpc, next(steps).portfolio) == ("GetPortfolio", "tables")
    job.take(client.get_portfolio("tables"))
    request = next(steps)
    assert (job.rpc, job.streams) == ("StressTest", False)
    client.put_portfolio(pd.DataFrame(BOOK), name="tables")
    job.take(client._stub.StressTest(request))
    with pytest.raises(risk_client.AlreadyChanged, match="put anew"):
        job.result()


def test_what_is_neither_is_a_type_error(client):
    for ask in (
        lambda: client.stress_test(7),
        lambda: client.what_if("desk", "IDX"),
        lambda: client.expected_shortfall("desk", "crash"),
    ):
        with pytest.raises(TypeError):
            ask()


def test_a_column_of_the_answer_replaces_none_of_the_callers(client):
    as_message(client)
    with pytest.raises(InvalidRequest, match="cost"):
        client.hedge("tables", "delta", pd.DataFrame({"symbol": ["IDX"], "quantity": [1e6], "cost": [0]}))


def test_the_example_of_the_page_runs(address, capsys):
    page = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
    [example] = [one for one in re.findall(r"```python\n(.*?)```", page, re.S) if "book =" in one]
    # The service of the tests has another index, and options of another day.
    for said, here in (("SPX   270319P04800000", osi("IDX", "P", 90.0)), ("SPX", "IDX")):
        example = example.replace(said, here)
    exec(compile(example.replace("localhost:50051", address), "docs/client.md", "exec"), {})
    out = capsys.readouterr().out
    assert all(word in out for word in ("crash", "pnl.vol", "pnl.hedge", "expected_shortfall", "after"))


# ---- cash dividends ---------------------------------------------------------------------------------------

DIVIDENDS = {
    "underlying": ["IDX", "SPX", "IDX"],
    "ex_date": ["2023-12-01", "2023-12-04", date(2024, 1, 10)],
    "amount": [1.5, 9.0, 0.25],
}


@pytest.mark.parametrize("put", ["table", "message"])
def test_dividends_come_along_with_a_portfolio(client, put):
    book = pd.DataFrame(BOOK) if put == "table" else as_message(client)
    client.put_portfolio(book, name="paying", dividends=pd.DataFrame(DIVIDENDS))
    kept = client.get_portfolio("paying").dividends
    days = [datetime.fromtimestamp(one / 1e9, UTC) for one in kept.ex_time_ns]
    assert days == [datetime(2023, 12, 1, tzinfo=UTC), datetime(2024, 1, 10, tzinfo=UTC)]
    assert (list(kept.amount), list(kept.underlying_index)) == ([1.5, 0.25], [0, 0])


@pytest.mark.parametrize(
    ("changed", "field", "says"),
    [
        ({"ex_date": ["2023-12-01", "soon", None]}, "ex_date[1]", "'soon' is no date"),
        ({"amount": [1.0, -1.0, 1.0]}, "amount[1]", "0 or more"),
        ({"amount": [1.0, "x", 1.0]}, "amount[1]", "'x' is not a number"),
        ({"amount": [1.0, 1.0, None]}, "amount[2]", "is missing"),
        ({"underlying": ["IDX", None, "IDX"]}, "underlying[1]", "is missing"),
    ],
)
def test_a_bad_dividend_is_named_by_column_and_row(changed, field, says):
    with pytest.raises(InvalidRequest) as caught:
        risk_client.portfolio_of(pd.DataFrame(BOOK), "x", pd.DataFrame({**DIVIDENDS, **changed}))
    assert (caught.value.violations[0].field, says in str(caught.value)) == (field, True)
