"""The Kafka topics: their names, their keys and how they are to be created."""

from __future__ import annotations

from dataclasses import dataclass

MARKET_DATA_RAW = "market.data.raw"
MARKET_DATA_NORMALIZED = "market.data.normalized"
ORDERS_INCOMING = "orders.incoming"
ORDERS_EXECUTED = "orders.executed"
RISK_PORTFOLIOS = "risk.portfolios"
RISK_METRICS = "risk.metrics"
RISK_ALERTS = "risk.alerts"
ANALYTICS_RESULTS = "analytics.results"

DEAD_LETTER_SUFFIX = ".dead-letter"


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic as it must exist on a broker."""

    name: str
    key: str
    compacted: bool = False
    partitions: int = 4
    kept: bool = False  # for ever: something is made of it from its beginning


TOPICS: tuple[Topic, ...] = (
    Topic(MARKET_DATA_RAW, key="symbol"),
    Topic(MARKET_DATA_NORMALIZED, key="symbol"),
    Topic(ORDERS_INCOMING, key="symbol"),
    # The positions of every desk are the sum of all fills that ever were.
    Topic(ORDERS_EXECUTED, key="symbol", kept=True),
    Topic(RISK_PORTFOLIOS, key="portfolio", compacted=True),
    Topic(RISK_METRICS, key="portfolio"),
    Topic(RISK_ALERTS, key="portfolio"),
    Topic(ANALYTICS_RESULTS, key="symbol or portfolio"),
)

# Holds no records: the process that has its partition is the one that publishes risk. risk_service makes it.
RISK_PUBLISHER = Topic("risk.publisher", key="none", partitions=1)


def dead_letter(topic: str) -> str:
    """The topic that takes the records of `topic` that could not be read."""
    return topic + DEAD_LETTER_SUFFIX
