"""The only place that makes risk_service's real clients."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial

import gpu_kernels as gk
from protos import topics
from protos.risk.v1.risk_pb2 import DESCRIPTOR as RISK
from protos.risk.v1.risk_pb2 import RiskAlert
from protos.risk.v1.risk_pb2_grpc import add_RiskServiceServicer_to_server
from risk_service import engine_metrics, market_events, price_history
from risk_service.admission import Admission
from risk_service.api.access import Access
from risk_service.api.on_demand_plans import OnDemandPlans
from risk_service.api.on_demand_rpcs import OnDemandRpcs
from risk_service.api.option_rpcs import OptionRpcs
from risk_service.api.portfolio_rpcs import PortfolioLog, PortfolioRpcs
from risk_service.api.scenario_requests import ScenarioReader
from risk_service.api.servicer import RiskServicer
from risk_service.api.work import Work
from risk_service.board import RiskBoard
from risk_service.breaker import BreakerRule, PortfolioBreaker, WatchedAlerts, logged_alerts
from risk_service.desk_books import DeskBooks
from risk_service.desk_premiums import DeskPremiums
from risk_service.desk_risk import DeskRisk
from risk_service.device_health import DeviceCollector, DeviceWatch
from risk_service.engines import Engines
from risk_service.live_loop import LiveLoop, decode_portfolio
from risk_service.live_metrics import MetricsWriter
from risk_service.live_risk import ScenarioSource
from risk_service.live_snapshot import SnapshotDesk
from risk_service.market_file import MarketFile
from risk_service.market_state import MarketState
from risk_service.on_demand.patient_engine import Limits
from risk_service.portfolio_log import KafkaPortfolioLog
from risk_service.portfolios import PortfolioStore
from risk_service.positions import AccountRule, Positions, decode_fills
from risk_service.service_metrics import ServiceMetrics
from risk_service.settings import RiskServiceSettings
from risk_service.slow_process import SlowProcess
from risk_service.slow_risk import SlowRisk
from risk_service.worker.fallback import LastingEngine
from service_kit.closing import Resources
from service_kit.errors import CallError, InvalidRequest, NotSupported
from service_kit.grpc_server.server import GrpcServer
from service_kit.kafka.admin import check_broker
from service_kit.kafka.appender import Appender
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.control_log import ControlLog
from service_kit.kafka.metrics import KafkaMetrics
from service_kit.kafka.producer import Producer
from service_kit.kafka.records import BEGINNING, Partition
from service_kit.lifecycle import Stop
from service_kit.telemetry.metrics import MetricsExporter, process_registry
from service_kit.telemetry.traces import Traces

SERVICE = RISK.services_by_name["RiskService"].full_name
SWITCH_S = 0.001
# What a health check asks for to learn whether the engine itself answers, and how often that is looked at.
ENGINE_HEALTH = "gpu_risk.engine"
HEALTH_EVERY_S = 0.5
COMMAND_S = 10.0  # for every partition of the venue to answer a command; then it is written again
GROUP = "risk-service"  # names the reader in metrics; every instance reads all partitions by itself


def translate(error: Exception) -> CallError | None:
    """What a caller is told of an error of the kernels."""
    if isinstance(error, gk.InvalidInput):
        return InvalidRequest(error.field, error.reason, error.row)
    if isinstance(error, gk.EngineUnavailable):
        return NotSupported(str(error))
    return None


async def serve(
    settings: RiskServiceSettings, stop: Stop, listening: Callable[[int], None] = lambda port: None
) -> None:
    """Runs the service until told to stop; `listening` is given the port once calls are answered."""
    check_broker(settings.kafka)
    history = None if settings.risk.history is None else price_history.read(settings.risk.history)
    # The event loop answers within milliseconds though threads compute: by default each of them may keep the
    # interpreter for 5 ms before the next has its turn.
    sys.setswitchinterval(SWITCH_S)
    registry = process_registry()
    kafka_metrics = KafkaMetrics(registry)
    async with Resources() as resources:
        engines = await asyncio.to_thread(Engines.start, settings.risk.engine, settings.risk.engine_process)
        resources.add("engines", engines.close)
        await asyncio.to_thread(engines.warm_up)
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
            settings, engines.live, producer, ServiceMetrics.on(registry), kafka_metrics, history
        )
        loop.traces = traces
        if loop.market_file is not None:
            resources.add("market file", loop.market_file.close)
        resources.add("market consumer", loop.market_consumer.close)
        resources.add("portfolio consumer", loop.portfolio_consumer.close)
        resources.add("fill consumer", loop.fill_consumer.close)
        source = loop.desk_books.risk.scenarios
        resources.add("monte carlo", _start_slow(loop, engines.live, source, settings.risk.es_level, stop))
        _start_breaker(settings, loop, appender, stop, resources)
        thread = _start(loop, stop)
        resources.add("live loop", thread.join)
        log = KafkaPortfolioLog(appender)
        devices = DeviceWatch().start()
        resources.add("device health", devices.close)
        DeviceCollector(devices).register(registry)
        servicer = risk_servicer(settings, engines, loop, log, executor, history, devices)
        engine_metrics.export(registry, engines, servicer.options.work.admission, servicer.options.gathering)
        server = GrpcServer(
            settings.grpc,
            [(add_RiskServiceServicer_to_server, servicer, SERVICE)],
            registry=registry,
            traces=traces,
            translate=translate,
        )
        async with server:
            health = asyncio.create_task(_tell_health(server, engines))
            listening(server.port)
            await stop.wait_async()
            health.cancel()
    if loop.failure is not None:
        raise loop.failure


async def _tell_health(server: GrpcServer, engines: Engines) -> None:
    """Says in health whether the serving engine answers itself; the service does in either case."""
    while True:
        await server.set_serving(ENGINE_HEALTH, engines.ready)
        await asyncio.sleep(HEALTH_EVERY_S)


def risk_servicer(
    settings: RiskServiceSettings,
    engines: Engines,
    loop: LiveLoop,
    log: PortfolioLog,
    executor: Executor,
    history: price_history.PriceHistory | None,
    devices: DeviceWatch | None = None,
) -> RiskServicer:
    """The servicer over a live loop; call from the event loop that serves it."""
    risk = settings.risk
    # Where callers are not told apart nobody has a share.
    share = 1.0 if settings.grpc.auth == "none" else risk.backlog_share_max
    work = Work(executor, Admission(risk.backlog_s_max, share))
    access = Access(
        readers=frozenset(risk.readers),
        writers=frozenset(risk.writers),
        everyone=settings.grpc.auth == "none",
    )
    limits = Limits(
        request_revaluations_max=risk.revaluations_per_request_max,
        answer_values_max=risk.values_per_answer_max,
    )
    portfolios = PortfolioRpcs(loop.store, loop.board, log, access, work)
    return RiskServicer(
        engines=engines,
        devices=devices or DeviceWatch(),
        options=OptionRpcs(engines, work, risk.rows_per_request_max, settings.grpc.max_message_bytes),
        portfolios=portfolios,
        on_demand=OnDemandRpcs(
            engines=engines,
            plans=OnDemandPlans(
                engines=engines,
                portfolios=portfolios,
                scenarios=ScenarioReader(history, risk.history_days_max, limits.scenario_values_max),
                limits=limits,
            ),
            desk=loop.desk,
            limits=limits,
            work=work,
        ),
    )


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
    # From the beginning, or from where the file ends: the state is a function of the log.
    kept = None if risk.market_file is None else MarketFile(risk.market_file, risk.market_file_every_s)
    restored = None if kept is None else kept.restore()
    state, begins = (MarketState(), {}) if restored is None else restored
    whole = _whole(topics.MARKET_DATA_NORMALIZED)
    market.assign({one: begins.get(one.partition, start) for one, start in whole.items()})
    portfolios.assign(_whole(topics.RISK_PORTFOLIOS))
    fills = Consumer(
        settings.kafka, [topics.ORDERS_EXECUTED], GROUP, decode_fills, producer, metrics=kafka_metrics
    )
    fills.assign(_whole(topics.ORDERS_EXECUTED))
    # Tables are made on the CPU whatever engine serves: only it has the interpolants.
    background = ThreadPoolExecutor(1, thread_name_prefix="premium tables")
    premiums = DeskPremiums(gk.engine("cpu"), background)
    return LiveLoop(
        market_consumer=market,
        portfolio_consumer=portfolios,
        producer=producer,
        fill_consumer=fills,
        positions=Positions(AccountRule.of(risk.accounts, risk.account_prefix)),
        store=PortfolioStore(),
        board=RiskBoard(risk.watchers_max),
        desk_books=DeskBooks(DeskRisk(engine, ScenarioSource(history, risk.history_days_max), premiums)),
        writer=MetricsWriter(engine, risk.es_level),
        alerts=WatchedAlerts(round(risk.stale_after_s * 1e9)),
        metrics=metrics,
        desk=SnapshotDesk(risk.snapshots_waiting_max),
        poll_records_max=risk.poll_records_max,
        poll_wait_s=risk.poll_wait_s,
        market=state,
        market_file=kept,
    )


def _start_breaker(
    settings: RiskServiceSettings, loop: LiveLoop, appender: Appender, stop: Stop, resources: Resources
) -> None:
    """Has the portfolios with a capital watched."""
    rule = BreakerRule.of(settings.risk.capital, settings.risk.breaker_loss)
    if not rule.losses or not isinstance(loop.alerts, WatchedAlerts):
        return
    commands = ControlLog(settings.kafka, appender)
    loop.alerts.breaker = breaker = PortfolioBreaker(
        rule=rule,
        accounts=loop.positions.rule,
        send=lambda batches: commands.send(batches, COMMAND_S),
        publish=lambda alert: _log_alert(appender, alert),
        standing=lambda: logged_alerts(settings.kafka),
    )

    def run() -> None:
        try:
            breaker.run(stop)
        except Exception as failure:  # noqa: BLE001 - the thread's edge; the process ends with it
            loop.failure = failure
            stop.set("the breaker failed")

    thread = threading.Thread(target=run, name="breaker")
    thread.start()
    resources.add("breaker", thread.join)


def _log_alert(appender: Appender, alert: RiskAlert) -> None:
    appender.append(topics.RISK_ALERTS, alert.portfolio, alert.SerializeToString())


def _whole(name: str) -> dict[Partition, int]:
    topic = next(topic for topic in topics.TOPICS if topic.name == name)
    return {Partition(name, number): BEGINNING for number in range(topic.partitions)}


def _start_slow(
    loop: LiveLoop, engine: gk.Engine, source: ScenarioSource, level: float, stop: Stop
) -> Callable[[], None]:
    """Monte Carlo beside the loop: in a process of its own, or asking the engine's."""
    run: Callable[[], None]
    if isinstance(engine, LastingEngine):
        risk = SlowRisk.of(engine, source, level)
        loop.slow, run = risk, partial(risk.run, loop.desk, stop)
    else:
        apart = SlowProcess(loop.desk, engine.name, source, level)
        loop.slow, run = apart, partial(apart.run, stop)
    thread = threading.Thread(target=run, name="monte carlo")
    thread.start()
    return thread.join


def _start(loop: LiveLoop, stop: Stop) -> threading.Thread:
    thread = threading.Thread(target=loop.run_until_failure, args=(stop,), name="live loop")
    thread.start()
    return thread
