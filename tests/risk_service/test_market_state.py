"""The market state is what the log said, in order, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from worlds import NOW_NS, quotes, record, reference

from protos.market.v1 import market_pb2 as market
from risk_service import market_events
from risk_service.market_state import AHEAD_NS_MAX, MISSING, MarketState


def spot(state, symbol="IDX"):
    return float(state.spots(state.slots([symbol]))[0])


def test_the_last_good_quote_is_the_spot():
    state = MarketState()
    state.apply(quotes(["IDX"], [100.0], spread=0.5), "IDX", 0, 0)
    assert spot(state) == 100.0
    state.apply(quotes(["IDX"], [101.0]), "IDX", 0, 1)
    assert spot(state) == 101.0


def test_a_trade_is_the_spot_only_where_there_is_no_quote():
    state = MarketState()
    state.apply(record(market.EVENT_KIND_TRADE, ["IDX"], price=99.0), "IDX", 0, 0)
    assert spot(state) == 99.0
    state.apply(quotes(["IDX"], [100.0]), "IDX", 0, 1)
    state.apply(record(market.EVENT_KIND_TRADE, ["IDX"], price=98.0), "IDX", 0, 2)
    assert spot(state) == 100.0


@pytest.mark.parametrize(
    "flag", [market.EVENT_FLAG_CROSSED, market.EVENT_FLAG_OUT_OF_BAND, market.EVENT_FLAG_STALE]
)
def test_untrusted_prices_mark_nothing(flag):
    state = MarketState()
    state.apply(quotes(["IDX"], [100.0]), "IDX", 0, 0)
    changed = state.apply(quotes(["IDX"], [150.0], flags=flag), "IDX", 0, 1)
    assert spot(state) == 100.0
    assert changed == set()


def test_a_gap_is_no_reason_to_distrust_a_price():
    state = MarketState()
    state.apply(quotes(["IDX"], [100.0], flags=market.EVENT_FLAG_GAP), "IDX", 0, 0)
    assert spot(state) == 100.0


def test_a_one_sided_quote_is_no_spot():
    state = MarketState()
    state.apply(record(market.EVENT_KIND_QUOTE, ["IDX"], bid=100.0), "IDX", 0, 0)
    state.apply(record(market.EVENT_KIND_QUOTE, ["IDX"], ask=100.0), "IDX", 0, 1)
    assert np.isnan(spot(state))


def test_an_option_without_a_bid_is_worth_half_its_ask():
    state = MarketState()
    state.apply(record(market.EVENT_KIND_QUOTE, ["OPT"], ask=0.05), "IDX", 0, 0)
    assert spot(state, "OPT") == 0.025
    state.apply(record(market.EVENT_KIND_QUOTE, ["OPT"], bid=0.05), "IDX", 0, 1)
    assert spot(state, "OPT") == 0.025
    # Among several of one record, too; but an underlying that nobody bids for has no price.
    state.apply(record(market.EVENT_KIND_QUOTE, ["OPT", "NEXT", "IDX"], ask=0.09), "IDX", 0, 2)
    assert (spot(state, "OPT"), spot(state, "NEXT")) == (0.045, 0.045)
    assert np.isnan(spot(state))


def test_changed_symbols_are_named():
    state = MarketState()
    assert state.apply(quotes(["IDX", "OPT"], [100.0, 2.0]), "IDX", 0, 0) == {"IDX", "OPT"}
    assert state.apply(reference("IDX"), "IDX", 0, 1) == {"IDX"}


def test_an_option_remembers_its_underlying_as_it_was():
    state = MarketState()
    state.apply(reference("IDX", rate=0.05), "IDX", 0, 0)
    state.apply(quotes(["IDX"], [100.0]), "IDX", 0, 1)
    state.apply(quotes(["OPT"], [5.0]), "IDX", 0, 2)
    state.apply(quotes(["IDX"], [110.0]), "IDX", 0, 3)
    slots = state.slots(["OPT"])
    assert state.column("underlying_spot", slots)[0] == 100.0
    assert state.column("underlying_rate", slots)[0] == 0.05
    assert state.column("quotes", slots)[0] == 1


def test_the_snapshot_names_the_prefix_of_the_log():
    state = MarketState()
    state.apply(quotes(["IDX"], [100.0]), "IDX", 2, 41)
    state.apply(quotes(["ABC"], [10.0]), "ABC", 0, 6)
    assert state.snapshot_id() == "0:7,2:42"


def test_clocks_never_go_back():
    state = MarketState()
    state.apply(quotes(["IDX"], [100.0], time_ns=NOW_NS, normalized_ns=NOW_NS + 5), "IDX", 0, 0)
    state.apply(quotes(["IDX"], [100.0], time_ns=NOW_NS - 9, normalized_ns=NOW_NS), "IDX", 0, 1)
    assert (state.clocks.source_time_ns, state.clocks.normalized_time_ns) == (NOW_NS, NOW_NS + 5)


def test_a_price_from_before_1970_is_as_old_as_the_clock():
    state = MarketState()
    state.apply(quotes(["ABC"], [50.0], time_ns=NOW_NS), "ABC", 0, 0)
    for symbols in (["IDX"], ["IDX", "OPT"]):
        state.apply(quotes(symbols, np.full(len(symbols), 100.0), time_ns=-(1 << 63)), "IDX", 0, 1)
        assert state.ages_ns(state.slots(["IDX"])).tolist() == [NOW_NS]
        assert state.quote_times_ns(state.slots(["IDX"])).tolist() == [0]


def test_the_edge_of_the_future_is_a_minute_ahead_of_the_log():
    for ahead_s, passed_over in ((60.0, 0), (60.000_001, 1)):
        state = MarketState()
        state.apply(quotes(["IDX"], [100.0], time_ns=NOW_NS + round(ahead_s * 1e9)), "IDX", 0, 0, NOW_NS)
        assert state.from_the_future == passed_over


@pytest.mark.parametrize("name", ["rate", "dividend_yield"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_largest_rate_or_yield_is_a_thousand_percent(name, sign):
    state = MarketState()
    slots = state.slots(["IDX"])
    # A record of one event, which is a tick, and one of two.
    for symbols in (["IDX"], ["IDX", "IDX"]):

        def said(value, symbols=symbols):
            known = {"rate": 0.05, "dividend_yield": 0.02} | {name: value}
            return record(market.EVENT_KIND_REFERENCE, symbols, **known)

        assert state.apply(said(sign * 10.0), "IDX", 0, 0) == {"IDX"}
        assert state.column(name, slots)[0] == sign * 10.0
        assert state.apply(said(sign * np.nextafter(10.0, 11.0)), "IDX", 0, 1) == set()
        assert state.column(name, slots)[0] == sign * 10.0


def test_a_record_from_the_future_moves_neither_price_nor_clock():
    logged = NOW_NS + 5
    for symbols in (["ZZZ"], ["ZZZ", "OPT"]):
        state = MarketState()
        state.apply(quotes(["IDX"], [100.0], time_ns=NOW_NS), "IDX", 0, 0, logged)
        hostile = quotes(symbols, np.full(len(symbols), 5.0), time_ns=1 << 61)
        assert state.apply(hostile, "ZZZ", 0, 1, logged) == set()
        assert state.clocks.source_time_ns == NOW_NS
        assert np.isnan(spot(state, "ZZZ"))
        assert (state.snapshot_id(), state.from_the_future) == ("0:2", 1)
        # A clock that is a little ahead is one.
        assert state.apply(quotes(["IDX"], [101.0], time_ns=NOW_NS + AHEAD_NS_MAX), "IDX", 0, 2, logged)
        # And a log that does not say when believes all.
        assert state.apply(hostile, "ZZZ", 0, 3)


def test_the_state_grows_without_losing_anything():
    state = MarketState()
    names = [f"S{number}" for number in range(1_000)]
    for start in range(0, 1_000, 100):
        chosen = names[start : start + 100]
        state.apply(quotes(chosen, np.arange(start, start + 100) + 1.0), chosen[0], 0, start)
    np.testing.assert_array_equal(state.spots(state.slots(names)), np.arange(1_000) + 1.0)
    assert np.isnan(state.spots(state.slots(["never seen"])))[0]


def test_no_slot_is_nan_and_not_somebody_elses_price():
    state = MarketState()
    state.apply(quotes(["IDX"], [100.0]), "IDX", 0, 0)
    slots = state.slots([""])
    assert slots[0] == MISSING
    assert np.isnan(state.spots(slots)[0])
    assert state.times_ns(slots)[0] == 0


def test_a_record_that_is_no_batch_is_refused():
    broken = market.NormalizedBatch(symbols=["A"], symbol_index=[3], kind=[1])
    with pytest.raises(ValueError, match="symbol_index"):
        market_events.decode(broken.SerializeToString())


def test_slots_that_nobody_holds_go_to_other_symbols_and_what_was_said_stays():
    state = MarketState()
    state.apply(quotes(["IDX"], [100.0]), "IDX", 0, 0)
    state.apply(reference("RATED", rate=0.05), "RATED", 0, 1)
    held = state.slots(["HELD"])
    state.slots([f"OLD{number}" for number in range(500)])
    state.free([held, np.array([MISSING])])
    assert state.symbols == 3
    assert state.find(["HELD"]).tolist() == held.tolist()
    assert state.find(["OLD7"]).tolist() == [MISSING]
    copied = state.copy()
    for one in (state, copied):
        fresh = one.slots([f"NEW{number}" for number in range(501)])
        known = one.slots(["IDX", "RATED", "HELD"])
        assert sorted([*fresh.tolist(), *known.tolist()]) == list(range(504))
        one.apply(quotes(["NEW7", "NEW500"], [7.0, 500.0]), "IDX", 0, 2)
        assert [spot(one, name) for name in ("IDX", "NEW7", "NEW500")] == [100.0, 7.0, 500.0]
        assert np.isnan(spot(one, "HELD"))
        assert np.isnan(spot(one, "NEW6"))


def test_a_state_with_free_slots_is_the_same_from_its_parts():
    state = MarketState()
    state.slots(["FIRST", "SECOND"])
    state.apply(quotes(["IDX", "OTHER"], [100.0, 50.0]), "IDX", 0, 0)
    state.free([])
    again = MarketState.of_parts(*state.parts())
    assert [spot(again, name) for name in ("IDX", "OTHER")] == [100.0, 50.0]
    assert np.isnan(spot(again, "THIRD"))
