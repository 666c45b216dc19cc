"""Puts risk_service together; with `live_wiring` the only place that makes its real clients."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace

from prometheus_client import CollectorRegistry

import gpu_kernels as gk
from protos import topics
from protos.risk.v1.risk_pb2 import DESCRIPTOR as RISK
from protos.risk.v1.risk_pb2_grpc import add_RiskServiceServicer_to_server
from risk_service import engine_metrics, live_health, live_wiring, price_history
from risk_service.admission import Admission
from risk_service.api.access import Access
from risk_service.api.on_demand_plans import OnDemandPlans
from risk_service.api.on_demand_rpcs import OnDemandRpcs
from risk_service.api.option_rpcs import OptionRpcs
from risk_service.api.portfolio_limits import PortfolioLimits
from risk_service.api.portfolio_rpcs import PortfolioLog, PortfolioRpcs
from risk_service.api.scenario_requests import ScenarioReader
from risk_service.api.servicer import RiskServicer
from risk_service.api.work import Work
from risk_service.device_health import DeviceCollector, DeviceWatch
from risk_service.engines import Engines
from risk_service.live_loop import LiveLoop
from risk_service.on_demand.patient_engine import Limits
from risk_service.portfolio_log import KafkaPortfolioLog
from risk_service.service_metrics import ServiceMetrics
from risk_service.settings import RiskServiceSettings
from service_kit.closing import Resources
from service_kit.errors import CallError, InvalidRequest, NotSupported, ServiceKitError
from service_kit.grpc_server.server import GrpcServer
from service_kit.kafka.admin import check_topics, ensure_topics
from service_kit.kafka.appender import Appender
from service_kit.kafka.metrics import KafkaMetrics
from service_kit.kafka.producer import Producer
from service_kit.kafka.seat import Seat
from service_kit.lifecycle import Stop
from service_kit.memory import keep_memory
from service_kit.spare_memory import give_back_by_itself
from service_kit.telemetry.metrics import MetricsExporter, process_registry
from service_kit.telemetry.traces import Traces

SERVICE = RISK.services_by_name["RiskService"].full_name
TOPICS = (
    topics.MARKET_DATA_NORMALIZED,
    topics.ORDERS_INCOMING,
    topics.ORDERS_EXECUTED,
    topics.RISK_PORTFOLIOS,
    topics.RISK_METRICS,
    topics.RISK_ALERTS,
    topics.ANALYTICS_RESULTS,
)
SWITCH_S = 0.001
# Without it each message goes out by itself: on the embedded broker tick to risk took 10.4 to 11.3 ms in the
# median of three runs, with it 5.5 to 9.5 in five.
ROUND_MS = 1.0
SEAT_GROUP = "risk-service.publisher"
# A broker gives a new group its first members after three seconds, unless it is set otherwise.
SEAT_WAIT_S = 4.0


def prepare_process() -> None:
    """What the process of the service chooses for itself as a whole."""
    # The event loop answers within milliseconds though threads compute: by default each of them may keep the
    # interpreter for 5 ms before the next has its turn.
    sys.setswitchinterval(SWITCH_S)
    # A request of 10,000 options and its answer are 2 MiB of memory: taken anew, 500 page faults.
    keep_memory()


def translate(error: Exception) -> CallError | None:
    """What a caller is told of an error of the kernels."""
    if isinstance(error, gk.InvalidInput):
        return InvalidRequest(error.field, error.reason, error.row)
    if isinstance(error, gk.EngineUnavailable):
        return NotSupported(str(error))
    return None


@dataclass(frozen=True, slots=True)
class _Shared:
    """What several parts of the service work with."""

    registry: CollectorRegistry
    kafka_metrics: KafkaMetrics
    seat: Seat
    traces: Traces
    producer: Producer
    appender: Appender
    executor: ThreadPoolExecutor


async def serve(
    settings: RiskServiceSettings, stop: Stop, listening: Callable[[int], None] = lambda port: None
) -> None:
    """Runs the service until told to stop; `listening` is given the port once calls are answered."""
    await asyncio.to_thread(check_topics, settings.kafka, TOPICS)
    await asyncio.to_thread(ensure_topics, settings.kafka, [topics.RISK_PUBLISHER], dead_letters=False)
    history = None if settings.risk.history is None else price_history.read(settings.risk.history)
    prepare_process()
    registry = process_registry()
    async with Resources(stop=stop) as resources:
        # First, so that a start that takes long, as where kernels are compiled, is seen to be alive.
        exporter = MetricsExporter(settings.metrics, registry)
        resources.add("metrics", exporter.close)
        resources.add("memory", give_back_by_itself(stop).join)
        shared = _shared(settings, registry, resources)
        tables = live_wiring.start_tables(stop, resources)
        engines = await asyncio.to_thread(Engines.start, settings.risk.engine, settings.risk.engine_process)
        resources.add("engines", engines.close)
        await asyncio.to_thread(engines.warm_up)
        loop = live_wiring.live_loop(
            settings,
            engines.live,
            shared.producer,
            ServiceMetrics.on(registry),
            shared.kafka_metrics,
            history,
            tables,
            shared.traces,
            shared.seat,
        )
        stop.started()
        live_wiring.start_slow(loop, engines.live, settings.risk.es_level, stop, resources)
        live_wiring.start_breaker(settings, loop, shared.appender, stop, resources)
        live_wiring.start(loop, stop, resources)
        # Who may not publish yet takes no changes: callers need not find that out by being refused.
        await asyncio.to_thread(shared.seat.wait, SEAT_WAIT_S)
        failed = await _answer(settings, loop, engines, shared, history, stop, resources, listening)
    # What brokers that are away leave undone after the stop, the next start makes again.
    if loop.failure is not None and (failed or not isinstance(loop.failure, ServiceKitError)):
        raise loop.failure


def _shared(settings: RiskServiceSettings, registry: CollectorRegistry, resources: Resources) -> _Shared:
    kafka = settings.kafka
    metrics = KafkaMetrics(registry)
    # Left when all is written, so that the next process tells nothing before that.
    seat = Seat(kafka, topics.RISK_PUBLISHER.name, SEAT_GROUP).open()
    resources.add("seat", seat.close, recovers=True)
    traces = Traces.start(settings.traces, "risk_service")
    resources.add("traces", traces.close)
    # A round tells every book at once: its messages wait for each other, not for more of them.
    together = replace(kafka, linger_ms=max(kafka.linger_ms, ROUND_MS))
    producer = Producer(together, metrics=metrics)
    resources.add("producer", producer.close, recovers=True)
    appender = Appender(kafka)
    resources.add("portfolio log", appender.close, recovers=True)
    executor = ThreadPoolExecutor(thread_name_prefix="compute")
    resources.add("compute", lambda: executor.shutdown(wait=True, cancel_futures=True), recovers=True)
    return _Shared(registry, metrics, seat, traces, producer, appender, executor)


async def _answer(
    settings: RiskServiceSettings,
    loop: LiveLoop,
    engines: Engines,
    shared: _Shared,
    history: price_history.PriceHistory | None,
    stop: Stop,
    resources: Resources,
    listening: Callable[[int], None],
) -> bool:
    """Answers calls until told to stop; whether the loop had failed by then."""
    devices = DeviceWatch().start()
    resources.add("device health", devices.close)
    DeviceCollector(devices).register(shared.registry)
    log = KafkaPortfolioLog(shared.appender)
    servicer = risk_servicer(settings, engines, loop, log, shared.executor, history, devices)
    live_health.export(shared.registry, loop)
    engine_metrics.export(
        shared.registry, engines, servicer.options.work.admission, servicer.options.gathering
    )
    server = GrpcServer(
        settings.grpc,
        [(add_RiskServiceServicer_to_server, servicer, SERVICE)],
        registry=shared.registry,
        traces=shared.traces,
        translate=translate,
        serving=False,
    )
    async with server:
        health = asyncio.create_task(live_health.tell(server, SERVICE, loop, engines, devices))
        listening(server.port)
        engines.survey()  # in the background, so that who asks first need not wait
        await stop.wait_async()
        failed = loop.failure is not None
        health.cancel()
    return failed


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
        fills=loop.state.positions.rule,
    )
    limits = Limits(
        request_revaluations_max=risk.revaluations_per_request_max,
        answer_values_max=risk.values_per_answer_max,
    )
    held = PortfolioLimits(
        portfolios=risk.portfolios_max,
        positions=risk.positions_max,
        underlyings=risk.portfolio_underlyings_max,
        portfolios_each=risk.portfolios_per_owner_max,
        positions_each=risk.positions_per_owner_max,
        changed_per_second=risk.positions_put_per_second_max,
    )
    portfolios = PortfolioRpcs(
        store=loop.state.store,
        board=loop.teller.board,
        log=log,
        access=access,
        limits=held,
        no_changes=lambda: loop.no_changes,
        catching_up=lambda: loop.desk.catching_up,
    )
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
