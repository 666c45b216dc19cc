"""How old the brokers are, asked of each by itself: the client library does not tell.

Brokers from version 4 on no longer answer the oldest versions of requests (KIP-896), and say so in the list
of what they do answer. That list comes before authentication, so no credentials are needed.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from typing import Final

from service_kit.errors import BrokerUnreachable
from service_kit.kafka.admin import check_broker
from service_kit.kafka.settings import KafkaSettings

_API_VERSIONS, _FETCH = 18, 1
_FETCH_LEAST_SINCE_4: Final = 4  # the oldest Fetch that version 4 answers; before it was 0
_ANSWER_BYTES_MAX: Final = 1 << 20
_WAIT_S: Final = 5.0


def all_from_version_4(settings: KafkaSettings) -> bool:
    """Whether every broker that answers is of version 4 or newer; BrokerUnreachable when none does."""
    found = []
    why = "no broker"
    for broker in check_broker(settings):
        try:
            found.append(_oldest_fetch(settings, broker.host, broker.port) >= _FETCH_LEAST_SINCE_4)
        except (OSError, struct.error, ValueError) as fault:
            why = f"{broker.host}:{broker.port} does not say its version: {fault}"
    if not found:
        raise BrokerUnreachable(settings.bootstrap, why)
    return all(found)


def _oldest_fetch(settings: KafkaSettings, host: str, port: int) -> int:
    """The lowest version of Fetch that a broker answers."""
    name = settings.client_id.encode()
    request = struct.pack(f">hhih{len(name)}s", _API_VERSIONS, 0, 1, len(name), name)
    plain = socket.create_connection((host, port), _WAIT_S)
    with contextlib.closing(plain), _secured(settings, plain, host) as channel:
        channel.sendall(struct.pack(">i", len(request)) + request)
        (length,) = struct.unpack(">i", _read(channel, 4))
        if not 10 <= length <= _ANSWER_BYTES_MAX:
            raise ValueError(f"an answer of {length} bytes")
        answer = _read(channel, length)
    _, error, count = struct.unpack_from(">ihi", answer)
    if error:
        raise ValueError(f"error {error}")
    ranges = [struct.unpack_from(">hhh", answer, 10 + 6 * place) for place in range(count)]
    return next((oldest for key, oldest, _ in ranges if key == _FETCH), 0)


def _secured(settings: KafkaSettings, plain: socket.socket, host: str) -> socket.socket:
    if not settings.security_protocol.endswith("ssl"):
        return plain
    context = ssl.create_default_context(cafile=settings.ssl_ca_file or None)
    if settings.ssl_certificate_file:
        context.load_cert_chain(settings.ssl_certificate_file, settings.ssl_key_file or None)
    return context.wrap_socket(plain, server_hostname=host)


def _read(channel: socket.socket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        some = channel.recv(length - len(parts))
        if not some:
            raise ValueError("the connection was closed")
        parts += some
    return bytes(parts)
