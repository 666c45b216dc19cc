"""What the logs held when the service started: until that is taken in, no number is told.

The logs are read anew side by side. Measured in between, the fills of an afternoon would be told at the
prices of its morning.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from service_kit.kafka.consumer import Consumer
from service_kit.kafka.errors import ConsumerFailed
from service_kit.kafka.records import Partition

LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class CatchUp:
    """Whether several readers have reached the ends that their partitions had."""

    _behind: list[tuple[Consumer[Any], dict[Partition, int]]] = field(default_factory=list)
    _records: int = 0
    _began: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, consumers: Iterable[Consumer[Any]]) -> CatchUp:
        """As the logs are now."""
        behind = [(one, _ends(one)) for one in consumers]
        return cls(behind, sum(sum(ends.values()) for _, ends in behind))

    def done(self) -> bool:
        """Whether everything is taken in."""
        if self._behind:
            self._behind = [(one, ends) for one, ends in self._behind if _left(one, ends)]
            if not self._behind:
                took_s = time.monotonic() - self._began
                LOG.info("caught up with the logs, up to %d records, in %.1f s", self._records, took_s)
        return not self._behind


def _ends(consumer: Consumer[Any]) -> dict[Partition, int]:
    try:
        return {one: end for one, end in consumer.ends(consumer.assignment()).items() if end > 0}
    except ConsumerFailed as fault:
        LOG.warning(
            "the ends of the logs are not known, numbers are told from the first record on: %s", fault
        )
        return {}


def _left(consumer: Consumer[Any], ends: dict[Partition, int]) -> bool:
    at = consumer.position()
    return any(at.get(one, 0) < end for one, end in ends.items())
