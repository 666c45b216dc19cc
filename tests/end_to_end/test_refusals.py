"""What a user may get wrong when starting a process: one clear line, exit status 1."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest
from running import run_risk

from protos.topics import ORDERS_EXECUTED, RISK_PORTFOLIOS, TOPICS
from service_kit.kafka.embedded import EmbeddedBroker

COMMANDS = ("serve", "book", "feed")


def refused(*words, **settings):
    """The one line that the command left on stderr."""
    ended = run_risk(*words, settings=settings)
    assert ended.returncode == 1, ended.stderr
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1, ended.stderr
    assert ended.stdout == ""
    return lines[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unreachable_broker(command):
    line = refused(command, GPU_RISK_KAFKA_BOOTSTRAP="127.0.0.1:1")
    assert "127.0.0.1:1" in line
    assert "cannot be reached" in line


@pytest.mark.parametrize("command", COMMANDS)
def test_no_broker_named(command):
    assert "kafka.bootstrap" in refused(command)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_setting_names_its_neighbour(command):
    line = refused(command, GPU_RISK_KAFKA_BOOTSTRAPS="x")
    assert "GPU_RISK_KAFKA_BOOTSTRAPS" in line
    assert "did you mean GPU_RISK_KAFKA_BOOTSTRAP" in line


def test_bad_values():
    assert "GPU_RISK_GRPC_PORT" in refused("serve", GPU_RISK_GRPC_PORT="many")
    assert "book.instruments" in refused("book", GPU_RISK_BOOK_INSTRUMENTS="AAPL")
    assert "GPU_RISK_FEED_UNDERLYINGS" in refused("feed", GPU_RISK_FEED_UNDERLYINGS="0")
    assert "risk.history" in refused("serve", GPU_RISK_RISK_HISTORY="nowhere.csv")


def test_a_taken_port():
    with EmbeddedBroker() as broker, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for command in ("serve", "book"):
            line = refused(command, GPU_RISK_KAFKA_BOOTSTRAP=broker.bootstrap, GPU_RISK_GRPC_PORT=port)
            assert f"127.0.0.1:{port}" in line


def test_topics_that_would_lose_records():
    made = [replace(one, kept=False, compacted=False) for one in TOPICS]
    with EmbeddedBroker(made) as broker:
        for command, topic in (("serve", ORDERS_EXECUTED), ("book", ORDERS_EXECUTED)):
            line = refused(command, GPU_RISK_KAFKA_BOOTSTRAP=broker.bootstrap)
            assert f"topic {topic}" in line
            assert "retention.bytes=-1 is needed" in line
    with EmbeddedBroker([one for one in TOPICS if one.name != RISK_PORTFOLIOS]) as broker:
        line = refused("serve", GPU_RISK_KAFKA_BOOTSTRAP=broker.bootstrap)
        assert f"no topic {RISK_PORTFOLIOS}" in line


def test_an_engine_that_is_not_there():
    with EmbeddedBroker() as broker:
        line = refused("serve", GPU_RISK_KAFKA_BOOTSTRAP=broker.bootstrap, GPU_RISK_RISK_ENGINE="quantum")
    assert "risk.engine" in line
    assert "quantum" in line


def test_an_unreachable_server():
    ended = run_risk("watch", "--server", "127.0.0.1:1")
    assert ended.returncode == 1
    assert ended.stderr == "risk: 127.0.0.1:1: nobody listens there\n"


def test_wrong_usage_is_status_2():
    assert run_risk("no-such-command").returncode == 2
    assert run_risk("watch", "--seconds", "-1").returncode == 2


def test_engines_lists_all_four():
    ended = run_risk("engines")
    assert ended.returncode == 0
    for name in ("cuda", "cpu", "xla", "reference"):
        assert name in ended.stdout
