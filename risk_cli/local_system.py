"""The whole system on this machine: a broker, both services, portfolios and a market that ticks.

The demo shows it, the notebook asks it. It needs no Kafka: without a broker in the settings the one that the
client library brings along is started, in memory.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from market_sim.settings import MarketSimSettings
from risk_cli.processes import Child, Children
from risk_cli.settings import loaded
from service_kit.kafka.settings import KafkaSettings
from service_kit.lifecycle import Stop

if TYPE_CHECKING:
    from protos.risk.v1.risk_pb2 import Portfolio

PORTFOLIOS = 4
POSITIONS = 60
HISTORY_YEARS = 3.0
# With a cold cache of kernels on a busy machine; warm it is a few seconds.
START_WITHIN_S = 300.0
SOON_S = 10.0


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where its parts answer."""

    kafka: KafkaSettings
    book: str
    risk: str


class LocalSystem:
    """Started once, ended with the `with`; its processes end when this one does."""

    def __init__(self, say: Callable[[str], None] = print) -> None:
        self.settings = loaded(MarketSimSettings)
        self._say = say
        self._stack = ExitStack()
        self._children: Children | None = None

    def start(self, stop: Stop | None = None) -> Addresses | None:
        """Starts everything and puts the portfolios; None if it was stopped meanwhile."""
        stop = stop or Stop()
        if stop.is_set():
            return None
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="gpu-risk-")))
        kafka = self._broker()
        self._say(f"broker at {kafka.bootstrap}; starting book_service and risk_service")
        if stop.is_set():
            return None
        self._children = children = self._stack.enter_context(Children(folder))
        environment = _environment(kafka)
        book, risk = _start_services(children, self.settings, environment, folder)
        late = threading.Timer(SOON_S, self._say, ["compiling the kernels for this machine, once"])
        late.daemon = True
        late.start()
        try:
            for child in (book, risk):
                children.wait_until_listening(child, stop, START_WITHIN_S)
        finally:
            late.cancel()
        if stop.is_set():
            return None
        portfolios = self._put_portfolios(risk.address)
        self._say(f"{len(portfolios)} portfolios of {POSITIONS} positions put; opening the market")
        # The market opens last: no tick should have to wait for a service to start.
        children.start("feed", "feed", environment)
        return Addresses(kafka, book.address, risk.address)

    def check(self) -> None:
        """Raises when a process has ended."""
        if self._children is not None:
            self._children.check()

    def close(self) -> None:
        """Ends everything."""
        self._stack.close()

    def __enter__(self) -> LocalSystem:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _broker(self) -> KafkaSettings:
        from service_kit.kafka.admin import ensure_topics
        from service_kit.kafka.embedded import EmbeddedBroker

        kafka = self.settings.kafka
        if kafka.is_embedded:
            return self._stack.enter_context(EmbeddedBroker()).settings(kafka)
        ensure_topics(kafka)
        return kafka

    def _put_portfolios(self, address: str) -> list[Portfolio]:
        from market_sim.wiring import market_feed
        from risk_client import RiskClient

        portfolios = list(market_feed(self.settings.feed).portfolios(PORTFOLIOS, POSITIONS))
        with RiskClient(address) as client:
            for portfolio in portfolios:
                client.put_portfolio(portfolio)
        return portfolios


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
