"""The compose file and the Dockerfile, read and held against what the code expects of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from book_service.settings import BookServiceSettings
from market_sim.settings import FeedSettings, MarketSimSettings
from market_sim.wiring import market_feed
from risk_cli.main import app
from risk_cli.settings import EVERY_PROCESS
from risk_service import price_history
from risk_service.settings import RiskServiceSettings
from risk_service.worker.supervisor import LANES
from service_kit.grpc_server import GrpcSettings
from service_kit.kafka.errors import NoRealKafka
from service_kit.kafka.jars import find_java, kafka_classpath
from service_kit.kafka.real import _SERVICES as BROKERS
from service_kit.lifecycle import STOP_WITHIN_S
from service_kit.settings import load
from service_kit.telemetry.metrics import MetricsExporter, MetricsSettings, process_registry

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
OURS = ("topics", "book_service", "risk_service", "feed")
DOCKERFILES = ("Dockerfile", "Dockerfile.cuda")
CUDA = yaml.safe_load((ROOT / "docker" / "compose.cuda.yaml").read_text())["services"]


DIGEST = "@sha256:[0-9a-f]{64}"


def filled(value):
    """With the defaults of ${NAME:-default} filled in, numbers as text."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))


def environment(name):
    """As the container sees it."""
    return {key: filled(value) for key, value in SERVICES[name]["environment"].items()}


def mounts(name):
    """Files of the repository that the container is given: where they lie here, and there."""
    for volume in SERVICES[name].get("volumes", ()):
        source, target = filled(volume).split(":")[:2]
        if source.startswith("."):
            yield (ROOT / "docker" / source).resolve(), target


def stages(name):
    """Each stage of a Dockerfile: its base image, its name, and its instructions as (word, rest)."""
    text = re.sub(r"^#.*\n", "", (ROOT / "docker" / name).read_text(), flags=re.M)
    found = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            image, _, stage = rest.partition(" AS ")
            found.append((image, stage, []))
        elif word:
            found[-1][2].append((word, rest))
    return found


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
    env = environment(name)
    for place, target in mounts(name):
        # In the container the file lies where it is mounted; here where it comes from.
        env = {key: str(place) if value == target else value for key, value in env.items()}
    loaded = load(settings, env=env, beside=EVERY_PROCESS).validate()
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
    assert len({image for image, _ in bases}) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm" + DIGEST, bases[0][0])
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


@pytest.mark.parametrize("name", DOCKERFILES)
def test_everything_that_is_copied_is_there_and_not_ignored(name):
    ignored = (ROOT / ".dockerignore").read_text().split()
    for _, _, instructions in stages(name):
        for word, rest in instructions:
            if word == "COPY" and not rest.startswith("--from"):
                for source in rest.split()[:-1]:
                    assert (ROOT / source).exists(), source
                    assert source not in ignored


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_dockerfile_has_words_that_docker_knows_and_copies_from_its_own_stages(name):
    known = {"WORKDIR", "RUN", "COPY", "ENV", "VOLUME", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    names = [stage for _, stage, _ in stages(name)]
    for _, _, instructions in stages(name):
        assert {word for word, _ in instructions} <= known
        for word, rest in instructions:
            for source in re.findall(r"--from=(\w+)", rest) if word == "COPY" else ():
                assert source in names
    last = [word for word, _ in stages(name)[-1][2]]
    assert last.index("USER") > max(place for place, word in enumerate(last) if word in ("RUN", "COPY"))


@pytest.mark.parametrize("name", DOCKERFILES)
def test_kernels_outlive_the_container(name):
    words = dict(stages(name)[-1][2])
    places = dict(one.split("=", 1) for one in words["ENV"].split())
    kept = words["VOLUME"]
    assert Path(places["NUMBA_CACHE_DIR"]).is_relative_to(kept)
    assert Path(places.get("CUPY_CACHE_DIR", kept)).is_relative_to(kept)
    user = words["USER"]
    assert f"install --directory --owner {user} {kept}" in words["RUN"]
    for service in OURS:
        kinds = [filled(one).split(":")[:2] for one in SERVICES[service]["volumes"]]
        assert ["kernels", kept] in kinds
        assert not any(Path(kept).is_relative_to(one) for one in SERVICES[service]["tmpfs"])


def test_the_image_is_healthy_while_its_metrics_answer():
    for name in DOCKERFILES:
        check = dict(stages(name)[-1][2])["HEALTHCHECK"]
        command = json.loads(check.partition(" CMD ")[2])
        code = command[2]
        assert command[:2] == ["python", "-c"]
        with MetricsExporter(MetricsSettings(enabled=True, port=0), process_registry()) as exporter:
            code = code.replace(":9464/", f":{exporter.port}/")
            assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
        assert done.returncode != 0


def test_a_stop_has_the_time_that_it_may_take():
    for name in OURS:
        grace_s = float(SERVICES[name]["stop_grace_period"].removesuffix("s"))
        assert grace_s > STOP_WITHIN_S + GrpcSettings().drain_s


def test_nothing_may_take_the_whole_host():
    for name, service in SERVICES.items():
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"]), name
        assert service["pids_limit"] <= 1000
        assert service.get("privileged") is None


def test_an_engine_in_a_process_of_its_own_has_room_for_its_arrays():
    room = int(SERVICES["risk_service"]["shm_size"].removesuffix("g")) << 30
    # A lane's segment takes the largest request and its answer, rounded up to a power of two.
    assert room >= LANES * 2 * GrpcSettings().max_message_bytes
    assert room < int(SERVICES["risk_service"]["mem_limit"].removesuffix("g")) << 30


def test_the_market_of_the_demo_has_a_book_and_a_history():
    market = market_feed(FeedSettings()).market.underlyings
    symbols = {one.symbol for one in market}
    book = load(BookServiceSettings, env=environment("book_service"), beside=EVERY_PROCESS).validate().book
    # Without a price to start from the venue's band refuses every order.
    listed = {one.symbol: one.reference_price for one in book.listed()}
    for one in market:
        assert listed[one.symbol] == pytest.approx(one.spot)
    [(history, target)] = mounts("risk_service")
    assert environment("risk_service")["GPU_RISK_RISK_HISTORY"] == target
    assert symbols <= set(price_history.read(history).underlyings)
    assert SERVICES["feed"]["profiles"] == ["demo"]
    assert load(MarketSimSettings, env=environment("feed"), beside=EVERY_PROCESS).validate()


def test_the_brokers_take_their_settings(tmp_path):
    """Through the class of Apache Kafka that the image itself makes its server.properties with."""
    try:
        java, classpath = find_java(), kafka_classpath()
    except NoRealKafka as reason:
        pytest.skip(f"NO REAL KAFKA: {reason}")
    defaults, mounted, final = (tmp_path / one for one in ("defaults", "mounted", "final"))
    for folder in (defaults, mounted, final):
        folder.mkdir()
    (defaults / "server.properties").write_text("")
    for name in ("log4j2.yaml", "tools-log4j2.yaml"):
        (defaults / name).write_text(
            "Configuration: {Properties: {Property: []}, Appenders: {}, Loggers: {}}\n"
        )
    env = environment("kafka-1") | {"KAFKA_LOG_DIRS": str(tmp_path / "data"), "PATH": os.environ["PATH"]}
    folders = ("--default-configs-dir", defaults, "--mounted-configs-dir", mounted)
    done = subprocess.run(
        [java, "-XX:TieredStopAtLevel=1", "-cp", classpath, "kafka.docker.KafkaDockerWrapper", "setup"]
        + [str(one) for one in (*folders, "--final-configs-dir", final)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    written = dict(
        line.split("=", 1) for line in (final / "server.properties").read_text().splitlines() if "=" in line
    )
    ours = {
        key.removeprefix("KAFKA_").lower().replace("_", "."): value
        for key, value in env.items()
        if key.startswith("KAFKA_") and key != "KAFKA_HEAP_OPTS"
    }
    assert written == ours
    # The storage was formatted with them: every one was read and taken.
    assert (tmp_path / "data" / "meta.properties").is_file()


def test_every_image_that_is_not_built_here_has_a_version():
    for name, service in SERVICES.items():
        if name not in OURS:
            assert re.search(r":v?\d+\.\d+\.\d+" + DIGEST + "$", service["image"]), name


def test_the_gpu_overlay_asks_for_the_gpu_and_for_no_other_engine():
    both = environment("risk_service") | {"GPU_RISK_RISK_HISTORY": str(next(mounts("risk_service"))[0])}
    both |= CUDA["risk_service"]["environment"]
    assert load(RiskServiceSettings, env=both, beside=EVERY_PROCESS).validate().risk.engine == "cuda"
    assert (ROOT / CUDA["risk_service"]["build"]["dockerfile"]).is_file()
    [device] = CUDA["risk_service"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert set(CUDA) <= set(SERVICES)


def test_mounted_files_are_there():
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            source = filled(volume).split(":")[0]
            assert (
                (ROOT / "docker" / source).exists()
                if source.startswith(".")
                else source in COMPOSE["volumes"]
            ), name
