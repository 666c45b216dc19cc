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
OURS = ("topics", "book_service", "risk_service")
DOCKERFILES = ("Dockerfile", "Dockerfile.cuda")
CUDA = yaml.safe_load((ROOT / "docker" / "compose.cuda.yaml").read_text())["services"]


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
    for name in OURS:
        assert SERVICES[name]["command"][0] in commands


def test_no_host_port_is_given_twice():
    published = [port.split(":")[1] for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(set(published)) == len(published)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_image_has_every_package_and_no_root(name):
    dockerfile = (ROOT / "docker" / name).read_text()
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    for pattern in wanted["include"]:
        package = pattern.rstrip("*")
        assert f"COPY {package} {package}" in dockerfile
    assert re.search(r"^USER \d+$", dockerfile, re.M)
    assert re.search(r"^HEALTHCHECK ", dockerfile, re.M)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_image_is_built_in_stages_of_pinned_versions(name):
    dockerfile = (ROOT / "docker" / name).read_text()
    bases = re.findall(r"^FROM (\S+)(?: AS (\w+))?$", dockerfile, re.M)
    assert len(bases) == 2
    assert {image for image, _ in bases} == {"python:3.11.13-slim-bookworm"}
    # What the build needs stays in the build.
    assert "pip install" not in dockerfile.split("FROM")[-1]
    assert "--constraint constraints.txt" in dockerfile


def test_extras_and_wheels_of_the_images_are_there_and_pinned():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    for name in DOCKERFILES:
        dockerfile = (ROOT / "docker" / name).read_text()
        [asked] = re.findall(r"'\.\[([\w,]+)\]'", dockerfile)
        assert set(asked.split(",")) <= set(extras)
        assert set(re.findall(r"\bnvidia-\w+-\w+", dockerfile)) <= pinned
    assert "cupy-cuda13x" in pinned


def test_every_image_that_is_not_built_here_has_a_version():
    for name, service in SERVICES.items():
        if name not in OURS:
            assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name


def test_the_gpu_overlay_asks_for_the_gpu_and_for_no_other_engine():
    both = environment("risk_service") | CUDA["risk_service"]["environment"]
    assert load(RiskServiceSettings, env=both, beside=EVERY_PROCESS).validate().risk.engine == "cuda"
    assert (ROOT / CUDA["risk_service"]["build"]["dockerfile"]).is_file()
    [device] = CUDA["risk_service"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert set(CUDA) <= set(SERVICES)


def test_mounted_files_are_there():
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (
                (ROOT / "docker" / source).exists()
                if source.startswith(".")
                else source in COMPOSE["volumes"]
            ), name
