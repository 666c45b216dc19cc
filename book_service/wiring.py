"""The only place that makes book_service's real clients."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from book_service import order_events, raw_events
from book_service.api.servicer import BookServicer
from book_service.normalise_loop import NormaliseLoop
from book_service.normaliser import Normaliser
from book_service.order_log import KafkaOrderLog
from book_service.service_metrics import BookMetrics
from book_service.settings import BookServiceSettings
from book_service.venue_loop import VenueLoop
from book_service.venue_partitions import VenuePartitions
from protos import topics
from protos.book.v1.book_pb2 import DESCRIPTOR as BOOK
from protos.book.v1.book_pb2_grpc import add_BookServiceServicer_to_server
from service_kit.closing import Resources
from service_kit.errors import ServiceKitError, SettingError
from service_kit.grpc_server.server import GrpcServer
from service_kit.kafka.admin import check_topics
from service_kit.kafka.appender import Appender
from service_kit.kafka.broker_version import all_from_version_4
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.control_log import PARTITIONS, ControlLog
from service_kit.kafka.lookup import LogLookup
from service_kit.kafka.metrics import KafkaMetrics
from service_kit.kafka.producer import Producer
from service_kit.lifecycle import Stop
from service_kit.telemetry.logs import logger
from service_kit.telemetry.metrics import MetricsExporter, process_registry
from service_kit.telemetry.traces import Traces

SERVICE = BOOK.services_by_name["BookService"].full_name
ORDER_PARTITIONS = PARTITIONS
TOPICS = (
    topics.MARKET_DATA_RAW,
    topics.MARKET_DATA_NORMALIZED,
    topics.ORDERS_INCOMING,
    topics.ORDERS_EXECUTED,
)


async def serve(
    settings: BookServiceSettings, stop: Stop, listening: Callable[[int], None] = lambda port: None
) -> None:
    """Runs the service until told to stop; `listening` is given the port once calls are answered."""
    await asyncio.to_thread(check_topics, settings.kafka, TOPICS)
    settings = await asyncio.to_thread(_with_transactions_decided, settings)
    registry = process_registry()
    kafka_metrics = KafkaMetrics(registry)
    metrics = BookMetrics.on(registry)
    failures: list[Exception] = []
    async with Resources(stop=stop) as resources:
        exporter = MetricsExporter(settings.metrics, registry)
        resources.add("metrics", exporter.close)
        traces = Traces.start(settings.traces, "book_service")
        resources.add("traces", traces.close)
        producer = Producer(settings.kafka, metrics=kafka_metrics)
        resources.add("producer", producer.close, recovers=True)
        appender = Appender(settings.kafka)
        resources.add("order log", appender.close, recovers=True)
        executor = ThreadPoolExecutor(thread_name_prefix="calls")
        resources.add("calls", lambda: executor.shutdown(wait=True, cancel_futures=True), recovers=True)
        lookup = LogLookup(settings.kafka)
        resources.add("lookup", lookup.close, recovers=True)
        venue = venue_loop(settings, producer, lookup, metrics, kafka_metrics)
        loops: dict[str, NormaliseLoop | VenueLoop] = {
            "normaliser": _normalise_loop(settings, producer, metrics, kafka_metrics)
        }
        # Without instruments of our own there is nothing to match; market data is normalised all the same.
        if venue.listed:
            loops["venue"] = venue
        stop.started()
        for name, loop in loops.items():
            loop.traces = traces
            resources.add(name, _start(name, loop, stop, failures), recovers=True)
        servicer = BookServicer(
            book=venue.book,
            log=KafkaOrderLog(appender, ORDER_PARTITIONS),
            commands=ControlLog(settings.kafka, appender),
            instruments=tuple(one.symbol for one in venue.listed),
            executor=executor,
            access=settings.book.access(everyone=settings.grpc.auth == "none"),
            has_controls=settings.book.controls,
            money_unit=settings.book.money_unit,
        )
        services = [(add_BookServiceServicer_to_server, servicer, SERVICE)]
        async with GrpcServer(settings.grpc, services, registry=registry, traces=traces) as server:
            listening(server.port)
            await stop.wait_async()
    if failures:
        raise failures[0]


def _start(
    name: str, loop: NormaliseLoop | VenueLoop, stop: Stop, failures: list[Exception]
) -> Callable[[], None]:
    """The loop in its thread; its end comes before that of what it reads from."""

    def run() -> None:
        try:
            loop.run(stop)
        except Exception as failure:  # noqa: BLE001 - the thread's edge; the process ends with it
            if stop.is_set() and isinstance(failure, ServiceKitError):
                logger(name).warning("not done at the end, the next start makes it again", why=str(failure))
                return
            failures.append(failure)
            stop.set(f"the {name} failed")

    thread = threading.Thread(target=run, name=name)
    thread.start()

    def close() -> None:
        stop.set("the service ends")
        thread.join()
        loop.consumer.close()

    return close


def _normalise_loop(
    settings: BookServiceSettings, producer: Producer, metrics: BookMetrics, kafka_metrics: KafkaMetrics
) -> NormaliseLoop:
    book = settings.book
    return NormaliseLoop(
        consumer=Consumer(
            settings.kafka,
            [topics.MARKET_DATA_RAW],
            f"{book.group}.normaliser",
            raw_events.decode,
            producer,
            accept=raw_events.expect_present,
            metrics=kafka_metrics,
        ),
        producer=producer,
        normaliser=Normaliser(book.rules(), book.house_symbols(), book.failover()),
        metrics=metrics,
        poll_records_max=book.poll_records_max,
        poll_wait_s=book.poll_wait_s,
        commit_every_s=book.commit_every_s,
    )


def _with_transactions_decided(settings: BookServiceSettings) -> BookServiceSettings:
    """`always` or `never` for `auto`; SettingError where the brokers are too old for what is asked."""
    wanted = settings.book.transactions
    if wanted == "never" or not settings.book.instruments:
        return settings
    able = all_from_version_4(settings.kafka)
    if wanted == "always" and not able:
        why = f"the brokers at {settings.kafka.bootstrap} are older than version 4 (or the embedded one)"
        raise SettingError("book.transactions", f"always: {why}")
    book = replace(settings.book, transactions="always" if able else "never")
    logger("venue").info("executions", transactions=able)
    return replace(settings, book=book)


def venue_loop(
    settings: BookServiceSettings,
    producer: Producer,
    lookup: LogLookup,
    metrics: BookMetrics,
    kafka_metrics: KafkaMetrics,
) -> VenueLoop:
    """The venue's loop, to be run in a thread; without transactions while that is not decided."""
    book = settings.book
    partitions = VenuePartitions(settings.kafka, book, lookup, lambda: loop.consumer, kafka_metrics)
    loop = VenueLoop(
        make=partitions.make,
        listed=book.listed(),
        metrics=metrics,
        partitions=ORDER_PARTITIONS,
        poll_records_max=book.poll_records_max,
        poll_wait_s=book.poll_wait_s,
        commit_every_s=book.commit_every_s,
        snapshot_every_s=book.snapshot_every_s,
        transactional=book.transactions == "always",
    )
    loop.consumer = Consumer(
        settings.kafka,
        [topics.ORDERS_INCOMING],
        f"{book.group}.venue",
        order_events.decode,
        producer,
        on_assign=loop.taken,
        on_revoke=loop.given_up,
        accept=order_events.expect_present,
        metrics=kafka_metrics,
    )
    return loop
