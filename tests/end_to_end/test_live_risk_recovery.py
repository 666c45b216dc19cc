"""Market moves and fills over real Kafka: every number is that of the whole history, kill -9 or not."""

from __future__ import annotations

import csv
import math
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from recomputed_risk import Fills, History, Market, Recomputed, Terms, check
from running import PATIENCE_S, Service, until

from protos import packing, topics
from protos.market.v1 import market_pb2 as market
from protos.orders.v1 import orders_pb2 as orders
from protos.risk.v1 import risk_pb2 as risk
from risk_client import RiskClient, Unavailable, monte_carlo
from service_kit.kafka.admin import ensure_topics
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.partitioning import partition_of
from service_kit.kafka.producer import Producer
from service_kit.kafka.records import BEGINNING, Partition
from service_kit.kafka.settings import KafkaSettings
from tests.risk_service.worlds import RATE, YIELD, black_scholes, osi

DESK, ACCOUNT, OTHER = "recovery", 41, 42
# Of two partitions, so that a snapshot is more than one offset.
NAMES = ("LRK", "LRM")
STRIKES = np.array([90.0, 100.0, 110.0])
YEAR_NS = 365 * 86_400_000_000_000
EXPIRY_NS = time.time_ns() + YEAR_NS // 2
FIRST_DAY = np.datetime64("2024-01-01")
STEP_NS = 50_000_000
RECOVERY_S_MAX = 20.0
# What the desk holds before any fill; the last strike of LRM is held through fills alone.
QUANTITIES = {
    osi("LRK", "C", 90.0, EXPIRY_NS): 10.0,
    osi("LRK", "C", 100.0, EXPIRY_NS): -20.0,
    osi("LRK", "C", 110.0, EXPIRY_NS): 30.0,
    "LRK": 100.0,
    osi("LRM", "P", 90.0, EXPIRY_NS): 15.0,
    osi("LRM", "P", 100.0, EXPIRY_NS): -5.0,
}
TRADED = ("LRK", "LRM", osi("LRM", "P", 100.0, EXPIRY_NS), osi("LRM", "C", 110.0, EXPIRY_NS))
SIZE = 100.0


def terms() -> dict[str, Terms]:
    """Of all that is held or traded."""
    found = {name: Terms(name) for name in NAMES}
    for name in NAMES:
        for strike in STRIKES:
            call, put = osi(name, "C", strike, EXPIRY_NS), osi(name, "P", strike, EXPIRY_NS)
            for symbol, is_call in ((call, True), (put, False)):
                found[symbol] = Terms(name, float(strike), is_call, EXPIRY_NS, SIZE, call, put)
    return found


def write_history(path: Path) -> History:
    random = np.random.default_rng(17)
    closes = 100.0 * np.exp(np.cumsum(0.012 * random.standard_normal((300, 2)), axis=0))
    vols = 0.25 + 0.01 * random.standard_normal((300, 2))
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["date", *NAMES, *(f"{name}.vol" for name in NAMES)])
        for day, numbers in enumerate(np.hstack((closes, vols)).tolist()):
            rows.writerow([FIRST_DAY + day, *map(repr, numbers)])
    return History(np.diff(np.log(closes), axis=0), np.diff(vols, axis=0))


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
        self.spot, self.steps = dict.fromkeys(NAMES, 100.0), 0

    def open(self) -> None:
        for name in NAMES:
            reference = clean(market.EVENT_KIND_REFERENCE, [name], self.now, rate=RATE, dividend_yield=YIELD)
            self.producer.send(topics.MARKET_DATA_NORMALIZED, name, reference)
            self.quote(name)
            self.quote_options(name)

    def quote(self, name: str) -> None:
        spot = self.spot[name]
        value = clean(market.EVENT_KIND_QUOTE, [name], self.now, bid=spot - 0.01, ask=spot + 0.01)
        self.producer.send(topics.MARKET_DATA_NORMALIZED, name, value)

    def quote_options(self, name: str) -> None:
        """At a new vol for each strike, in one record, so that a call and its put agree in any prefix."""
        vols = self.random.uniform(0.2, 0.3, len(STRIKES))
        years = (EXPIRY_NS - self.now) / YEAR_NS
        symbols = [osi(name, right, strike, EXPIRY_NS) for right in "CP" for strike in STRIKES]
        mids = np.concatenate(
            [black_scholes(self.spot[name], STRIKES, years, vols, is_call) for is_call in (True, False)]
        )
        value = clean(market.EVENT_KIND_QUOTE, symbols, self.now, bid=mids, ask=mids)
        self.producer.send(topics.MARKET_DATA_NORMALIZED, name, value)

    def trade_option(self, name: str) -> None:
        """A trade tells no vol and moves none."""
        value = clean(market.EVENT_KIND_TRADE, [osi(name, "C", 100.0, EXPIRY_NS)], self.now, price=3.0)
        self.producer.send(topics.MARKET_DATA_NORMALIZED, name, value)

    def move(self, steps: int) -> None:
        for _ in range(steps):
            self.now += STEP_NS
            name = NAMES[self.steps % 2]
            self.spot[name] = round(self.spot[name] * math.exp(0.002 * self.random.standard_normal()), 2)
            self.quote(name)
            if self.steps % 5 == 0:
                self.quote_options(name)
            if self.steps % 7 == 0:
                self.trade_option(name)
            if self.steps % 3 == 0:
                self.fill(TRADED[int(self.random.integers(len(TRADED)))])
            self.steps += 1
        self.producer.flush()

    def fill(self, symbol: str) -> None:
        batch = orders.ExecutionBatch(symbols=[symbol], tick_size=[0.01])
        bought, price = self.random.integers(0, 2), self.spot[symbol] if symbol in NAMES else 7.0
        columns = {
            "kind": orders.REPORT_KIND_TRADE,
            "account": ACCOUNT,
            "maker_account": OTHER,
            "side": int(not bought),
            "price_ticks": round(price * 100) + int(self.random.integers(-5, 6)),
            "quantity": int(self.random.integers(1, 9)),
        }
        packing.write(batch, "symbol_index", [0])
        for name, value in columns.items():
            packing.write(batch, name, [value])
        self.producer.send(topics.ORDERS_EXECUTED, symbol, batch.SerializeToString())


def desk(of: dict[str, Terms]) -> risk.Portfolio:
    message = risk.Portfolio(portfolio=DESK, underlyings=NAMES)
    rows, held = message.positions, [of[symbol] for symbol in QUANTITIES]
    rows.symbol.extend(QUANTITIES)
    option = risk.INSTRUMENT_KIND_OPTION
    rows.kind.extend([option if one.strike else risk.INSTRUMENT_KIND_SPOT for one in held])
    packing.write(rows, "quantity", list(QUANTITIES.values()))
    packing.write(rows, "multiplier", [one.multiplier for one in held])
    packing.write(rows, "strike", [one.strike for one in held])
    packing.write(rows, "is_call", [one.is_call for one in held])
    packing.write(rows, "expiry_time_ns", [one.expiry_ns for one in held])
    packing.write(rows, "underlying_index", [NAMES.index(one.underlying) for one in held])
    return message


def reader(kafka: KafkaSettings, topic: str) -> Consumer[bytes]:
    consumer = Consumer(kafka, [topic], "test", bytes)
    partitions = next(one.partitions for one in topics.TOPICS if one.name == topic)
    consumer.assign({Partition(topic, number): BEGINNING for number in range(partitions)})
    return consumer


class Logs:
    """The logs, read anew; what they say up to any snapshot id."""

    def __init__(self, kafka: KafkaSettings) -> None:
        quotes = self._whole(kafka, topics.MARKET_DATA_NORMALIZED)
        self.market = {
            at: (key, market.NormalizedBatch.FromString(value)) for at, (key, value) in quotes.items()
        }
        fills = self._whole(kafka, topics.ORDERS_EXECUTED)
        self.fills = {at: orders.ExecutionBatch.FromString(value) for at, (_, value) in fills.items()}

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

    def recomputed(self, metrics: risk.RiskMetrics, of: dict[str, Terms]) -> tuple[Recomputed, Fills]:
        now = Market.of(up_to(self.market, metrics.provenance.market_snapshot_id))
        fills = up_to(self.fills, metrics.filled.executions_snapshot_id)
        filled = Fills.of(one for one in fills if one.account[0] == ACCOUNT and one.symbols[0] in of)
        held = dict(QUANTITIES)
        for symbol, quantity in filled.held.items():
            held[symbol] = held.get(symbol, 0.0) + quantity
        return Recomputed(held, of, list(NAMES), now, {fault.symbol for fault in metrics.faults}), filled


def up_to(records: dict, snapshot_id: str) -> list:
    """What the prefix holds; other tests' records are in it too, by other symbols."""
    ends = dict(tuple(map(int, part.split(":"))) for part in snapshot_id.split(",") if part)
    chosen = sorted(place for place in records if place[1] < ends.get(place[0], 0))
    return [records[place] for place in chosen]


def check_profit(metrics: risk.RiskMetrics, filled: Fills, now: Market, of: dict[str, Terms]) -> None:
    """Each symbol's, and the sums."""
    told = metrics.filled
    assert dict(zip(told.symbol, told.quantity, strict=True)) == pytest.approx(filled.held, abs=1e-9)
    realised = unrealised = 0.0
    for row, symbol in enumerate(told.symbol):
        held, average = filled.held[symbol], filled.average[symbol]
        price = now.spot[symbol] if symbol in NAMES else now.quotes[symbol].mid
        assert told.average_price[row] == pytest.approx(average, rel=1e-9)
        assert told.unrealised[row] == pytest.approx(
            held * (price - average) * of[symbol].multiplier, rel=1e-9, abs=1e-6
        )
        realised += filled.realised.get(symbol, 0.0) * of[symbol].multiplier
        unrealised += told.unrealised[row]
    assert metrics.pnl_realised == pytest.approx(realised, rel=1e-9, abs=1e-6)
    assert metrics.pnl_unrealised == pytest.approx(unrealised, rel=1e-9, abs=1e-6)


def kill_children_at_work(serve: Service) -> str:
    """Kills all processes of the service but the front while they compute; what that call came to."""
    children = psutil.Process(serve.process.pid).children(recursive=True)
    assert any("spawn_main" in " ".join(child.cmdline()) for child in children)
    draws = monte_carlo(1 << 20, seed=5)

    def at_work(_done: float) -> None:
        while children:
            children.pop().kill()

    with RiskClient(serve.address(), deadline_s=PATIENCE_S) as client:
        try:
            answer = client.expected_shortfall(DESK, draws, progress=at_work)
        except Unavailable:
            return "refused"
        again = client.expected_shortfall(DESK, draws)
    assert not children
    # By whomever: the same inputs give the same number.
    assert answer.provenance.market_snapshot_id == again.provenance.market_snapshot_id
    assert answer.tail == again.tail
    return "degraded" if answer.provenance.degraded else "answered"


def test_every_number_is_that_of_the_whole_history_across_a_kill(kafka_broker, tmp_path, seed):
    kafka = KafkaSettings(bootstrap=kafka_broker.bootstrap)
    ensure_topics(kafka)
    assert len({partition_of(name, 4) for name in NAMES}) == 2
    history = write_history(tmp_path / "history.csv")
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
        of = terms()

        def caught_up() -> bool:
            for message in published.poll(500, 0.05):
                if message.record.key == DESK:
                    found.append(risk.RiskMetrics.FromString(message.value))
            newest = found[-1] if found else risk.RiskMetrics()
            return newest.timing.source_time_ns >= sender.now and not newest.faults

        apart = settings | {"GPU_RISK_RISK_ENGINE_PROCESS": "always"}
        with Service(tmp_path, "serve", settings=apart) as serve:
            with RiskClient(serve.address()) as client:
                client.put_portfolio(desk(of))
                put = client.get_portfolio(DESK)
            sender.open()
            for _ in range(10):
                sender.move(3)
                until(caught_up, "numbers of the first market", serve)
            until(kept.exists, "the market's file", serve)
            request = kill_children_at_work(serve)
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
            # Another one, on a host of its own, stands by and takes over.
            (tmp_path / "other").mkdir()
            other = {name: value for name, value in settings.items() if "MARKET_FILE" not in name}
            with Service(tmp_path / "other", "serve", settings=other) as standby:
                until(lambda: "stands by" in standby.err.read_text(), "it to stand by", serve, standby)
                sender.move(5)
                until(caught_up, "numbers beside one that stands by", serve, standby)
                serve.process.kill()
                killed = time.monotonic()
                sender.move(5)
                until(caught_up, "numbers of the one that stood by", standby)
                taken_over_s = time.monotonic() - killed
                with RiskClient(standby.address()) as client:
                    assert client.get_portfolio(DESK) == put
    print(f"recovered in {recovery_s:.1f} s; {len(found)} numbers, {len(found) - before} after the kill")
    print(f"taken over in {taken_over_s:.1f} s")
    print(f"the request whose worker was killed was {request}")
    logs = Logs(kafka)
    whole = 0
    for metrics in found:
        book, filled = logs.recomputed(metrics, of)
        check(metrics, book, history)
        if not metrics.faults:
            check_profit(metrics, filled, book.now, of)
            whole += 1
    assert whole
    # A message may repeat what was said before the kill, never contradict it.
    assert {one.portfolio_version for one in found} == {put.version}
    assert max(recovery_s, taken_over_s) < RECOVERY_S_MAX
