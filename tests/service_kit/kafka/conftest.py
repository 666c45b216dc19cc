from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from service_kit.kafka.consumer import Consumer
from service_kit.kafka.embedded import EmbeddedBroker
from service_kit.kafka.mock_cluster import MockCluster
from service_kit.kafka.records import Message
from service_kit.kafka.settings import KafkaSettings


@pytest.fixture
def broker() -> Iterator[MockCluster]:
    """A broker that fails on command."""
    with MockCluster() as broker:
        yield broker


@pytest.fixture
def settings(request: pytest.FixtureRequest) -> Iterator[KafkaSettings]:
    """Of the broker that the test makes fail; of the embedded one where nothing is to fail."""
    if "broker" in request.fixturenames:
        yield request.getfixturevalue("broker").settings()
        return
    with EmbeddedBroker() as embedded:
        yield embedded.settings()


@pytest.fixture
def new_topic() -> str:
    """A name that no other test uses, on a broker that outlives the test."""
    return f"test.{uuid.uuid4().hex[:12]}"


Drain = Callable[[Consumer[bytes], int], list[Message[bytes]]]


@pytest.fixture
def drain() -> Drain:
    """Reads until that many messages are there; a consumer that never gets them fails the test."""

    def read(consumer: Consumer[bytes], count: int) -> list[Message[bytes]]:
        out: list[Message[bytes]] = []
        # The group join takes a few polls; every poll is bounded, and so is the number of empty ones.
        empty = 0
        while empty < 60:
            messages = consumer.poll(timeout_s=0.3)
            empty = 0 if messages else empty + 1
            out += messages
            if len(out) >= count:
                return out
        raise AssertionError(f"only {len(out)} of {count} messages came")

    return read
