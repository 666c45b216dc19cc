"""What the live loop tells: numbers to Kafka and to watchers, and alerts as they rise and end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from protos import topics
from protos.risk.v1.risk_pb2 import RiskAlert, RiskMetrics
from risk_service.alerts import AlertBook
from risk_service.board import RiskBoard
from risk_service.market_state import MarketState
from risk_service.service_metrics import ServiceMetrics
from service_kit.kafka.producer import Producer
from service_kit.telemetry.traces import Headers, Traces


@dataclass(frozen=True, slots=True)
class Teller:
    """Used by the live loop's thread."""

    producer: Producer
    board: RiskBoard
    alerts: AlertBook
    metrics: ServiceMetrics
    traces: Traces
    clock_ns: Callable[[], int]

    def publish(self, number: RiskMetrics, hysteresis: float, came: tuple[tuple[str, bytes], ...]) -> None:
        """A book's number; its trace goes on from the headers `came`."""
        number.timing.published_time_ns = self.clock_ns()
        self.board.publish(number)
        with self.traces.span("measure", came) as span:
            headers: Headers = []
            span.inject(headers)
            self.producer.send(topics.RISK_METRICS, number.portfolio, number.SerializeToString(), headers)
        self.alert(number, hysteresis)
        self.metrics.told()
        timing = number.timing
        if timing.source_time_ns:
            late_ns = max(0, timing.published_time_ns - timing.source_time_ns)
            self.metrics.tick_to_risk_seconds.observe(late_ns / 1e9)

    def alert(self, number: RiskMetrics, hysteresis: float) -> None:
        """What a number raises or ends."""
        self._send(self.alerts.update(number, hysteresis))

    def end_alerts(self, name: str, market: MarketState) -> None:
        """Ends what stands for a portfolio that is no more."""
        self._send(self.alerts.forget(name, market.snapshot_id(), market.clocks.source_time_ns))

    def restore(self, logged: Callable[[], Iterable[RiskAlert]]) -> None:
        """What stands is what the log says, and nothing else."""
        self.alerts.clear()
        self.alerts.restore(logged())

    def _send(self, alerts: Iterable[RiskAlert]) -> None:
        for alert in alerts:
            self.producer.send(topics.RISK_ALERTS, alert.portfolio, alert.SerializeToString())
            self.metrics.count_alert(alert)
