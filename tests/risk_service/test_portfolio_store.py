"""Portfolios: what is refused, what is held, and how versions go on."""

from __future__ import annotations

import math

import pytest
from worlds import DAY_NS, expiry_of, option, osi, portfolio, spot_position

from protos.risk.v1 import risk_pb2 as risk
from risk_service import portfolio_log
from risk_service.portfolios import PortfolioStore, check
from service_kit.errors import AlreadyChanged, InvalidRequest, NotFound
from service_kit.kafka.records import Record

GOOD = portfolio(rows=(option(100.0, True), spot_position(5.0)), groups=("vol",))


def changed(**values):
    """GOOD with one column of its positions replaced."""
    message = risk.Portfolio()
    message.CopyFrom(GOOD)
    for name, content in values.items():
        column = getattr(message.positions, name)
        del column[:]
        column.extend(content)
    return message


# The second option's symbol names the first underlying.
TWO_INDICES = portfolio(
    rows=(option(100.0, True), option(90.0, True, place=1), option(90.0, True, underlying="ABC", place=1)),
    underlyings=("IDX", "ABC"),
)


@pytest.mark.parametrize(
    ("message", "where"),
    [
        (risk.Portfolio(), "portfolio"),
        (risk.Portfolio(portfolio="x" * 201), "portfolio"),
        (risk.Portfolio(portfolio="tab\t"), "portfolio"),
        (risk.Portfolio(portfolio="p", underlyings=["A", ""]), "underlyings[1]"),
        (risk.Portfolio(portfolio="p", underlyings=["A", "A"]), "underlyings[1]"),
        (risk.Portfolio(portfolio="p", groups=["g", "g"]), "groups[1]"),
        (changed(symbol=["IDX", ""]), "positions.symbol[1]"),
        (changed(quantity=[1.0, math.nan]), "positions.quantity[1]"),
        (changed(quantity=[math.inf, 1.0]), "positions.quantity[0]"),
        (changed(multiplier=[1e10]), "positions.multiplier[0]"),
        (changed(strike=[1e13, 0.0]), "positions.strike[0]"),
        (changed(quantity=[1.0, 2.0, 3.0]), "positions.quantity"),
        (changed(multiplier=[1.0, 0.0]), "positions.multiplier[1]"),
        (changed(multiplier=[-1.0]), "positions.multiplier[0]"),
        (changed(strike=[0.0, 0.0]), "positions.strike[0]"),
        (changed(strike=[math.nan, 0.0]), "positions.strike[0]"),
        (changed(expiry_time_ns=[0, 0]), "positions.expiry_time_ns[0]"),
        (changed(underlying_index=[0, 1]), "positions.underlying_index[1]"),
        (changed(group_index=[1, 0]), "positions.group_index[0]"),
        (changed(kind=[0, 9]), "positions.kind[1]"),
        (changed(symbol=["x" * 201, "IDX"]), "positions.symbol[0]"),
        (changed(symbol=[GOOD.positions.symbol[0], "IDX\n"]), "positions.symbol[1]"),
        # What would be a book of nothing, of puts, or of another contract than its quotes are of.
        (changed(quantity=[]), "positions.quantity"),
        (changed(is_call=[]), "positions.is_call"),
        (changed(is_call=[False]), "positions.is_call[0]"),
        (changed(strike=[101.0, 0.0]), "positions.strike[0]"),
        (changed(expiry_time_ns=[expiry_of(0.5) + DAY_NS, 0]), "positions.expiry_time_ns[0]"),
        (changed(expiry_time_ns=[expiry_of(0.5) - DAY_NS, 0]), "positions.expiry_time_ns[0]"),
        (changed(expiry_time_ns=[expiry_of(1.5), 0]), "positions.expiry_time_ns[0]"),
        (TWO_INDICES, "positions.underlying_index[1]"),
        (risk.Portfolio(portfolio="p", limits=risk.Limits(var_fraction=-0.1)), "limits.var_fraction"),
        (risk.Portfolio(portfolio="p", limits=risk.Limits(stress_loss=math.inf)), "limits.stress_loss"),
        (risk.Portfolio(portfolio="p", limits=risk.Limits(hysteresis=1.0)), "limits.hysteresis"),
    ],
)
def test_what_is_wrong_is_named_with_its_row(message, where):
    with pytest.raises(InvalidRequest) as refused:
        check(message)
    assert refused.value.where == where


def test_one_entry_holds_for_all_rows_and_multipliers_default_to_one():
    held = check(changed(underlying_index=[0], multiplier=[]))
    assert held.underlying_index.tolist() == [0, 0]
    assert held.multiplier.tolist() == [1.0, 1.0]


def test_an_expiry_may_be_at_any_time_of_its_day_and_a_root_may_be_spelt_otherwise():
    midnight = expiry_of(0.5) // DAY_NS * DAY_NS
    for hours in (0, 13.5, 20, 21, 23.99, 28.9):
        moment = midnight + round(hours * 3_600e9)
        assert check(changed(expiry_time_ns=[moment, 0])).expiry_time_ns[0] == moment
    names = ("SPX", "AAPL", "BRK.B")
    for root, place in (("SPXW", 0), ("AAPL1", 1), ("BRKB", 2)):
        row = (osi(root, "C", 100.0), risk.INSTRUMENT_KIND_OPTION, 1.0, 100.0, True, 0.5, place, 0)
        assert len(check(portfolio(rows=[row], underlyings=names))) == 1


def test_versions_rise_and_go_on_after_a_deletion():
    store = PortfolioStore()
    first = store.prepare(GOOD, 0, "alice")
    assert (first.version, first.owner) == (1, "alice")
    with pytest.raises(NotFound):
        store.get("desk")
    store.apply(first)
    assert store.get("desk").version == 1
    store.apply_delete("desk")
    with pytest.raises(NotFound):
        store.message("desk")
    again = store.prepare(GOOD, 0, "alice")
    assert again.version > first.version


def test_an_expected_version_that_is_not_there_is_refused():
    store = PortfolioStore()
    with pytest.raises(AlreadyChanged):
        store.prepare(GOOD, 1, "alice")
    store.apply(store.prepare(GOOD, 0, "alice"))
    assert store.prepare(GOOD, 1, "alice").version == 2
    with pytest.raises(AlreadyChanged):
        store.expect("desk", 7)


def test_an_old_record_does_not_undo_a_newer_one():
    store = PortfolioStore()
    old, new = store.prepare(GOOD, 0, "a"), store.prepare(GOOD, 0, "a")
    new.version, new.owner = 5, "b"
    store.apply(new)
    store.apply(old)
    assert store.message("desk").owner == "b"


def test_what_is_handed_out_is_not_what_was_handed_in():
    store = PortfolioStore()
    message = risk.Portfolio()
    message.CopyFrom(GOOD)
    store.apply(store.prepare(message, 0, "a"))
    message.positions.quantity[0] = 1e9
    assert store.get("desk").quantity[0] == 10.0


def test_a_record_that_is_no_portfolio_is_poison_and_no_crash():
    assert portfolio_log.decode_portfolio(b"") is None
    with pytest.raises(ValueError, match="portfolio: needs a printable name"):
        portfolio_log.decode_portfolio(risk.Portfolio(version=3).SerializeToString())
    stale = changed(expiry_time_ns=[expiry_of(1.5), 0])
    with pytest.raises(ValueError, match=r"positions.expiry_time_ns\[0\]: is not of the day that"):
        portfolio_log.decode_portfolio(stale.SerializeToString())
    # A version after which no other can be counted.
    last = put(2**64 - 1)
    with pytest.raises(ValueError, match="version 18446744073709551615 is more than"):
        portfolio_log.decode_portfolio(last.SerializeToString())


def test_a_portfolio_under_another_key_is_refused():
    def record(key):
        return Record("risk.portfolios", 0, 0, key, b"", (), 0)

    portfolio_log.expect_own(None, record("gone"))
    portfolio_log.expect_own(put(7), record("desk"))
    with pytest.raises(ValueError, match="portfolio: is 'desk', the record's key is 'other'"):
        portfolio_log.expect_own(put(7), record("other"))


def test_versions_never_go_down_whatever_the_log_says():
    store = PortfolioStore()
    for offset, version in enumerate((0, 7, 3)):
        store.apply(put(version, f"owner-{version}"), offset)
    assert store.get("desk").version == store.message("desk").version == 8
    assert store.get("desk").owner == "owner-3"  # the last record counts
    assert store.prepare(GOOD, 8, "a").version == 9


def put(version, owner="alice"):
    message = risk.Portfolio()
    message.CopyFrom(GOOD)
    message.version, message.owner = version, owner
    return message


def test_what_comes_back_from_the_log_undoes_nothing_newer():
    # A call deletes at offset 5 and another puts at 6; only then the loop reads both.
    store = PortfolioStore()
    store.apply(put(1), 4)
    store.apply_delete("desk", 5)
    store.apply(put(3, "bob"), 6)
    held = store.get("desk")
    store.apply(put(1), 4)
    store.apply_delete("desk", 5)
    store.apply(put(3, "bob"), 6)
    assert store.get("desk") is held


def test_the_last_record_of_the_log_decides_whoever_wrote_it():
    # Two instances: one deletes, the other, which has not read that yet, puts.
    writer, reader = PortfolioStore(), PortfolioStore()
    writer.apply(put(1), 4)
    reader.apply(put(1), 4)
    writer.apply_delete("desk", 5)
    reader.apply(put(2), 6)
    writer.apply(put(2), 6)
    reader.apply_delete("desk", 5)
    assert writer.get("desk").version == reader.get("desk").version == 2
