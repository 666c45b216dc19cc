"""Alerts rise and end once; a slow watcher costs one slot and gets the newest."""

from __future__ import annotations

import asyncio

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


def test_portfolios_do_not_share_alerts_and_a_deleted_one_is_forgotten():
    book = AlertBook(10)
    assert seen(book, used=101.0)
    assert seen(book, used=101.0, name="other")
    book.forget("desk")
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
