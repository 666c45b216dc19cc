"""Whose turn it is when not all books can be told at once, and what is said when numbers come late."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from served import Service, price_history
from worlds import option, portfolio, quotes

from protos import topics
from protos.risk.v1 import risk_pb2 as risk
from risk_service import live_health, teller
from risk_service.due_books import DueBooks
from risk_service.lateness import IN_TIME_S, LATE_S, Lateness
from risk_service.live_loop import BEHIND_S_MAX
from risk_service.settings import RiskSettings


def names(taken):
    return [name for name, _ in taken]


def test_owners_take_turns_however_many_books_they_have():
    due = DueBooks()
    for number in range(5):
        due.add(f"big {number}", "big", float(number))
    due.add("small", "small", 9.0)
    assert names(itertools.islice(due.take(), 3)) == ["big 0", "small", "big 1"]
    # What was told comes again after what waits, and the turn goes on where it was.
    for name in ("big 0", "big 1"):
        due.add(name, "big", 10.0)
    due.add("small", "small", 10.0)
    assert names(due.take()) == ["big 2", "small", "big 3", "big 4", "big 0", "big 1"]
    assert not due


def test_a_book_that_changes_again_keeps_its_place_and_its_wait():
    due = DueBooks()
    due.add("first", "desk", 3.0)
    due.add("second", "desk", 4.0)
    due.add("first", "desk", 5.0)
    assert (len(due), "first" in due, due.waited_s(10.0)) == (2, True, 7.0)
    assert next(due.take()) == ("first", 3.0)
    assert (len(due), "first" in due, due.waited_s(10.0)) == (1, False, 6.0)
    assert names(due.take()) == ["second"]
    assert due.waited_s(10.0) == 0.0


def test_a_market_read_late_is_said_until_it_is_in_time():
    lateness = Lateness()
    lateness.note(LATE_S, 0.0)
    assert not lateness.why
    lateness.note(LATE_S + 0.1, 0.0)
    assert "more than 5 s late" in lateness.why
    lateness.note(IN_TIME_S + 0.1, 0.0)
    assert lateness.why
    lateness.note(IN_TIME_S, 60.0)
    assert (lateness.why, lateness.seconds) == ("", 60.0)


@pytest.fixture
def service(monkeypatch):
    """A live loop whose turns the test takes itself, and which tells one book a turn."""
    monkeypatch.setattr(teller, "TELL_S_MAX", -1.0)
    made = Service(price_history(), risk=RiskSettings(poll_wait_s=0.001))
    for number in range(4):
        made.portfolios.send(f"big {number}", owned(f"big {number}", "big"))
    made.portfolios.send("small", owned("small", "small"))
    yield made
    made.executor.shutdown()


def owned(name, owner):
    message = portfolio(name, rows=[option(100.0, True, 10.0)])
    message.owner = owner
    return message


def told(service):
    """The books that the next turn tells, and their numbers."""
    service.producer.sent.clear()
    service.loop.turn()
    return {
        name: risk.RiskMetrics.FromString(value)
        for (topic, name), value in service.producer.sent.items()
        if topic == topics.RISK_METRICS
    }


def test_a_book_that_waits_is_told_its_newest_number_and_small_owners_do_not_wait(service):
    service.open_by_hand()
    order = [*told(service)]
    while service.loop.teller.due:
        order += told(service)
    assert sorted(order) == ["big 0", "big 1", "big 2", "big 3", "small"]
    assert "small" in order[:2]
    values, order = [], []
    for step in range(12):
        if step < 6:
            service.market.send("IDX", quotes(["IDX"], [100.0 + step]))
        for name, metrics in told(service).items():
            order.append(name)
            values.append((metrics.greeks.spot[0], metrics.provenance.market_snapshot_id))
    # One tick a turn, one book a turn: each is told the tick of its own turn, not that of its change.
    assert [spot for spot, _ in values[:6]] == [100.0 + step for step in range(6)]
    assert len({snapshot for _, snapshot in values[:6]}) == 6
    assert order[:6].count("small") == 3
    assert set(order) == {"big 0", "big 1", "big 2", "big 3", "small"}
    # Then those that still wait, and nothing more.
    assert len(order) < 12
    assert {spot for spot, _ in values[6:]} == {105.0}


def test_a_call_is_not_given_the_scenarios_of_a_book_that_waits(service):
    service.open_by_hand()
    while service.loop.teller.due or not service.loop.teller.last:
        service.loop.turn()
    assert len(service.loop._snapshot().measured) == 5
    service.market.send("IDX", quotes(["IDX"], [101.0]))
    (name,) = told(service)
    assert set(service.loop._snapshot().measured) == {name}


def test_a_book_that_waited_long_says_so_and_nobody_else(service):
    service.open_by_hand()
    told(service)
    due = service.loop.teller.due
    for name in due._since:
        due._since[name] -= LATE_S + 1.0 if name == "big 3" else 0.0
    found = {}
    while due:
        found |= told(service)
    late = {name for name, number in found.items() if "5 s late" in number.provenance.method}
    assert late == {"big 3"}
    assert not any(number.provenance.degraded for number in found.values())
    assert live_health.why_not(service.loop, service.loop.turned_at) == ""


def test_records_that_wait_make_numbers_late_by_their_age(service):
    service.open_by_hand()
    told(service)
    service.loop.readers.records_max = 1
    service.loop._measured_at -= BEHIND_S_MAX
    service.loop.teller = replace(service.loop.teller, clock_ns=lambda: 1_007_000_000_000)
    service.market.send("IDX", quotes(["IDX"], [101.0]), logged_ms=1_000_000)
    told(service)
    assert service.loop.lateness.seconds == pytest.approx(7.0)
    why = service.loop.lateness.why
    assert live_health.why_not(service.loop, service.loop.turned_at) == why
    assert service.loop._snapshot().market.away == why
    (number,) = told(service).values()
    assert number.provenance.degraded_reason == why
    (number,) = told(service).values()
    assert not number.provenance.degraded  # by then nothing waits to be read
    assert service.loop.lateness.seconds < 1.0
