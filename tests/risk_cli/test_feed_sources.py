"""`risk feed` with real formats, over the in-memory broker and a running book_service: clean ticks out."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from desk_files import run

from protos import packing, topics
from protos.market.v1 import market_pb2 as market
from protos.orders.v1.orders_pb2 import OrderBatch
from risk_cli.feed.run import record_keys
from risk_cli.feed.sources_file import feed_of_file
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.embedded import EmbeddedBroker
from service_kit.kafka.producer import Producer
from service_kit.kafka.records import BEGINNING, Partition
from service_kit.kafka.settings import KafkaSettings
from tests.book_service.adapters import test_lobster as lobster_sample
from tests.book_service.adapters.test_itch import Session
from tests.book_service.adapters.websocket_server import Server
from tests.end_to_end.running import PATIENCE_S, Service, until

NEW_YORK = ZoneInfo("America/New_York")
QUOTE, DELTA, TRADE = market.EVENT_KIND_QUOTE, market.EVENT_KIND_BOOK_DELTA, market.EVENT_KIND_TRADE
BOOK = {
    "GPU_RISK_GRPC_PORT": "0",
    "GPU_RISK_BOOK_SOURCES": "first,second",
    "GPU_RISK_BOOK_SILENT_AFTER_S": "2",
    "GPU_RISK_BOOK_RETURN_AFTER_EVENTS": "2",
    "GPU_RISK_BOOK_INSTRUMENTS": "OWN:0.5",
    "GPU_RISK_BOOK_CONTROLS": "false",
    # Files of one test may be years apart; that is not what is tested.
    "GPU_RISK_BOOK_STALE_AFTER_S": "86400",
}


@dataclass(frozen=True)
class Event:
    """One clean event."""

    source: str
    symbol: str
    kind: int
    time_ns: int
    bid: float
    ask: float
    price: float
    quantity: float
    flags: int


class World:
    """A broker and a book_service on it."""

    def __init__(self, settings: KafkaSettings, service: Service) -> None:
        self.settings, self.service, self.address = settings, service, service.address()
        self._partitions = next(
            t.partitions for t in topics.TOPICS if t.name == topics.MARKET_DATA_NORMALIZED
        )

    def clean(self, source: str, at_least: int) -> list[Event]:
        """The clean events of a source, in the log's order, once there are so many."""
        consumer = Consumer(
            self.settings, [topics.MARKET_DATA_NORMALIZED], "test", market.NormalizedBatch.FromString
        )
        name = topics.MARKET_DATA_NORMALIZED
        consumer.assign({Partition(name, number): BEGINNING for number in range(self._partitions)})
        found: list[Event] = []

        def enough() -> bool:
            for message in consumer.poll(timeout_s=0.05):
                found.extend(event for event in _events(message.value) if event.source == source)
            return len(found) >= at_least

        try:
            until(enough, f"{at_least} events of {source}", self.service)
        finally:
            consumer.close()
        return found


def _events(batch: market.NormalizedBatch) -> Iterator[Event]:
    rows = packing.row_count(batch, ("kind", "symbol_index"))
    names = ("kind", "source_time_ns", "bid", "ask", "price", "quantity", "flags")
    columns = [packing.column(batch, name, rows).tolist() for name in names]
    for place, *values in zip(packing.names(batch, "symbols", "symbol_index", rows), *columns, strict=True):
        yield Event(batch.source, batch.symbols[place], *values)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with EmbeddedBroker() as broker:
        settings = broker.settings()
        environment = BOOK | {
            "GPU_RISK_KAFKA_BOOTSTRAP": settings.bootstrap,
            "GPU_RISK_KAFKA_FETCH_WAIT_MS_MAX": str(settings.fetch_wait_ms_max),
        }
        with Service(tmp_path_factory.mktemp("book"), "book", settings=environment) as service:
            yield World(settings, service)


@pytest.fixture(autouse=True)
def _broker_of_the_feed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPU_RISK_KAFKA_BOOTSTRAP", world.settings.bootstrap)
    monkeypatch.setenv("GPU_RISK_KAFKA_FETCH_WAIT_MS_MAX", str(world.settings.fetch_wait_ms_max))


def _feed(*words: str) -> list[dict[str, Any]]:
    done = run("feed", *words, "--json")
    assert done.exit_code == 0, done.stderr
    sources: list[dict[str, Any]] = json.loads(done.stdout)["sources"]
    return sources


def _itch() -> bytes:
    session = Session()
    session.add(1, b"B", 100, 1_000_000, locate=5)
    session.add(2, b"S", 50, 1_000_300, locate=5)
    session.add(3, b"B", 7, 500_000, locate=6, stock=b"MSFT    ")
    session.execute(1, 40, locate=5)
    return session.bytes()


def test_an_itch_file_gives_quotes_in_our_symbols(world: World, tmp_path: Path) -> None:
    path = tmp_path / "day.itch.gz"
    path.write_bytes(gzip.compress(_itch()))
    [told] = _feed(
        str(path), "--name", "itch-1", "--day", "2026-03-02", "--map", "AAPL=AAPL.O", "--tick", "AAPL.O=0.01",
        "--speed", "0",
    )  # fmt: skip
    assert (told["events"], told["off_grid"]) == (5, 0)
    events = [one for one in world.clean("itch-1", 6) if one.symbol == "AAPL.O"]
    assert [(e.price, e.quantity) for e in events if e.kind == TRADE] == [(100.0, 40.0)]
    quotes = [(e.bid, e.ask) for e in events if e.kind == QUOTE]
    assert quotes[-1] == (100.0, 100.03)
    midnight = datetime(2026, 3, 2, tzinfo=NEW_YORK)
    assert events[0].time_ns == round(midnight.timestamp()) * 10**9 + 34_200 * 10**9 + 1


def test_lobster_files_give_the_book_of_their_last_row(world: World, tmp_path: Path) -> None:
    lobster_sample.day(tmp_path)
    _feed(
        str(tmp_path / "message.csv"), "--format", "lobster", "--orderbook", str(tmp_path / "orderbook.csv"),
        "--symbol", "XYZ", "--day", "2012-06-21", "--speed", "0",
    )  # fmt: skip
    quotes = [(one.bid, one.ask) for one in world.clean("lobster", 15) if one.kind == QUOTE]
    assert quotes[-1] == (11.845, 11.86)


def test_a_parquet_file_by_its_columns(world: World, tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "trades.parquet"
    parquet.write_table(
        arrow.table({"t": [1, 2, 3], "s": ["P"] * 3, "px": [5.05, 5.1 - 1e-12, 5.123], "n": [1, 2, 3]}), path
    )
    mapping = ("source_time_ns=t", "symbol=s", "price=px", "quantity=n")
    [told] = _feed(
        str(path), *(word for pair in mapping for word in ("--column", pair)), "--constant", "kind=trade",
        "--time-unit", "s", "--tick", "default=0.05", "--speed", "0", "--name", "vendor",
    )  # fmt: skip
    assert (told["events"], told["records"], told["off_grid"]) == (3, 1, 1)
    events = world.clean("vendor", 3)
    assert [(e.time_ns, e.price, e.quantity) for e in events] == [
        (10**9, 5.05, 1.0),
        (2 * 10**9, 5.1, 2.0),
        (3 * 10**9, 5.123, 3.0),
    ]


def test_of_two_sources_in_a_file_the_second_stands_in(world: World, tmp_path: Path) -> None:
    """The first is silent from 2 s to 8 s; both call the symbol by another name."""
    for name, symbol, seconds in (
        ("first", "ABC", [0, 1, 2, 8, 9, 10]),
        ("second", "abc-x", [0.5, 1.5, 4.5, 5.5, 8.5, 9.5, 10.5]),
    ):
        rows = "".join(f"{s},{symbol},{10 + s / 100},{10.1 + s / 100}\n" for s in seconds)
        (tmp_path / f"{name}.csv").write_text("t,s,bid,ask\n" + rows)
    sources = "".join(
        f"""[[source]]
name = "{name}"
format = "csv"
path = "{name}.csv"
time_unit = "s"
columns = {{ source_time_ns = "t", symbol = "s", bid = "bid", ask = "ask" }}
constants = {{ kind = "quote" }}
map = {{ "{theirs}" = "ABC.N" }}
"""
        for name, theirs in (("first", "ABC"), ("second", "abc-x"))
    )
    plan = tmp_path / "feed.toml"
    plan.write_text("speed = 20.0\n" + sources)
    told = _feed("--sources", str(plan))
    assert [(one["source"], one["events"]) for one in told] == [("first", 6), ("second", 7)]
    first, second = world.clean("first", 5), world.clean("second", 2)
    flag = market.EVENT_FLAG_FAILOVER
    # A batch moves the newest time by the limit at most, so 4.5 s does not yet say that the first is silent;
    # after 8 s one event more must come of the first before it is active again.
    assert [(one.time_ns / 1e9, one.flags & flag, one.symbol) for one in second] == [
        (5.5, flag, "ABC.N"),
        (8.5, flag, "ABC.N"),
    ]
    assert [(one.time_ns / 1e9, one.flags & flag) for one in first] == [(s, 0) for s in (0, 1, 2, 9, 10)]


def test_a_websocket_is_followed_until_told_to_stop(world: World, tmp_path: Path) -> None:
    said = [
        {"type": "snapshot", "sequence": 1, "bids": [["99.5", "10"]], "asks": [["100.5", "3"]]},
        {"type": "update", "sequence": 2, "bids": [["99.50000000001", "0"], ["99", "4"]], "asks": []},
    ]

    async def script(peer: Any) -> None:
        await peer.shake_hands()
        assert await peer.subscription() == ["BTC"]
        for message in said:
            peer.text(message | {"symbol": "BTC", "time_ns": message["sequence"]})  # type: ignore[operator]
        await peer.receive()

    ready, over = threading.Event(), threading.Event()
    urls: list[str] = []

    async def serve() -> None:
        async with Server(script) as server:
            urls.append(server.url)
            ready.set()
            while not over.is_set():
                await asyncio.sleep(0.02)

    exchange = threading.Thread(target=asyncio.run, args=(serve(),))
    exchange.start()
    try:
        assert ready.wait(PATIENCE_S)
        words = ("feed", urls[0], "--symbol", "BTC", "--map", "BTC=BTC-USD", "--tick", "BTC-USD=0.5")
        environment = {
            "GPU_RISK_KAFKA_BOOTSTRAP": world.settings.bootstrap,
            "GPU_RISK_KAFKA_FETCH_WAIT_MS_MAX": str(world.settings.fetch_wait_ms_max),
        }
        with Service(tmp_path, *words, settings=environment) as feed:
            events = world.clean("websocket", 6)
            assert feed.stop() == 0
    finally:
        over.set()
        exchange.join()
    quotes = [(one.bid, one.ask) for one in events if one.kind == QUOTE]
    assert quotes == [(99.0, 100.5)] or quotes == [(99.5, 100.5), (99.0, 100.5)]
    assert {one.symbol for one in events} == {"BTC-USD"}
    assert "websocket" in feed.out.read_text()


def test_our_own_venue_is_a_source(world: World, tmp_path: Path) -> None:
    (tmp_path / "feed.toml").write_text(
        f'[[source]]\nname = "house"\nformat = "venue"\nserver = "{world.address}"\n'
        'symbols = ["OWN"]\nevery_s = 0.02\n'
    )
    environment = {
        "GPU_RISK_KAFKA_BOOTSTRAP": world.settings.bootstrap,
        "GPU_RISK_KAFKA_FETCH_WAIT_MS_MAX": str(world.settings.fetch_wait_ms_max),
    }
    words = ("feed", "--sources", str(tmp_path / "feed.toml"))
    with Service(tmp_path, *words, settings=environment) as feed, Producer(world.settings) as producer:
        world.clean("house", 1)  # the empty book: it is followed from here
        orders = ((1, 0, 200, 5), (2, 1, 202, 9), (3, 0, 202, 4))  # id, side, ticks, quantity
        batch = OrderBatch(symbols=["OWN"])
        for name, values in zip(("order_id", "side", "price_ticks", "quantity"), zip(*orders), strict=True):
            packing.write(batch, name, list(values))
        packing.write(batch, "time_ns", [1_700_000_000_000_000_000 + one for one, *_ in orders])
        producer.send(topics.ORDERS_INCOMING, "OWN", batch.SerializeToString())
        producer.flush()
        events = world.clean("house", 6)  # two for the empty book, the trade, two levels and their quote
        assert feed.stop() == 0
    assert [(e.price, e.quantity) for e in events if e.kind == TRADE] == [(101.0, 4.0)]
    assert [(e.bid, e.ask) for e in events if e.kind == QUOTE][-1] == (100.0, 101.0)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nothing.itch", "--day", "2026-03-02"), "nothing.itch"),
        (("x.itch",), "day"),
        (("x.itch", "--day", "yesterday"), "--day"),
        (("x.bin",), "--format"),
        (("x.csv", "--map", "A"), "--map"),
        (("x.csv", "--tick", "A=b"), "--tick"),
        (("x.csv", "--column", "price=px"), "kind"),
        (("ws://127.0.0.1:1/",), "symbols"),
        (("x.parquet", "--format", "csv"), "path"),
    ],
)
def test_what_cannot_be_played_is_refused_by_name(words: tuple[str, ...], says: str) -> None:
    done = run("feed", *words)
    assert (done.exit_code, says in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("speed = -1\n", "speed"),
        ("", "[[source]]"),
        ('[[source]]\nname = "a"\nformat = "itch"\nurl = "x"\nday = 2026-03-02\n', "line 4, source.url"),
        ('[[source]]\nname = "a"\nformat = "itch"\npath = "x"\n', "line 1, source: day"),
        (
            '[[source]]\nname = "a"\nformat = "csv"\npath = "x.csv"\ntick_size = -1\n',
            "line 5, source.tick_size",
        ),
        ('[[source]]\nname = "a"\nformat = "csv"\npath = "x.csv"\nspeed = 1\n', "line 5, source.speed"),
        ('[[source]]\nname = "a"\nformat = "csv"\npath = "x.csv"\n' * 2, "'a' is there twice"),
    ],
)
def test_a_file_of_sources_that_is_wrong_is_refused_by_its_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "feed.toml").write_text(text)
    done = run("feed", "--sources", str(tmp_path / "feed.toml"))
    assert (done.exit_code, says in done.stderr) == (2, True), done.stderr


def test_the_example_of_the_docs_can_be_read(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "market_data.md"
    example = page.read_text().split("```toml\n", 1)[1].split("```", 1)[0]
    (tmp_path / "feed.toml").write_text(example)
    plan = feed_of_file(tmp_path / "feed.toml", None, None)
    assert [one.format for one in plan.sources] == ["itch", "csv", "websocket", "venue"]
    assert plan.sources[0].terms.tick_size == {"BRK.A": 0.05}
    assert plan.sources[0].where == str(tmp_path / "01302020.NASDAQ_ITCH50.gz")


def test_an_option_is_keyed_by_its_underlying_under_our_name(tmp_path: Path) -> None:
    path = tmp_path / "feed.toml"
    path.write_text(
        '[[source]]\nname = "a"\nformat = "csv"\npath = "x.csv"\nmap = { AAPL = "AAPL.O" }\n'
        '[[source]]\nname = "b"\nformat = "csv"\npath = "x.csv"\n'
    )
    key_of = record_keys(feed_of_file(path, None, None))
    option, weekly = "AAPL  261218C00150000", "SPXW  261218P05000000"
    assert [key_of("a", one) for one in ("AAPL.O", option, weekly)] == ["AAPL.O", "AAPL.O", "SPX"]
    assert [key_of("b", one) for one in ("AAPL", option, "MSFT")] == ["AAPL", "AAPL", "MSFT"]


def test_a_file_that_is_bad_within_says_where(tmp_path: Path) -> None:
    path = tmp_path / "bad.itch"
    path.write_bytes(_itch()[:-3])
    done = run("feed", str(path), "--day", "2026-03-02", "--speed", "0", "--name", "bad")
    assert (done.exit_code, "ends within a message" in done.stderr) == (2, True), done.stderr
