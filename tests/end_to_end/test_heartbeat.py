"""A raw tick goes in, the right risk number comes out: over the in-memory broker and a real one."""

from __future__ import annotations

import csv
import math
import time
from pathlib import Path

import numpy as np
import pytest
from running import PATIENCE_S, Service, until

from protos import packing, topics
from protos.market.v1 import market_pb2 as market
from protos.risk.v1 import risk_pb2 as risk
from risk_client import NotFound, RiskClient
from service_kit.kafka.admin import ensure_topics
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.embedded import EmbeddedBroker
from service_kit.kafka.producer import Producer
from service_kit.kafka.records import BEGINNING, Partition
from service_kit.kafka.settings import KafkaSettings
from tests.risk_service.worlds import RATE, SPOT, YIELD, black_scholes, osi

YEAR_NS = 365 * 86_400_000_000_000
FIRST_DAY = np.datetime64("2024-01-01")
STRIKES = (90.0, 100.0, 110.0)
VOL = 0.25
QUANTITIES = (10.0, -20.0, 30.0)


@pytest.fixture(params=["embedded", "real"])
def kafka(request):
    """Settings of a broker with all topics."""
    if request.param == "real":
        settings = KafkaSettings(bootstrap=request.getfixturevalue("kafka_broker").bootstrap)
        ensure_topics(settings)
        yield settings
        return
    with EmbeddedBroker() as broker:
        yield broker.settings()


def settings_of(kafka: KafkaSettings, **more: str) -> dict[str, str]:
    return {
        "GPU_RISK_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "GPU_RISK_KAFKA_FETCH_WAIT_MS_MAX": str(kafka.fetch_wait_ms_max),
        "GPU_RISK_GRPC_PORT": "0",
        **more,
    }


def write_history(path: Path) -> np.ndarray:
    random = np.random.default_rng(11)
    closes = SPOT * np.exp(np.cumsum(0.012 * random.standard_normal(400)))
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["date", "HBT", "HBT.vol"])
        rows.writerows([FIRST_DAY + day, repr(float(close)), "0.25"] for day, close in enumerate(closes))
    return closes


def raw(kind, symbols, time_ns, sequence, **columns) -> bytes:
    batch = market.RawBatch(source="test", symbols=symbols)
    packing.write(batch, "symbol_index", np.arange(len(symbols)))
    packing.write(batch, "kind", [kind])
    packing.write(batch, "source_time_ns", [time_ns])
    packing.write(batch, "source_sequence", [sequence])
    for name, values in columns.items():
        packing.write(batch, name, np.broadcast_to(values, len(symbols)))
    return batch.SerializeToString()


def desk(expiry_ns: int) -> risk.Portfolio:
    message = risk.Portfolio(portfolio="heartbeat", underlyings=["HBT"])
    rows = message.positions
    rows.symbol.extend([*(osi("HBT", "C", strike, expiry_ns) for strike in STRIKES), "HBT"])
    rows.kind.extend([risk.INSTRUMENT_KIND_OPTION] * 3 + [risk.INSTRUMENT_KIND_SPOT])
    packing.write(rows, "quantity", [*QUANTITIES, 100.0])
    packing.write(rows, "strike", [*STRIKES, 0.0])
    packing.write(rows, "is_call", [True, True, True, False])
    packing.write(rows, "expiry_time_ns", [expiry_ns] * 3 + [0])
    packing.write(rows, "underlying_index", [0])
    return message


def worth(spot: float, years: float, vol: float = VOL) -> float:
    calls = sum(
        quantity * float(black_scholes(spot, strike, years, vol, True))
        for quantity, strike in zip(QUANTITIES, STRIKES, strict=True)
    )
    return calls + 100.0 * spot


def expected_shortfall(closes: np.ndarray, spot: float, years: float) -> float:
    moves = np.diff(np.log(closes))
    today = worth(spot, years)
    losses = np.sort([today - worth(spot * math.exp(move), years - 1 / 252) for move in moves])[::-1]
    k = len(losses) * 0.025
    whole = int(k)
    return float((losses[:whole].sum() + (k - whole) * losses[whole]) / k)


def read_all(kafka: KafkaSettings, topic: str) -> Consumer[bytes]:
    consumer = Consumer(kafka, [topic], "test", bytes)
    partitions = next(one.partitions for one in topics.TOPICS if one.name == topic)
    consumer.assign({Partition(topic, number): BEGINNING for number in range(partitions)})
    return consumer


def test_a_tick_becomes_a_risk_number(kafka, tmp_path):
    closes = write_history(tmp_path / "history.csv")
    now = time.time_ns()
    expiry = now + YEAR_NS // 2
    history = {"GPU_RISK_RISK_HISTORY": str(tmp_path / "history.csv"), "GPU_RISK_RISK_ENGINE": "cpu"}
    with (
        Service(tmp_path, "book", settings=settings_of(kafka)) as book,
        Service(tmp_path, "serve", settings=settings_of(kafka, **history)) as serve,
        Producer(kafka) as producer,
        RiskClient(serve.address()) as client,
        read_all(kafka, topics.RISK_METRICS) as published,
    ):
        assert client.put_portfolio(desk(expiry)) == 1
        assert client.get_portfolio("heartbeat").version == 1
        send_market(producer, now, expiry, SPOT, sequence=1)
        metrics = until(lambda: complete(published, SPOT), "the first number", book, serve)
        check(metrics, closes, SPOT, (expiry - now) / YEAR_NS)

        # A tick of the underlying alone moves everything with it; the vols stay with their strikes.
        moved = SPOT * 1.02
        producer.send(topics.MARKET_DATA_RAW, "HBT", quote(now + 5_000_000, 3, moved))
        metrics = until(lambda: complete(published, moved), "the second number", book, serve)
        check(metrics, closes, moved, (expiry - now - 5_000_000) / YEAR_NS)
        timing = metrics.timing
        assert timing.source_time_ns == now + 5_000_000
        assert timing.normalized_time_ns <= timing.published_time_ns

        seen = next(iter(client.watch_risk(["heartbeat"], deadline_s=PATIENCE_S)))
        assert seen == metrics
        client.delete_portfolio("heartbeat")
        with pytest.raises(NotFound):
            client.get_portfolio("heartbeat")
        assert serve.stop() == 0
        assert book.stop() == 0


def quote(time_ns: int, sequence: int, spot: float) -> bytes:
    return raw(market.EVENT_KIND_QUOTE, ["HBT"], time_ns, sequence, bid=spot - 0.5, ask=spot + 0.5)


def send_market(producer: Producer, now: int, expiry: int, spot: float, sequence: int) -> None:
    rates = raw(market.EVENT_KIND_REFERENCE, ["HBT"], now, sequence, rate=RATE, dividend_yield=YIELD)
    producer.send(topics.MARKET_DATA_RAW, "HBT", rates)
    producer.send(topics.MARKET_DATA_RAW, "HBT", quote(now, sequence + 1, spot))
    years = (expiry - now) / YEAR_NS
    for right, is_call in (("C", True), ("P", False)):
        values = black_scholes(spot, np.array(STRIKES), years, VOL, is_call)
        symbols = [osi("HBT", right, strike, expiry) for strike in STRIKES]
        options = raw(market.EVENT_KIND_QUOTE, symbols, now, sequence, bid=values, ask=values)
        producer.send(topics.MARKET_DATA_RAW, "HBT", options)
    # What is no batch must stop nothing.
    producer.send(topics.MARKET_DATA_RAW, "HBT", b"\xff\xfenot a batch")
    producer.flush()


def complete(published: Consumer[bytes], spot: float) -> risk.RiskMetrics | None:
    """The newest metrics once they have every position, at that spot."""
    latest = None
    for message in published.poll(500, 0.05):
        metrics = risk.RiskMetrics.FromString(message.value)
        if not metrics.faults and metrics.greeks.spot[0] == pytest.approx(spot):
            latest = metrics
    return latest


def check(metrics: risk.RiskMetrics, closes: np.ndarray, spot: float, years: float) -> None:
    assert metrics.value == pytest.approx(worth(spot, years), rel=1e-9)
    bump = 1e-4
    delta = (worth(spot + bump, years) - worth(spot - bump, years)) / (2 * bump)
    assert metrics.greeks.delta[0] == pytest.approx(delta, rel=1e-6)
    expected = expected_shortfall(closes, spot, years)
    assert metrics.historical[0].expected_shortfall == pytest.approx(expected, rel=1e-8)
    assert metrics.provenance.engine == "cpu"


def test_poison_ends_in_the_dead_letters(tmp_path):
    with EmbeddedBroker() as broker:
        kafka = broker.settings()
        with (
            Service(tmp_path, "book", settings=settings_of(kafka)) as book,
            Producer(kafka) as producer,
            Consumer(kafka, [topics.dead_letter(topics.MARKET_DATA_RAW)], "test", bytes) as letters,
        ):
            book.address()
            producer.send(topics.MARKET_DATA_RAW, "HBT", b"\xff\xfenot a batch")
            producer.flush()
            letter = until(lambda: letters.poll(10, 0.05), "the dead letter", book)[0]
            assert letter.value == b"\xff\xfenot a batch"
            assert book.process.poll() is None
