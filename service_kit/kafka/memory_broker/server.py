"""The broker's sockets: requests in, answers out in the order of the requests."""

from __future__ import annotations

import asyncio
import struct
import sys
from collections import deque

from service_kit.kafka.memory_broker.codes import VERSIONS, Api
from service_kit.kafka.memory_broker.fetches import Fetch
from service_kit.kafka.memory_broker.requests import Requests, api_versions
from service_kit.kafka.memory_broker.topics import Topics
from service_kit.kafka.memory_broker.wire import Malformed, Reader

HOST = "127.0.0.1"
REQUEST_BYTES_MAX = 128 * 1024 * 1024
# Requests of one connection that wait for the one before them; more are left in the socket.
WAITING_MAX = 100

_SIZE = struct.Struct(">i")
_HEAD = struct.Struct(">hhi")


class Connection(asyncio.Protocol):
    """One client. As with a real broker, a request waits until the one before it is answered."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._transport: asyncio.Transport | None = None
        self._come = bytearray()
        self._queue: deque[bytes] = deque()
        self._busy = False
        self._fetch: Fetch | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's."""
        self._transport = None
        self._queue.clear()
        if self._fetch is not None:
            self._fetch.stop()

    def data_received(self, data: bytes) -> None:
        """asyncio's."""
        self._come += data
        at = 0
        while len(self._come) - at >= _SIZE.size:
            (size,) = _SIZE.unpack_from(self._come, at)
            if not _HEAD.size <= size <= REQUEST_BYTES_MAX:
                self._give_up(f"a request of {size} bytes")
                return
            end = at + _SIZE.size + size
            if end > len(self._come):
                break
            self._queue.append(bytes(self._come[at + _SIZE.size : end]))
            at = end
        del self._come[:at]
        self._work()

    def _work(self) -> None:
        while self._queue and not self._busy and self._transport is not None:
            request = self._queue.popleft()
            try:
                self._answer(request)
            except Malformed as fault:
                self._give_up(str(fault))
        if self._transport is not None:
            if len(self._queue) > WAITING_MAX:
                self._transport.pause_reading()
            elif not self._transport.is_reading():
                self._transport.resume_reading()

    def _answer(self, request: bytes) -> None:
        number, version, correlation = _HEAD.unpack_from(request)
        try:
            api = Api(number)
        except ValueError as unknown:
            raise Malformed(f"requests of kind {number} are not answered here") from unknown
        oldest, newest = VERSIONS[api]
        if api is Api.API_VERSIONS:
            self._send(correlation, api_versions(version))
            return
        if not oldest <= version <= newest:
            raise Malformed(f"{api.name} of version {version} is not answered here")
        reader = Reader(request[_HEAD.size :])
        reader.optional_string()  # the client's name
        self._busy = True
        answered = False

        def reply(body: bytes) -> None:
            nonlocal answered
            answered = True
            self._busy, self._fetch = False, None
            self._send(correlation, body)
            if later:
                self._work()

        later = False
        fetch = self._requests.answer(api, version, reader, reply)
        later = True
        if answered:
            return
        if api is Api.PRODUCE:
            self._busy = False  # nobody wants to know
        self._fetch = fetch

    def _send(self, correlation: int, body: bytes) -> None:
        if self._transport is not None:
            self._transport.write(_SIZE.pack(len(body) + 4) + _SIZE.pack(correlation) + body)

    def _give_up(self, why: str) -> None:
        print(f"a connection is closed: {why}", file=sys.stderr, flush=True)
        if self._transport is not None:
            self._transport.abort()
            self._transport = None


async def serve(topics: Topics, ended: asyncio.Event) -> None:
    """Says its port on standard output, and serves until `ended`."""
    loop = asyncio.get_running_loop()
    requests = Requests(topics, HOST, 0, loop.call_later)
    server = await loop.create_server(lambda: Connection(requests), HOST, 0)
    requests.port = server.sockets[0].getsockname()[1]
    print(requests.port, flush=True)
    await ended.wait()
    server.close()
