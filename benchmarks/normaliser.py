"""Market data: ITCH bytes to arrays and to events, LOBSTER files, and the normaliser by batch size and kind.

    python -m benchmarks.normaliser       # seven interleaved rounds, into benchmarks/results/normaliser.json

Rates are of this process's own CPU time, so that neighbours on the machine do not count, beside wall-clock.
The ceiling of ITCH decoding is a copy of the same bytes; the floor, following its lengths in plain Python.
"""

from __future__ import annotations

import statistics
import struct
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from book_service import raw_events
from book_service.adapters.itch import PIECE_BYTES, ItchAdapter
from book_service.adapters.itch_messages import ItchDecoder
from book_service.adapters.lobster import Lobster
from book_service.normaliser import Normaliser
from protos import packing
from protos.market.v1 import market_pb2 as market

ROUNDS = 7
ITCH_MESSAGES = 400_000
EVENTS, BATCH, SYMBOLS = 200_000, 5_000, 40
SINGLES = 2_000
LINES = 50_000
ORIGIN = market.Origin(topic="market.data.raw", partition=0, offset=0)


@dataclass
class Work:
    """Something to time: `run` handles `count` things and returns what it made, to be checked."""

    name: str
    count: int
    run: Callable[[], Any]
    own: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def time(self) -> Any:
        """Runs once, noting own and wall-clock seconds."""
        own, wall = time.thread_time(), time.perf_counter()
        made = self.run()
        self.own.append(time.thread_time() - own)
        self.wall.append(time.perf_counter() - wall)
        return made


def itch_stream(messages: int, seed: int) -> bytes:
    """A session of adds, deletes, replaces, executions and cancels of open orders; mostly the first two."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(list("AFECXDU"), messages, p=[0.43, 0.02, 0.05, 0.005, 0.025, 0.38, 0.09]).tolist()
    spread, pick = rng.integers(1, 60, messages).tolist(), rng.random(messages).tolist()
    shares, symbols = rng.integers(100, 900, messages).tolist(), rng.integers(1, 500, messages).tolist()
    parts: list[bytes] = []
    open_orders: list[tuple[int, int, int]] = []
    ref, now = 10**9, 34_200 * 10**9
    for kind, away, chance, size, symbol in zip(kinds, spread, pick, shares, symbols, strict=True):
        now += 20_000
        head = (now >> 32, now & 0xFFFFFFFF)
        if kind in "AF" or not open_orders:
            ref += 1
            side = ref & 1
            price = 1_000_000 + (away if side else -away) * 100
            open_orders.append((ref, symbol, price))
            body = struct.pack(
                ">cHHHIQcI8sI",
                b"A",
                symbol,
                0,
                *head,
                ref,
                b"BS"[side : side + 1],
                size,
                b"S%-7d" % symbol,
                price,
            )
            parts += (b"\0$", body) if kind != "F" else (b"\0(", b"F" + body[1:] + b"NITE")
            continue
        at = -1 - int(min(400, len(open_orders)) * chance)
        order, symbol, price = open_orders[at]
        if kind in "DU":
            open_orders[at] = open_orders[-1]
            open_orders.pop()
        if kind == "D":
            parts += (b"\0\x13", struct.pack(">cHHHIQ", b"D", symbol, 0, *head, order))
        elif kind == "U":
            ref += 1
            open_orders.append((ref, symbol, price + 100))
            parts += (
                b"\0#",
                struct.pack(">cHHHIQQII", b"U", symbol, 0, *head, order, ref, size, price + 100),
            )
        elif kind == "X":
            parts += (b"\0\x17", struct.pack(">cHHHIQI", b"X", symbol, 0, *head, order, 10))
        elif kind == "E":
            parts += (b"\0\x1f", struct.pack(">cHHHIQIQ", b"E", symbol, 0, *head, order, 10, ref))
        else:
            parts += (b"\0$", struct.pack(">cHHHIQIQcI", b"C", symbol, 0, *head, order, 10, ref, b"Y", price))
    return b"".join(parts)


def pieces(stream: bytes) -> list[bytes]:
    """The stream as a file is read."""
    return [stream[at : at + PIECE_BYTES] for at in range(0, len(stream), PIECE_BYTES)]


def decode(stream: list[bytes]) -> int:
    """ITCH bytes to structured arrays; the number of messages."""
    decoder = ItchDecoder()
    return sum(decoder.decode(piece).count for piece in stream)


def to_events(stream: list[bytes]) -> int:
    """ITCH bytes to level deltas and trades, in columns; the number of orders of which nothing was known."""
    adapter = ItchAdapter("itch", 0)
    for piece in stream:
        adapter.feed(piece)
    return adapter.counts.unknown_orders


def follow_lengths(stream: list[bytes]) -> int:
    """The obvious way to find the messages, without reading any."""
    data, at, count = b"".join(stream), 0, 0
    while at < len(data):
        at += 2 + (data[at] << 8 | data[at + 1])
        count += 1
    return count


def raw_batch(
    kind: int, rows: int, symbols: int, first: int, rng: np.random.Generator
) -> raw_events.RawEvents:
    """A batch of quotes or deltas, numbered from `first` for each symbol, as it comes from the topic."""
    batch = market.RawBatch(source="feed", symbols=[f"S{place}" for place in range(symbols)])
    packing.write(batch, "symbol_index", np.arange(rows) % symbols)
    packing.write(batch, "kind", [kind])
    packing.write(batch, "source_sequence", (first + np.arange(rows) // symbols).astype(np.uint64))
    packing.write(batch, "source_time_ns", first * 10**6 + np.arange(rows))
    if kind == market.EVENT_KIND_QUOTE:
        middle = 100.0 + rng.normal(0.0, 0.01, rows)
        columns = {"bid": middle - 0.01, "ask": middle + 0.01, "bid_quantity": np.full(rows, 3.0)}
        columns["ask_quantity"] = columns["bid_quantity"]
    else:
        side = rng.integers(0, 2, rows)
        packing.write(batch, "side", side)
        away = np.where(side == 1, 0.01, -0.01) * rng.integers(1, 60, rows)
        columns = {"price": 100.0 + away, "quantity": rng.integers(0, 4, rows).astype(float)}
    for name, values in columns.items():
        packing.write(batch, name, values)
    return raw_events.decode(batch.SerializeToString())


def normalise(batches: list[raw_events.RawEvents]) -> int:
    """Through a new normaliser; the number of events that it dropped or flagged."""
    clean = Normaliser()
    odd = 0
    for events in batches:
        result = clean.apply(events, ORIGIN)
        odd += result.batch.dropped
    return odd


def lobster_day(folder: Path, lines: int, seed: int) -> Lobster:
    """Files of ten levels in which each message changes the best ask's or the best bid's size."""
    rng = np.random.default_rng(seed)
    asks = np.arange(10) * 100 + 1_000_100
    row = np.stack((asks, np.full(10, 500), 2_000_100 - asks, np.full(10, 500)), axis=1).ravel()
    rows = np.tile(row, (lines, 1))
    sizes = rng.integers(1, 50, (lines, 2))
    sells = rng.random(lines) < 0.5
    rows[:, 1] += np.cumsum(np.where(sells, sizes[:, 0], 0))
    rows[:, 3] += np.cumsum(np.where(sells, 0, sizes[:, 0]))
    price, direction = np.where(sells, row[0], row[2]), np.where(sells, -1, 1)
    times = 34_200 + np.arange(lines) * 1e-3
    said = zip(times, range(lines), sizes[:, 0], price, direction, strict=True)
    messages, orderbook = folder / "message.csv", folder / "orderbook.csv"
    messages.write_text("".join(f"{t:.9f},1,{ref},{size},{at},{way}\n" for t, ref, size, at, way in said))
    orderbook.write_text("".join(",".join(map(str, line)) + "\n" for line in rows.tolist()))
    return Lobster("lobster", "XYZ", 0, messages, orderbook)


def works(folder: Path) -> list[Work]:
    """Everything that is timed."""
    rng = np.random.default_rng(1)
    stream = pieces(itch_stream(ITCH_MESSAGES, 2))
    quote, delta = market.EVENT_KIND_QUOTE, market.EVENT_KIND_BOOK_DELTA
    starts = range(1, 1 + EVENTS // SYMBOLS, BATCH // SYMBOLS)
    quotes = [raw_batch(quote, BATCH, SYMBOLS, first, rng) for first in starts]
    deltas = [raw_batch(delta, BATCH, SYMBOLS, first, rng) for first in starts]
    singles = [raw_batch(quote, 1, 1, first, rng) for first in range(1, 1 + SINGLES)]
    single_deltas = [raw_batch(delta, 1, 1, first, rng) for first in range(1, 1 + SINGLES)]
    lobster = lobster_day(folder, LINES, 3)
    return [
        Work("ITCH: a copy of the bytes", ITCH_MESSAGES, lambda: len(b"".join(stream))),
        Work("ITCH: following lengths in Python", ITCH_MESSAGES, lambda: follow_lengths(stream)),
        Work("ITCH: bytes to arrays", ITCH_MESSAGES, lambda: decode(stream)),
        Work("ITCH: bytes to level deltas and trades", ITCH_MESSAGES, lambda: to_events(stream)),
        Work("LOBSTER: files to events, 10 levels", LINES, lambda: sum(map(len, lobster.events()))),
        Work(f"normaliser: quotes, {BATCH} a batch, {SYMBOLS} symbols", EVENTS, lambda: normalise(quotes)),
        Work(f"normaliser: deltas, {BATCH} a batch, {SYMBOLS} symbols", EVENTS, lambda: normalise(deltas)),
        Work("normaliser: one quote a batch", SINGLES, lambda: normalise(singles)),
        Work("normaliser: one delta a batch", SINGLES, lambda: normalise(single_deltas)),
    ]


def main() -> None:
    """Times everything in turn, round after round, checks the answers, and writes the result."""
    with tempfile.TemporaryDirectory() as folder:
        every = works(Path(folder))
        for _ in range(ROUNDS):
            made = [work.time() for work in every]
    assert made[1] == made[2] == ITCH_MESSAGES
    assert made[3] == 0, "orders of the session were not found"
    assert made[5:] == [0, 0, 0, 0], "clean events were dropped"
    lines = [
        "### Market data: decoders and the normaliser, one core",
        "",
        "| what | M/s of own CPU time, median | spread | M/s of wall clock, median | µs each |",
        "|---|---|---|---|---|",
    ]
    rows = []
    for work in every:
        rate = work.count / statistics.median(work.own) / 1e6
        low, high = work.count / max(work.own) / 1e6, work.count / min(work.own) / 1e6
        wall = work.count / statistics.median(work.wall) / 1e6
        lines.append(f"| {work.name} | {rate:.3g} | {low:.3g}–{high:.3g} | {wall:.3g} | {1 / rate:.3g} |")
        rows.append(
            {"name": work.name, "count": work.count, "own_seconds": work.own, "wall_seconds": work.wall}
        )
    measure.write("normaliser", {"machine": measure.machine(), "rows": rows}, "\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
