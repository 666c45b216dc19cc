"""The compose file and the Dockerfile, read and held against what the code expects of them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from book_service.settings import BookServiceSettings
from risk_cli.main import app
from risk_cli.settings import EVERY_PROCESS
from risk_service.settings import RiskServiceSettings
from service_kit.kafka.real import _SERVICES as BROKERS
from service_kit.settings import load

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()


def environment(name):
    """As the container sees it: defaults of ${NAME:-default} filled in, numbers as text."""
    filled = {}
    for key, value in SERVICES[name]["environment"].items():
        match = re.fullmatch(r"\$\{\w+:-(.*)\}", str(value))
        filled[key] = match.group(1) if match else str(value)
    return filled


def test_the_brokers_are_those_that_the_tests_look_for():
    assert [name for name in SERVICES if name.startswith("kafka-")] == list(BROKERS)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_each_broker_advertises_the_port_that_is_published(number):
    env = environment(f"kafka-{number}")
    assert env["KAFKA_NODE_ID"] == str(number)
    assert f"{number}@kafka-{number}:9093" in env["KAFKA_CONTROLLER_QUORUM_VOTERS"].split(",")
    [published] = SERVICES[f"kafka-{number}"]["ports"]
    host, outside, inside = published.split(":")
    assert host == "127.0.0.1"
    assert f"HOST://127.0.0.1:{outside}" in env["KAFKA_ADVERTISED_LISTENERS"]
    assert f"HOST://:{inside}" in env["KAFKA_LISTENERS"]
    assert f"kafka-{number}:/var/lib/kafka/data" in SERVICES[f"kafka-{number}"]["volumes"]
    assert env["KAFKA_LOG_DIRS"] == "/var/lib/kafka/data"


def test_a_write_survives_the_loss_of_a_broker():
    env = environment("kafka-1")
    assert (env["KAFKA_DEFAULT_REPLICATION_FACTOR"], env["KAFKA_MIN_INSYNC_REPLICAS"]) == ("3", "2")


@pytest.mark.parametrize(
    ("name", "settings"), [("book_service", BookServiceSettings), ("risk_service", RiskServiceSettings)]
)
def test_the_services_are_given_settings_that_they_take(name, settings):
    loaded = load(settings, env=environment(name), beside=EVERY_PROCESS).validate()
    assert loaded.kafka.bootstrap == ",".join(f"{broker}:9092" for broker in BROKERS)
    assert loaded.metrics.enabled
    inside = {published.rsplit(":", 1)[1] for published in SERVICES[name]["ports"]}
    assert inside == {str(loaded.grpc.port), str(loaded.metrics.port)}


def test_the_commands_exist():
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    commands |= {group.name for group in app.registered_groups}
    for name, service in SERVICES.items():
        if name not in BROKERS:
            assert service["command"][0] in commands


def test_no_host_port_is_given_twice():
    published = [port.split(":")[1] for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(set(published)) == len(published)


def test_the_image_has_every_package_and_no_root():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    for pattern in wanted["include"]:
        package = pattern.rstrip("*")
        assert f"COPY {package} {package}" in DOCKERFILE
    assert re.search(r"^USER \d+$", DOCKERFILE, re.M)
    assert re.search(r"^HEALTHCHECK ", DOCKERFILE, re.M)
