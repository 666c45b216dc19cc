from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from service_kit.kafka.consumer import Consumer
from service_kit.kafka.embedded import EmbeddedBroker
from service_kit.kafka.records import Message
from service_kit.kafka.settings import KafkaSettings


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def settings(broker: EmbeddedBroker) -> KafkaSettings:
    return broker.settings()


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
