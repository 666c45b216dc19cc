"""A WebSocket client (RFC 6455) over asyncio streams: as much as a public feed needs."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import urlsplit

from book_service.adapters.errors import WebSocketError
from book_service.adapters.websocket_frames import FrameReader, Message, Opcode, accept_key, encode

_READ_BYTES = 1 << 16
_HEAD_BYTES_MAX = 16 << 10
_NORMAL, _PROTOCOL_ERROR = 1000, 1002


@dataclass(frozen=True, slots=True)
class WebSocketLimits:
    """How long to wait for what, and how large a message may be."""

    connect_s: float = 10.0
    idle_s: float = 15.0  # without a word, a ping is sent; as long again without one, the peer is gone
    close_s: float = 1.0
    message_bytes_max: int = 4 << 20


@dataclass(slots=True)
class WebSocket:
    """An open connection; made by `connect`."""

    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter
    _limits: WebSocketLimits
    _frames: FrameReader
    _waiting: deque[Message] = field(default_factory=deque)

    async def __aenter__(self) -> WebSocket:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(_PROTOCOL_ERROR if isinstance(error, WebSocketError) else _NORMAL)

    async def send(self, text: str) -> None:
        """Sends a text message."""
        await self._send(Opcode.TEXT, text.encode())

    async def receive(self) -> str | None:
        """The next text message; None once the peer has closed. WebSocketError if it is silent or wrong."""
        while True:
            message = await self._next()
            if message is None or message.opcode == Opcode.CLOSE:
                return None
            if message.opcode == Opcode.PING:
                await self._send(Opcode.PONG, message.payload)
            elif message.opcode == Opcode.TEXT:
                try:
                    return message.payload.decode()
                except UnicodeDecodeError as error:
                    raise WebSocketError("a text message is not UTF-8") from error

    async def close(self, code: int = _NORMAL) -> None:
        """Says goodbye and closes, whatever the peer does."""
        try:
            async with asyncio.timeout(self._limits.close_s):
                await self._send(Opcode.CLOSE, code.to_bytes(2, "big"))
                self._writer.close()
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._writer.transport.abort()

    async def _send(self, opcode: Opcode, payload: bytes) -> None:
        self._writer.write(encode(opcode, payload, os.urandom(4)))
        await self._writer.drain()

    async def _next(self) -> Message | None:
        while not self._waiting:
            self._frames.check()
            data = await self._read()
            if not data:
                return None
            self._waiting.extend(self._frames.feed(data))
        return self._waiting.popleft()

    async def _read(self) -> bytes:
        for last in (False, True):
            try:
                async with asyncio.timeout(self._limits.idle_s):
                    return await self._reader.read(_READ_BYTES)
            except TimeoutError:
                if not last:
                    await self._send(Opcode.PING, b"")
        raise WebSocketError(f"not a word for {2 * self._limits.idle_s:g} s")


async def connect(url: str, limits: WebSocketLimits, tls: ssl.SSLContext | None = None) -> WebSocket:
    """Opens ws://… or wss://…; OSError if nobody is there, WebSocketError if it is no WebSocket.

    ValueError for an address that can never work.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError(f"{url!r} is no ws:// or wss:// address")
    secure = parts.scheme == "wss"
    port = parts.port or (443 if secure else 80)
    context = (tls or ssl.create_default_context()) if secure else None
    try:
        async with asyncio.timeout(limits.connect_s):
            reader, writer = await asyncio.open_connection(
                parts.hostname, port, ssl=context, limit=_HEAD_BYTES_MAX
            )
            try:
                await _shake_hands(reader, writer, parts.netloc, _target(parts.path, parts.query))
            except BaseException:
                writer.transport.abort()
                raise
    except TimeoutError as error:
        raise WebSocketError(f"{url}: no answer within {limits.connect_s:g} s") from error
    return WebSocket(reader, writer, limits, FrameReader(limits.message_bytes_max))


def _target(path: str, query: str) -> str:
    return (path or "/") + (f"?{query}" if query else "")


async def _shake_hands(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, target: str
) -> None:
    key = base64.b64encode(os.urandom(16)).decode()
    request = (
        f"GET {target} HTTP/1.1\r\nHost: {host.rpartition('@')[2]}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    writer.write(request.encode())
    await writer.drain()
    try:
        answer = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        raise WebSocketError("the connection was closed during the handshake") from error
    except asyncio.LimitOverrunError as error:
        raise WebSocketError(f"the handshake has more than {_HEAD_BYTES_MAX} bytes") from error
    check_handshake(answer, key)


def check_handshake(answer: bytes, key: str) -> None:
    """WebSocketError unless a server's answer (RFC 6455, 4.1) accepts the connection asked for with `key`."""
    lines = answer.decode("latin-1").split("\r\n")
    status = lines[0].split(" ", 2)
    if len(status) < 2 or not status[0].startswith("HTTP/1.1") or status[1] != "101":
        raise WebSocketError(f"the server answers {lines[0][:80]!r}, not a switch of protocols")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
    }
    if headers.get("upgrade", "").lower() != "websocket":
        raise WebSocketError("the server upgrades to something else")
    if "upgrade" not in (token.strip().lower() for token in headers.get("connection", "").split(",")):
        raise WebSocketError("the server does not upgrade the connection")
    if headers.get("sec-websocket-accept") != accept_key(key):
        raise WebSocketError("the server's Sec-WebSocket-Accept does not match")
    if headers.get("sec-websocket-extensions") or headers.get("sec-websocket-protocol"):
        raise WebSocketError("the server chose an extension or a protocol that was not offered")
