"""Alerts over two lives of the service on one log: each is raised once and ended once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from worlds import NOW_NS, SPOT, option, portfolio

import gpu_kernels as gk
from protos import packing, topics
from protos.market.v1 import market_pb2 as market
from protos.risk.v1 import risk_pb2 as risk
from risk_service.breaker import logged_alerts
from risk_service.live_loop import LiveLoop
from risk_service.live_wiring import expect_every_fill, live_loop
from risk_service.price_history import PriceHistory
from risk_service.service_metrics import ServiceMetrics
from risk_service.settings import RiskServiceSettings, RiskSettings
from risk_service.table_process import TableProcess
from service_kit.errors import SettingError
from service_kit.kafka.embedded import EmbeddedBroker
from service_kit.kafka.metrics import KafkaMetrics
from service_kit.kafka.producer import Producer
from service_kit.kafka.records import Partition
from service_kit.kafka.settings import KafkaSettings

PATIENCE_S = 60.0
pytestmark = pytest.mark.xdist_group("alerts restart")


@pytest.fixture
def kafka() -> Iterator[KafkaSettings]:
    with EmbeddedBroker() as broker:
        yield broker.settings()


def quote(symbol: str, bid: float, ask: float) -> bytes:
    batch = market.NormalizedBatch(source="test", symbols=[symbol], normalized_time_ns=NOW_NS)
    packing.write(batch, "symbol_index", np.array([0]))
    packing.write(batch, "kind", [market.EVENT_KIND_QUOTE])
    packing.write(batch, "source_time_ns", [NOW_NS])
    packing.write(batch, "bid", [bid])
    packing.write(batch, "ask", [ask])
    return batch.SerializeToString()


class Life:
    """The live loop as `risk serve` makes it, turned by hand."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self.producer = Producer(kafka)
        history = PriceHistory(
            ("IDX",), SPOT * np.exp(0.01 * np.sin(np.arange(200.0)))[:, None], np.full((200, 1), 0.2)
        )
        self.loop: LiveLoop = live_loop(
            RiskServiceSettings(kafka=kafka, risk=RiskSettings(poll_wait_s=0.01)),
            gk.engine("cpu"),
            self.producer,
            ServiceMetrics.on(CollectorRegistry()),
            KafkaMetrics(),
            history,
            TableProcess(),
        )

    def until(self, done: Any) -> None:
        ends = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < ends
            self.loop.turn()

    def close(self) -> None:
        self.loop.readers.close()
        self.producer.flush()
        self.producer.close()


def test_a_log_of_fills_without_its_beginning_is_refused_by_name(caplog: pytest.LogCaptureFixture) -> None:
    topic = topics.ORDERS_EXECUTED
    expect_every_fill({Partition(topic, number): 0 for number in range(4)}, partial=False)
    cut = {Partition(topic, 0): 0, Partition(topic, 2): 17}
    with pytest.raises(SettingError, match=r"orders\.executed\[2\] begins at offset 17"):
        expect_every_fill(cut, partial=False)
    expect_every_fill(cut, partial=True)
    assert "begins at offset 17" in caplog.text


def standing(life: Life) -> int:
    kinds = (risk.ALERT_KIND_LIMIT_BREACHED, risk.ALERT_KIND_POSITIONS_LEFT_OUT)
    return sum(life.loop.teller.alerts.standing(kind) for kind in kinds)


def test_each_alert_is_raised_once_and_ended_once_over_two_lives(kafka: KafkaSettings) -> None:
    call = option(100.0, True, 1.0)
    limits = risk.Limits(var_fraction=1e-4, stress_fraction=0.9)
    books = [portfolio(name, rows=[call], limits=limits) for name in ("still", "over", "gone")]
    with Producer(kafka) as feed:
        for book in books:
            feed.send(topics.RISK_PORTFOLIOS, book.portfolio, book.SerializeToString())
        feed.send(topics.MARKET_DATA_NORMALIZED, "IDX", quote("IDX", SPOT, SPOT))
        feed.send(topics.MARKET_DATA_NORMALIZED, "IDX", quote(call[0], 5.9, 6.1))
        feed.flush()
        first = Life(kafka)
        first.until(lambda: standing(first) == 3)
        first.close()
        raised = [(one.portfolio, one.subject) for one in logged_alerts(kafka) if one.raised]
        assert len(raised) == 3
        # While nobody is there one limit is lifted and one portfolio deleted.
        books[1].limits.var_fraction = 0.9
        books[1].version += 1
        feed.send(topics.RISK_PORTFOLIOS, "over", books[1].SerializeToString())
        feed.send(topics.RISK_PORTFOLIOS, "gone", b"")
        feed.flush()
    second = Life(kafka)
    second.until(lambda: {"still", "over"} <= second.loop.teller.last.keys() and standing(second) == 1)
    second.close()
    found = sorted((one.portfolio, one.subject, one.raised) for one in logged_alerts(kafka))
    assert found == sorted(
        [(name, subject, True) for name, subject in raised]
        + [(name, subject, False) for name, subject in raised if name != "still"]
    )
    third = Life(kafka)
    third.until(lambda: {"still", "over"} <= third.loop.teller.last.keys())
    third.close()
    assert len(list(logged_alerts(kafka))) == len(found)
