"""`risk demo`: a synthetic market, book_service, risk_service and a broker on this machine, shown live."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

from protos import topics
from protos.orders.v1.orders_pb2 import ExecutionBatch
from protos.risk.v1.risk_pb2 import RiskAlert, RiskMetrics
from risk_cli.desk_view import DeskView
from risk_cli.extras import extra_needed
from risk_cli.screen import alert_line, plain_lines, render, timing_line

if TYPE_CHECKING:
    from risk_cli.local_system import Addresses, LocalSystem
    from risk_client import BookClient
    from service_kit.kafka.consumer import Consumer
    from service_kit.kafka.settings import KafkaSettings
    from service_kit.lifecycle import Stop

SCREEN_EVERY_S = 0.2
LINES_EVERY_S = 2.0
BOOK_S = 0.5  # a book that takes longer is shown at the next turn


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
        from risk_cli.local_system import LocalSystem

        with LocalSystem(_say) as system:
            addresses = system.start(self.stop)
            if addresses is not None:
                self._show(system, addresses)
        self._summary()

    def _show(self, system: LocalSystem, addresses: Addresses) -> None:
        from market_sim.universe import UNIVERSE
        from risk_client import BookClient

        symbols = [one.symbol for one in UNIVERSE[: system.settings.feed.underlyings]]
        with (
            _screen_consumer(addresses.kafka) as consumer,
            BookClient(addresses.book, deadline_s=BOOK_S) as books,
        ):
            if not sys.stdout.isatty():
                for _ in self._turns(system, consumer, books, symbols, LINES_EVERY_S):
                    for line in (*plain_lines(self.view), timing_line(self.view)):
                        print(line, flush=True)
                return
            console = Console()
            opening = Text("the market opens: waiting for its first risk numbers", style="dim")
            with Live(opening, console=console, screen=True, auto_refresh=False) as live:
                for _ in self._turns(system, consumer, books, symbols, SCREEN_EVERY_S):
                    title = "gpu-risk demo — Ctrl-C ends it"
                    live.update(render(self.view, title, console.width), refresh=True)

    def _turns(
        self,
        system: LocalSystem,
        consumer: Consumer[bytes],
        books: BookClient,
        symbols: list[str],
        every_s: float,
    ) -> Iterator[None]:
        """Takes in what arrives; one turn for each time that something should be shown."""
        shown_at = float("-inf")
        while not self.stop.is_set() and time.monotonic() < self._ends_at:
            system.check()
            for message in consumer.poll(500, 0.05):
                self._take(message.record.topic, message.value)
            if self.seconds and self._ends_at == float("inf") and self.view.ready:
                self._ends_at = time.monotonic() + self.seconds
            if self.view.ready and time.monotonic() - shown_at >= every_s:
                shown_at = time.monotonic()
                self._take_books(books, symbols)
                yield

    def _take_books(self, books: BookClient, symbols: list[str]) -> None:
        from risk_client import DeadlinePassed, Unavailable

        for symbol in symbols:
            if self.stop.is_set():
                return
            try:
                self.view.take_book(books.get_book(symbol))
            except (Unavailable, DeadlinePassed):
                return  # the matching core is still being compiled; the rest of the screen is live

    def _take(self, topic: str, value: bytes) -> None:
        if topic == topics.RISK_METRICS:
            self.view.take_metrics(RiskMetrics.FromString(value))
        elif topic == topics.ORDERS_EXECUTED:
            self.view.take_executions(ExecutionBatch.FromString(value))
        else:
            self.view.take_alert(RiskAlert.FromString(value))
        if not sys.stdout.isatty():
            for alert in self.view.take_news():
                print(alert_line(alert), flush=True)

    def _summary(self) -> None:
        view = self.view
        print(
            f"summary: {view.numbers:,} risk numbers, {view.trades:,} trades, "
            f"{view.alerts_raised:,} alerts; {timing_line(view)}"
        )
        for line in plain_lines(view):
            print(f"summary: {line}")


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
