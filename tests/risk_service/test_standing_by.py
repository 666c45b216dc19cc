"""Two services on the same topics: one publishes; the other stands by, says so, and takes over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import grpc
import pytest
from served import Service, market_records, price_history, serving
from test_alerts_restart import Life, quote, standing
from worlds import SPOT, option, portfolio

from protos import topics
from protos.risk.v1 import risk_pb2 as risk
from protos.risk.v1.risk_pb2_grpc import RiskServiceStub
from risk_service import live_health, live_wiring
from risk_service.api import portfolio_rpcs
from risk_service.breaker import logged_alerts
from risk_service.settings import RiskSettings
from service_kit.grpc_server import GrpcSettings
from service_kit.kafka.admin import ensure_topics
from service_kit.kafka.embedded import EmbeddedBroker
from service_kit.kafka.lookup import LogLookup
from service_kit.kafka.partitioning import partition_of
from service_kit.kafka.producer import Producer
from service_kit.kafka.records import Partition
from service_kit.kafka.seat import Seat
from service_kit.kafka.settings import KafkaSettings

pytestmark = pytest.mark.xdist_group("alerts restart")
CALL = option(100.0, True, 1.0)
MARKET = f"{partition_of('IDX', 4)}:3"  # the snapshot id of three records


@pytest.fixture
def kafka() -> Iterator[KafkaSettings]:
    with EmbeddedBroker() as broker:
        ensure_topics(broker.settings(), [topics.RISK_PUBLISHER], dead_letters=False)
        yield broker.settings()


def seat(kafka: KafkaSettings) -> Seat:
    return Seat(kafka, topics.RISK_PUBLISHER.name, "publisher").open()


def told(kafka: KafkaSettings) -> list[risk.RiskMetrics]:
    """Everything on risk.metrics."""
    with LogLookup(kafka) as look:
        homes = [Partition(topics.RISK_METRICS, number) for number in range(4)]
        records = [one for home in homes for one in look.read(home, *look.bounds(home))]
    return [risk.RiskMetrics.FromString(one.value) for one in records]


def test_one_tells_and_the_other_takes_over_all_that_stands(kafka: KafkaSettings) -> None:
    limits = risk.Limits(var_fraction=1e-4, stress_fraction=0.9)
    first, second = Life(kafka), Life(kafka)
    first.loop.seat = seat(kafka)
    with Producer(kafka) as feed:
        desk = portfolio("desk", rows=[CALL], limits=limits)
        feed.send(topics.RISK_PORTFOLIOS, "desk", desk.SerializeToString())
        feed.send(topics.MARKET_DATA_NORMALIZED, "IDX", quote("IDX", SPOT, SPOT))
        feed.send(topics.MARKET_DATA_NORMALIZED, "IDX", quote(CALL[0], 5.9, 6.1))
        feed.flush()
        first.until(lambda: standing(first) == 1)
        first.producer.flush()
        second.loop.seat = seat(kafka)
        second.until(lambda: second.loop.caught_up and second.loop.seat.holder)
        before = len(told(kafka))
        feed.send(topics.MARKET_DATA_NORMALIZED, "IDX", quote("IDX", SPOT + 1.0, SPOT + 1.0))
        desk.version += 1
        feed.send(topics.RISK_PORTFOLIOS, "desk", desk.SerializeToString())
        feed.send(topics.RISK_PORTFOLIOS, "gone", portfolio("gone", rows=[CALL]).SerializeToString())
        feed.flush()
        # It follows every log, and tells nothing of it, analytics included.
        second.until(lambda: second.loop.state.market.snapshot_id() == MARKET)
        second.until(lambda: {one.name for one in second.loop.state.store.all()} == {"desk", "gone"})
        live_wiring._tell_analytics(second.loop, [("IDX", b"x")])
        second.producer.flush()
        feed.send(topics.RISK_PORTFOLIOS, "gone", None)
        feed.flush()
        second.until(lambda: second.loop.portfolios == 1)
    assert len(told(kafka)) == before
    with LogLookup(kafka) as look:
        homes = [Partition(topics.ANALYTICS_RESULTS, number) for number in range(4)]
        assert [look.bounds(home) for home in homes] == [(0, 0)] * 4
    assert not second.loop.tells
    why = live_health.why_not(second.loop, second.loop.turned_at)
    assert why == second.loop.standing_by == second.loop.no_changes
    assert why.startswith("stands by")
    assert "process" in why
    raised = [(one.subject, one.raised) for one in logged_alerts(kafka)]
    first.loop.seat.close()
    second.until(lambda: second.loop.tells and standing(second) == 1)
    assert live_health.why_not(second.loop, second.loop.turned_at) == second.loop.no_changes == ""
    second.until(lambda: "desk" in second.loop.teller.last)
    # The first has lost its seat: nothing more of it, and who asks it is told.
    first.until(lambda: first.loop.standing_by)
    assert not first.loop.tells
    second.loop.seat.close()
    first.close()
    second.close()
    assert [(one.subject, one.raised) for one in logged_alerts(kafka)] == raised
    last = told(kafka)[before:]
    assert {(one.portfolio, one.portfolio_version, one.provenance.market_snapshot_id) for one in last} == {
        ("desk", desk.version, MARKET)
    }


@dataclass
class Given:
    """A seat that the test gives and takes."""

    term: int = 1
    sure: bool = True
    holder: str = "other, process 7"


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service(price_history(), risk=RiskSettings(poll_wait_s=0.001))
    made.portfolios.send("desk", portfolio(rows=[option(100.0, True, 10.0)]))
    for record in market_records():
        made.market.send("IDX", record)
    made.loop.seat = Given()
    for _ in range(3):
        made.loop.turn()
    assert (topics.RISK_METRICS, "desk") in made.producer.sent
    yield made
    made.executor.shutdown()


def test_who_was_held_up_tells_nothing_until_it_is_sure(service: Service) -> None:
    service.producer.sent.clear()
    service.loop.seat.sure = False
    service.open_by_hand()
    for _ in range(3):
        service.loop.turn()
    service.loop._hear(False, service.loop.turned_at + 60.0)
    assert service.producer.sent == {}
    assert "read after a start" in service.loop.no_changes
    service.loop.seat.sure = True
    service.loop.turn()
    assert (topics.RISK_METRICS, "desk") in service.producer.sent


def test_who_watches_one_that_stands_by_is_told_so_and_all_is_told_anew_when_it_is_back(
    service: Service,
) -> None:
    before, sent = service.loop.teller.board.latest("desk"), dict(service.producer.sent)
    service.loop.seat.term = 0
    service.loop.turn()
    seen = service.loop.teller.board.latest("desk")
    assert (seen.value, seen.provenance.degraded) == (before.value, True)
    assert "other, process 7" in seen.provenance.degraded_reason
    service.portfolios.send("desk", None)
    service.portfolios.send("new", portfolio("new", rows=[option(100.0, True, 10.0)]))
    service.loop.turn()
    service.loop._hear(False, service.loop.turned_at + 60.0)  # a silent market is the other's to tell
    assert service.producer.sent == sent
    ended = risk.RiskAlert(portfolio="desk", kind=risk.ALERT_KIND_STALE_DATA, raised=True, subject="IDX")
    service.loop.logged_alerts = lambda: [ended]
    service.loop.seat.term = 2
    service.loop.turn()
    assert {key for topic, key in service.producer.sent if topic == topics.RISK_METRICS} == {"desk", "new"}
    over = risk.RiskAlert.FromString(service.producer.sent[topics.RISK_ALERTS, "desk"])
    assert (over.raised, over.text) == (False, "the portfolio is no more")
    assert not service.loop.teller.board.latest("new").provenance.degraded


def test_watches_end_where_numbers_are_told_by_another_for_good(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        serving(lambda: service.server(GrpcSettings(port=0))) as running,
        grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel,
    ):
        watch = RiskServiceStub(channel).WatchRisk
        seen = watch(risk.WatchRiskRequest(), timeout=60.0)
        assert not next(seen).provenance.degraded
        service.loop.seat.term = 0
        service.loop.turn()
        assert "stands by" in next(seen).provenance.degraded_reason
        service.loop.seat.term = 2  # a break that was short: the same watch goes on
        service.loop.turn()
        assert not next(seen).provenance.degraded
        service.loop.seat.term = 0
        service.loop.turn()
        monkeypatch.setattr(service.loop, "_watched_until", 0.0)
        service.loop.turn()
        for call in (seen, watch(risk.WatchRiskRequest(), timeout=60.0)):
            with pytest.raises(grpc.RpcError, match="stands by: one risk_service publishes") as fault:
                list(call)
            assert fault.value.code() is grpc.StatusCode.UNAVAILABLE
        service.loop.seat.term = 3
        service.loop.turn()
        assert not next(watch(risk.WatchRiskRequest(), timeout=60.0)).provenance.degraded


def test_changes_go_through_the_one_that_publishes(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.loop.seat.term = 0
    service.loop.turn()
    monkeypatch.setattr(portfolio_rpcs, "READY_S_MAX", 0.05)
    calls = SimpleNamespace(
        put=risk.PutPortfolioRequest(portfolio=portfolio("late", rows=[CALL])),
        delete=risk.DeletePortfolioRequest(portfolio="desk"),
    )
    with (
        serving(lambda: service.server(GrpcSettings(port=0))) as running,
        grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel,
    ):
        stub = RiskServiceStub(channel)
        for call, request in ((stub.PutPortfolio, calls.put), (stub.DeletePortfolio, calls.delete)):
            with pytest.raises(grpc.RpcError, match="cannot be changed here: stands by") as fault:
                call(request, timeout=60.0)
            assert fault.value.code() is grpc.StatusCode.UNAVAILABLE
        assert stub.GetPortfolio(risk.GetPortfolioRequest(portfolio="desk")).portfolio == "desk"
        service.loop.seat.term = 2
        service.loop.turn()
        assert stub.PutPortfolio(calls.put, timeout=60.0).version == 1


def test_before_the_log_is_read_nobody_is_told_of_a_portfolio_nor_puts_another_ones_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else whoever came first after a restart had the name."""
    monkeypatch.setattr(portfolio_rpcs, "READY_S_MAX", 0.05)
    service = Service(price_history(), risk=RiskSettings(poll_wait_s=0.001))
    service.loop.desk.catching_up = True
    reading = SimpleNamespace(done=lambda: False)
    service.loop._catch_up, service.loop._term = reading, 1
    service.loop.turn()
    named = {"portfolio": "desk"}
    with (
        serving(lambda: service.server(GrpcSettings(port=0))) as running,
        grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel,
    ):
        stub = RiskServiceStub(channel)
        refused = (
            (stub.PutPortfolio, risk.PutPortfolioRequest(portfolio=portfolio(rows=[CALL]))),
            (stub.DeletePortfolio, risk.DeletePortfolioRequest(**named)),
            (stub.GetPortfolio, risk.GetPortfolioRequest(**named)),
            (stub.ListPortfolios, risk.ListPortfoliosRequest()),
            (stub.StressTest, risk.StressTestRequest(portfolio="desk", named=["2008-10"])),
        )
        for call, request in refused:
            with pytest.raises(grpc.RpcError, match="still being read") as fault:
                call(request, timeout=60.0)
            assert fault.value.code() is grpc.StatusCode.UNAVAILABLE, call
        held = portfolio(rows=[CALL], version=7, owner="alice")
        service.portfolios.send("desk", held)
        reading.done = lambda: True
        service.loop.turn()
        assert stub.GetPortfolio(risk.GetPortfolioRequest(**named)).version == 7
        assert stub.PutPortfolio(refused[0][1], timeout=60.0).version == 8
    service.executor.shutdown()
