"""From a tick on market.data.normalized to value, Greeks and historical ES on risk.metrics: time per tick.

    python -m benchmarks.live_risk [SECONDS]         # into benchmarks/results/live_risk.json
    python -m benchmarks.live_risk --real [SECONDS]  # on one real broker, into live_risk_real.json

20 underlyings of 100 contracts each, 10 portfolios of 1,000 options, 500 historical scenarios, 2,000 ticks a
second, one to a record; one in twenty is an option's quote. Sender, broker, service (with its helpers) and
reader are processes of their own; the processor time of each stands in the result. A tick's time
runs from its sending to the publishing of the first number whose snapshot holds it, for every portfolio;
ticks that share a number each count.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import measure
from benchmarks.live_market import (
    NAMES,
    OPTIONS,
    PORTFOLIOS,
    RATE,
    SPOT,
    UNDERLYINGS,
    YEAR_NS,
    YIELD,
    batch,
    contracts,
    portfolio,
    symbol,
    ticks,
    worth,
    write_history,
)
from protos import topics
from protos.market.v1 import market_pb2 as market
from protos.risk.v1 import risk_pb2 as risk
from service_kit.kafka.admin import ensure_topics
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.embedded import EmbeddedBroker
from service_kit.kafka.partitioning import partition_of
from service_kit.kafka.producer import Producer
from service_kit.kafka.real import find_kafka
from service_kit.kafka.records import BEGINNING, Partition
from service_kit.kafka.settings import KafkaSettings

TICKS_PER_S, PARTITIONS = 2_000, 4
START_WITHIN_S = 60.0
# Not measured at first. Tables of early exercise premiums under 4,096 scenarios are made meanwhile, once.
WARM_S, AMERICAN_WARM_S = 3.0, 30.0


def send(bootstrap: str, opened_ns: int, seconds: float, out: Path) -> None:
    """The sender's process: opens the market, waits for a line on stdin, then sends ticks at the rate."""
    settings = KafkaSettings(bootstrap=bootstrap)
    listed = contracts(opened_ns)
    strike, vol, is_call = (np.array([terms[k] for terms in listed]) for k in (0, 3, 2))
    years = np.array([(terms[1] - opened_ns) / YEAR_NS for terms in listed])
    names = [[symbol(name, expiry, call, k) for k, expiry, call, _ in listed] for name in NAMES]
    sent: list[tuple[int, int]] = []
    with Producer(settings) as producer:

        def put(name: str, value: bytes, at: int) -> None:
            producer.send(topics.MARKET_DATA_NORMALIZED, name, value)
            sent.append((partition_of(name, PARTITIONS), at))

        for place, name in enumerate(NAMES):
            now = time.time_ns()
            put(name, batch(market.EVENT_KIND_REFERENCE, [name], now, rate=RATE, dividend_yield=YIELD), now)
            put(name, batch(market.EVENT_KIND_QUOTE, [name], now, bid=SPOT - 0.01, ask=SPOT + 0.01), now)
            mids = worth(SPOT, strike, years, vol, is_call)
            put(name, batch(market.EVENT_KIND_QUOTE, names[place], now, bid=mids, ask=mids), now)
        producer.flush()
        opening = len(sent)
        made = list(ticks(opened_ns, round(seconds * TICKS_PER_S), names))
        sys.stdin.readline()
        start, worked = time.perf_counter(), time.process_time()
        for number, (name, tick) in enumerate(made):
            ahead = start + number / TICKS_PER_S - time.perf_counter()
            if ahead > 0.0:
                time.sleep(ahead)
            now = time.time_ns()
            put(name, tick.at(now), now)
        took, worked = time.perf_counter() - start, time.process_time() - worked
        producer.flush()
    np.savez(out, sent=np.array(sent), opening=opening, took=took, ticks=len(made), worked=worked)


@contextmanager
def service(folder: Path, settings: KafkaSettings) -> Iterator[subprocess.Popen[str]]:
    """`risk serve` on these brokers."""
    environment = os.environ | {
        "GPU_RISK_KAFKA_BOOTSTRAP": settings.bootstrap,
        "GPU_RISK_KAFKA_FETCH_WAIT_MS_MAX": str(settings.fetch_wait_ms_max),
        "GPU_RISK_GRPC_PORT": "0",
        "GPU_RISK_RISK_ENGINE": "cpu",
        "GPU_RISK_RISK_HISTORY": str(folder / "history.csv"),
        "GPU_RISK_RISK_STALE_AFTER_S": "600",
        "GPU_RISK_METRICS_PORT": "0",
    }
    with (folder / "serve.err").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "risk_cli.main", "serve"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            text=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def brokers(*, real: bool) -> Iterator[tuple[KafkaSettings, psutil.Process | None]]:
    """One broker with our topics, and its process where it is the embedded one."""
    if not real:
        with EmbeddedBroker() as embedded:
            yield embedded.settings(), psutil.Process(embedded.pid)
        return
    kafka = find_kafka(1)
    try:
        settings = KafkaSettings(bootstrap=kafka.bootstrap)
        ensure_topics(settings)
        yield settings, None
    finally:
        kafka.close()


def run(seconds: float, *, american: bool, real: bool = False) -> dict[str, Any]:
    """One run; milliseconds of every tick and portfolio."""
    with tempfile.TemporaryDirectory() as name, brokers(real=real) as (settings, broker):
        folder, opened = Path(name), time.time_ns()
        write_history(folder / "history.csv")
        with Producer(settings) as producer:
            for number in range(PORTFOLIOS):
                book = portfolio(number, opened, american=american)
                producer.send(topics.RISK_PORTFOLIOS, book.portfolio, book.SerializeToString())
        with (
            Consumer(settings, [topics.RISK_METRICS], "benchmark", bytes) as reader,
            service(folder, settings) as served,
        ):
            reader.assign({Partition(topics.RISK_METRICS, number): BEGINNING for number in range(PARTITIONS)})
            sender = subprocess.Popen(
                [
                    *(sys.executable, "-m", "benchmarks.live_risk", "--send", settings.bootstrap),
                    *(
                        str(opened),
                        str(seconds + (AMERICAN_WARM_S if american else WARM_S)),
                        str(folder / "sent.npz"),
                    ),
                ],
                stdin=subprocess.PIPE,
                text=True,
            )
            processes = {"service": psutil.Process(served.pid), "reader": psutil.Process()}
            if broker is not None:
                processes["broker"] = broker
            messages, cores = _read(reader, sender, folder / "serve.err", processes)
        sent = np.load(folder / "sent.npz")
        cores["sender"] = round(float(sent["worked"] / sent["took"]), 2)
        return _judge(messages, sent, american=american) | {"cores_used": cores}


def _read(
    reader: Consumer[bytes], sender: subprocess.Popen[str], errors: Path, processes: dict[str, psutil.Process]
) -> tuple[list[tuple[int, bytes]], dict[str, float]]:
    """Waits for a number of every book at the open market, lets the ticks go, and reads until they end.

    Beside what was read: how many cores each process has used meanwhile.
    """
    opened: dict[str, risk.RiskMetrics] = {}
    deadline = time.monotonic() + START_WITHIN_S
    while not _open(opened):
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"books measured: {len(opened)}; the service said: {errors.read_text()[-2000:]}"
            )
        for message in reader.poll(500, 0.1):
            metrics = risk.RiskMetrics.FromString(message.value)
            opened[metrics.portfolio] = metrics
    if sender.stdin is None:
        raise RuntimeError("the sender has no stdin")
    sender.stdin.write("go\n")
    sender.stdin.flush()
    found: list[tuple[int, bytes]] = []
    began = time.perf_counter()
    before = {name: _worked(one) for name, one in processes.items()}
    while sender.poll() is None:
        found += [(time.time_ns(), message.value) for message in reader.poll(500, 0.05)]
    took = time.perf_counter() - began
    used = {name: round((_worked(one) - before[name]) / took, 2) for name, one in processes.items()}
    return found + [(time.time_ns(), message.value) for message in reader.poll(500, 0.5)], used


def _worked(process: psutil.Process) -> float:
    """Processor time of a process and of the processes that it has started, except what those have."""
    own = process.cpu_times()
    helpers = [] if process.pid == os.getpid() else process.children()
    return float(own.user + own.system) + sum(_worked(one) for one in helpers)


def _open(books: dict[str, risk.RiskMetrics]) -> bool:
    return len(books) == PORTFOLIOS and not any(book.faults for book in books.values())


def _judge(messages: list[tuple[int, bytes]], sent: Any, *, american: bool) -> dict[str, Any]:
    rows, opening = sent["sent"], int(sent["opening"])
    warm = int(rows[opening, 1]) + round((AMERICAN_WARM_S if american else WARM_S) * 1e9)
    times = [rows[rows[:, 0] == partition, 1] for partition in range(PARTITIONS)]
    done: dict[tuple[str, int], int] = {}
    published, received, per_book = [], [], 0
    ages_s: list[float] = []
    for received_ns, value in messages:
        metrics = risk.RiskMetrics.FromString(value)
        per_book += metrics.portfolio == "book-0"
        if metrics.faults or not metrics.historical[0].expected_shortfall > 0.0:
            raise ValueError(f"{metrics.portfolio} is not whole: {metrics.faults[:1]}")
        if metrics.timing.source_time_ns >= warm and metrics.monte_carlo:
            ages_s.append(metrics.monte_carlo_age_ns / 1e9)
        for part in metrics.provenance.market_snapshot_id.split(","):
            partition, following = (int(word) for word in part.split(":"))
            seen = done.get((metrics.portfolio, partition), following)
            of_ticks = times[partition][seen:following]
            of_ticks = of_ticks[of_ticks >= warm]
            published.append((metrics.timing.published_time_ns - of_ticks) / 1e6)
            received.append((received_ns - of_ticks) / 1e6)
            done[metrics.portfolio, partition] = following
    last = risk.RiskMetrics.FromString(messages[-1][1])
    return {
        "american": american,
        "ticks_per_s_sent": int(sent["ticks"]) / float(sent["took"]),
        "ticks_measured": sum(map(len, published)) // PORTFOLIOS,
        "numbers_per_s_and_book": per_book / float(sent["took"]),
        "published_ms": _percentiles(np.concatenate(published)),
        "received_ms": _percentiles(np.concatenate(received)),
        # Worked out once a second, a number is on average half a second old, and what it takes to make.
        "monte_carlo_age_s": _percentiles(np.array(ages_s)) if ages_s else None,
        "method": last.provenance.method,
    }


def _percentiles(values: Any) -> dict[str, float]:
    return {f"p{part:g}": round(float(np.percentile(values, part)), 2) for part in (50, 90, 99, 99.9, 100)}


def main(words: list[str]) -> int:
    """Run it with European and with American options."""
    if words[:1] == ["--send"]:
        send(words[1], int(words[2]), float(words[3]), Path(words[4]))
        return 0
    real = words[:1] == ["--real"]
    words = words[1:] if real else words
    seconds = float(words[0]) if words else 15.0
    where = measure.machine()
    runs = [run(seconds, american=american, real=real) for american in (False, True)]
    lines = [
        "### Tick to risk, milliseconds",
        "",
        "| options | ticks/s | numbers/s and book | p50 | p99 | worst | cores | Monte Carlo's age, s |",
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for one in runs:
        took, age = one["published_ms"], one["monte_carlo_age_s"]
        lines.append(
            f"| {'American' if one['american'] else 'European'} | {one['ticks_per_s_sent']:.0f} "
            f"| {one['numbers_per_s_and_book']:.0f} | {took['p50']} | {took['p99']} | {took['p100']} "
            f"| {one['cores_used']['service']} | {'none' if age is None else age['p50']} |"
        )
    lines += [
        "",
        f"- {UNDERLYINGS} underlyings, {PORTFOLIOS} books of {OPTIONS} options, "
        + ("one real broker" if real else "embedded broker"),
        f"- {where['cores']} cores, load average before the run {where['load_average_before']}",
        "",
    ]
    measure.write(
        "live_risk_real" if real else "live_risk", {"machine": where, "runs": runs}, "\n".join(lines)
    )
    print(json.dumps(runs, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
