"""`risk demo`: a synthetic market, book_service, risk_service and a broker on this machine, shown live."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live

from protos import topics
from protos.orders.v1.orders_pb2 import ExecutionBatch
from protos.risk.v1.risk_pb2 import RiskAlert, RiskMetrics
from risk_cli.desk_view import DeskView
from risk_cli.extras import extra_needed
from risk_cli.screen import alert_line, plain_lines, render, timing_line

if TYPE_CHECKING:
    from market_sim.settings import MarketSimSettings
    from risk_cli.processes import Child, Children
    from risk_client import BookClient
    from service_kit.kafka.consumer import Consumer
    from service_kit.kafka.settings import KafkaSettings
    from service_kit.lifecycle import Stop

PORTFOLIOS = 4
POSITIONS = 60
HISTORY_YEARS = 3.0
START_WITHIN_S = 90.0
SCREEN_EVERY_S = 0.2
LINES_EVERY_S = 2.0


def run_demo() -> int:
    """Runs until Ctrl-C, or DEMO_SECONDS after the first live number; the exit status."""
    with extra_needed("demo"):
        import service_kit.kafka.embedded  # noqa: F401
        from service_kit.lifecycle import run_service
    try:
        seconds = float(os.environ.get("DEMO_SECONDS", "0") or 0)
    except ValueError:
        print("risk demo: DEMO_SECONDS must be a number of seconds", file=sys.stderr)
        return 1
    return run_service(lambda stop: Demo(stop, seconds).run(), name="risk demo", stop_within_s=2.9)


@dataclass(slots=True)
class Demo:
    """One run of the demo."""

    stop: Stop
    seconds: float
    view: DeskView = field(default_factory=DeskView)
    _ends_at: float = float("inf")

    def run(self) -> None:
        """Starts everything, shows it, ends everything."""
        from market_sim.settings import MarketSimSettings
        from risk_cli.processes import Children
        from risk_cli.settings import loaded

        settings = loaded(MarketSimSettings)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpu-risk-demo-")))
            kafka = self._broker(stack, settings.kafka)
            _say(f"broker at {kafka.bootstrap}; starting book_service and risk_service")
            children = stack.enter_context(Children(folder))
            environment = _environment(kafka)
            book, risk = _start_services(children, settings, environment, folder)
            for child in (book, risk):
                children.wait_until_listening(child, self.stop, START_WITHIN_S)
            if not self.stop.is_set():
                _put_portfolios(settings, risk.address)
                # The market opens last: no tick should have to wait for a service to start.
                children.start("feed", "feed", environment)
                self._show(stack, children, kafka, settings, book.address)
        self._summary()

    def _broker(self, stack: ExitStack, kafka: KafkaSettings) -> KafkaSettings:
        from service_kit.kafka.admin import ensure_topics
        from service_kit.kafka.embedded import EmbeddedBroker

        if kafka.is_embedded:
            return stack.enter_context(EmbeddedBroker()).settings(kafka)
        ensure_topics(kafka)
        return kafka

    def _show(
        self,
        stack: ExitStack,
        children: Children,
        kafka: KafkaSettings,
        settings: MarketSimSettings,
        book_address: str,
    ) -> None:
        from market_sim.universe import UNIVERSE
        from risk_client import BookClient

        consumer = stack.enter_context(_screen_consumer(kafka))
        books = stack.enter_context(BookClient(book_address))
        symbols = [one.symbol for one in UNIVERSE[: settings.feed.underlyings]]
        if not sys.stdout.isatty():
            for _ in self._turns(children, consumer, books, symbols, LINES_EVERY_S):
                for line in (*plain_lines(self.view), timing_line(self.view)):
                    print(line, flush=True)
            return
        console = Console()
        with Live(console=console, screen=True, auto_refresh=False) as live:
            for _ in self._turns(children, consumer, books, symbols, SCREEN_EVERY_S):
                live.update(render(self.view, "gpu-risk demo — Ctrl-C ends it", console.width), refresh=True)

    def _turns(
        self,
        children: Children,
        consumer: Consumer[bytes],
        books: BookClient,
        symbols: list[str],
        every_s: float,
    ) -> Iterator[None]:
        """Takes in what arrives; one turn for each time that something should be shown."""
        shown_at = float("-inf")
        while not self.stop.is_set() and time.monotonic() < self._ends_at:
            children.check()
            for message in consumer.poll(500, 0.05):
                self._take(message.record.topic, message.value)
            if self.seconds and self._ends_at == float("inf") and self.view.ready:
                self._ends_at = time.monotonic() + self.seconds
            if self.view.ready and time.monotonic() - shown_at >= every_s:
                shown_at = time.monotonic()
                self._take_books(books, symbols)
                yield

    def _take_books(self, books: BookClient, symbols: list[str]) -> None:
        from risk_client import Unavailable

        for symbol in symbols:
            try:
                self.view.take_book(books.get_book(symbol))
            except Unavailable:
                return  # the matching core is still being compiled; the rest of the screen is live

    def _take(self, topic: str, value: bytes) -> None:
        if topic == topics.RISK_METRICS:
            self.view.take_metrics(RiskMetrics.FromString(value))
        elif topic == topics.ORDERS_EXECUTED:
            self.view.take_executions(ExecutionBatch.FromString(value))
        else:
            alert = RiskAlert.FromString(value)
            self.view.take_alert(alert)
            if not sys.stdout.isatty():
                print(alert_line(alert), flush=True)

    def _summary(self) -> None:
        view = self.view
        print(
            f"summary: {view.numbers:,} risk numbers, {view.trades:,} trades, "
            f"{view.alerts_raised:,} alerts; {timing_line(view)}"
        )
        for line in plain_lines(view):
            print(f"summary: {line}")


def _environment(kafka: KafkaSettings) -> dict[str, str]:
    return {
        "GPU_RISK_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "GPU_RISK_KAFKA_FETCH_WAIT_MS_MAX": str(kafka.fetch_wait_ms_max),
        "GPU_RISK_GRPC_PORT": "0",
        "GPU_RISK_LOG_LEVEL": "warning",
    }


def _start_services(
    children: Children, settings: MarketSimSettings, environment: dict[str, str], folder: Path
) -> tuple[Child, Child]:
    from market_sim.wiring import market_feed, write_history

    instruments = market_feed(settings.feed).market.underlyings
    ticks = ",".join(f"{one.symbol}:{one.tick:g}:{one.spot:g}" for one in instruments)
    book = children.start("book_service", "book", environment | {"GPU_RISK_BOOK_INSTRUMENTS": ticks})
    history = folder / "history.csv"
    write_history(settings.feed, history, HISTORY_YEARS)
    risk = children.start("risk_service", "serve", environment | {"GPU_RISK_RISK_HISTORY": str(history)})
    return book, risk


def _put_portfolios(settings: MarketSimSettings, address: str) -> None:
    from market_sim.wiring import market_feed
    from risk_client import RiskClient

    with RiskClient(address) as client:
        for portfolio in market_feed(settings.feed).portfolios(PORTFOLIOS, POSITIONS):
            client.put_portfolio(portfolio)
    _say(f"{PORTFOLIOS} portfolios of {POSITIONS} positions put; opening the market")


def _screen_consumer(kafka: KafkaSettings) -> Consumer[bytes]:
    from service_kit.kafka.consumer import Consumer
    from service_kit.kafka.records import BEGINNING, Partition

    shown = (topics.RISK_METRICS, topics.RISK_ALERTS, topics.ORDERS_EXECUTED)
    consumer = Consumer(kafka, shown, "demo-screen", bytes)
    consumer.assign(
        {
            Partition(topic.name, number): BEGINNING
            for topic in topics.TOPICS
            if topic.name in shown
            for number in range(topic.partitions)
        }
    )
    return consumer


def _say(line: str) -> None:
    print(f"risk demo: {line}", file=sys.stderr, flush=True)
