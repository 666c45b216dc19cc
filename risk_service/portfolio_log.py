"""Changes of portfolios on risk.portfolios, the compacted topic from which they are restored."""

from __future__ import annotations

from dataclasses import dataclass

from protos import topics
from protos.risk.v1.risk_pb2 import Portfolio
from service_kit.errors import Unavailable
from service_kit.kafka.appender import Appender
from service_kit.kafka.errors import DeliveryFailed


@dataclass(frozen=True, slots=True)
class KafkaPortfolioLog:
    """Writes a change and waits until the brokers have it."""

    appender: Appender

    def put(self, portfolio: Portfolio) -> int:
        """Logs a portfolio; the offset of its record."""
        return self._write(portfolio.portfolio, portfolio.SerializeToString())

    def delete(self, name: str) -> int:
        """Logs a deletion; the offset of its record."""
        return self._write(name, None)

    def _write(self, name: str, value: bytes | None) -> int:
        try:
            return self.appender.append(topics.RISK_PORTFOLIOS, name, value)[1]
        except DeliveryFailed as fault:
            raise Unavailable(f"portfolio {name!r} could not be logged: {fault}", 1.0) from fault
