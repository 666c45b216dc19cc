"""The live loop's turns: nothing is told of a past half read, silence is an alert, a flood is no silence."""

from __future__ import annotations

import time
from typing import Any

import pytest
from served import Service, market_records, price_history
from worlds import option, portfolio, quotes

from protos import topics
from protos.risk.v1 import risk_pb2 as risk
from risk_service.api import risk_answers
from risk_service.catch_up import CatchUp
from risk_service.live_loop import BEHIND_S_MAX
from risk_service.live_risk import ScenarioSource
from risk_service.live_snapshot import CATCH_UP_RETRY_S
from risk_service.on_demand.books import measured_book, stored_book
from risk_service.settings import RiskSettings
from risk_service.slow_risk import SlowRisk
from service_kit.errors import BrokerUnreachable, Unavailable
from service_kit.kafka.errors import ConsumerFailed, DeliveryFailed
from service_kit.kafka.records import Partition
from service_kit.lifecycle import Stop

PATIENCE_S = 60.0


class Reader:
    """A consumer that has come so far."""

    def __init__(self, at: int, end: int) -> None:
        self.here, self.at, self.end = Partition("topic", 0), at, end

    def assignment(self) -> set[Partition]:
        return {self.here}

    def ends(self, partitions: Any) -> dict[Partition, int]:
        return {self.here: self.end}

    def position(self) -> dict[Partition, int]:
        return {self.here: self.at} if self.at else {}


def test_catching_up_is_reaching_the_ends_that_were():
    empty, behind, other = Reader(0, 0), Reader(0, 3), Reader(5, 5)
    readers: Any = (empty, behind, other)
    catching = CatchUp.of(readers)
    behind.end = 10  # what comes later is not waited for
    assert not catching.done()
    behind.at = 2
    assert not catching.done()
    behind.at = 3
    assert catching.done()
    behind.at = 0
    assert catching.done()


def test_logs_whose_ends_nobody_tells_are_not_caught_up_with(monkeypatch, caplog):
    behind: Any = Reader(0, 3)
    told = behind.ends

    def refused(_: Any) -> Any:
        raise ConsumerFailed("topic[0]: no leader")

    behind.ends = refused
    catching = CatchUp.of([behind])
    assert not catching.done()
    assert "nothing is told before they are: topic[0]: no leader" in caplog.text
    monkeypatch.setattr(catching, "_ask_at", 0.0)
    behind.ends = told
    assert not catching.done()
    behind.at = 3
    assert catching.done()


@pytest.fixture
def service():
    """A live loop whose turns the test takes itself."""
    made = Service(
        price_history(), risk=RiskSettings(poll_wait_s=0.001, stale_after_s=5.0, poll_records_max=3)
    )
    yield made
    made.executor.shutdown()


def alerts(service: Service) -> risk.RiskAlert:
    return risk.RiskAlert.FromString(service.producer.sent[topics.RISK_ALERTS, "desk"])


def opened(service: Service) -> None:
    service.portfolios.send("desk", portfolio(rows=[option(100.0, True, 10.0)]))
    for record in market_records():
        service.market.send("IDX", record)
    for _ in range(4):
        service.loop.turn()
    assert (topics.RISK_METRICS, "desk") in service.producer.sent


def test_nothing_is_told_before_the_past_is_read(service):
    behind: Any = Reader(0, 7)
    service.loop._catch_up, service.loop._term = CatchUp.of([behind]), 1
    service.portfolios.send("desk", portfolio(rows=[option(100.0, True, 10.0)]))
    for record in market_records():
        service.market.send("IDX", record)
    for _ in range(4):
        service.loop.turn()
    assert not service.producer.sent
    behind.at = 7
    service.loop.turn()
    assert (topics.RISK_METRICS, "desk") in service.producer.sent


def test_a_market_that_says_nothing_any_more_is_stale(service):
    opened(service)
    service.loop._hear(False, time.monotonic() + 4.0)
    told = [alert.kind for alert in (alerts(service),) if alert.kind == risk.ALERT_KIND_STALE_DATA]
    assert not told
    told = service.loop.teller.board.latest("desk")
    service.loop._hear(False, time.monotonic() + 6.0)
    # Who watches is told too, whatever is published on Kafka: the same numbers, older.
    older = service.loop.teller.board.latest("desk")
    assert older.greeks.age_ns[0] - told.greeks.age_ns[0] >= 6_000_000_000
    assert older.provenance.data_age_ns - told.provenance.data_age_ns >= 6_000_000_000
    assert (older.value, older.provenance.market_snapshot_id) == (
        told.value,
        told.provenance.market_snapshot_id,
    )
    stale = alerts(service)
    assert (stale.kind, stale.raised) == (risk.ALERT_KIND_STALE_DATA, True)
    assert "IDX has had no good price for 6." in stale.text
    service.market.send("IDX", quotes(["IDX"], [100.5]))
    service.loop.turn()
    assert (alerts(service).kind, alerts(service).raised) == (risk.ALERT_KIND_STALE_DATA, False)


def test_an_answer_counts_the_silence_into_the_age_of_its_data(service):
    opened(service)
    asked = service.loop.desk.ask()
    service.loop._silence._heard_at -= 3_600.0
    service.loop.desk.answer(service.loop._snapshot)
    snapshot = asked.result()
    held = service.loop.state.books.books["desk"].held
    engine = service.engines.serving
    stored = stored_book(engine, snapshot, held, fills=False)
    measured = measured_book(snapshot.measured["desk"], snapshot, held)
    assert min(stored.data_age_ns, measured.data_age_ns) >= 3_600_000_000_000


def test_while_the_logs_are_read_nobody_is_told_of_half_a_market(service):
    behind: Any = Reader(0, 7)
    service.loop._catch_up, service.loop._term = CatchUp.of([behind]), 1
    service.loop.desk.catching_up = True
    service.portfolios.send("desk", portfolio(rows=[option(100.0, True, 10.0)]))
    for record in market_records():
        service.market.send("IDX", record)
    for _ in range(4):
        service.loop.turn()
    with pytest.raises(Unavailable, match="still being read") as refusal:
        service.loop.desk.ask()
    assert refusal.value.retry_after_s == CATCH_UP_RETRY_S
    behind.at = 7
    service.loop.turn()
    asked = service.loop.desk.ask()
    service.loop.turn()
    assert set(asked.result().measured) == {"desk"}


def test_what_stood_for_a_portfolio_that_was_deleted_meanwhile_ends_at_the_start(service):
    kind = risk.ALERT_KIND_STALE_DATA
    service.loop.logged_alerts = lambda: [
        risk.RiskAlert(portfolio="gone", kind=kind, raised=True, subject="IDX")
    ]
    opened(service)
    (sent,) = [
        risk.RiskAlert.FromString(value)
        for (topic, key), value in service.producer.sent.items()
        if (topic, key) == (topics.RISK_ALERTS, "gone")
    ]
    assert (sent.raised, sent.kind, sent.subject, sent.text) == (
        False,
        kind,
        "IDX",
        "the portfolio is no more",
    )


def test_a_portfolio_that_is_deleted_ends_its_alerts(service):
    opened(service)
    service.loop._hear(False, time.monotonic() + 6.0)
    assert alerts(service).raised
    service.portfolios.send("desk", None)
    service.loop.turn()
    assert (alerts(service).raised, alerts(service).subject) == (False, "IDX")


def test_without_brokers_what_is_known_is_answered_with_its_age_and_the_reason(service):
    opened(service)
    before = service.loop.teller.board.latest("desk")
    sent = dict(service.producer.sent)
    poll, service.market.away = service.market.poll, True

    def unreachable(*_: Any) -> Any:
        raise BrokerUnreachable("here:1", "no answer for 15 s")

    service.market.poll = unreachable
    service.loop._silence._heard_at -= 3_600.0
    stop, asked = Stop(), service.loop.desk.ask()
    # The loop goes on, through a record that was given up besides, until it is told to stop.
    asked.add_done_callback(lambda _: stop.set())
    service.loop.run_until_failure(stop)
    assert service.loop.failure is None
    assert "no Kafka broker answers at here:1" in service.loop.without_brokers
    older = service.loop.teller.board.latest("desk")
    assert older.value == before.value
    assert older.provenance.data_age_ns >= 3_600_000_000_000
    assert older.provenance.degraded
    assert "no Kafka broker answers at here:1" in older.provenance.degraded_reason
    snapshot = asked.result()
    book = stored_book(
        service.engines.serving, snapshot, service.loop.state.books.books["desk"].held, fills=False
    )
    came = risk_answers.came(service.engines.serving, book, "any")
    assert came.degraded
    assert "no Kafka broker answers at here:1" in came.degraded_reason
    # They are back: the same numbers are told again, and nothing says otherwise any more.
    service.market.poll, service.market.away = poll, False
    service.loop.turn()
    assert service.loop.without_brokers == ""
    again = service.loop.teller.board.latest("desk")
    assert (again.value, again.provenance.degraded) == (before.value, False)
    assert service.producer.sent[topics.RISK_METRICS, "desk"] != sent[topics.RISK_METRICS, "desk"]


def test_a_record_that_is_lost_while_brokers_answer_is_a_failure(service):
    opened(service)

    def lost() -> None:
        raise DeliveryFailed("a record")

    service.producer.poll = lost
    stop = Stop()
    service.loop.run_until_failure(stop)
    assert isinstance(service.loop.failure, DeliveryFailed)
    assert stop.is_set()


def test_monte_carlo_of_a_quiet_market_is_told_and_once(service):
    opened(service)
    assert not service.loop.teller.board.latest("desk").monte_carlo
    slow = SlowRisk.of(service.engines.serving, ScenarioSource(price_history(), 300), 0.975)
    service.loop.slow = slow
    told = []
    for _ in range(2):  # the second time it is found anew, at the same moment of the market
        asked = service.loop.desk.ask()
        service.loop.turn()
        slow.measure(asked.result(), Stop())
        service.loop.turn()
        told.append(service.producer.sent[topics.RISK_METRICS, "desk"])
    found = risk.RiskMetrics.FromString(told[0]).monte_carlo[0]
    assert found == slow.latest["desk"].tail
    assert found.expected_shortfall > 0.0
    assert told[0] == told[1]


def test_a_flood_does_not_silence_the_loop(service):
    opened(service)
    before = service.producer.sent[topics.RISK_METRICS, "desk"]
    for step in range(6):
        service.market.send("IDX", quotes(["IDX"], [101.0 + step]))
    service.loop._measured_at = time.monotonic()
    service.loop.turn()
    assert service.producer.sent[topics.RISK_METRICS, "desk"] == before
    service.loop._measured_at -= BEHIND_S_MAX
    service.loop.turn()
    assert service.producer.sent[topics.RISK_METRICS, "desk"] != before
