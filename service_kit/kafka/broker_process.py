"""One Apache Kafka broker as a child process: KRaft mode, loopback, its own folder."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from service_kit.kafka.errors import NoRealKafka

_WATCHDOG = Path(__file__).parent / "watchdog.py"
# Small and quick to start: these brokers live for seconds to minutes and hold megabytes.
_JVM = ("-Xms64m", "-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
_LOG_LEVEL = "-Dorg.apache.logging.log4j.level=WARN"
_FORMAT_S_MAX = 60.0


@dataclass(frozen=True, slots=True)
class BrokerPlan:
    """Where one broker of a cluster lives; `voters` lists all controllers as id@host:port."""

    id: int
    folder: Path
    port: int
    controller_port: int
    voters: str
    cluster_id: str
    brokers: int

    @property
    def address(self) -> str:
        """host:port for clients."""
        return f"127.0.0.1:{self.port}"

    def properties(self) -> str:
        """The broker's server.properties."""
        copies = min(3, self.brokers)
        settings = {
            "process.roles": "broker,controller",
            "node.id": self.id,
            "controller.quorum.voters": self.voters,
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": self.folder / "data",
            "auto.create.topics.enable": "false",
            "default.replication.factor": copies,
            "min.insync.replicas": max(1, copies - 1),
            "offsets.topic.replication.factor": copies,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": max(1, copies - 1),
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": max(1, copies - 1),
            # A group is complete when its first member is here; a real one waits 3 s for more.
            "group.initial.rebalance.delay.ms": 0,
            # A killed broker is noticed after this instead of 9 s.
            "broker.session.timeout.ms": 3_000,
            "broker.heartbeat.interval.ms": 500,
            "num.network.threads": 2,
            "num.io.threads": 2,
            "log.cleaner.dedupe.buffer.size": 16_777_216,
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())


class BrokerProcess:
    """Formats, starts, kills and restarts one broker; dies with this process."""

    def __init__(self, plan: BrokerPlan, java: str, classpath: str) -> None:
        self.plan = plan
        self._java = java
        self._classpath = classpath
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._pid = 0
        plan.folder.mkdir(parents=True)
        self._properties = plan.folder / "server.properties"
        self._properties.write_text(plan.properties())
        self._log = plan.folder / "broker.log"

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._watchdog is not None and self._watchdog.poll() is None

    def begin_format(self) -> subprocess.Popen[bytes]:
        """Start writing the storage's metadata; give the process to `end_format`."""
        tool = ["kafka.tools.StorageTool", "format", "-t", self.plan.cluster_id, "-c", str(self._properties)]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._java_command(tool), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def end_format(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for the storage tool."""
        try:
            code: int | None = process.wait(_FORMAT_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = None
        if code != 0:
            raise NoRealKafka(f"Kafka's storage tool failed (exit status {code}): {self.log_tail()}")

    def start(self) -> None:
        """Start the broker; the caller waits until it answers."""
        if self.running:
            return
        command = [sys.executable, "-I", "-S", str(_WATCHDOG), str(self.plan.folder.parent)]
        with self._log.open("ab") as log:
            self._watchdog = subprocess.Popen(
                [*command, *self._java_command(["kafka.Kafka", str(self._properties)])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # Ctrl-C in the terminal is for the asking process; it ends the broker in its own time.
                start_new_session=True,
            )
        if self._watchdog.stdout is None:
            raise NoRealKafka("the watchdog has no output")
        with self._watchdog.stdout as out:
            line = out.readline().strip()
        if not line.isdigit():
            raise NoRealKafka(f"Java could not be started: {self.log_tail()}")
        self._pid = int(line)

    def kill(self) -> None:
        """kill -9: the broker loses what it had not written."""
        self._signal(signal.SIGKILL, 10.0)

    def stop(self, timeout_s: float = 10.0) -> None:
        """Ask the broker to end, and kill it when it has not after `timeout_s`."""
        if not self._signal(signal.SIGTERM, timeout_s):
            self.kill()

    def log_tail(self) -> str:
        """The last lines that the broker wrote."""
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return " | ".join(line for line in lines[-5:])[-1_500:] or "it wrote nothing"

    def _signal(self, number: signal.Signals, timeout_s: float) -> bool:
        """Whether the broker was gone in time."""
        watchdog = self._watchdog
        if watchdog is None:
            return True
        if watchdog.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)
        deadline = time.monotonic() + timeout_s
        try:
            watchdog.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
        if watchdog.stdin is not None:
            watchdog.stdin.close()
        self._watchdog = None
        return True

    def _java_command(self, tool: list[str]) -> list[str]:
        return [self._java, *_JVM, _LOG_LEVEL, "-cp", self._classpath, *tool]
