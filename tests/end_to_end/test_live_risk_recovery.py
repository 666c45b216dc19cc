"""Market moves and fills over real Kafka: every number is that of the whole history, kill -9 or not."""

from __future__ import annotations

import csv
import math
import time
from pathlib import Path

import numpy as np
import pytest
from running import Service, until

from protos import packing, topics
from protos.market.v1 import market_pb2 as market
from protos.orders.v1 import orders_pb2 as orders
from protos.risk.v1 import risk_pb2 as risk
from risk_client import RiskClient
from service_kit.kafka.admin import ensure_topics
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.producer import Producer
from service_kit.kafka.records import BEGINNING, Partition
from service_kit.kafka.settings import KafkaSettings
from tests.risk_service.worlds import RATE, YIELD, black_scholes, osi

NAME, DESK, ACCOUNT, OTHER = "LRK", "recovery", 41, 42
STRIKES, QUANTITIES, VOL, SHARES = np.array([90.0, 100.0, 110.0]), np.array([10.0, -20.0, 30.0]), 0.25, 100.0
YEAR_NS = 365 * 86_400_000_000_000
FIRST_DAY = np.datetime64("2024-01-01")
STEP_NS = 50_000_000
RECOVERY_S_MAX = 20.0


def write_history(path: Path) -> np.ndarray:
    random = np.random.default_rng(17)
    closes = 100.0 * np.exp(np.cumsum(0.012 * random.standard_normal(300)))
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["date", NAME, f"{NAME}.vol"])
        rows.writerows([FIRST_DAY + day, repr(float(close)), "0.25"] for day, close in enumerate(closes))
    return np.diff(np.log(closes))


def clean(kind, symbols, time_ns, **columns) -> bytes:
    batch = market.NormalizedBatch(source="test", symbols=symbols, normalized_time_ns=time_ns)
    packing.write(batch, "symbol_index", np.arange(len(symbols)))
    packing.write(batch, "kind", [kind])
    packing.write(batch, "source_time_ns", [time_ns])
    for name, values in columns.items():
        packing.write(batch, name, np.broadcast_to(values, len(symbols)))
    return batch.SerializeToString()


class Sender:
    """Says what the market and the venue say, at times of the test's own."""

    def __init__(self, producer: Producer, now: int, seed: int) -> None:
        self.producer, self.now, self.random = producer, now, np.random.default_rng(seed)
        self.expiry, self.spot = now + YEAR_NS // 2, 100.0

    def open(self) -> None:
        reference = clean(market.EVENT_KIND_REFERENCE, [NAME], self.now, rate=RATE, dividend_yield=YIELD)
        self.producer.send(topics.MARKET_DATA_NORMALIZED, NAME, reference)
        self.quote()
        for right, is_call in (("C", True), ("P", False)):
            mids = black_scholes(self.spot, STRIKES, (self.expiry - self.now) / YEAR_NS, VOL, is_call)
            symbols = [osi(NAME, right, strike) for strike in STRIKES]
            value = clean(market.EVENT_KIND_QUOTE, symbols, self.now, bid=mids, ask=mids)
            self.producer.send(topics.MARKET_DATA_NORMALIZED, NAME, value)

    def quote(self) -> None:
        value = clean(market.EVENT_KIND_QUOTE, [NAME], self.now, bid=self.spot - 0.01, ask=self.spot + 0.01)
        self.producer.send(topics.MARKET_DATA_NORMALIZED, NAME, value)

    def move(self, steps: int) -> None:
        for step in range(steps):
            self.now += STEP_NS
            self.spot = round(self.spot * math.exp(0.002 * self.random.standard_normal()), 2)
            self.quote()
            if step % 3 == 0:
                self.fill()
        self.producer.flush()

    def fill(self) -> None:
        batch = orders.ExecutionBatch(symbols=[NAME], tick_size=[0.01])
        bought, ticks = self.random.integers(0, 2), round(self.spot * 100) + self.random.integers(-5, 6)
        columns = {
            "kind": orders.REPORT_KIND_TRADE,
            "account": ACCOUNT,
            "maker_account": OTHER,
            "side": int(not bought),
            "price_ticks": int(ticks),
            "quantity": int(self.random.integers(1, 9)),
        }
        packing.write(batch, "symbol_index", [0])
        for name, value in columns.items():
            packing.write(batch, name, [value])
        self.producer.send(topics.ORDERS_EXECUTED, NAME, batch.SerializeToString())


def desk(expiry_ns: int) -> risk.Portfolio:
    message = risk.Portfolio(portfolio=DESK, underlyings=[NAME])
    rows = message.positions
    rows.symbol.extend([*(osi(NAME, "C", strike) for strike in STRIKES), NAME])
    rows.kind.extend([risk.INSTRUMENT_KIND_OPTION] * 3 + [risk.INSTRUMENT_KIND_SPOT])
    packing.write(rows, "quantity", [*QUANTITIES, SHARES])
    packing.write(rows, "strike", [*STRIKES, 0.0])
    packing.write(rows, "is_call", [True])
    packing.write(rows, "expiry_time_ns", [expiry_ns] * 3 + [0])
    packing.write(rows, "underlying_index", [0])
    return message


def reader(kafka: KafkaSettings, topic: str) -> Consumer[bytes]:
    consumer = Consumer(kafka, [topic], "test", bytes)
    partitions = next(one.partitions for one in topics.TOPICS if one.name == topic)
    consumer.assign({Partition(topic, number): BEGINNING for number in range(partitions)})
    return consumer


class History:
    """The logs, read anew; what they say up to any snapshot id, worked out record by record."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self.market = self._whole(kafka, topics.MARKET_DATA_NORMALIZED)
        self.fills = self._whole(kafka, topics.ORDERS_EXECUTED)

    @staticmethod
    def _whole(kafka: KafkaSettings, topic: str) -> dict[tuple[int, int], tuple[str, bytes]]:
        with reader(kafka, topic) as consumer:
            ends = consumer.ends(consumer.assignment())
            found: dict[tuple[int, int], tuple[str, bytes]] = {}
            while any(consumer.position().get(one, 0) < end for one, end in ends.items() if end):
                for message in consumer.poll(1_000, 0.2):
                    record = message.record
                    found[record.partition, record.offset] = (record.key, message.value)
        return found

    @staticmethod
    def _up_to(records: dict, snapshot_id: str) -> list[tuple[str, bytes]]:
        ends = dict(tuple(map(int, part.split(":"))) for part in snapshot_id.split(",") if part)
        chosen = sorted(place for place in records if place[1] < ends.get(place[0], 0))
        return [records[place] for place in chosen]

    def spot_and_second(self, snapshot_id: str) -> tuple[float, int]:
        spot, newest = math.nan, 0
        for key, value in self._up_to(self.market, snapshot_id):
            batch = market.NormalizedBatch.FromString(value)
            newest = max(newest, *batch.source_time_ns)
            if key == NAME and batch.kind[0] == market.EVENT_KIND_QUOTE and batch.symbols[0] == NAME:
                spot = 0.5 * (batch.bid[0] + batch.ask[0])
        return spot, newest // 1_000_000_000 * 1_000_000_000

    def filled(self, snapshot_id: str) -> tuple[float, float]:
        """Shares bought less sold, and cash received less paid."""
        held = cash = 0.0
        for key, value in self._up_to(self.fills, snapshot_id):
            batch = orders.ExecutionBatch.FromString(value)
            if key == NAME:
                sign = 1.0 if batch.side[0] == market.SIDE_BUY else -1.0
                held += sign * batch.quantity[0]
                cash -= sign * batch.quantity[0] * batch.price_ticks[0] * 0.01
        return held, cash


def check_one(metrics: risk.RiskMetrics, history: History, returns: np.ndarray, expiry: int) -> None:
    spot, second = history.spot_and_second(metrics.provenance.market_snapshot_id)
    held, cash = history.filled(metrics.filled.executions_snapshot_id)
    left_out = {fault.row for fault in metrics.faults}
    rows = [row for row in range(3) if row not in left_out]
    shares = SHARES + held if math.isfinite(spot) else 0.0
    years = (expiry - second) / YEAR_NS

    def worth(at, time_left):
        if not math.isfinite(spot):
            return 0.0
        values = black_scholes(np.asarray(at)[..., None], STRIKES[rows], time_left, VOL, True)
        return (values * QUANTITIES[rows]).sum(axis=-1) + shares * np.asarray(at)

    assert metrics.value == pytest.approx(float(worth(spot, years)), rel=1e-7, abs=1e-6)
    if math.isfinite(spot):
        losses = np.sort(worth(spot, years) - worth(spot * np.exp(returns), years - 1 / 252))[::-1]
        k = len(losses) * 0.025
        es = (losses[: int(k)].sum() + (k - int(k)) * losses[int(k)]) / k
        assert metrics.historical[0].expected_shortfall == pytest.approx(es, rel=1e-6, abs=1e-5)
        earned = metrics.pnl_realised + metrics.pnl_unrealised
        assert earned == pytest.approx(cash + held * spot, rel=1e-9, abs=1e-6)
        assert sum(metrics.filled.quantity) == held


def test_every_number_is_that_of_the_whole_history_across_a_kill(kafka_broker, tmp_path, seed):
    kafka = KafkaSettings(bootstrap=kafka_broker.bootstrap)
    ensure_topics(kafka)
    returns = write_history(tmp_path / "history.csv")
    kept = tmp_path / "market"
    settings = {
        "GPU_RISK_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "GPU_RISK_GRPC_PORT": "0",
        "GPU_RISK_RISK_ENGINE": "cpu",
        "GPU_RISK_RISK_HISTORY": str(tmp_path / "history.csv"),
        "GPU_RISK_RISK_ACCOUNTS": f"{ACCOUNT}={DESK}",
        "GPU_RISK_RISK_MARKET_FILE": str(kept),
        "GPU_RISK_RISK_MARKET_FILE_EVERY_S": "1",
    }
    found: list[risk.RiskMetrics] = []
    with Producer(kafka) as producer, reader(kafka, topics.RISK_METRICS) as published:
        sender = Sender(producer, time.time_ns(), seed)

        def caught_up() -> bool:
            for message in published.poll(500, 0.05):
                if message.record.key == DESK:
                    found.append(risk.RiskMetrics.FromString(message.value))
            newest = found[-1] if found else risk.RiskMetrics()
            return newest.timing.source_time_ns >= sender.now and not newest.faults

        with Service(tmp_path, "serve", settings=settings) as serve:
            with RiskClient(serve.address()) as client:
                client.put_portfolio(desk(sender.expiry))
                put = client.get_portfolio(DESK)
            sender.open()
            for _ in range(10):
                sender.move(3)
                until(caught_up, "numbers of the first market", serve)
            until(kept.exists, "the market's file", serve)
            told = len(found)
            sender.move(30)
            until(lambda: caught_up() or len(found) > told, "a number in the middle", serve)
            serve.process.kill()
            serve.process.wait()
        before = len(found)
        sender.move(20)
        killed = time.monotonic()
        with Service(tmp_path, "serve", settings=settings) as serve:
            until(caught_up, "numbers after the kill", serve)
            recovery_s = time.monotonic() - killed
            with RiskClient(serve.address()) as client:
                assert client.get_portfolio(DESK) == put
            for _ in range(5):
                sender.move(2)
                until(caught_up, "the last numbers", serve)
    print(f"recovered in {recovery_s:.1f} s; {len(found)} numbers, {len(found) - before} after the kill")
    assert recovery_s < RECOVERY_S_MAX
    history = History(kafka)
    for metrics in found:
        check_one(metrics, history, returns, sender.expiry)
    # A message may repeat what was said before the kill, never contradict it.
    assert {one.portfolio_version for one in found} == {put.version}
