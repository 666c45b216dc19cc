"""From a tick on market.data.normalized to value, Greeks and historical ES on risk.metrics: time per tick.

    python -m benchmarks.live_risk [SECONDS]     # into benchmarks/results/live_risk.json

20 underlyings of 100 contracts each, 10 portfolios of 1,000 options, 500 historical scenarios, 2,000 ticks a
second, one to a record; one in twenty is an option's quote. The broker is the embedded one; sender, service
and reader are processes of their own. A tick's time runs from its sending to the publishing of the first
number whose snapshot holds it, for every portfolio; ticks that share a number each count.
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
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import norm

from benchmarks import measure
from protos import packing, topics
from protos.market.v1 import market_pb2 as market
from protos.risk.v1 import risk_pb2 as risk
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.embedded import EmbeddedBroker
from service_kit.kafka.partitioning import partition_of
from service_kit.kafka.producer import Producer
from service_kit.kafka.records import BEGINNING, Partition
from service_kit.kafka.settings import KafkaSettings

UNDERLYINGS, PORTFOLIOS, OPTIONS = 20, 10, 1_000
STRIKES, EXPIRIES_YEARS = np.linspace(76.0, 124.0, 25), (0.25, 0.75)
TICKS_PER_S, OPTION_TICK_EVERY = 2_000, 20
SPOT, RATE, YIELD = 100.0, 0.04, 0.01
WARM_S, START_WITHIN_S = 3.0, 60.0
YEAR_NS = 365 * 86_400_000_000_000
NAMES = tuple(f"U{number:02d}" for number in range(UNDERLYINGS))
PARTITIONS = 4
SEED = 5


def contracts(opened_ns: int) -> list[tuple[float, int, bool, float]]:
    """Strike, expiry, right and vol of the contracts that every underlying has."""
    return [
        (float(strike), opened_ns + round(years * YEAR_NS), is_call, 0.2 + 0.1 * (strike / SPOT - 1.0) ** 2)
        for years in EXPIRIES_YEARS
        for strike in STRIKES
        for is_call in (True, False)
    ]


def symbol(name: str, expiry_ns: int, is_call: bool, strike: float) -> str:
    """An OSI symbol."""
    day = time.strftime("%y%m%d", time.gmtime(expiry_ns / 1e9))
    return f"{name:<6}{day}{'C' if is_call else 'P'}{round(strike * 1000):08d}"


def worth(spot: float, strike: Any, years: Any, vol: Any, is_call: Any) -> Any:
    """Black-Scholes, as the market's quotes."""
    root = vol * np.sqrt(years)
    forward = spot * np.exp((RATE - YIELD) * years)
    d1 = np.log(forward / strike) / root + 0.5 * root
    sign = np.where(is_call, 1.0, -1.0)
    return (
        np.exp(-RATE * years) * sign * (forward * norm.cdf(sign * d1) - strike * norm.cdf(sign * (d1 - root)))
    )


def batch(kind: int, symbols: list[str], time_ns: int, **columns: Any) -> bytes:
    """A clean batch."""
    message = market.NormalizedBatch(source="benchmark", symbols=symbols, normalized_time_ns=time_ns)
    packing.write(message, "symbol_index", np.arange(len(symbols)))
    packing.write(message, "kind", [kind])
    packing.write(message, "source_time_ns", [time_ns])
    for name, values in columns.items():
        packing.write(message, name, np.broadcast_to(values, len(symbols)))
    return message.SerializeToString()


def portfolio(number: int, opened_ns: int, *, american: bool) -> risk.Portfolio:
    """One of the books: fifty contracts of each underlying, long and short."""
    random = np.random.default_rng([SEED, number])
    listed, per_name = contracts(opened_ns), OPTIONS // UNDERLYINGS
    message = risk.Portfolio(portfolio=f"book-{number}", underlyings=NAMES, version=1)
    rows = message.positions
    picked = [
        (place, listed[row])
        for place in range(UNDERLYINGS)
        for row in random.choice(len(listed), per_name, replace=False)
    ]
    rows.symbol.extend(symbol(NAMES[place], expiry, call, k) for place, (k, expiry, call, _) in picked)
    packing.write(rows, "underlying_index", [place for place, _ in picked])
    packing.write(rows, "quantity", random.integers(-50, 50, len(picked)).astype(float))
    packing.write(rows, "multiplier", [100.0])
    packing.write(rows, "strike", [terms[0] for _, terms in picked])
    packing.write(rows, "expiry_time_ns", [terms[1] for _, terms in picked])
    packing.write(rows, "is_call", [terms[2] for _, terms in picked])
    packing.write(rows, "american", [american])
    return message


def write_history(path: Path) -> None:
    """Two years of closes and vols."""
    random = np.random.default_rng(SEED)
    closes = SPOT * np.exp(np.cumsum(0.012 * random.standard_t(5, (501, UNDERLYINGS)), axis=0))
    vols = 0.2 * np.exp(0.04 * random.standard_normal((501, UNDERLYINGS)))
    lines = [",".join(["date", *NAMES, *(f"{name}.vol" for name in NAMES)])]
    lines += [
        ",".join([f"day {day}", *(f"{value:.6f}" for value in (*closes[day], *vols[day]))])
        for day in range(501)
    ]
    path.write_text("\n".join(lines) + "\n")


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
        ticks = list(_ticks(opened_ns, round(seconds * TICKS_PER_S), names))
        sys.stdin.readline()
        start, worked = time.perf_counter(), time.process_time()
        for number, (name, tick) in enumerate(ticks):
            ahead = start + number / TICKS_PER_S - time.perf_counter()
            if ahead > 0.0:
                time.sleep(ahead)
            now = time.time_ns()
            put(name, tick.at(now), now)
        took, worked = time.perf_counter() - start, time.process_time() - worked
        producer.flush()
    np.savez(out, sent=np.array(sent), opening=opening, took=took, ticks=len(ticks), worked=worked)


class Tick(NamedTuple):
    """A batch of one quote, made before the clock runs: only its moment is missing."""

    begin: bytes

    def at(self, time_ns: int) -> bytes:
        """The record of a tick that is sent now."""
        now = time_ns.to_bytes(8, "little")
        return b"".join((self.begin, _SOURCE_TIME, now, _NORMALIZED_TIME, now))


_SOURCE_TIME = packing.head(market.NormalizedBatch, "source_time_ns", 8)
_NORMALIZED_TIME = market.NormalizedBatch(normalized_time_ns=1).SerializeToString()[:-8]


def _ticks(opened_ns: int, count: int, names: list[list[str]]) -> Iterator[tuple[str, Tick]]:
    """Underlyings that walk, and now and then an option's quote."""
    listed = contracts(opened_ns)
    random, spots = np.random.default_rng(SEED), np.full(UNDERLYINGS, SPOT)
    strike, vol, is_call = (np.array([terms[k] for terms in listed]) for k in (0, 3, 2))
    years = np.array([(terms[1] - opened_ns) / YEAR_NS for terms in listed])
    for number in range(count):
        place = int(random.integers(UNDERLYINGS))
        if number % OPTION_TICK_EVERY == 0:
            row = int(random.integers(len(listed)))
            mid = float(worth(spots[place], strike[row], years[row], vol[row], is_call[row]))
            mid = max(mid * (1.0 + 0.001 * random.standard_normal()), 0.01)
            symbols, bid, ask = [names[place][row]], mid, mid
        else:
            spots[place] *= np.exp(5e-5 * random.standard_normal())
            symbols, bid, ask = [NAMES[place]], spots[place] - 0.01, spots[place] + 0.01
        message = market.NormalizedBatch(source="benchmark", symbols=symbols)
        for name, value in {
            "symbol_index": 0,
            "kind": market.EVENT_KIND_QUOTE,
            "bid": bid,
            "ask": ask,
        }.items():
            packing.write(message, name, [value])
        yield NAMES[place], Tick(message.SerializeToString())


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


def run(seconds: float, *, american: bool) -> dict[str, Any]:
    """One run; milliseconds of every tick and portfolio."""
    with tempfile.TemporaryDirectory() as name, EmbeddedBroker() as broker:
        folder, settings, opened = Path(name), broker.settings(), time.time_ns()
        write_history(folder / "history.csv")
        with Producer(settings) as producer:
            for number in range(PORTFOLIOS):
                book = portfolio(number, opened, american=american)
                producer.send(topics.RISK_PORTFOLIOS, book.portfolio, book.SerializeToString())
        with (
            Consumer(settings, [topics.RISK_METRICS], "benchmark", bytes) as reader,
            service(folder, settings),
        ):
            reader.assign({Partition(topics.RISK_METRICS, number): BEGINNING for number in range(PARTITIONS)})
            sender = subprocess.Popen(
                [
                    *(sys.executable, "-m", "benchmarks.live_risk", "--send", settings.bootstrap),
                    *(str(opened), str(seconds + WARM_S), str(folder / "sent.npz")),
                ],
                stdin=subprocess.PIPE,
                text=True,
            )
            messages = _read(reader, sender, folder / "serve.err")
        return _judge(messages, np.load(folder / "sent.npz"), american=american)


def _read(reader: Consumer[bytes], sender: subprocess.Popen[str], errors: Path) -> list[tuple[int, bytes]]:
    """Waits for a number of every book at the open market, lets the ticks go, and reads until they end."""
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
    while sender.poll() is None:
        found += [(time.time_ns(), message.value) for message in reader.poll(500, 0.05)]
    return found + [(time.time_ns(), message.value) for message in reader.poll(500, 0.5)]


def _open(books: dict[str, risk.RiskMetrics]) -> bool:
    return len(books) == PORTFOLIOS and not any(book.faults for book in books.values())


def _judge(messages: list[tuple[int, bytes]], sent: Any, *, american: bool) -> dict[str, Any]:
    rows, opening = sent["sent"], int(sent["opening"])
    warm = int(rows[opening, 1]) + round(WARM_S * 1e9)
    times = [rows[rows[:, 0] == partition, 1] for partition in range(PARTITIONS)]
    done: dict[tuple[str, int], int] = {}
    published, received, per_book = [], [], 0
    for received_ns, value in messages:
        metrics = risk.RiskMetrics.FromString(value)
        per_book += metrics.portfolio == "book-0"
        if metrics.faults or not metrics.historical[0].expected_shortfall > 0.0:
            raise ValueError(f"{metrics.portfolio} is not whole: {metrics.faults[:1]}")
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
        "method": last.provenance.method,
    }


def _percentiles(values: Any) -> dict[str, float]:
    return {f"p{part:g}": round(float(np.percentile(values, part)), 2) for part in (50, 90, 99, 99.9, 100)}


def main(words: list[str]) -> int:
    """Run it with European and with American options."""
    if words[:1] == ["--send"]:
        send(words[1], int(words[2]), float(words[3]), Path(words[4]))
        return 0
    seconds = float(words[0]) if words else 15.0
    where = measure.machine()
    runs = [run(seconds, american=american) for american in (False, True)]
    lines = [
        "### Tick to risk, milliseconds",
        "",
        "| options | ticks/s | numbers/s and book | p50 | p99 | worst |",
    ]
    lines.append("|---|---|---|---|---|---|")
    for one in runs:
        took = one["published_ms"]
        lines.append(
            f"| {'American' if one['american'] else 'European'} | {one['ticks_per_s_sent']:.0f} "
            f"| {one['numbers_per_s_and_book']:.0f} | {took['p50']} | {took['p99']} | {took['p100']} |"
        )
    lines += [
        "",
        f"- {UNDERLYINGS} underlyings, {PORTFOLIOS} books of {OPTIONS} options, embedded broker",
        f"- {where['cores']} cores, load average before the run {where['load_average_before']}",
        "",
    ]
    measure.write("live_risk", {"machine": where, "runs": runs}, "\n".join(lines))
    print(json.dumps(runs, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
