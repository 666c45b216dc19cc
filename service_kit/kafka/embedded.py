"""The in-memory broker of the demo, the notebook and most tests: a child process that dies with this one."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterable
from types import TracebackType

from protos.topics import TOPICS, Topic, dead_letter
from service_kit.kafka.errors import EmbeddedBrokerFailed
from service_kit.kafka.settings import KafkaSettings
from service_kit.kafka.topic_settings import keeping

_END_WAIT_S = 5.0
# When a member comes or goes it waits this long for the others to join again.
_SESSION_TIMEOUT_MS = 2_000


class EmbeddedBroker:
    """One broker (`memory_broker`) on loopback with our topics; every process of this host can reach it."""

    def __init__(self, topics: Iterable[Topic] = TOPICS) -> None:
        made = [
            one
            for topic in topics
            for one in (topic, Topic(dead_letter(topic.name), topic.key, partitions=1))
        ]
        words = [
            ":".join(
                (one.name, str(one.partitions), *(f"{name}={value}" for name, value in keeping(one).items()))
            )
            for one in made
        ]
        # It ends when its standard input does, so also when this process is killed.
        self._process: subprocess.Popen[str] | None = subprocess.Popen(
            [sys.executable, "-m", "service_kit.kafka.memory_broker", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C in the terminal is for the asking process; it ends the broker when its clients are gone.
            start_new_session=True,
        )
        port = "" if self._process.stdout is None else self._process.stdout.readline().strip()
        if not port.isdigit():
            self.close()
            raise EmbeddedBrokerFailed("the in-memory broker did not start; what it said stands above")
        self.bootstrap = f"127.0.0.1:{port}"

    @property
    def pid(self) -> int:
        """Of its process."""
        if self._process is None:
            raise EmbeddedBrokerFailed("the in-memory broker is closed")
        return self._process.pid

    def settings(self, base: KafkaSettings | None = None) -> KafkaSettings:
        """The settings with which any process on this host reaches it."""
        return dataclasses.replace(
            base or KafkaSettings(), bootstrap=self.bootstrap, session_timeout_ms=_SESSION_TIMEOUT_MS
        )

    def close(self) -> None:
        """Stop it; it forgets everything it holds."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(_END_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> EmbeddedBroker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
