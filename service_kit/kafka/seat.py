"""One seat for processes that do the same work on the same brokers: who has it works, the others stand by.

The brokers give it: it is the only partition of a topic without records, and the processes are members of a
consumer group that leaves a partition where it is (cooperative-sticky). So it goes to another process only
when its holder leaves, or has not been heard of for the session timeout.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import replace
from types import TracebackType
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaException, TopicPartition

from service_kit.kafka.connection import LOG, member_config
from service_kit.kafka.consumer import REFUSALS
from service_kit.kafka.errors import ConsumerFailed
from service_kit.kafka.settings import KafkaSettings

# The least that brokers take unless told otherwise: how long a killed holder keeps the seat.
_SESSION_MS = 6_000
_LOOK_S = 0.1
_ASK_EVERY_S = 1.0
_WAIT_S = 0.01


class Seat:
    """A thread that waits for the seat and holds it; the rest may be asked from any thread."""

    def __init__(self, settings: KafkaSettings, topic: str, group: str) -> None:
        self._settings = settings.validate()
        self._home = TopicPartition(topic, 0)
        self._group = group
        self._session_ms = min(settings.session_timeout_ms, _SESSION_MS)
        # Whoever was stopped for longer than this may have been declared dead, and asks before it believes.
        self._believed_s = self._session_ms / 2_000
        self._given = False
        self._terms = 0
        self._sure_at = 0.0
        self._holder = ""
        self._failure: ConsumerFailed | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="seat", daemon=True)

    def open(self) -> Seat:
        """Begins to wait for it."""
        self._thread.start()
        return self

    @property
    def term(self) -> int:
        """0 without the seat; else a number that is another one each time that the seat is taken.

        ConsumerFailed where the brokers refuse us for good.
        """
        if self._failure is not None:
            raise self._failure
        return self._terms if self._given else 0

    @property
    def sure(self) -> bool:
        """Whether the seat is held beyond doubt: not by a process that was stopped and knows not how long."""
        return self._given and time.monotonic() - self._sure_at < self._believed_s

    @property
    def holder(self) -> str:
        """Who has it, or had it last, as far as that is known here."""
        return self._holder

    def wait(self, timeout_s: float) -> bool:
        """Whether the seat is ours, after waiting for it for so long at most."""
        ends = time.monotonic() + timeout_s
        while not self.sure and time.monotonic() < ends and not self._closing.wait(_WAIT_S):
            pass
        return self.sure

    def close(self) -> None:
        """Leaves it to the next at once."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()

    def __enter__(self) -> Seat:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        client = confluent_kafka.Consumer(self._config(), logger=LOG)
        try:
            client.subscribe(
                [self._home.topic], on_assign=self._taken, on_revoke=self._lost, on_lost=self._lost
            )
            looked_at = ask_at = 0.0
            while not self._closing.is_set():
                self._heed(client.poll(_LOOK_S))
                now = time.monotonic()
                if self._given:
                    if now - looked_at < self._believed_s or self._confirmed(client):
                        looked_at = self._sure_at = time.monotonic()
                elif now >= ask_at:
                    ask_at = now + _ASK_EVERY_S
                    self._holder = self._told(client)
        except KafkaException as error:
            self._failure = ConsumerFailed(f"group {self._group}: {error.args[0].str()}")
        except ConsumerFailed as error:
            self._failure = error
        finally:
            self._given = False
            client.close()

    def _config(self) -> dict[str, Any]:
        settings = replace(self._settings, session_timeout_ms=self._session_ms)
        return member_config(settings, self._group) | {"partition.assignment.strategy": "cooperative-sticky"}

    def _taken(self, client: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        client.incremental_assign(partitions)
        if not partitions:
            return
        client.pause(partitions)
        self._terms += 1
        self._given, self._sure_at = True, 0.0

    def _lost(self, client: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        if partitions:
            self._given = False
        client.incremental_unassign(partitions)

    def _heed(self, message: Any) -> None:
        error = None if message is None else message.error()
        if error is not None and (error.fatal() or error.code() in REFUSALS):
            raise ConsumerFailed(f"group {self._group}: {error.str()}")

    def _confirmed(self, client: confluent_kafka.Consumer) -> bool:
        """Whether the group takes our word: a commit of who we are, which it takes from members only."""
        ours = f"{socket.gethostname()}, process {os.getpid()}"
        said = TopicPartition(self._home.topic, self._home.partition, 0, metadata=ours)
        try:
            results = client.commit(offsets=[said], asynchronous=False)
        except KafkaException as error:
            LOG.info("group %s: %s", self._group, error.args[0].str())
            return False
        if any(one.error is not None for one in results or ()):
            return False
        self._holder = ours
        return self._given

    def _told(self, client: confluent_kafka.Consumer) -> str:
        try:
            (found,) = client.committed([self._home], timeout=_ASK_EVERY_S)
        except KafkaException:
            return self._holder
        return found.metadata or self._holder
