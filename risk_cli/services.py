"""`risk serve`, `risk book` and `risk feed`: settings in, one service process out.

Once a service answers calls it prints one line on stdout, `NAME listening on HOST:PORT`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from risk_cli.extras import extra_needed
from risk_cli.interrupts import on_signal

if TYPE_CHECKING:
    from service_kit.kafka.settings import KafkaSettings


def run_risk_service(toml: Path | None) -> NoReturn:
    """Runs risk_service until a signal."""
    # Read when NumPy is loaded, here and in the processes that the service starts. Threads of OpenBLAS wait
    # for each other by spinning, on cores that the live loop needs. The service has threads of its own.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with on_signal(_end):
        with extra_needed("serve"):
            from risk_service.settings import RiskServiceSettings
            from risk_service.wiring import serve
        _run("risk_service", RiskServiceSettings, toml, serve)


def run_book_service(toml: Path | None) -> NoReturn:
    """Runs book_service until a signal."""
    with on_signal(_end):
        with extra_needed("book"):
            from book_service.settings import BookServiceSettings
            from book_service.wiring import serve
        _run("book_service", BookServiceSettings, toml, serve)


def run_feed_service(toml: Path | None) -> NoReturn:
    """Runs the synthetic market until a signal."""
    with extra_needed("feed"):
        from market_sim.settings import MarketSimSettings
        from market_sim.wiring import run_feed
        from risk_cli.settings import loaded
        from service_kit.lifecycle import Stop, run_process

    def main(stop: Stop) -> None:
        settings = loaded(MarketSimSettings, toml)
        _expect_broker("feed", settings.kafka)
        run_feed(settings, stop)

    run_process(main, name="feed")


def make_topics(toml: Path | None) -> NoReturn:
    """Makes the topics that are missing and names them."""
    with extra_needed("topics"):
        from market_sim.settings import MarketSimSettings
        from protos import topics
        from risk_cli.settings import loaded
        from service_kit.kafka.admin import ensure_topics
        from service_kit.lifecycle import Stop, run_process

    def main(_: Stop) -> None:
        kafka = loaded(MarketSimSettings, toml).kafka
        _expect_broker("topics", kafka)
        made = ensure_topics(kafka) + ensure_topics(kafka, [topics.RISK_PUBLISHER], dead_letters=False)
        print("\n".join(made) if made else "every topic is there")

    run_process(main, name="topics")


def _end() -> NoReturn:
    """A service that is still being loaded has nothing to end in order, and nothing failed."""
    os._exit(0)


def _expect_broker(command: str, kafka: KafkaSettings) -> None:
    """Tells a newcomer what to set, before anything is started."""
    from service_kit.errors import SettingError

    if kafka.is_embedded:
        raise SettingError(
            "kafka.bootstrap",
            f"is not given, and `risk {command}` needs a Kafka broker: "
            f'GPU_RISK_KAFKA_BOOTSTRAP=HOST:9092 risk {command}, or bootstrap = "HOST:9092" under [kafka] of '
            "a TOML file for --settings. `risk demo` runs everything on this machine without one",
        )


def _run(
    name: str,
    settings_class: type[Any],
    toml: Path | None,
    serve: Callable[[Any, Any, Callable[[int], None]], Coroutine[Any, Any, None]],
) -> NoReturn:
    from risk_cli.settings import loaded
    from service_kit.lifecycle import Stop, asynchronous, run_process
    from service_kit.telemetry.logs import start_logs

    async def main(stop: Stop) -> None:
        settings = loaded(settings_class, toml)
        _expect_broker({"risk_service": "serve"}.get(name, "book"), settings.kafka)
        start_logs(settings.log, name)

        def listening(port: int) -> None:
            print(f"{name} listening on {settings.grpc.host}:{port}", flush=True)

        await serve(settings, stop, listening)

    run_process(asynchronous(main), name=name, starting=True)
