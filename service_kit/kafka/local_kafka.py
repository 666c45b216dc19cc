"""A real Apache Kafka cluster of one or three brokers, started from jars and gone without a trace."""

from __future__ import annotations

import base64
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from types import TracebackType

from service_kit.errors import BrokerUnreachable
from service_kit.kafka.admin import check_broker, leaders_in_sync
from service_kit.kafka.broker_process import BrokerPlan, BrokerProcess
from service_kit.kafka.errors import NoRealKafka
from service_kit.kafka.jars import find_java, kafka_classpath
from service_kit.kafka.settings import KafkaSettings

START_S_MAX = 60.0
# A port found free can be taken before the broker binds it; then all is tried again with new ones.
_TRIES = 3


class LocalKafka:
    """Brokers numbered from 1; `kill` and `restart` are for fault tests."""

    origin = "Apache Kafka jars through Maven"
    can_kill = True

    def __init__(self, brokers: int = 1) -> None:
        if brokers not in (1, 3):
            raise ValueError(f"a cluster has 1 or 3 brokers, not {brokers}")
        self.brokers = brokers
        self._folder: Path | None = None
        self._processes: list[BrokerProcess] = []
        java, classpath = find_java(), kafka_classpath()
        for attempt in range(1, _TRIES + 1):
            try:
                self._start_all(java, classpath)
                return
            except NoRealKafka:
                self.close()
                if attempt == _TRIES:
                    raise
            except BaseException:
                self.close()
                raise

    @property
    def bootstrap(self) -> str:
        """Comma-separated host:port list of all brokers, running or not."""
        return ",".join(process.plan.address for process in self._processes)

    def kill(self, broker: int) -> None:
        """kill -9 one broker."""
        self._process(broker).kill()

    def stop(self, broker: int) -> None:
        """Stop one broker cleanly."""
        self._process(broker).stop()

    def restart(self, broker: int) -> None:
        """Start a killed or stopped broker again and wait until all replicas are in sync."""
        process = self._process(broker)
        process.start()
        self._wait_ready(process.plan.address)

    def close(self) -> None:
        """Stop every broker and remove what they wrote."""
        # Nobody needs their data any more, so there is no reason to wait for a clean shutdown.
        for process in self._processes:
            process.kill()
        self._processes = []
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def __enter__(self) -> LocalKafka:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start_all(self, java: str, classpath: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="gpu-risk-kafka-"))
        plans = _plans(self._folder, self.brokers)
        self._processes = [BrokerProcess(plan, java, classpath) for plan in plans]
        formats: list[tuple[BrokerProcess, subprocess.Popen[bytes]]] = []
        try:
            formats.extend((process, process.begin_format()) for process in self._processes)
            for process, tool in formats:
                process.end_format(tool)
        finally:
            for _, tool in formats:
                if tool.poll() is None:
                    tool.kill()
                    tool.wait()
        for process in self._processes:
            process.start()
        self._wait_ready(self.bootstrap)

    def _wait_ready(self, bootstrap: str) -> None:
        settings = KafkaSettings(bootstrap=bootstrap, client_id="ready-check")
        deadline = time.monotonic() + START_S_MAX
        alive = sum(process.running for process in self._processes)
        while True:
            for process in self._processes:
                if not process.running and process.plan.address in bootstrap:
                    raise NoRealKafka(f"broker {process.plan.id} ended at once: {process.log_tail()}")
            try:
                if len(check_broker(settings, timeout_s=0.5)) >= alive and leaders_in_sync(settings, alive):
                    return
            except BrokerUnreachable as error:
                if time.monotonic() >= deadline:
                    raise NoRealKafka(f"no answer within {START_S_MAX:g} s: {error.why}") from None
            if time.monotonic() >= deadline:
                raise NoRealKafka(f"the brokers did not find each other within {START_S_MAX:g} s")
            time.sleep(0.05)

    def _process(self, broker: int) -> BrokerProcess:
        if not 1 <= broker <= len(self._processes):
            raise ValueError(f"broker must be from 1 to {len(self._processes)}, not {broker}")
        return self._processes[broker - 1]


def _plans(folder: Path, brokers: int) -> list[BrokerPlan]:
    ports = _free_ports(2 * brokers)
    clients, controllers = ports[:brokers], ports[brokers:]
    voters = ",".join(f"{at + 1}@127.0.0.1:{port}" for at, port in enumerate(controllers))
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return [
        BrokerPlan(
            at + 1, folder / f"broker-{at + 1}", clients[at], controllers[at], voters, cluster_id, brokers
        )
        for at in range(brokers)
    ]


def _free_ports(count: int) -> list[int]:
    """Ports of loopback that are free now; all are held until the last is found, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
