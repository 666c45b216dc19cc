"""Alerts rise and end once; a slow watcher costs one slot and gets the newest."""

from __future__ import annotations

import asyncio
import math

import pytest

from protos.risk.v1 import risk_pb2 as risk
from risk_service.alerts import AlertBook
from risk_service.board import RiskBoard
from service_kit.errors import QuotaExceeded


def metrics(used=0.0, limit=100.0, age_ns=0, faults=(), degraded=False, name="desk"):
    message = risk.RiskMetrics(portfolio=name, positions=10)
    message.limits.add(name="expected shortfall", used=used, limit=limit, breached=used > limit)
    message.greeks.underlying.append("IDX")
    message.greeks.age_ns.append(age_ns)
    for row in faults:
        message.faults.add(row=row, symbol=f"S{row}")
    message.provenance.degraded = degraded
    return message


def seen(book, *, hysteresis=0.0, **what):
    return [(alert.kind, alert.raised) for alert in book.update(metrics(**what), hysteresis)]


def test_a_breach_is_raised_once_and_ends_once_it_is_well_below():
    book, kind = AlertBook(10), risk.ALERT_KIND_LIMIT_BREACHED
    assert seen(book, used=99.0) == []
    assert seen(book, used=101.0) == [(kind, True)]
    assert seen(book, used=150.0) == []
    assert seen(book, used=97.0) == []  # below the limit, within the hysteresis of 5 %
    assert seen(book, used=94.0) == [(kind, False)]
    assert seen(book, used=101.0, hysteresis=0.5) == [(kind, True)]
    assert seen(book, used=60.0, hysteresis=0.5) == []


def test_stale_data_degraded_engines_and_left_out_positions():
    book = AlertBook(stale_after_ns=10)
    assert seen(book, age_ns=11) == [(risk.ALERT_KIND_STALE_DATA, True)]
    assert seen(book, age_ns=11, degraded=True) == [(risk.ALERT_KIND_DEGRADED_ENGINE, True)]
    assert seen(book, age_ns=11, degraded=True, faults=(3,)) == [(risk.ALERT_KIND_POSITIONS_LEFT_OUT, True)]
    assert sorted(seen(book)) == [
        (risk.ALERT_KIND_STALE_DATA, False),
        (risk.ALERT_KIND_DEGRADED_ENGINE, False),
        (risk.ALERT_KIND_POSITIONS_LEFT_OUT, False),
    ]


def quoted(ago_ns, age_ns=0):
    """The underlying has a price of `age_ns` ago, the oldest option quote is of `ago_ns` ago."""
    message = metrics(age_ns=age_ns)
    message.provenance.data_age_ns = max(ago_ns, age_ns)
    return message


def test_option_quotes_that_nobody_renews_are_an_alert_though_the_underlying_ticks():
    book = AlertBook(stale_after_ns=10, quotes_stale_after_ns=100_000_000_000)
    assert book.update(quoted(100_000_000_000)) == []
    (raised,) = book.update(quoted(100_000_000_001))
    assert (raised.kind, raised.raised, raised.subject) == (risk.ALERT_KIND_STALE_DATA, True, "option quotes")
    assert raised.text == "vols come from option quotes up to 100 s old"
    assert book.update(quoted(3_600_000_000_000)) == []
    second = AlertBook(10, 100_000_000_000)
    second.restore([raised])
    assert second.update(quoted(3_600_000_000_000)) == []
    (ended,) = second.update(quoted(5))
    assert (ended.raised, ended.subject) == (False, "option quotes")
    assert ended.text == "the option quotes that vols come from are fresh again"
    # An underlying without a price is an alert of its own, not one of its options.
    (only,) = second.update(quoted(0, age_ns=200_000_000_000))
    assert only.subject == "IDX"


def test_a_limit_that_cannot_be_measured_is_not_kept():
    book, kind = AlertBook(10), risk.ALERT_KIND_LIMIT_BREACHED
    assert seen(book, used=101.0) == [(kind, True)]
    # The breach stands, and that it cannot be measured is an alert of its own.
    (alert,) = book.update(metrics(used=math.nan))
    assert (alert.raised, alert.limit) == (True, "expected shortfall")
    assert "cannot be measured" in alert.text
    assert seen(book, used=math.nan) == []
    assert seen(book, used=101.0) == [(kind, False)]
    assert seen(book, used=10.0) == [(kind, False)]
    assert seen(book, used=math.nan) == [(kind, True)]


def test_a_limit_that_is_no_number_is_not_kept_either():
    book, kind = AlertBook(10), risk.ALERT_KIND_LIMIT_BREACHED
    (alert,) = book.update(metrics(used=5.0, limit=math.nan))
    assert (alert.kind, alert.raised, alert.limit) == (kind, True, "expected shortfall")
    assert "cannot be measured" in alert.text
    assert seen(book, used=5.0) == [(kind, False)]


def test_a_new_life_goes_on_from_what_was_logged():
    first, log = AlertBook(10), []
    for what in ({"used": 101.0, "age_ns": 11, "faults": (1,)}, {"used": math.nan, "degraded": True}):
        log += first.update(metrics(**what))
    log.append(risk.RiskAlert(portfolio="desk", kind=1, raised=True, limit="breaker_loss"))
    second = AlertBook(10)
    second.restore(log)
    assert second._standing == first._standing
    # What still stands is not raised again, what is over ends once.
    still = {"used": math.nan, "degraded": True}
    assert seen(second, **still) == []
    assert len(seen(second, used=1.0)) == 3
    assert seen(second, used=1.0) == []
    assert second.unknown(["desk"]) == second.unknown([]) == []
    second.restore(log[:1])
    assert (second.unknown(["desk"]), second.unknown(["other"])) == ([], ["desk"])


def test_alerts_of_older_services_are_read_as_far_as_they_tell():
    book = AlertBook(10)
    old = {"portfolio": "desk", "raised": True}
    book.restore(
        [
            risk.RiskAlert(kind=risk.ALERT_KIND_LIMIT_BREACHED, limit="expected shortfall", **old),
            risk.RiskAlert(kind=risk.ALERT_KIND_STALE_DATA, text="IDX has had no good price yet", **old),
            risk.RiskAlert(kind=99, **old),
        ]
    )
    assert seen(book, used=50.0) == [(risk.ALERT_KIND_LIMIT_BREACHED, False)]


def test_an_underlying_without_any_price_is_said_to_have_none_yet():
    message = metrics(age_ns=1_700_000_000_000_000_000)
    message.timing.source_time_ns = 1_700_000_000_000_000_000
    assert [alert.text for alert in AlertBook(10).update(message)] == ["IDX has had no good price yet"]
    message.greeks.age_ns[0] = 2_500_000_000
    assert [alert.text for alert in AlertBook(10).update(message)] == ["IDX has had no good price for 2.5 s"]


def test_a_book_that_was_not_measured_ends_nothing():
    book = AlertBook(10)
    assert len(book.update(metrics(used=101.0, age_ns=11))) == 2
    nothing = risk.RiskMetrics(portfolio="desk", positions=10)
    nothing.faults.add(row=0, symbol="S0")
    assert [alert.kind for alert in book.update(nothing)] == [risk.ALERT_KIND_POSITIONS_LEFT_OUT]
    assert sorted(seen(book)) == [
        (risk.ALERT_KIND_LIMIT_BREACHED, False),
        (risk.ALERT_KIND_STALE_DATA, False),
        (risk.ALERT_KIND_POSITIONS_LEFT_OUT, False),
    ]


def test_what_a_new_version_no_longer_has_ends_and_may_rise_again():
    book = AlertBook(10)
    assert len(book.update(metrics(used=101.0, age_ns=11))) == 2
    other = metrics()
    other.greeks.underlying[0] = "ABC"
    other.limits[0].name = "worst stress"
    ended = book.update(other)
    assert [(alert.kind, alert.raised) for alert in ended] == [
        (risk.ALERT_KIND_LIMIT_BREACHED, False),
        (risk.ALERT_KIND_STALE_DATA, False),
    ]
    assert all("any more" in alert.text for alert in ended)
    assert len(book.update(metrics(used=101.0, age_ns=11))) == 2


def test_portfolios_do_not_share_alerts_and_a_deleted_one_is_forgotten():
    book = AlertBook(10)
    assert seen(book, used=101.0)
    assert seen(book, used=101.0, name="other")
    (ended,) = book.forget("desk", "0:3", 7)
    assert (ended.portfolio, ended.raised, ended.subject, ended.market_snapshot_id, ended.time_ns) == (
        *("desk", False, "expected shortfall"),
        *("0:3", 7),
    )
    assert book.forget("desk") == []
    assert seen(book, used=101.0)
    assert not seen(book, used=101.0, name="other")


async def test_a_watcher_gets_what_is_there_and_then_only_the_newest():
    board = RiskBoard(watchers_max=5)
    board.publish(metrics(1.0))
    with board.watch(lambda name: True) as watcher:
        assert await watcher.changed() == ["desk"]
        for used in range(1_000):
            board.publish(metrics(float(used)))
        assert await watcher.changed() == ["desk"]
        assert board.latest("desk").limits[0].used == 999.0
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(watcher.changed(), 0.01)
    assert board.watchers() == 0


async def test_a_watcher_is_told_only_of_what_it_wants():
    board = RiskBoard(watchers_max=5)
    with board.watch(lambda name: name == "b") as watcher:
        board.publish(metrics(name="a"))
        board.publish(metrics(name="b"))
        assert await watcher.changed() == ["b"]


async def test_changes_from_another_thread_wake_the_watcher():
    board = RiskBoard(watchers_max=5)
    with board.watch(lambda name: True) as watcher:
        await asyncio.to_thread(board.publish, metrics())
        assert await asyncio.wait_for(watcher.changed(), 5.0) == ["desk"]


async def test_watchers_are_bounded():
    board = RiskBoard(watchers_max=1)
    with board.watch(lambda name: True), pytest.raises(QuotaExceeded), board.watch(lambda name: True):
        pass
