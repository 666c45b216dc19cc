"""The only place that makes risk_service's real clients."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import gpu_kernels as gk
from protos import topics
from protos.risk.v1.risk_pb2 import DESCRIPTOR as RISK
from protos.risk.v1.risk_pb2_grpc import add_RiskServiceServicer_to_server
from risk_service import market_events, price_history
from risk_service.alerts import AlertBook
from risk_service.api.servicer import RiskServicer
from risk_service.board import RiskBoard
from risk_service.engines import Engines
from risk_service.live_loop import LiveLoop, decode_portfolio
from risk_service.live_risk import RiskCalculator, ScenarioSource
from risk_service.portfolio_log import KafkaPortfolioLog
from risk_service.portfolios import PortfolioStore
from risk_service.service_metrics import ServiceMetrics
from risk_service.settings import RiskServiceSettings
from service_kit.closing import Resources
from service_kit.errors import CallError, InvalidRequest
from service_kit.grpc_server.server import GrpcServer
from service_kit.kafka.admin import check_broker
from service_kit.kafka.appender import Appender
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.metrics import KafkaMetrics
from service_kit.kafka.producer import Producer
from service_kit.kafka.records import BEGINNING, Partition
from service_kit.lifecycle import Stop
from service_kit.telemetry.metrics import MetricsExporter, process_registry
from service_kit.telemetry.traces import Traces

SERVICE = RISK.services_by_name["RiskService"].full_name
GROUP = "risk-service"  # names the reader in metrics; every instance reads all partitions by itself


def translate(error: Exception) -> CallError | None:
    """What a caller is told of an error of the kernels."""
    if isinstance(error, gk.InvalidInput):
        return InvalidRequest(error.field, error.reason, error.row)
    return None


async def serve(
    settings: RiskServiceSettings, stop: Stop, listening: Callable[[int], None] = lambda port: None
) -> None:
    """Runs the service until told to stop; `listening` is given the port once calls are answered."""
    check_broker(settings.kafka)
    history = None if settings.risk.history is None else price_history.read(settings.risk.history)
    engines = Engines.probe(settings.risk.engine)
    await asyncio.to_thread(engines.serving.warm_up)
    registry = process_registry()
    kafka_metrics = KafkaMetrics(registry)
    async with Resources() as resources:
        exporter = MetricsExporter(settings.metrics, registry)
        resources.add("metrics", exporter.close)
        traces = Traces.start(settings.traces, "risk_service")
        resources.add("traces", traces.close)
        producer = Producer(settings.kafka, metrics=kafka_metrics)
        resources.add("producer", producer.close)
        appender = Appender(settings.kafka)
        resources.add("portfolio log", appender.close)
        executor = ThreadPoolExecutor(thread_name_prefix="compute")
        resources.add("compute", lambda: executor.shutdown(wait=True, cancel_futures=True))
        loop = _live_loop(
            settings, engines.serving, producer, ServiceMetrics.on(registry), kafka_metrics, history
        )
        resources.add("market consumer", loop.market_consumer.close)
        resources.add("portfolio consumer", loop.portfolio_consumer.close)
        thread = _start(loop, stop)
        resources.add("live loop", thread.join)
        servicer = RiskServicer(
            engines=engines,
            store=loop.store,
            board=loop.board,
            log=KafkaPortfolioLog(appender),
            executor=executor,
            rows_per_request_max=settings.risk.rows_per_request_max,
        )
        server = GrpcServer(
            settings.grpc,
            [(add_RiskServiceServicer_to_server, servicer, SERVICE)],
            registry=registry,
            traces=traces,
            translate=translate,
        )
        async with server:
            listening(server.port)
            await stop.wait_async()
    if loop.failure is not None:
        raise loop.failure


def _live_loop(
    settings: RiskServiceSettings,
    engine: gk.Engine,
    producer: Producer,
    metrics: ServiceMetrics,
    kafka_metrics: KafkaMetrics,
    history: price_history.PriceHistory | None,
) -> LiveLoop:
    risk = settings.risk
    market = Consumer(
        settings.kafka,
        [topics.MARKET_DATA_NORMALIZED],
        GROUP,
        market_events.decode,
        producer,
        metrics=kafka_metrics,
    )
    portfolios = Consumer(
        settings.kafka, [topics.RISK_PORTFOLIOS], GROUP, decode_portfolio, producer, metrics=kafka_metrics
    )
    # From the beginning at every start: the state is a function of the whole log that the broker keeps.
    market.assign(_whole(topics.MARKET_DATA_NORMALIZED))
    portfolios.assign(_whole(topics.RISK_PORTFOLIOS))
    return LiveLoop(
        market_consumer=market,
        portfolio_consumer=portfolios,
        producer=producer,
        store=PortfolioStore(),
        board=RiskBoard(risk.watchers_max),
        calculator=RiskCalculator(engine, ScenarioSource(history, risk.history_days_max), risk.es_level),
        alerts=AlertBook(round(risk.stale_after_s * 1e9)),
        metrics=metrics,
        poll_records_max=risk.poll_records_max,
        poll_wait_s=risk.poll_wait_s,
    )


def _whole(name: str) -> dict[Partition, int]:
    topic = next(topic for topic in topics.TOPICS if topic.name == name)
    return {Partition(name, number): BEGINNING for number in range(topic.partitions)}


def _start(loop: LiveLoop, stop: Stop) -> threading.Thread:
    thread = threading.Thread(target=loop.run_until_failure, args=(stop,), name="live loop")
    thread.start()
    return thread
