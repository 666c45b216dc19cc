"""The portfolio breaker over a broker, against the real venue: it stops the accounts, once, and says so."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from book_service.service_metrics import BookMetrics
from book_service.settings import BookServiceSettings, BookSettings
from book_service.venue_loop import VenueLoop
from book_service.wiring import venue_loop
from protos import packing, topics
from protos.orders.v1 import orders_pb2 as orders
from protos.risk.v1.risk_pb2 import RiskAlert, RiskMetrics
from risk_service.breaker import LIMIT, PortfolioBreaker, WatchedAlerts, logged_alerts
from risk_service.breaker_rule import BreakerRule
from risk_service.positions import AccountRule
from service_kit.errors import SettingError, Unavailable
from service_kit.kafka.appender import Appender
from service_kit.kafka.control_log import PARTITIONS, ControlLog
from service_kit.kafka.embedded import EmbeddedBroker
from service_kit.kafka.lookup import LogLookup
from service_kit.kafka.metrics import KafkaMetrics
from service_kit.kafka.partitioning import partition_of
from service_kit.kafka.producer import Producer
from service_kit.kafka.records import Partition
from service_kit.kafka.settings import KafkaSettings
from service_kit.lifecycle import Stop

HOMES = {
    home: next(f"S{n}" for n in range(100) if partition_of(f"S{n}", PARTITIONS) == home)
    for home in range(PARTITIONS)
}
RULE = BreakerRule.of(["desk-7=1000000"])
ACCOUNTS = AccountRule({12: "desk-7", 13: "other"}, "desk-")
WAIT_S = 60.0


class World:
    """A broker, a venue that matches on it, and breakers that watch."""

    def __init__(self, settings: KafkaSettings, loop: VenueLoop) -> None:
        self.settings, self.loop = settings, loop
        self.appender = Appender(settings)
        self.stop, self.threads = Stop(), []
        self.start(loop.run)

    def start(self, run) -> None:
        self.threads.append(threading.Thread(target=run, args=(self.stop,)))
        self.threads[-1].start()

    def breaker(self) -> PortfolioBreaker:
        """One life of risk_service's breaker."""
        breaker = PortfolioBreaker(
            rule=RULE,
            accounts=ACCOUNTS,
            send=lambda batches: ControlLog(self.settings, self.appender).send(batches, WAIT_S),
            publish=lambda alert: self.appender.append(
                topics.RISK_ALERTS, alert.portfolio, alert.SerializeToString()
            ),
        )
        breaker.resume(logged_alerts(self.settings))
        self.start(breaker.run)
        return breaker

    def order(self, home: int, account: int, order_id: int) -> None:
        batch = orders.OrderBatch(symbols=[HOMES[home]], symbol_index=[0])
        for name, value in (
            *(("action", 0), ("order_id", order_id), ("account", account), ("price_ticks", 100)),
            *(("quantity", 5), ("time_ns", 1_000)),
        ):
            packing.write(batch, name, [value])
        self.appender.append(topics.ORDERS_INCOMING, HOMES[home], batch.SerializeToString(), home)

    def alerts(self, count: int) -> list[RiskAlert]:
        """Those of the breaker, once there are so many."""
        while len(found := [one for one in logged_alerts(self.settings) if one.limit == LIMIT]) < count:
            pass
        return found

    def commands(self) -> list[list[int]]:
        """The kinds of the control rows on each partition."""
        found = []
        with LogLookup(self.settings) as look:
            for home in range(PARTITIONS):
                place = Partition(topics.ORDERS_INCOMING, home)
                batches = [
                    orders.OrderBatch.FromString(one.value) for one in look.read(place, *look.bounds(place))
                ]
                found.append([k for b in batches if b.action[0] == orders.ACTION_CONTROL for k in b.kind])
        return found

    def bids(self, home: int) -> list[int]:
        while True:
            try:
                book = self.loop.book(HOMES[home], 5)
            except Unavailable:
                continue
            assert book is not None
            return list(book.bid_orders)

    def close(self) -> None:
        self.stop.set("the test is over")
        for thread in self.threads:
            thread.join()
        self.loop.consumer.close()
        self.appender.close()


@pytest.fixture
def world() -> Iterator[World]:
    with EmbeddedBroker() as broker:
        settings = BookServiceSettings(
            kafka=broker.settings(),
            book=BookSettings(instruments=tuple(f"{one}:0.01:1.0" for one in HOMES.values())),
        )
        metrics = BookMetrics.on(CollectorRegistry())
        kafka = settings.kafka
        world = World(kafka, venue_loop(settings, Producer(kafka), LogLookup(kafka), metrics, KafkaMetrics()))
        try:
            yield world
        finally:
            world.close()


def metrics_of(result: float, portfolio: str = "desk-7", accounts: tuple[int, ...] = (7, 21)) -> RiskMetrics:
    metrics = RiskMetrics(portfolio=portfolio, pnl_realised=result / 2, pnl_unrealised=result / 2)
    metrics.provenance.market_snapshot_id = "0:17"
    metrics.timing.source_time_ns = 5
    packing.write(metrics.filled, "account", list(accounts))
    return metrics


def test_a_portfolio_that_has_lost_too_much_is_stopped_on_every_partition_once(world: World) -> None:
    for home in range(PARTITIONS):
        for account in (7, 12, 13, 21):
            world.order(home, account, account)
    while any(world.bids(home) != [4] for home in range(PARTITIONS)):
        pass
    breaker = world.breaker()
    for result in (-19_999.0, -20_000.0, float("nan"), -20_001.0, -30_000.0, -19_500.0):
        breaker.look(metrics_of(result))
    [raised] = world.alerts(1)
    assert (raised.raised, raised.used, raised.limit_value) == (True, 20_001.0, 20_000.0)
    assert "accounts 7, 12, 21 stopped on 4 partitions, 12 orders cancelled" in raised.text
    assert (raised.market_snapshot_id, raised.time_ns) == ("0:17", 5)
    # Account 13 is another portfolio's; 12 is listed, 7 has the prefix, 21 has fills.
    assert [world.bids(home) for home in range(PARTITIONS)] == [[1]] * PARTITIONS
    kill = [orders.CONTROL_COMMAND_KILL] * 3
    assert world.commands() == [kill] * PARTITIONS

    # The next life sees the same loss and knows what was done.
    second = world.breaker()
    second.look(metrics_of(-25_000.0))
    second.look(metrics_of(-18_000.0))  # below the limit by more than the hysteresis: armed again
    second.look(metrics_of(-26_000.0))
    alerts = world.alerts(3)
    assert [(one.raised, one.used) for one in alerts] == [
        (True, 20_001.0),
        (False, 18_000.0),
        (True, 26_000.0),
    ]
    assert world.commands() == [kill * 2] * PARTITIONS


DAY_NS, HOUR_NS = 86_400_000_000_000, 3_600_000_000_000


def at(result: float, hour: float) -> RiskMetrics:
    metrics = metrics_of(result)
    metrics.timing.source_time_ns = 20_000 * DAY_NS + round(hour * HOUR_NS)
    return metrics


def seen_by(breaker: PortfolioBreaker) -> list[tuple[bool, float]]:
    found = []
    while not breaker._seen.empty():
        one = breaker._seen.get()
        found.append((one.over, one.loss))
    return found


def test_losses_count_anew_from_the_time_of_day_by_the_markets_clock_and_over_a_restart() -> None:
    rule = BreakerRule.of(["desk-7=1000000"], 0.02, "17:30")
    logged: list[RiskAlert] = []

    def life() -> PortfolioBreaker:
        made = PortfolioBreaker(rule, ACCOUNTS, lambda batches: [], logged.append)
        made.resume(logged)
        return made

    def note_resets(breaker: PortfolioBreaker) -> None:
        while not breaker._resets.empty():
            logged.append(breaker._resets.get())

    first = life()
    for result, hour in ((-15_000.0, 9.0), (-19_000.0, 17.4)):
        first.look(at(result, hour))
    assert seen_by(first) == [(False, 15_000.0)]
    first.look(at(-30_000.0, 17.5))  # 11,000 since the reset, not 30,000
    assert seen_by(first) == []
    first.look(at(-40_000.0, 18.0))
    assert seen_by(first) == [(True, 21_000.0)]
    note_resets(first)
    second = life()
    second.look(at(-40_000.0, 30.0))  # the next morning, the same day of the breaker's
    assert seen_by(second) == [(True, 21_000.0)]
    second.look(at(-41_000.0, 41.5))  # the day after: from the P&L told last
    assert seen_by(second) == [(False, 1_000.0)]
    note_resets(second)
    assert [(one.used, one.raised, one.subject) for one in logged] == [
        (0.0, False, "breaker_loss counts anew"),
        (19_000.0, False, "breaker_loss counts anew"),
        (40_000.0, False, "breaker_loss counts anew"),
    ]
    # What the alert book of a new life reads of them: nothing that stands.
    alerts = WatchedAlerts(1_000_000_000)
    alerts.restore(logged)
    assert alerts.unknown([]) == []


def test_fills_without_a_price_are_an_alert_of_their_own_while_they_last() -> None:
    breaker = PortfolioBreaker(RULE, ACCOUNTS, lambda batches: [], lambda alert: None)
    alerts = WatchedAlerts(1_000_000_000, breaker=breaker)
    blind = metrics_of(-1_000.0)
    blind.filled.symbol.extend(["AAA", "BBB"])
    packing.write(blind.filled, "realised", [1.0, float("nan")])
    packing.write(blind.filled, "unrealised", [1.0, 2.0])
    (raised,) = [one for one in alerts.update(blind) if one.limit == "breaker_loss"]
    assert raised.raised
    assert raised.text == "1 fills without a price are not in the breaker's loss, the first BBB"
    assert alerts.update(blind) == []
    second = WatchedAlerts(1_000_000_000, breaker=breaker)
    second.restore([raised])
    assert [one.limit for one in second.update(blind)] == []
    (ended,) = second.update(metrics_of(-1_000.0))
    assert (ended.raised, ended.subject) == (False, raised.subject)
    # A portfolio without a breaker has none that could be blind.
    blind.portfolio = "desk-8"
    assert [one for one in alerts.update(blind) if one.limit == "breaker_loss"] == []


@pytest.mark.parametrize("text", ["24:00", "1:30", "12:60", "noon", "12:3²", "-1:00"])
def test_a_time_of_day_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match=r"risk\.breaker_reset"):
        BreakerRule.of(["a=1"], 0.02, text)


def test_what_cannot_be_judged_is_left_alone() -> None:
    sent: list[object] = []
    breaker = PortfolioBreaker(RULE, ACCOUNTS, lambda batches: [], sent.append)
    unfilled = RiskMetrics(portfolio="desk-7", pnl_realised=-1e9)
    for metrics in (unfilled, metrics_of(float("nan")), metrics_of(-1e9, "desk-8")):
        breaker.look(metrics)
    assert breaker._seen.empty()


def test_a_venue_that_does_not_answer_is_asked_until_it_does() -> None:
    tries, published = [], []
    stop = Stop()

    def send(batches):
        tries.append(batches)
        if len(tries) < 2:
            raise Unavailable("not now")
        return []

    def publish(alert):
        published.append(alert)
        stop.set("done")

    breaker = PortfolioBreaker(RULE, ACCOUNTS, send, publish)
    alerts = WatchedAlerts(1_000_000_000, breaker=breaker)
    assert [one.limit for one in alerts.update(metrics_of(-50_000.0))] == []
    breaker.run(stop)
    assert len(tries) == 2
    assert [sorted(one) for one in tries] == [list(range(PARTITIONS))] * 2
    assert [one.raised for one in published] == [True]


@pytest.mark.parametrize("entry", ["desk", "desk=", "desk=-1", "=5", "desk=nan", "desk=inf"])
def test_a_capital_that_is_none_is_refused(entry: str) -> None:
    with pytest.raises(SettingError, match=r"risk\.capital"):
        BreakerRule.of([entry])


def test_a_portfolio_has_one_capital() -> None:
    with pytest.raises(SettingError, match="twice"):
        BreakerRule.of(["a=1", "a=2"])
    assert BreakerRule.of(["a=100", "b = 50"], 0.1).losses == {"a": 10.0, "b": 5.0}
