"""How old the brokers are: a real one, the embedded one, and servers that answer nonsense."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable

import pytest

from service_kit.errors import BrokerUnreachable
from service_kit.kafka import broker_version
from service_kit.kafka.admin import Broker
from service_kit.kafka.broker_version import all_from_version_4
from service_kit.kafka.embedded import EmbeddedBroker
from service_kit.kafka.real import RealKafka
from service_kit.kafka.settings import KafkaSettings


def test_a_real_broker_of_version_4(kafka_broker: RealKafka) -> None:
    assert all_from_version_4(KafkaSettings(bootstrap=kafka_broker.bootstrap))


def test_the_embedded_broker_is_an_old_one() -> None:
    with EmbeddedBroker() as broker:
        assert not all_from_version_4(broker.settings())


def listed(*ranges: tuple[int, int, int], error: int = 0) -> bytes:
    """An answer by the protocol's description: correlation, error, then key, oldest and newest of each."""
    body = struct.pack(">ihi", 1, error, len(ranges)) + b"".join(struct.pack(">hhh", *one) for one in ranges)
    return struct.pack(">i", len(body)) + body


def answering(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """A server that gives this answer to whatever comes, as the only broker."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        channel, _ = server.accept()
        with channel, server:
            channel.recv(1_000)
            channel.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    port = server.getsockname()[1]
    monkeypatch.setattr(broker_version, "check_broker", lambda settings: (Broker(1, "127.0.0.1", port),))
    return lambda: all_from_version_4(KafkaSettings(bootstrap=f"127.0.0.1:{port}"))


@pytest.mark.parametrize(
    ("answer", "new"),
    [
        (listed((0, 3, 12), (1, 4, 17), (18, 0, 4)), True),
        (listed((0, 0, 11), (1, 0, 16), (18, 0, 3)), False),
        (listed((18, 0, 3)), False),
    ],
)
def test_the_oldest_fetch_tells(answer: bytes, new: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answering(answer, monkeypatch)() is new


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        listed(error=35),
        struct.pack(">i", -1),
        listed((1, 4, 5))[:-2],
    ],
    ids=["closed", "http", "error", "length", "cut"],
)
def test_what_is_no_answer_is_no_broker(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BrokerUnreachable, match="does not say its version"):
        answering(answer, monkeypatch)()
