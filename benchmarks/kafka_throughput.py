"""Kafka to Kafka: orders.incoming through a running `risk book` to orders.executed, on one real broker.

    python -m benchmarks.kafka_throughput [--rounds N]     # writes benchmarks/results/kafka_throughput.*

Everything shares the machine: the broker (Apache Kafka, KRaft), the service, and this process, which sends
and reads. Capacity: all records at once, from the first send to the last execution read. Latency: records
sent at a steady rate, from the moment that one was due to be sent until its executions are read here; what
the sender is late by counts. Orders are new ones, changes and cancels, as in `benchmarks.matching`, without
controls. With transactions (`book.transactions`) executions are read when they are committed. The number of
reports is checked against the matching core in this process.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.matching import order_flow
from book_service import order_events
from book_service.venue import Listed, Venue
from protos import packing, topics
from protos.market.v1.market_pb2 import Origin
from protos.orders.v1.orders_pb2 import ExecutionBatch, OrderBatch
from service_kit.kafka.admin import ensure_topics
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.partitioning import partition_of
from service_kit.kafka.producer import Producer
from service_kit.kafka.real import find_kafka
from service_kit.kafka.records import BEGINNING, Partition
from service_kit.kafka.settings import KafkaSettings

FLOW = "normal"
ORDERS_OF_ROUND = 500_000  # new ones, over all symbols; about twice as many messages
ROWS, ROWS_PACED = 5_000, 1_000
LOADS = (25_000, 50_000, 100_000, 200_000, 400_000, 600_000, 800_000)  # orders a second
LOADS_TRANSACTIONAL = (50_000, 200_000, 400_000)
PLAIN, TRANSACTIONAL = "idempotent sends", "transactions"
SECONDS_OF_A_LOAD = 3.0
PATIENCE_S = 60.0
TICK = 0.01
PARTITIONS = next(topic.partitions for topic in topics.TOPICS if topic.name == topics.ORDERS_INCOMING)
# The executions of a partition's orders are on the partition of the same number: one symbol for each.
SYMBOLS = tuple(
    next(name for name in (f"S{n}" for n in range(1000)) if partition_of(name, PARTITIONS) == number)
    for number in range(PARTITIONS)
)


@dataclass
class Reader(threading.Thread):
    """Reads orders.executed, and notes when the executions of each record of orders.incoming were there."""

    settings: KafkaSettings
    seen: dict[tuple[int, int], float] = field(default_factory=dict)
    reports: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    failure: BaseException | None = None

    __hash__ = object.__hash__

    def __post_init__(self) -> None:
        super().__init__(name="reader")

    def run(self) -> None:
        consumer = Consumer(self.settings, [topics.ORDERS_EXECUTED], "benchmark", ExecutionBatch.FromString)
        consumer.assign({Partition(topics.ORDERS_EXECUTED, n): BEGINNING for n in range(PARTITIONS)})
        try:
            while not self.over.is_set():
                for message in consumer.poll(500, 0.05):
                    now = time.perf_counter()
                    origin = message.value.origin
                    assert (origin.partition, origin.offset) not in self.seen, "executions came twice"
                    self.seen[origin.partition, origin.offset] = now
                    self.reports += len(message.value.kind)
        except BaseException as failure:
            self.failure = failure
            raise
        finally:
            consumer.close()

    def wait(self, records: int) -> float:
        """When the executions of so many records were there."""
        deadline = time.monotonic() + PATIENCE_S
        while len(self.seen) < records:
            assert self.failure is None, "the reader has failed"
            assert time.monotonic() < deadline, "executions are missing"
            time.sleep(0.001)
        return max(self.seen.values())


@dataclass
class Sender:
    """Sends records over all partitions in turn, and knows the offset that each of them gets."""

    producer: Producer
    sent: list[int] = field(default_factory=lambda: [0] * PARTITIONS)

    def send(self, number: int, value: bytes) -> tuple[int, int]:
        """The next record of a partition; its partition and offset."""
        self.producer.send(topics.ORDERS_INCOMING, SYMBOLS[number], value, partition=number)
        self.sent[number] += 1
        return number, self.sent[number] - 1

    @property
    def records(self) -> int:
        """In all."""
        return sum(self.sent)


def records_of(messages: Any, symbol: str, rows: int) -> list[bytes]:
    """A flow as records of orders.incoming."""
    found = []
    ends = [*range(0, len(messages), rows), len(messages)]
    for start, end in pairwise(ends):
        part = messages[start:end]
        batch = OrderBatch(symbols=[symbol])
        packing.write(batch, "symbol_index", [0])
        for name, column in order_events.COLUMNS.items():
            if part[name].any():
                packing.write(batch, column, np.ascontiguousarray(part[name]))
        found.append(batch.SerializeToString())
    return found


def in_turn(seed: int, orders: int, rows: int) -> list[tuple[int, bytes]]:
    """Records of every partition's symbol, one after another. Ids are new for each seed."""
    flows = []
    for number, symbol in enumerate(SYMBOLS):
        messages = order_flow(FLOW, orders, seed * PARTITIONS + number)
        messages["order_id"] += seed * 100_000_000
        flows.append(records_of(messages, symbol, rows))
    return [(number, flow[at]) for at in range(min(map(len, flows))) for number, flow in enumerate(flows)]


def rows_in(records: list[tuple[int, bytes]]) -> int:
    """Orders, changes and cancels."""
    return sum(len(OrderBatch.FromString(value).order_id) for _, value in records)


def expected_reports(every: list[tuple[int, bytes]]) -> int:
    """What the core answers to all that was sent, in this process."""
    listed = tuple(Listed(symbol, TICK) for symbol in SYMBOLS)
    venues = [Venue(listed) for _ in SYMBOLS]
    return sum(len(venues[n].apply(order_events.decode(value), Origin()).kind) for n, value in every)


def capacity(sender: Sender, reader: Reader, records: list[tuple[int, bytes]]) -> float:
    """Orders per second, all sent at once."""
    start = time.perf_counter()
    for number, value in records:
        sender.send(number, value)
    end = reader.wait(sender.records)
    return rows_in(records) / (end - start)


def latency(sender: Sender, reader: Reader, records: list[tuple[int, bytes]], load: int) -> dict[str, float]:
    """Milliseconds at a steady rate of orders a second."""
    step = ROWS_PACED / load
    begin = time.perf_counter() + 0.05
    due: dict[tuple[int, int], float] = {}
    for place, (number, value) in enumerate(records):
        moment = begin + place * step
        while (left := moment - time.perf_counter()) > 0:
            time.sleep(min(left, 0.001))
        due[sender.send(number, value)] = moment
    end = reader.wait(sender.records)
    ms = [(reader.seen[place] - moment) * 1e3 for place, moment in due.items()]
    return {
        "offered_per_second": load,
        "done_per_second": len(records) * ROWS_PACED / (end - begin),
        **{f"p{q}_ms": float(np.percentile(ms, q)) for q in (50, 90, 99)},
        "most_ms": max(ms),
    }


def service(settings: KafkaSettings, log: Path, transactions: bool) -> subprocess.Popen[bytes]:
    """A `risk book` as a user starts it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GPU_RISK_")}
    environment |= {
        "GPU_RISK_KAFKA_BOOTSTRAP": settings.bootstrap,
        "GPU_RISK_GRPC_PORT": "0",
        "GPU_RISK_BOOK_INSTRUMENTS": ",".join(f"{symbol}:{TICK}" for symbol in SYMBOLS),
        "GPU_RISK_BOOK_CONTROLS": "false",
        "GPU_RISK_BOOK_TRANSACTIONS": "always" if transactions else "never",
    }
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "risk_cli.main", "book"], env=environment, stdout=out, stderr=out
        )


def run(rounds: int, log: Path, transactions: bool, all_loads: tuple[int, ...]) -> dict[str, Any]:
    """Capacity and latency, on a broker of its own."""
    every: list[tuple[int, bytes]] = []
    with find_kafka(1, to_kill=True) as kafka:
        settings = KafkaSettings(bootstrap=kafka.bootstrap)
        ensure_topics(settings)
        reader, process = Reader(settings), service(settings, log, transactions)
        reader.start()
        try:
            with Producer(settings) as producer:
                sender = Sender(producer)
                first = in_turn(1, 5_000, ROWS)
                every += first
                capacity(sender, reader, first)  # compiles or loads the core
                rates = []
                for number in range(rounds):
                    records = in_turn(2 + number, ORDERS_OF_ROUND // PARTITIONS, ROWS)
                    every += records
                    rates.append(capacity(sender, reader, records))
                loads = []
                for number, load in enumerate(all_loads):
                    wanted = int(load * SECONDS_OF_A_LOAD / ROWS_PACED)
                    records = in_turn(100 + number, max(2_000, int(wanted * ROWS_PACED / 7)), ROWS_PACED)
                    records = records[:wanted]
                    every += records
                    loads.append(latency(sender, reader, records, load))
            origin = kafka.origin
        finally:
            process.terminate()
            process.wait(PATIENCE_S)
            reader.over.set()
            reader.join()
    wanted = expected_reports(every)
    assert reader.reports == wanted, f"{reader.reports:,} reports, the core gives {wanted:,}"
    return {
        "broker": origin,
        "orders_per_second": rates,
        "latency": loads,
        "reports_checked": wanted,
    }


def table(result: dict[str, Any]) -> str:
    """The results to read."""
    lines = [
        "### Kafka to Kafka: orders.incoming to orders.executed, one real broker on the same cores",
        "",
        f"Orders a second, all sent at once in records of {ROWS:,}:",
        "",
    ]
    for name, found in result["modes"].items():
        rates = found["orders_per_second"]
        median, least, most = (value / 1e3 for value in (statistics.median(rates), min(rates), max(rates)))
        lines.append(f"- {name}: **{median:,.0f} k/s** ({least:,.0f}–{most:,.0f})")
    lines += [
        "",
        f"Milliseconds at a steady rate, records of {ROWS_PACED:,}:",
        "",
        "| | offered, k orders/s | done | p50 | p90 | p99 | most |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in result["modes"].items():
        for one in found["latency"]:
            numbers = " | ".join(f"{one[key]:.1f}" for key in ("p50_ms", "p90_ms", "p99_ms", "most_ms"))
            offered, done = one["offered_per_second"] / 1e3, one["done_per_second"] / 1e3
            lines.append(f"| {name} | {offered:,.0f} | {done:,.0f} | {numbers} |")
    return "\n".join([*lines, ""])


def plot(result: dict[str, Any], path: Path) -> None:
    """Latency against load."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.5), dpi=110, layout="constrained")
    axes: Any = figure.add_subplot()
    plain = result["modes"][PLAIN]
    loads = [one["done_per_second"] / 1e3 for one in plain["latency"]]
    for name, colour in (("p99", "#c0392b"), ("p90", "#d68910"), ("p50", "#1a7f4b")):
        values = [one[f"{name}_ms"] for one in plain["latency"]]
        axes.plot(loads, values, marker="o", color=colour, label=name)
    median = statistics.median(plain["orders_per_second"]) / 1e3
    axes.axvline(median, color="#2c3e50", linestyle=(0, (4, 4)), linewidth=1)
    label = f"all at once, records of {ROWS:,}: {median:,.0f} k/s"
    axes.annotate(label, (median, 0.97), xycoords=("data", "axes fraction"), ha="right", va="top",
                  rotation=90, fontsize=8.5)  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlabel(f"orders per second, thousands, in records of {ROWS_PACED:,}")
    axes.set_ylabel("milliseconds, sent to executed")
    axes.set_title("Kafka to Kafka, broker and service on the same cores", loc="left", fontsize=11)
    axes.grid(color="#dddddd", linewidth=0.6, which="both")
    axes.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    """Measures, checks, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--log", type=Path, default=Path(os.devnull), help="of the service")
    options = parser.parse_args()
    modes = {
        PLAIN: run(options.rounds, options.log, False, LOADS),
        TRANSACTIONAL: run(options.rounds, options.log, True, LOADS_TRANSACTIONAL),
    }
    result = {
        "machine": measure.machine(),
        "rows_of_a_record": {"capacity": ROWS, "latency": ROWS_PACED},
        "modes": modes,
    }
    measure.write("kafka_throughput", result, table(result))
    plot(result, measure.RESULTS / "kafka_throughput.png")


if __name__ == "__main__":
    main()
