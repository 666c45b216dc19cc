"""One process at a time has the seat, on the embedded broker and on a real one; the others take over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from protos.topics import Topic, dead_letter
from service_kit.kafka.admin import ensure_topics
from service_kit.kafka.embedded import EmbeddedBroker
from service_kit.kafka.errors import ConsumerFailed
from service_kit.kafka.seat import Seat
from service_kit.kafka.settings import KafkaSettings

PATIENCE_S = 60.0
CHILD = """
import json, sys, time
from service_kit.kafka.seat import Seat
from service_kit.kafka.settings import KafkaSettings
bootstrap, topic, session_ms = sys.argv[1:]
said = None
with Seat(KafkaSettings(bootstrap=bootstrap, session_timeout_ms=int(session_ms)), topic, topic) as seat:
    while True:
        now = seat.term if seat.sure else 0
        if now != said:
            said = now
            print(json.dumps([time.monotonic(), now]), flush=True)
        time.sleep(0.001)
"""


@pytest.fixture(params=["embedded", "real"])
def kafka(request: pytest.FixtureRequest) -> Iterator[KafkaSettings]:
    if request.param == "real":
        yield KafkaSettings(bootstrap=request.getfixturevalue("kafka_broker").bootstrap)
        return
    with EmbeddedBroker() as broker:
        yield broker.settings(KafkaSettings())


@pytest.fixture
def topic(kafka: KafkaSettings, new_topic: str) -> str:
    made = Topic(new_topic, key="none", partitions=1)
    assert ensure_topics(kafka, [made], dead_letters=False) == [new_topic]
    assert ensure_topics(kafka, [made]) == [dead_letter(new_topic)]
    return new_topic


def until(done: Callable[[], object]) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < ends
        time.sleep(0.005)


class Child:
    """A process of its own with a seat: when it came to have it, and when no longer."""

    def __init__(self, kafka: KafkaSettings, topic: str, out: Path) -> None:
        words = [sys.executable, "-c", CHILD, kafka.bootstrap, topic, str(kafka.session_timeout_ms)]
        self.out = out
        with out.open("w") as file:
            self.process = subprocess.Popen(words, stdout=file)

    def said(self) -> list[tuple[float, int]]:
        return [(at, term) for at, term in map(json.loads, self.out.read_text().splitlines())]

    def sits(self) -> bool:
        return bool(self.said()) and self.said()[-1][1] > 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def test_the_second_stands_by_until_the_first_has_left(kafka: KafkaSettings, topic: str) -> None:
    first = Seat(kafka, topic, topic).open()
    assert first.wait(PATIENCE_S)
    term = first.term
    with Seat(kafka, topic, topic) as second:
        until(lambda: second.holder)
        assert f"process {os.getpid()}" in second.holder
        assert (second.term, second.sure, second.wait(0.5)) == (0, False, False)
        # That another has come is no reason to get up.
        assert (first.term, first.sure) == (term, True)
        first.close()
        assert (first.term, first.sure) == (0, False)
        assert second.wait(PATIENCE_S)
        third = Seat(kafka, topic, topic).open()
        until(lambda: third.holder)
        assert (second.sure, third.term) == (True, 0)
        third.close()
        assert second.sure


def test_a_killed_one_is_followed_within_its_session_and_a_stopped_one_is_not_sure_when_it_wakes(
    kafka: KafkaSettings, topic: str, tmp_path: Path
) -> None:
    first = Child(kafka, topic, tmp_path / "first")
    second: Child | None = None
    third: Child | None = None
    try:
        until(first.sits)
        second = Child(kafka, topic, tmp_path / "second")
        until(second.said)
        first.process.send_signal(signal.SIGSTOP)
        until(second.sits)
        taken = second.said()[-1][0]
        first.process.send_signal(signal.SIGCONT)
        until(lambda: not first.sits())
        # It never said that it is sure after the other one was; at most one sits at any moment.
        assert [at for at, term in first.said() if term and at > taken] == []
        second.kill()
        third = Child(kafka, topic, tmp_path / "third")
        until(lambda: first.sits() or third.sits())
        assert first.sits() != third.sits()
    finally:
        for one in (first, second, third):
            if one is not None:
                one.kill()


def test_one_that_was_held_up_asks_the_group_before_it_is_sure_again(
    kafka: KafkaSettings, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Seat(kafka, topic, topic) as seat:
        assert seat.wait(PATIENCE_S)
        asked = []
        confirmed = seat._confirmed
        monkeypatch.setattr(Seat, "_confirmed", lambda self, client: asked.append(1) or False)
        seat._believed_s = 0.0  # every look comes too late
        until(lambda: len(asked) > 1)
        assert (seat.sure, seat.term) == (False, 1)
        monkeypatch.setattr(Seat, "_confirmed", lambda self, client: confirmed(client))
        seat._believed_s = 3.0
        assert seat.wait(PATIENCE_S)


def test_what_the_brokers_refuse_for_good_is_told(kafka: KafkaSettings, topic: str) -> None:
    """Two processes under one name: the later shuts the earlier out, which must end."""
    named = KafkaSettings(
        bootstrap=kafka.bootstrap, session_timeout_ms=kafka.session_timeout_ms, group_instance_id="one"
    )
    with Seat(named, topic, topic) as first:
        assert first.wait(PATIENCE_S)
        with Seat(named, topic, topic) as second:
            # At once: nobody waits for the session of one that comes again under its name.
            assert second.wait(PATIENCE_S)

            def shut_out() -> bool:
                try:
                    return first.term < 0
                except ConsumerFailed as fault:
                    return "fenced" in str(fault).lower()

            until(shut_out)
            assert not first.sure
