"""How a real Kafka is found, and that one that is started leaves nothing behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from service_kit.kafka import jars, real
from service_kit.kafka.errors import NoRealKafka
from service_kit.kafka.jars import find_java, kafka_classpath
from service_kit.kafka.local_kafka import LocalKafka
from service_kit.kafka.mock_cluster import MockCluster
from service_kit.kafka.real import RealKafka, find_kafka, published_ports


def _program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_a_named_broker_comes_first_and_is_left_running(broker: MockCluster) -> None:
    found = find_kafka(env={"GPU_RISK_KAFKA_BOOTSTRAP": broker.bootstrap})
    assert (found.bootstrap, found.origin) == (broker.bootstrap, "GPU_RISK_KAFKA_BOOTSTRAP")
    assert not found.can_kill
    with pytest.raises(NoRealKafka, match="not started here"):
        found.kill(1)
    found.close()
    assert find_kafka(env={"GPU_RISK_KAFKA_BOOTSTRAP": broker.bootstrap}).bootstrap == broker.bootstrap


def test_a_named_broker_that_does_not_fit_is_an_error_never_passed_over(broker: MockCluster) -> None:
    with pytest.raises(NoRealKafka, match="has 1 brokers, 3 are needed"):
        find_kafka(3, env={"GPU_RISK_KAFKA_BOOTSTRAP": broker.bootstrap})


def test_without_anything_every_reason_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(NoRealKafka) as caught:
        find_kafka(env={"GPU_RISK_KAFKA_BOOTSTRAP": "embedded"})
    text = str(caught.value)
    assert "Docker: " in text
    assert "Java 17 or newer is needed: no java" in text
    assert "GPU_RISK_KAFKA_BOOTSTRAP names none" in text


def test_an_old_java_is_named_and_passed_over(tmp_path: Path) -> None:
    home = tmp_path / "old"
    (home / "bin").mkdir(parents=True)
    _program(home / "bin", "java", "echo 'openjdk version \"11.0.2\" 2019-01-15' >&2")
    _program(tmp_path, "java", "echo 'openjdk version \"21\" 2023-09-19' >&2")
    assert find_java({"JAVA_HOME": str(home), "PATH": str(tmp_path)}) == str(tmp_path / "java")
    with pytest.raises(NoRealKafka, match="old/bin/java is version 11"):
        find_java({"JAVA_HOME": str(home), "PATH": str(home)})


def test_the_reason_of_a_failed_maven_is_passed_on(tmp_path: Path) -> None:
    _program(tmp_path, "mvn", "printf '\\033[0mnoise\\n[ERROR] Could not transfer artifact\\n'; exit 1")
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    with pytest.raises(NoRealKafka, match=r"exit status 1\): \[ERROR\] Could not transfer artifact"):
        kafka_classpath(env)
    with pytest.raises(NoRealKafka, match=r"\(mvn\) is not installed"):
        kafka_classpath(env | {"PATH": str(tmp_path / "nowhere")})
    # Nothing half-made is left to be taken for the real thing.
    assert [one.name for one in (tmp_path / "cache" / "gpu-risk").iterdir()] == ["lock"]


def test_the_jars_are_fetched_once_however_many_ask(tmp_path: Path) -> None:
    _program(
        tmp_path,
        "mvn",
        f"echo run >> {tmp_path}/runs\n"
        'for one; do case $one in -DoutputDirectory=*) into="${one#*=}";; esac; done\n'
        'mkdir -p "$into"; touch "$into/kafka_2.13-4.jar"',
    )
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    paths: list[str] = []
    threads = [threading.Thread(target=lambda: paths.append(kafka_classpath(env))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 4
    assert len(set(paths)) == 1
    assert (tmp_path / "runs").read_text() == "run\n"


def test_a_maven_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path, "mvn", "sleep 600")
    monkeypatch.setattr(jars, "FETCH_S_MAX", 0.2)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    with pytest.raises(NoRealKafka, match=r"not done within 0\.2 s"):
        kafka_classpath(env)


_RUNNING = (
    '{"Service": "%s", "State": "running", "Publishers": [{"TargetPort": 9092, "PublishedPort": %d},'
    ' {"TargetPort": 9093, "PublishedPort": 0}]}'
)


def test_docker_lists_its_ports_line_by_line_or_as_one_array() -> None:
    rows = [_RUNNING % ("kafka-2", 9292), _RUNNING % ("kafka-1", 9192), _RUNNING % ("prometheus", 9090)]
    rows.append('{"Service": "kafka-3", "State": "exited", "Publishers": null}')
    assert published_ports("\n".join(rows)) == [9192, 9292]
    assert published_ports("[" + ",".join(rows) + "]") == [9192, 9292]
    assert published_ports("") == []


def test_containers_that_run_already_are_used_and_left(
    broker: MockCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = tmp_path / "listing"
    listing.write_text(_RUNNING % ("kafka-1", 9192))
    _program(
        tmp_path, "docker", f'echo "$@" >> {tmp_path}/calls; case "$*" in *" ps "*) cat {listing};; esac'
    )
    compose = tmp_path / "compose.yaml"
    compose.touch()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(real, "_COMPOSE", compose)
    found = find_kafka(1, env={})
    assert (found.origin, found.bootstrap) == ("docker/compose.yaml", "127.0.0.1:9192")
    found.close()
    assert " up " not in (tmp_path / "calls").read_text()
    # None is running: they are started, and taken down again because they do not come up.
    listing.write_text("")
    with pytest.raises(NoRealKafka, match="Docker: 0 of the services"):
        real.DockerKafka(3)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert any("up --detach --wait kafka-1 kafka-2 kafka-3" in call for call in calls)
    assert calls[-1].endswith("down --volumes")


def test_a_cluster_has_one_or_three_brokers() -> None:
    with pytest.raises(ValueError, match="1 or 3 brokers, not 2"):
        LocalKafka(2)


@pytest.mark.kafka
def test_a_broker_dies_with_the_process_that_started_it(kafka_broker: RealKafka) -> None:
    if not isinstance(kafka_broker, LocalKafka):
        pytest.skip(f"the broker comes from {kafka_broker.origin}")
    script = (
        "from service_kit.kafka.local_kafka import LocalKafka\n"
        "kafka = LocalKafka(1)\n"
        "print(kafka._folder, flush=True)\n"
        "input()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent:
        folder = Path(parent.stdout.readline().strip())
        children = psutil.Process(parent.pid).children(recursive=True)
        assert any("java" in child.name() for child in children)
        assert folder.is_dir()
        os.kill(parent.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    assert not folder.exists()
