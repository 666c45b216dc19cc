"""`risk book show` against a running `risk book`: orders go in over Kafka, the depth comes out right."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from desk_files import run
from rich.console import Console

from protos import packing, topics
from protos.book.v1.book_pb2 import Book
from protos.market.v1.market_pb2 import SIDE_BUY, SIDE_SELL, TRADING_STATE_HALTED
from protos.orders.v1.orders_pb2 import OrderBatch
from risk_cli.book.drawing import drawn
from risk_cli.book.ladder import ladder_of
from service_kit.kafka.embedded import EmbeddedBroker
from service_kit.kafka.producer import Producer
from tests.end_to_end.running import Service, until

# Price in ticks, quantity; of a tick of 0.05.
BIDS = ((2000, 7), (1999, 11), (1999, 4), (1990, 100))
ASKS = ((2003, 9), (2005, 1), (2005, 2))


def _orders(symbol: str) -> OrderBatch:
    rows = [(SIDE_BUY, *one) for one in BIDS] + [(SIDE_SELL, *one) for one in ASKS]
    batch = OrderBatch(symbols=[symbol])
    for name, values in (
        ("symbol_index", [0]),
        ("order_id", range(1, len(rows) + 1)),
        ("account", [3]),
        ("side", [side for side, _, _ in rows]),
        ("price_ticks", [price for _, price, _ in rows]),
        ("quantity", [quantity for _, _, quantity in rows]),
        ("time_ns", [1_700_000_000_123_000_000 + row for row in range(len(rows))]),
    ):
        packing.write(batch, name, list(values))
    return batch


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A book_service whose book of AAA is known and whose book of BBB is empty."""
    with EmbeddedBroker() as broker:
        settings = broker.settings()
        environment = {
            "GPU_RISK_KAFKA_BOOTSTRAP": settings.bootstrap,
            "GPU_RISK_KAFKA_FETCH_WAIT_MS_MAX": str(settings.fetch_wait_ms_max),
            "GPU_RISK_GRPC_PORT": "0",
            "GPU_RISK_BOOK_INSTRUMENTS": "AAA:0.05,BBB:0.01",
            "GPU_RISK_BOOK_CONTROLS": "false",
        }
        with Service(tmp_path_factory.mktemp("book"), "book", settings=environment) as service:
            where = service.address()
            with Producer(settings) as producer:
                producer.send(topics.ORDERS_INCOMING, "AAA", _orders("AAA").SerializeToString())
                producer.flush()

                def there() -> bool:
                    shown = run("book", "show", "AAA", "--server", where, "--json")
                    return shown.exit_code == 0 and bool(json.loads(shown.stdout)["asks"])

                until(there, "the orders to rest", service)
            yield where


def test_the_numbers_are_the_books(address: str) -> None:
    answer = json.loads(run("book", "show", "AAA", "--server", address, "--json").stdout)
    assert [(b["price_ticks"], b["quantity"], b["orders"], b["up_to_here"]) for b in answer["bids"]] == [
        (2000, 7, 1, 7),
        (1999, 15, 2, 22),
        (1990, 100, 1, 122),
    ]
    assert [(a["price"], a["quantity"]) for a in answer["asks"]] == [
        (pytest.approx(100.15), 9),
        (pytest.approx(100.25), 3),
    ]
    assert (answer["mid"], answer["spread_ticks"]) == (pytest.approx(100.075), 3)
    assert answer["imbalance"] == pytest.approx((122 - 12) / (122 + 12))
    assert answer["as_of"].startswith("orders.incoming ")
    fewer = json.loads(run("book", "show", "AAA", "--server", address, "--json", "--levels", "1").stdout)
    assert (len(fewer["bids"]), len(fewer["asks"])) == (1, 1)


def test_csv_has_a_row_for_each_level(address: str) -> None:
    rows = list(csv.DictReader(io.StringIO(run("book", "show", "AAA", "--server", address, "--csv").stdout)))
    assert [(row["side"], row["level"], row["price_ticks"]) for row in rows] == [
        ("bid", "1", "2000"),
        ("bid", "2", "1999"),
        ("bid", "3", "1990"),
        ("ask", "1", "2003"),
        ("ask", "2", "2005"),
    ]
    empty = run("book", "show", "BBB", "--server", address, "--csv")
    assert (empty.exit_code, empty.stdout.count("\n")) == (0, 1)


def test_a_pipe_gets_plain_rows(address: str) -> None:
    shown = run("book", "show", "AAA", "--server", address).stdout
    assert "mid 100.075" in shown
    assert "spread 3 ticks" in shown
    assert "2023-11-14 22:13:20.123 UTC" in shown
    assert "\x1b" not in shown
    assert "█" not in shown
    rows = [line.split()[:3] for line in shown.splitlines() if line.startswith(("ask", "bid"))]
    assert rows == [
        ["ask", "100.25", "3"],
        ["ask", "100.15", "9"],
        ["bid", "100.00", "7"],
        ["bid", "99.95", "15"],
        ["bid", "99.50", "100"],
    ]


def test_the_picture_is_a_picture(address: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    png = tmp_path / "aaa.png"
    assert run("book", "show", "AAA", "--server", address, "--png", str(png)).exit_code == 0
    assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_without_matplotlib_the_extra_is_named(address: str, tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['matplotlib'] = None; sys.modules['matplotlib.figure'] = None\n"
        "from risk_cli.main import main; main()"
    )
    words = ["book", "show", "AAA", "--server", address, "--png", str(tmp_path / "x.png")]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=60)
    assert (done.returncode, "gpu-risk[notebook]" in done.stderr) == (1, True), done.stderr


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("ZZZ",), 2, "ZZZ"),
        (("AAA", "--json", "--csv"), 2, "--csv"),
        (("AAA", "--live"), 2, "no terminal"),
        (("AAA", "--live", "--json"), 2, "--live"),
        (("AAA", "--png", "x.jpg"), 2, ".png"),
        (("BBB", "--png", "x.png"), 2, "empty"),
        (("AAA", "--server", "127.0.0.1:1"), 1, "127.0.0.1:1"),
    ],
)
def test_refusals(address: str, words: tuple[str, ...], status: int, said: str) -> None:
    given = words if "--server" in words else (*words, "--server", address)
    result = run("book", "show", *given)
    assert (result.exit_code, said in result.stderr) == (status, True), result.stderr


def test_on_a_terminal_bars_grow_with_what_stands_up_to_a_level() -> None:
    book = Book(symbol="AAA", tick_size=0.25, state=TRADING_STATE_HALTED)
    for side, rows in (("bid", ((40, 10), (39, 30))), ("ask", ((41, 20),))):
        packing.write(book, f"{side}_price_ticks", [price for price, _ in rows])
        packing.write(book, f"{side}_quantity", [quantity for _, quantity in rows])
        packing.write(book, f"{side}_orders", [1] * len(rows))
    console = Console(width=118, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(drawn(ladder_of(book), 118))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    first, second = (line for line in shown.splitlines() if "10.00" in line or "9.75" in line)
    assert "halted" in shown
    # Full scale is the bids' 40 over 28 columns: 10 are 7, 30 behind 10 are 21 of 28, the ask's 20 are 14.
    assert (first.count("█"), first.count("░")) == (7 + 14, 0)
    assert (second.count("█"), second.count("░")) == (21, 7)
    assert second.index("░") < second.index("█")
