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

ASK_EVERY_S = 1.0


@dataclass(slots=True)
class CatchUp:
    """Whether several readers have reached the ends that their partitions had."""

    _unasked: list[Consumer[Any]] = field(default_factory=list)  # of which no ends are known yet
    _behind: list[tuple[Consumer[Any], dict[Partition, int]]] = field(default_factory=list)
    _records: int = 0
    _ask_at: float = 0.0
    _over: bool = False
    _began: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, consumers: Iterable[Consumer[Any]]) -> CatchUp:
        """As the logs are now; a log whose ends the brokers do not tell is asked for again until they do."""
        made = cls(list(consumers))
        made._ask()
        return made

    def done(self) -> bool:
        """Whether everything is taken in."""
        if self._over:
            return True
        if self._unasked and time.monotonic() >= self._ask_at:
            self._ask()
        self._behind = [(one, ends) for one, ends in self._behind if _left(one, ends)]
        if not self._unasked and not self._behind:
            self._over = True
            took_s = time.monotonic() - self._began
            LOG.info("caught up with the logs, up to %d records, in %.1f s", self._records, took_s)
        return self._over

    def _ask(self) -> None:
        asked, self._unasked = self._unasked, []
        for one in asked:
            try:
                ends = {at: end for at, end in one.ends(one.assignment()).items() if end > 0}
            except ConsumerFailed as fault:
                LOG.warning("the ends of the logs are not known, nothing is told before they are: %s", fault)
                self._unasked.append(one)
                continue
            self._behind.append((one, ends))
            self._records += sum(ends.values())
        self._ask_at = time.monotonic() + ASK_EVERY_S


def _left(consumer: Consumer[Any], ends: dict[Partition, int]) -> bool:
    at = consumer.position()
    return any(at.get(one, 0) < end for one, end in ends.items())
