"""Changes of portfolios on risk.portfolios, the compacted topic from which they are restored."""

from __future__ import annotations

from dataclasses import dataclass

from protos import topics
from protos.risk.v1.risk_pb2 import Portfolio
from risk_service.portfolios import check
from service_kit.errors import InvalidRequest, Unavailable
from service_kit.kafka.appender import Appender
from service_kit.kafka.errors import DeliveryFailed, RecordTooLarge
from service_kit.kafka.records import Record

# Of a record that somebody else wrote: from here on no change could be counted any more.
VERSION_MAX = 2**63


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
        except RecordTooLarge as fault:
            raise InvalidRequest(
                "portfolio.positions", f"too many for one record of the log: {fault}"
            ) from fault
        except DeliveryFailed as fault:
            raise Unavailable(f"portfolio {name!r} could not be logged: {fault}", 1.0) from fault


def expect_own(portfolio: Portfolio | None, record: Record) -> None:
    """Refuses, with ValueError, a portfolio under another's key.

    A deletion goes by the key and compaction keeps the last record of a key: what stands under another could
    neither be deleted nor replaced.
    """
    if portfolio is not None and portfolio.portfolio != record.key:
        raise ValueError(f"portfolio: is {portfolio.portfolio!r}, the record's key is {record.key!r}")


def decode_portfolio(value: bytes) -> Portfolio | None:
    """A record of risk.portfolios, checked; None is a deletion. What is no portfolio raises ValueError."""
    if not value:
        return None
    portfolio = Portfolio.FromString(value)
    if portfolio.version > VERSION_MAX:
        raise ValueError(f"version {portfolio.version} is more than {VERSION_MAX}")
    try:
        check(portfolio)
    except InvalidRequest as fault:
        raise ValueError(str(fault)) from fault
    return portfolio
