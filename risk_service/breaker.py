"""The breaker of a portfolio: when it has lost its share of its capital, the venue stops its accounts.

Once: what has been done is an alert on risk.alerts, read again at the start. A crash before that alert is
there has the command written once more, which changes nothing on the venue. The breaker is armed again when
the loss is over; the accounts stay stopped until an operator revives them.

Where a time of day is set, losses count anew from there each day, by the market's clock: from the P&L that
was last told before. That P&L is logged as an alert, so that a restart goes on from it. Fills without a price
are not in the loss, which is an alert too.
"""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from protos import topics
from protos.control_commands import ControlRow, control_batch
from protos.orders.v1.orders_pb2 import CONTROL_COMMAND_KILL, OrderBatch
from protos.risk.v1.risk_pb2 import ALERT_KIND_LIMIT_BREACHED, RiskAlert, RiskMetrics
from risk_service.alerts import (
    BREAKER_BLIND,
    BREAKER_LIMIT,
    DEFAULT_HYSTERESIS,
    AlertBook,
    What,
    unpriced_fills,
)
from risk_service.breaker_rule import BreakerRule
from risk_service.positions import AccountRule
from service_kit.errors import ServiceKitError
from service_kit.kafka.control_log import PARTITIONS, Acknowledged
from service_kit.kafka.lookup import LogLookup
from service_kit.kafka.records import Partition
from service_kit.kafka.settings import KafkaSettings
from service_kit.lifecycle import Stop

LOG = logging.getLogger("gpu_risk.risk_service")

LIMIT: Final = BREAKER_LIMIT  # as the alerts name it
# Alerts that are read back at a start, of each partition of the topic: about ten megabytes.
READ_BACK: Final = 100_000
RESET: Final = f"{LIMIT} counts anew"  # the subject of the alerts that say from where it does
_TURN_S: Final = 0.1
_AGAIN_S: Final = 1.0  # between tries while the venue does not answer


class _Seen(NamedTuple):
    """A portfolio whose loss is over its limit, or no longer is."""

    portfolio: str
    over: bool
    loss: float
    limit: float
    accounts: tuple[int, ...]
    snapshot_id: str
    time_ns: int


class _Since(NamedTuple):
    """From which P&L a portfolio's loss counts, and in which day."""

    day: int
    pnl: float


@dataclass(slots=True)
class PortfolioBreaker:
    """`look` is cheap and never waits; `run` writes the commands, in a thread of its own."""

    rule: BreakerRule
    accounts: AccountRule
    send: Callable[[Mapping[int, OrderBatch]], list[Acknowledged]]
    publish: Callable[[RiskAlert], None]  # returns when the brokers have it
    clock_ns: Callable[[], int] = time.time_ns
    _since: dict[str, _Since] = field(default_factory=dict)
    _last: dict[str, float] = field(default_factory=dict)  # P&L as told last
    _over: dict[str, bool] = field(default_factory=dict)
    _seen: queue.SimpleQueue[_Seen] = field(default_factory=queue.SimpleQueue)
    _resets: queue.SimpleQueue[RiskAlert] = field(default_factory=queue.SimpleQueue)
    _resumed: queue.SimpleQueue[set[str]] = field(default_factory=queue.SimpleQueue)
    _tripped: set[str] = field(default_factory=set)

    def look(self, metrics: RiskMetrics) -> None:
        """Takes in a portfolio's result. One that cannot be told (a fill without a price) is not judged."""
        limit = self.rule.losses.get(metrics.portfolio)
        if limit is None or not metrics.HasField("filled"):
            return
        pnl = metrics.pnl_realised + metrics.pnl_unrealised
        if math.isnan(pnl):
            return
        loss = self._since_reset(metrics, pnl) - pnl
        was = self._over.get(metrics.portfolio)
        over = loss > (limit * (1.0 - DEFAULT_HYSTERESIS) if was else limit)
        # The first look tells in any case: what an earlier life has tripped may be over by now.
        if over != was:
            self._over[metrics.portfolio] = over
            self._seen.put(
                _Seen(
                    metrics.portfolio,
                    over,
                    loss,
                    limit,
                    self._accounts(metrics),
                    metrics.provenance.market_snapshot_id,
                    metrics.timing.source_time_ns,
                )
            )

    def watches(self, portfolio: str) -> bool:
        """Whether it has a limit."""
        return portfolio in self.rule.losses

    def resume(self, logged: Iterable[RiskAlert]) -> None:
        """Goes on from what an earlier life, or another process meanwhile, has published, oldest first."""
        alerts = list(logged)
        before = dict(self._since)
        for alert in alerts:
            if alert.subject == RESET:
                self._since[alert.portfolio] = _Since(self.rule.day(alert.time_ns), -alert.used)
        for name, since in self._since.items():
            if before.get(name) != since:
                self._last.pop(name, None)  # of before that day
        self._over.clear()
        self._resumed.put(_still_raised(alerts))

    def _since_reset(self, metrics: RiskMetrics, pnl: float) -> float:
        """The P&L from which this one's loss counts. Nobody knows it of a reset that nobody was there for."""
        name, last = metrics.portfolio, self._last.get(metrics.portfolio, pnl)
        self._last[name] = pnl
        if self.rule.reset_ns is None:
            return 0.0
        day, since = self.rule.day(metrics.timing.source_time_ns), self._since.get(name)
        if since is None:
            # The first day that is ever seen counts from nothing.
            since = self._since[name] = _Since(day, 0.0)
            self._resets.put(_reset_alert(metrics, 0.0))
        elif day > since.day:
            since = self._since[name] = _Since(day, last)
            self._resets.put(_reset_alert(metrics, last))
        return since.pnl

    def run(self, stop: Stop) -> None:
        """Until told to stop."""
        while not stop.is_set():
            while not self._resets.empty():
                self._publish_reset(self._resets.get(), stop)
            try:
                seen = self._seen.get(timeout=_TURN_S)
            except queue.Empty:
                continue
            while not self._resumed.empty():
                self._tripped = self._resumed.get()
            while not self._acted(seen) and not stop.wait(_AGAIN_S):
                pass

    def _publish_reset(self, alert: RiskAlert, stop: Stop) -> None:
        while not stop.is_set():
            try:
                return self.publish(alert)
            except ServiceKitError as fault:
                LOG.error("breaker of %s: %s; trying again", alert.portfolio, fault)
                stop.wait(_AGAIN_S)

    def _acted(self, seen: _Seen) -> bool:
        """Whether what was seen has been acted on; else it is tried again, from its beginning."""
        if seen.over == (seen.portfolio in self._tripped):
            return True
        try:
            text = self._kill(seen) if seen.over else "armed again; stopped accounts stay so until revived"
            self.publish(_alert(seen, text))
        except ServiceKitError as fault:
            LOG.error("breaker of %s: %s; trying again", seen.portfolio, fault)
            return False
        (self._tripped.add if seen.over else self._tripped.discard)(seen.portfolio)
        return True

    def _kill(self, seen: _Seen) -> str:
        if not seen.accounts:
            return "lost more than its breaker allows, and has no account that could be stopped"
        rows = [ControlRow(CONTROL_COMMAND_KILL, account) for account in seen.accounts]
        command = control_batch(rows, self.clock_ns(), "risk_service breaker")
        done = self.send(dict.fromkeys(range(PARTITIONS), command))
        cancelled = sum(answer.amount for one in done for answer in one.answers)
        refused = sum(not answer.accepted for one in done for answer in one.answers)
        accounts = ", ".join(map(str, seen.accounts))
        text = f"accounts {accounts} stopped on {len(done)} partitions, {cancelled} orders cancelled"
        return f"{text}; {refused} commands REFUSED: does the venue run with controls?" if refused else text

    def _accounts(self, metrics: RiskMetrics) -> tuple[int, ...]:
        """Every account of the portfolio: those that are listed, its own by the prefix, those with fills."""
        name, rule = metrics.portfolio, self.accounts
        found = {account for account, whose in rule.listed.items() if whose == name}
        number = name.removeprefix(rule.prefix)
        if rule.prefix and name.startswith(rule.prefix) and number.isascii() and number.isdigit():
            found.add(int(number))
        return tuple(sorted(found | set(metrics.filled.account)))


@dataclass(slots=True)
class WatchedAlerts(AlertBook):
    """The alert book, with a breaker that looks at what the book is shown."""

    breaker: PortfolioBreaker | None = None

    def update(self, metrics: RiskMetrics, hysteresis: float = 0.0) -> list[RiskAlert]:
        """The alerts that these metrics raise or end."""
        if self.breaker is not None:
            self.breaker.look(metrics)
        return AlertBook.update(self, metrics, hysteresis)

    def restore(self, logged: Iterable[RiskAlert]) -> None:
        """Takes in what an earlier life has raised and ended, and from where its breaker counted."""
        alerts = list(logged)
        AlertBook.restore(self, alerts)
        if self.breaker is not None:
            self.breaker.resume(alerts)

    def _wrong(self, metrics: RiskMetrics, standing: frozenset[What], hysteresis: float) -> frozenset[What]:
        wrong = AlertBook._wrong(self, metrics, standing, hysteresis) - {BREAKER_BLIND}
        watched = self.breaker is not None and self.breaker.watches(metrics.portfolio)
        return wrong | {BREAKER_BLIND} if watched and unpriced_fills(metrics) else wrong


def logged_alerts(settings: KafkaSettings) -> Iterator[RiskAlert]:
    """The last of risk.alerts, as far as `READ_BACK` goes; those of a portfolio in their order."""
    topic = next(topic for topic in topics.TOPICS if topic.name == topics.RISK_ALERTS)
    with LogLookup(settings) as look:
        for number in range(topic.partitions):
            home = Partition(topic.name, number)
            first, end = look.bounds(home)
            for record in look.read(home, max(first, end - READ_BACK), end):
                with contextlib.suppress(DecodeError):
                    yield RiskAlert.FromString(record.value)


def _still_raised(alerts: Iterable[RiskAlert]) -> set[str]:
    raised: dict[str, bool] = {}
    for alert in alerts:
        if alert.kind == ALERT_KIND_LIMIT_BREACHED and alert.limit == LIMIT and not alert.subject:
            raised[alert.portfolio] = alert.raised
    return {portfolio for portfolio, still in raised.items() if still}


def _reset_alert(metrics: RiskMetrics, pnl: float) -> RiskAlert:
    return RiskAlert(
        portfolio=metrics.portfolio,
        kind=ALERT_KIND_LIMIT_BREACHED,
        limit=LIMIT,
        subject=RESET,
        used=-pnl,
        text=f"{LIMIT} counts from a P&L of {pnl:,.0f}",
        market_snapshot_id=metrics.provenance.market_snapshot_id,
        time_ns=metrics.timing.source_time_ns,
    )


def _alert(seen: _Seen, what: str) -> RiskAlert:
    return RiskAlert(
        portfolio=seen.portfolio,
        kind=ALERT_KIND_LIMIT_BREACHED,
        raised=seen.over,
        limit=LIMIT,
        used=seen.loss,
        limit_value=seen.limit,
        text=f"{LIMIT} {seen.loss:,.0f} of {seen.limit:,.0f}: {what}",
        market_snapshot_id=seen.snapshot_id,
        time_ns=seen.time_ns,
    )
