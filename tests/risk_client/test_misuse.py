"""What a desk's developer gets wrong, and the error that names it; never a bare one of Python or gRPC."""

from __future__ import annotations

import asyncio
import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from served import PATIENCE_S

import risk_client
from risk_client import AsyncRiskClient, ClientClosed, InvalidRequest, RiskClient
from risk_client.columns import columns_of, numbers

ONE = {"spot": 100.0, "strike": [90.0, 100.0], "expiry": 0.5, "vol": 0.2}
BOOK = pd.DataFrame({"symbol": ["IDX"], "quantity": [1.0]})
MOVES = pd.DataFrame({"IDX": [-0.1]})


def _price(**changes):
    return lambda client: client.price(**(ONE | changes))


MISUSES = {
    "huge spot": (_price(spot=10**400), "options.spot"),
    "spot is text": (_price(spot="100"), "options.spot"),
    "spot is a dict": (_price(spot={"a": 1.0}), "options.spot"),
    "spot is complex": (_price(spot=np.array([1j])), "options.spot"),
    "spot is an object": (_price(spot=object()), "options.spot"),
    "ragged strikes": (_price(strike=[[1.0], [1.0, 2.0]]), "options.strike"),
    "strikes in two dimensions": (_price(strike=[[1.0, 2.0]]), "options.strike"),
    "masked shocks": (
        lambda client: risk_client.shocks(np.ma.masked_array([[0.1, 0.2]], [[0, 1]])), "spot_return"),
    "a masked flag": (_price(is_call=np.ma.masked_array([True, False], [0, 1])), "options.is_call[1]"),
    "expiry is a day": (_price(expiry=datetime.date(2027, 1, 1)), "options.expiry"),
    "columns of two lengths": (_price(vol=[0.1, 0.2, 0.3]), "options.strike"),
    "call is a word": (_price(is_call="call"), "options.is_call"),
    "an unknown column": (_price(sigma=0.2), "sigma"),
    "engine is a number": (_price(engine=5), "engine"),
    "an unknown engine": (_price(engine="gpu"), "engine"),
    "prices missing": (lambda client: client.implied_volatility(**ONE), "price"),
    "a list as table": (lambda client: client.price([1, 2, 3]), "table"),
    "a name that is a number": (lambda client: client.get_portfolio(5), "portfolio: cannot be 5"),
    "no name": (lambda client: client.get_portfolio(None), "portfolio"),
    "delete by number": (lambda client: client.delete_portfolio(5), "portfolio"),
    "version is text": (lambda client: client.delete_portfolio("x", "1"), "expected_version"),
    "version is negative": (lambda client: client.put_portfolio(BOOK, -1), "expected_version"),
    "a book that is a list": (lambda client: client.put_portfolio([1]), "portfolio"),
    "a stored name that is a number": (lambda client: client.expected_shortfall(5, MOVES), "portfolio"),
    "scenarios that are a list": (
        lambda client: client.expected_shortfall(BOOK, [[0.1]]), "scenarios"),
    "scenarios forgotten": (lambda client: client.expected_shortfall(BOOK, None), "scenarios"),
    "levels are one number": (lambda client: client.expected_shortfall(BOOK, MOVES, levels=0.99), "levels"),
    "levels are texts": (lambda client: client.expected_shortfall(BOOK, MOVES, levels=["0.99"]), "levels"),
    "level in per cent": (lambda client: client.expected_shortfall(BOOK, MOVES, levels=[97.5]), "levels"),
    "an unknown convention": (
        lambda client: client.expected_shortfall(BOOK, MOVES, convention="exact"), "convention"),
    "an unknown objective": (lambda client: client.hedge("x", "gamma"), "objective"),
    "a trade that is text": (lambda client: client.what_if("x", "buy 10"), "trade"),
    "named is one text": (lambda client: client.stress_test(BOOK, named="2008-1O"), "'2008-1O' is unknown"),
    "an unknown named day": (lambda client: client.stress_test(BOOK, named=["2008-13"]), "named"),
    "bootstrap is half a number": (
        lambda client: client.expected_shortfall(BOOK, MOVES, bootstrap=1.5), "bootstrap"),
    "weighting": (lambda client: risk_client.historical(weighting="exponential"), "weighting"),
    "distribution": (
        lambda client: risk_client.monte_carlo(10, seed=1, distribution="cauchy"), "distribution"),
    "negative seed": (lambda client: risk_client.monte_carlo(10, seed=-1), "seed"),
    "scenarios as half a number": (lambda client: risk_client.monte_carlo(10.5, seed=1), "scenarios"),
    "one-dimensional shocks": (lambda client: risk_client.shocks([0.1]), "spot_return"),
    "shocks of text": (lambda client: risk_client.shocks([["down"]]), "spot_return"),
    "interval is text": (lambda client: next(client.watch_risk(["x"], "fast")), "min_interval_ms"),
    "watching numbers": (lambda client: next(client.watch_risk([5])), "portfolios"),
    "lot size is text": (lambda client: client.hedge("x", "delta", lot_size="ten"), "lot_size"),
    "budget is text": (lambda client: client.hedge("x", "delta", budget="ten"), "budget"),
    "without progress to call": (
        lambda client: client.expected_shortfall(BOOK, MOVES, progress=5), "progress"),
    "deadline is text": (_price(deadline_s="1"), "deadline_s"),
}  # fmt: skip


@pytest.mark.parametrize("misuse", MISUSES, ids=lambda name: name.replace(" ", "_"))
def test_a_misuse_is_named(client, misuse):
    call, field = MISUSES[misuse]
    with pytest.raises((InvalidRequest, risk_client.NotFound, TypeError, ValueError)) as fault:
        call(client)
    assert field in str(fault.value)


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([Decimal("1.50"), None, Decimal("12.25")]),
        pd.Series(pa.array([Decimal("1.50"), None, Decimal("12.25")]).to_pandas()),
        pd.Series([Decimal("1.50"), None, Decimal("12.25")], dtype=pd.ArrowDtype(pa.decimal128(10, 2))),
        pl.Series([Decimal("1.50"), None, Decimal("12.25")]),
        pa.array([Decimal("1.50"), None, Decimal("12.25")], pa.decimal128(10, 2)),
        pa.chunked_array([pa.array([Decimal("1.50"), None], pa.decimal128(30, 2)), [Decimal("12.25")]]),
    ],
    ids=["pandas", "pandas of arrow", "pandas in arrow", "polars", "arrow", "arrow chunks"],
)
def test_decimals_are_numbers(client, column):
    answer = client.price(spot=column, strike=10.0, expiry=1.0, vol=0.2)
    wanted = client.price(spot=[1.5, np.nan, 12.25], strike=10.0, expiry=1.0, vol=0.2)
    np.testing.assert_array_equal(np.asarray(answer["price"]), wanted["price"])
    make = {"polars": pl.DataFrame, "pyarrow": pa.table}.get(
        type(column).__module__.partition(".")[0], pd.DataFrame
    )
    columns, rows = columns_of(make({"quantity": column, "symbol": ["a", "b", "c"]}))
    np.testing.assert_array_equal(numbers(columns["quantity"])[0], [1.5, np.nan, 12.25])
    assert rows == 3


def test_a_client_that_is_closed_says_so(address):
    with RiskClient(address, deadline_s=PATIENCE_S) as client:
        client.list_engines()
    for call in (client.list_engines, lambda: next(client.watch_risk(["x"], resume=True))):
        with pytest.raises(ClientClosed, match="make a new one"):
            call()

    async def late():
        async with AsyncRiskClient(address, deadline_s=PATIENCE_S) as desk:
            await desk.list_engines()
        with pytest.raises(ClientClosed):
            await desk.list_engines()
        with pytest.raises(ClientClosed):
            await anext(desk.watch_risk(["x"]))

    asyncio.run(late())


def test_what_is_masked_is_missing(client):
    masked = np.ma.masked_array([95.0, 100.0, 105.0], mask=[False, True, False])
    answer = client.price(spot=100.0, strike=masked, expiry=1.0, vol=0.2)
    assert answer.status.tolist() == [0, risk_client.RowStatus.INVALID_INPUT, 0]
    assert np.isnan(answer["price"][1])
    columns, _ = columns_of({"quantity": masked, "symbol": np.array(["a", "b", "c"])})
    np.testing.assert_array_equal(numbers(columns["quantity"])[0], [95.0, np.nan, 105.0])
    whole = np.ma.masked_array([95.0, 100.0])
    assert client.price(spot=100.0, strike=whole, expiry=1.0, vol=0.2).status.tolist() == [0, 0]
