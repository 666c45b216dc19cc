"""Finds a real Kafka for tests and local use: one that is named, one in Docker, or one from jars."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from service_kit.errors import BrokerUnreachable
from service_kit.kafka.admin import check_broker
from service_kit.kafka.errors import NoRealKafka
from service_kit.kafka.local_kafka import LocalKafka
from service_kit.kafka.settings import EMBEDDED, KafkaSettings

BOOTSTRAP_VARIABLE = "GPU_RISK_KAFKA_BOOTSTRAP"
_COMPOSE = Path(__file__).parents[2] / "docker" / "compose.yaml"
_SERVICES = ("kafka-1", "kafka-2", "kafka-3")
_COMPOSE_UP_S_MAX = 180.0


class RealKafka(Protocol):
    """A running cluster of real brokers; a context manager that stops what was started for it."""

    @property
    def origin(self) -> str:
        """Where it comes from, for people."""

    @property
    def bootstrap(self) -> str:
        """Comma-separated host:port list."""

    @property
    def can_kill(self) -> bool:
        """Whether brokers may be killed and restarted one by one."""

    def kill(self, broker: int) -> None:
        """kill -9 one broker, counted from 1."""

    def restart(self, broker: int) -> None:
        """Start it again and wait until it takes part."""

    def close(self) -> None:
        """Stop what was started."""


def find_kafka(brokers: int = 1, *, to_kill: bool = False, env: Mapping[str, str] = os.environ) -> RealKafka:
    """A real Kafka of at least that many brokers, or `NoRealKafka` saying what was tried.

    In order: the brokers that GPU_RISK_KAFKA_BOOTSTRAP names (not when brokers are to be killed: they are
    somebody else's), Docker, Apache Kafka's jars.
    """
    named = env.get(BOOTSTRAP_VARIABLE, "")
    if named and named != EMBEDDED and not to_kill:
        # A broker that was named is meant: an error there is never passed over.
        return NamedKafka(named, brokers)
    reasons: list[str] = []
    # Docker's brokers are not ours to kill.
    for attempt in (LocalKafka,) if to_kill else (DockerKafka, LocalKafka):
        try:
            found: RealKafka = attempt(brokers)
        except NoRealKafka as error:
            reasons.append(str(error))
        else:
            return found
    raise NoRealKafka(f"no real Kafka: {BOOTSTRAP_VARIABLE} names none; {'; '.join(reasons)}")


class _Unkillable:
    can_kill = False

    def kill(self, broker: int) -> None:
        raise NoRealKafka(f"broker {broker} was not started here and is not killed here")

    restart = kill

    def close(self) -> None:
        """Nothing was started, nothing is stopped."""

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class NamedKafka(_Unkillable):
    """The cluster that the environment names."""

    origin = BOOTSTRAP_VARIABLE

    def __init__(self, bootstrap: str, brokers: int = 1) -> None:
        self.bootstrap = bootstrap
        try:
            there = len(check_broker(KafkaSettings(bootstrap=bootstrap).validate()))
        except BrokerUnreachable as error:
            raise NoRealKafka(f"{BOOTSTRAP_VARIABLE}: {error}") from None
        if there < brokers:
            raise NoRealKafka(f"{BOOTSTRAP_VARIABLE}: {bootstrap} has {there} brokers, {brokers} are needed")


class DockerKafka(_Unkillable):
    """The three brokers of docker/compose.yaml; stopped again only when they were started here."""

    origin = "docker/compose.yaml"

    def __init__(self, brokers: int = 3) -> None:
        if not _COMPOSE.exists():
            raise NoRealKafka("Docker: docker/compose.yaml is not there")
        if shutil.which("docker") is None:
            raise NoRealKafka("Docker: not installed")
        self._started_here = False
        _docker("info", "--format", "{{.ServerVersion}}", timeout_s=10.0)
        if not published_ports(_compose("ps", "--format", "json")):
            self._started_here = True
            try:
                _compose("up", "--detach", "--wait", *_SERVICES, timeout_s=_COMPOSE_UP_S_MAX)
            except NoRealKafka:
                self.close()
                raise
        ports = published_ports(_compose("ps", "--format", "json"))
        if len(ports) < brokers:
            self.close()
            raise NoRealKafka(f"Docker: {len(ports)} of the services {', '.join(_SERVICES)} publish a port")
        self.bootstrap = ",".join(f"127.0.0.1:{port}" for port in ports)

    def close(self) -> None:
        """Take the containers down if this object put them up."""
        if self._started_here:
            self._started_here = False
            _compose("down", "--volumes", timeout_s=60.0)


def published_ports(listing: str) -> list[int]:
    """The host's port of each broker in the output of `docker compose ps --format json`."""
    # Older versions print one array, newer ones an object a line.
    lines = [json.loads(line) for line in listing.splitlines() if line.strip()]
    rows = [row for line in lines for row in (line if isinstance(line, list) else [line])]
    found: dict[str, int] = {}
    for row in rows:
        ports = [one["PublishedPort"] for one in row.get("Publishers") or () if one.get("PublishedPort")]
        if row.get("Service") in _SERVICES and row.get("State") == "running" and ports:
            found[row["Service"]] = ports[0]
    return [found[name] for name in _SERVICES if name in found]


def _compose(*arguments: str, timeout_s: float = 20.0) -> str:
    return _docker("compose", "--file", str(_COMPOSE), *arguments, timeout_s=timeout_s)


def _docker(*arguments: str, timeout_s: float) -> str:
    command = ["docker", *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoRealKafka(f"Docker: {error}") from None
    if done.returncode != 0:
        reason = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise NoRealKafka(f"Docker: {reason}")
    return done.stdout
