"""The feed: messages that decode to what the market says, in order, reproducible, dirty on request only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import date

import numpy as np
import pytest

from market_sim.dirt import Dirt
from market_sim.feed import SOURCE, MarketFeed
from market_sim.trading_days import expiry_time_ns
from protos import packing
from protos.market.v1.market_pb2 import (
    EVENT_KIND_QUOTE,
    EVENT_KIND_REFERENCE,
    EVENT_KIND_STATUS,
    EVENT_KIND_TRADE,
    TRADING_STATE_OPEN,
    RawBatch,
)
from protos.orders.v1.orders_pb2 import ACTION_NEW
from protos.risk.v1.risk_pb2 import INSTRUMENT_KIND_FUTURE, INSTRUMENT_KIND_OPTION, INSTRUMENT_KIND_SPOT

START = date(2026, 1, 5)
NOW = expiry_time_ns(START)
STEP_NS = 50_000_000
COLUMNS = [f.name for f in RawBatch.DESCRIPTOR.fields if f.is_repeated and f.name != "symbols"]


def run(feed: MarketFeed, steps: int, dt: float = 0.05) -> list[tuple[str, RawBatch]]:
    return [batch for step in range(steps) for batch in feed.step(dt, NOW + (step + 1) * STEP_NS)]


def events(batches: Iterable[tuple[str, RawBatch]]) -> dict[str, list[dict[str, float]]]:
    """Events by symbol, each a plain record."""
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for _, batch in batches:
        rows = packing.row_count(batch, COLUMNS)
        columns = {name: packing.column(batch, name, rows) for name in COLUMNS}
        for row in range(rows):
            record = {name: values[row].item() for name, values in columns.items()}
            found[batch.symbols[int(record["symbol_index"])]].append(record)
    return found


def demo(seed: int) -> MarketFeed:
    """Four underlyings of 36 options, faster than life."""
    return MarketFeed(seed, start=START, speed=20.0)


def test_the_same_seed_and_calls_give_the_same_messages(seed: int) -> None:
    first, second = demo(seed), demo(seed)
    assert first.reference_batches(NOW) == second.reference_batches(NOW)
    assert run(first, 60) == run(second, 60)
    assert first.orders(1.0, NOW) == second.orders(1.0, NOW)
    assert first.portfolios(2, 50) == second.portfolios(2, 50)
    assert run(demo(seed + 1), 60) != run(demo(seed), 60)


def test_the_opening_names_every_instrument() -> None:
    feed = demo(5)
    opening = feed.reference_batches(NOW)
    assert [key for key, _ in opening] == ["SPX", "AAPL", "NVDA", "JPM"]
    found = events(opening)
    assert set(found) == set(feed.symbols)
    assert len(feed.symbols) == 4 * (1 + 2 * 9 * 2)
    for chain in feed.chains:
        state, reference, quote = found[chain.underlying.symbol]
        assert (state["kind"], state["state"]) == (EVENT_KIND_STATUS, TRADING_STATE_OPEN)
        assert reference["kind"] == EVENT_KIND_REFERENCE
        assert reference["rate"] == chain.underlying.rate
        assert reference["dividend_yield"] == chain.underlying.dividend_yield
        assert quote["bid"] < chain.underlying.spot < quote["ask"]
        assert all(found[symbol][0]["kind"] == EVENT_KIND_QUOTE for symbol in chain.symbols)


def test_ticks_keep_their_rate_order_and_keys(seed: int) -> None:
    feed = MarketFeed(seed, start=START, underlyings=3, ticks_per_second=400.0)
    opening = feed.reference_batches(NOW)
    batches = run(feed, 100)
    owner = {s: c.underlying.symbol for c in feed.chains for s in (c.underlying.symbol, *c.symbols)}
    for key, batch in batches:
        assert batch.source == SOURCE
        assert {owner[symbol] for symbol in batch.symbols} == {key}
    found = events([*opening, *batches])
    total = sum(len(rows) for rows in found.values()) - len(feed.symbols) - 6
    assert total == pytest.approx(2000, abs=5.5 * 2000**0.5)
    for rows in found.values():
        assert [row["source_sequence"] for row in rows] == list(range(1, len(rows) + 1))
        times = [row["source_time_ns"] for row in rows]
        assert times == sorted(times)
    kinds = [row["kind"] for rows in found.values() for row in rows]
    assert kinds.count(EVENT_KIND_TRADE) > 50


def test_clean_ticks_are_clean(seed: int) -> None:
    feed = MarketFeed(seed, start=START, underlyings=4, ticks_per_second=400.0)
    for rows in events(run(feed, 100)).values():
        for row in rows:
            if row["kind"] == EVENT_KIND_QUOTE:
                assert 0 <= row["bid"] < row["ask"] < 1e6
                assert row["ask_quantity"] > 0
                assert (row["price"], row["quantity"]) == (0, 0)
            else:
                assert row["price"] > 0
                assert row["quantity"] > 0
                assert (row["bid"], row["ask"]) == (0, 0)


@pytest.mark.parametrize("fault", ["gaps", "duplicates", "crossed", "stale", "nan", "spikes"])
def test_dirt_of_one_kind_brings_that_fault_only(fault: str, seed: int) -> None:
    clean = MarketFeed(seed, start=START, ticks_per_second=400.0)
    dirty = MarketFeed(seed, start=START, ticks_per_second=400.0, dirt=Dirt(**{fault: 0.2}))
    good, bad = events(run(clean, 100)), events(run(dirty, 100))
    sequences = [(s, row["source_sequence"]) for s, rows in bad.items() for row in rows]
    expected = {(s, row["source_sequence"]): row for s, rows in good.items() for row in rows}
    lost = set(expected) - set(sequences)
    changed: list[tuple[dict[str, float], dict[str, float]]] = []
    for symbol, rows in bad.items():
        for row in rows:
            was = expected[symbol, row["source_sequence"]]
            row.pop("symbol_index", None)
            was = {name: value for name, value in was.items() if name != "symbol_index"}
            if row != was:
                changed.append((row, was))
    share = 0.2 * len(expected)
    near = pytest.approx(share, rel=0.35)
    assert (len(lost) == near) == (fault == "gaps")
    assert (len(sequences) - len(set(sequences)) == near) == (fault == "duplicates")
    if fault in ("gaps", "duplicates"):
        assert not changed
        return
    assert len(changed) >= 0.1 * len(expected)
    for row, was in changed:
        if fault == "crossed":
            assert (row["bid"], row["ask"]) == (was["ask"], was["bid"])
        elif fault == "stale":
            assert row["source_time_ns"] == was["source_time_ns"] - 10_000_000_000
        elif fault == "nan":
            assert all(np.isnan(row[name]) for name in ("bid", "ask", "price"))
        else:
            assert row["ask"] + row["price"] == pytest.approx(10 * (was["ask"] + was["price"]))


def test_orders_follow_the_market(seed: int) -> None:
    feed = MarketFeed(seed, start=START, underlyings=2, orders_per_second=300.0)
    total = 0
    known: dict[int, str] = {}
    for step in range(1, 81):
        end = NOW + step * STEP_NS
        feed.step(0.05, end)
        spot = dict(zip(("SPX", "AAPL"), feed.market.spot))
        for key, batch in feed.orders(0.05, end):
            assert list(batch.symbols) == [key]
            rows = packing.row_count(batch, ["symbol_index"])
            times = packing.column(batch, "time_ns", rows)
            assert (times >= end - STEP_NS - 1).all()
            assert (times <= end).all()
            action, ids = packing.column(batch, "action", rows), packing.column(batch, "order_id", rows)
            for verb, order in zip(action.tolist(), ids.tolist()):
                if verb == ACTION_NEW:
                    assert order not in known
                    known[order] = key
                else:
                    assert known[order] == key
            prices = packing.column(batch, "price_ticks", rows)
            prices = prices[(action == ACTION_NEW) & (prices > 0)]
            if len(prices):
                assert np.median(prices) * 0.01 == pytest.approx(spot[key], rel=0.05)
            total += rows
    assert total > 600


def test_a_modification_in_place_keeps_the_live_price(seed: int) -> None:
    feed = MarketFeed(seed, start=START, underlyings=1, orders_per_second=200.0, speed=5000.0)
    price: dict[int, int] = {}
    same = replaced = 0
    for step in range(1, 401):
        feed.step(0.1, NOW + step * STEP_NS)
        for _, batch in feed.orders(0.1, NOW + step * STEP_NS):
            rows = len(batch.symbol_index)
            columns = [packing.column(batch, c, rows).tolist() for c in ("action", "order_id", "price_ticks")]
            for action, order, ticks in zip(*columns):
                if action == ACTION_NEW:
                    price[order] = ticks
                elif action == 2:
                    replaced += 1
                    same += price[order] == ticks
    assert replaced > 300
    assert same > 0.25 * replaced


def test_portfolios_hold_what_the_market_lists(seed: int) -> None:
    feed = MarketFeed(seed, start=START, underlyings=20, expiries=5, strikes=10)
    portfolios = feed.portfolios(3, 1000)
    assert len({p.portfolio for p in portfolios}) == 3
    rows_of = {s: (c, r) for c in feed.chains for r, s in enumerate(c.symbols)}
    for portfolio in portfolios:
        positions = portfolio.positions
        names = ("underlying_index", "kind", "quantity", "multiplier", "expiry_time_ns", "strike", "is_call")
        column = {name: packing.read(positions, name) for name in (*names, "american", "group_index")}
        assert {len(values) for values in column.values()} == {1000} == {len(positions.symbol)}
        assert (column["quantity"] != 0).mean() > 0.95
        assert (column["quantity"] > 0).mean() == pytest.approx(0.55, abs=0.12)
        assert column["group_index"].max() < len(portfolio.groups)
        assert set(column["kind"].tolist()) == {
            INSTRUMENT_KIND_OPTION,
            INSTRUMENT_KIND_SPOT,
            INSTRUMENT_KIND_FUTURE,
        }
        for row, symbol in enumerate(positions.symbol):
            name = portfolio.underlyings[column["underlying_index"][row]]
            if column["kind"][row] != INSTRUMENT_KIND_OPTION:
                assert symbol == name
                continue
            chain, at = rows_of[symbol]
            assert name == chain.underlying.symbol
            assert column["expiry_time_ns"][row] == chain.expiry_time_ns[at]
            assert column["strike"][row] == chain.strike[at]
            assert column["is_call"][row] == chain.is_call[at]
            assert column["american"][row] == chain.american[at]
            assert column["multiplier"][row] == 100.0


def test_small_portfolios_and_more_positions_than_options() -> None:
    feed = MarketFeed(1, start=START, underlyings=1, expiries=1, strikes=3)
    assert len(feed.portfolios(1, 1)[0].positions.symbol) == 1
    many = feed.portfolios(1, 100)[0]
    assert len(many.positions.symbol) == 100
    assert set(many.positions.symbol) == set(feed.symbols)


def test_bad_settings_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="underlyings"):
        MarketFeed(1, start=START, underlyings=0)
    with pytest.raises(ValueError, match="ticks_per_second"):
        MarketFeed(1, start=START, ticks_per_second=-1.0)
    with pytest.raises(ValueError, match="regime"):
        MarketFeed(1, start=START, regime="stormy")
    with pytest.raises(ValueError, match="gaps"):
        Dirt(gaps=2.0)
    with pytest.raises(ValueError, match="positions"):
        MarketFeed(1, start=START).portfolios(1, 0)
