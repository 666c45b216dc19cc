"""Makes the live loop with its Kafka clients, and what runs beside it: tables, Monte Carlo, the breaker."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import gpu_kernels as gk
from protos import topics
from protos.risk.v1.risk_pb2 import RiskAlert
from risk_service import market_events, price_history
from risk_service.analytics import Result
from risk_service.board import RiskBoard
from risk_service.breaker import PortfolioBreaker, WatchedAlerts, logged_alerts
from risk_service.breaker_rule import BreakerRule
from risk_service.desk_books import DeskBooks
from risk_service.desk_premiums import DeskPremiums
from risk_service.desk_risk import DeskRisk
from risk_service.executions import decode_fills
from risk_service.live_loop import LiveLoop, NoOtherProcess, Seat
from risk_service.live_metrics import MetricsWriter
from risk_service.live_readers import LiveReaders
from risk_service.live_risk import ScenarioSource
from risk_service.live_snapshot import SnapshotDesk
from risk_service.live_state import LiveState
from risk_service.market_file import MarketFile
from risk_service.market_state import MarketState
from risk_service.portfolio_log import decode_portfolio, expect_own
from risk_service.portfolios import PortfolioStore
from risk_service.positions import AccountRule, Positions
from risk_service.service_metrics import ServiceMetrics
from risk_service.settings import RiskServiceSettings
from risk_service.slow_process import SlowProcess
from risk_service.slow_risk import SlowRisk
from risk_service.table_process import TableProcess
from risk_service.teller import Teller
from risk_service.worker.fallback import LastingEngine
from service_kit.closing import Resources
from service_kit.errors import SettingError
from service_kit.kafka.appender import Appender
from service_kit.kafka.consumer import Consumer
from service_kit.kafka.control_log import ControlLog
from service_kit.kafka.errors import DeliveryFailed, QueueFull
from service_kit.kafka.lookup import LogLookup
from service_kit.kafka.metrics import KafkaMetrics
from service_kit.kafka.producer import Producer
from service_kit.kafka.records import BEGINNING, Partition
from service_kit.lifecycle import Stop
from service_kit.telemetry.traces import Traces

LOG = logging.getLogger(__name__)

COMMAND_S = 10.0  # for every partition of the venue to answer a command; then it is written again
GROUP = "risk-service"  # names the reader in metrics; every instance reads all partitions by itself


def live_loop(
    settings: RiskServiceSettings,
    engine: gk.Engine,
    producer: Producer,
    metrics: ServiceMetrics,
    kafka_metrics: KafkaMetrics,
    history: price_history.PriceHistory | None,
    tables: TableProcess,
    traces: Traces | None = None,
    seat: Seat | None = None,
) -> LiveLoop:
    """The loop with its readers, from the beginning of every log or from where the market's file ends."""
    risk = settings.risk
    kept = None if risk.market_file is None else MarketFile(risk.market_file, risk.market_file_every_s)
    restored = None if kept is None else kept.restore()
    market, begins = (MarketState(), {}) if restored is None else restored
    readers = _readers(settings, producer, kafka_metrics, begins)
    _check_fills(settings)
    # Tables are made on the CPU whatever engine serves: only it has the interpolants.
    premiums = DeskPremiums(gk.engine("cpu"), tables.make)
    positions = Positions(AccountRule.of(risk.accounts, risk.account_prefix))
    state = LiveState(
        store=PortfolioStore(),
        positions=positions,
        books=DeskBooks(DeskRisk(engine, ScenarioSource(history, risk.history_days_max), premiums)),
        metrics=metrics,
        market=market,
        market_file=kept,
    )
    teller = Teller(
        producer=producer,
        board=RiskBoard(risk.watchers_max),
        writer=MetricsWriter(engine, risk.es_level),
        positions=positions,
        alerts=WatchedAlerts(round(risk.stale_after_s * 1e9), round(risk.option_quotes_stale_after_s * 1e9)),
        metrics=metrics,
        traces=traces or Traces.off(),
        clock_ns=time.time_ns,
    )
    return LiveLoop(
        readers=readers,
        state=state,
        teller=teller,
        desk=SnapshotDesk(risk.snapshots_waiting_max, catching_up=True),
        seat=seat or NoOtherProcess(),
        logged_alerts=lambda: logged_alerts(settings.kafka),
    )


def _readers(
    settings: RiskServiceSettings, producer: Producer, metrics: KafkaMetrics, begins: Mapping[int, int]
) -> LiveReaders:
    """From the beginning, or from where the market's file ends: the state is a function of the log."""
    kafka = settings.kafka
    market = Consumer(
        kafka, [topics.MARKET_DATA_NORMALIZED], GROUP, market_events.decode, producer, metrics=metrics
    )
    portfolios = Consumer(
        kafka,
        [topics.RISK_PORTFOLIOS],
        GROUP,
        decode_portfolio,
        producer,
        metrics=metrics,
        accept=expect_own,
    )
    fills = Consumer(kafka, [topics.ORDERS_EXECUTED], GROUP, decode_fills, producer, metrics=metrics)
    whole = _whole(topics.MARKET_DATA_NORMALIZED)
    market.assign({one: begins.get(one.partition, start) for one, start in whole.items()})
    portfolios.assign(_whole(topics.RISK_PORTFOLIOS))
    fills.assign(_whole(topics.ORDERS_EXECUTED))
    return LiveReaders(market, portfolios, fills, settings.risk.poll_records_max, settings.risk.poll_wait_s)


def _check_fills(settings: RiskServiceSettings) -> None:
    with LogLookup(settings.kafka) as look:
        begins_at = {one: look.bounds(one)[0] for one in _whole(topics.ORDERS_EXECUTED)}
    expect_every_fill(begins_at, partial=settings.risk.partial_fills)


def expect_every_fill(begins_at: Mapping[Partition, int], *, partial: bool) -> None:
    """Raises where a partition of fills does not begin at its beginning; with `partial` it is only said."""
    cut = {one: offset for one, offset in sorted(begins_at.items()) if offset > 0}
    if not cut:
        return
    first, offset = next(iter(cut.items()))
    what = (
        f"{first.topic}[{first.partition}] begins at offset {offset}: the fills before are gone, by the "
        "brokers' retention or by hand, and positions made of the rest are wrong"
    )
    if not partial:
        raise SettingError("risk.partial_fills", f"{what}; true starts nevertheless")
    LOG.error("%s", what)


def start_breaker(
    settings: RiskServiceSettings, loop: LiveLoop, appender: Appender, stop: Stop, resources: Resources
) -> None:
    """Has the portfolios with a capital watched."""
    rule = BreakerRule.of(settings.risk.capital, settings.risk.breaker_loss, settings.risk.breaker_reset)
    alerts = loop.teller.alerts
    if not rule.losses or not isinstance(alerts, WatchedAlerts):
        return
    commands = ControlLog(settings.kafka, appender)
    alerts.breaker = breaker = PortfolioBreaker(
        rule=rule,
        accounts=loop.state.positions.rule,
        send=lambda batches: commands.send(batches, COMMAND_S),
        publish=lambda alert: _log_alert(appender, alert),
    )

    def run() -> None:
        try:
            breaker.run(stop)
        except Exception as failure:  # noqa: BLE001 - the thread's edge; the process ends with it
            loop.failure = failure
            stop.set("the breaker failed")

    resources.add("breaker", _thread("breaker", run).join, recovers=True)


def _log_alert(appender: Appender, alert: RiskAlert) -> None:
    appender.append(topics.RISK_ALERTS, alert.portfolio, alert.SerializeToString())


def _whole(name: str) -> dict[Partition, int]:
    topic = next(topic for topic in topics.TOPICS if topic.name == name)
    return {Partition(name, number): BEGINNING for number in range(topic.partitions)}


def start_slow(loop: LiveLoop, engine: gk.Engine, level: float, stop: Stop, resources: Resources) -> None:
    """Monte Carlo and analytics beside the loop: in a process of their own, or asking the engine's."""
    run: Callable[[], None]
    tell, source = partial(_tell_analytics, loop), loop.state.books.risk.scenarios
    if isinstance(engine, LastingEngine):
        risk = SlowRisk.of(engine, source, level)
        loop.slow, run = risk, partial(risk.run, loop.desk, tell, stop)
    else:
        apart = SlowProcess(loop.desk, engine.name, source, level, tell)
        loop.slow, run = apart, partial(apart.run, stop)
    resources.add("monte carlo", _thread("monte carlo", run).join, recovers=True)


def _tell_analytics(loop: LiveLoop, results: Sequence[Result]) -> None:
    if not loop.tells:
        return
    try:
        for key, value in results:
            loop.teller.producer.send(topics.ANALYTICS_RESULTS, key, value)
    except (DeliveryFailed, QueueFull) as lost:
        LOG.warning("the rest of this second's analytics is not told: %s", lost)


def start_tables(stop: Stop, resources: Resources) -> TableProcess:
    """The process that makes tables, started early: it takes seconds until it can."""
    tables = TableProcess()
    thread = _thread("premium tables", partial(tables.run, stop))

    def close() -> None:
        # What comes after may have failed before anybody was told to stop.
        stop.set("the service ends")
        thread.join()

    resources.add("premium tables", close, recovers=True)
    return tables


def start(loop: LiveLoop, stop: Stop, resources: Resources) -> None:
    """The loop in its thread; its end comes before that of what it reads from."""
    thread = _thread("live loop", partial(loop.run_until_failure, stop))

    def close() -> None:
        stop.set("the service ends")
        thread.join()
        loop.readers.close()
        loop.state.close()

    resources.add("live loop", close, recovers=True)


def _thread(name: str, run: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=run, name=name)
    thread.start()
    return thread
