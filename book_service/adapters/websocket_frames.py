"""WebSocket frames (RFC 6455, section 5) as a client sees them: bytes in, messages out, and back.

Text only: a feed that sends binary messages speaks another language. No extensions are offered, so none is
accepted. Sizes are checked when they are announced, before anything is kept.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from book_service.adapters.errors import WebSocketError

MESSAGE_BYTES_MAX = 4 << 20
CONTROL_BYTES_MAX = 125  # RFC 6455, 5.5
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_FIN, _RESERVED, _MASKED = 0x80, 0x70, 0x80
_SHORT_MAX, _TWO_BYTES, _EIGHT_BYTES = 125, 126, 127


class Opcode(IntEnum):
    """What a frame is."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class Message(NamedTuple):
    """A whole text message, or a control frame."""

    opcode: Opcode
    payload: bytes


class _Head(NamedTuple):
    final: bool
    opcode: Opcode
    start: int  # of the payload
    length: int


def accept_key(key: str) -> str:
    """What a server must answer to a Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def encode(opcode: Opcode, payload: bytes, mask: bytes) -> bytes:
    """One final frame from a client: always masked, by four random bytes."""
    length = len(payload)
    if length <= _SHORT_MAX:
        head = bytes((_FIN | opcode, _MASKED | length))
    elif length < 1 << 16:
        head = bytes((_FIN | opcode, _MASKED | _TWO_BYTES)) + length.to_bytes(2, "big")
    else:
        head = bytes((_FIN | opcode, _MASKED | _EIGHT_BYTES)) + length.to_bytes(8, "big")
    pad = (mask * (length // 4 + 1))[:length]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")
    return head + mask + masked.to_bytes(length, "big")


@dataclass(slots=True)
class FrameReader:
    """Puts a server's frames together. Keeps less than one message of the largest size and a frame's head."""

    message_bytes_max: int = MESSAGE_BYTES_MAX
    _buffer: bytearray = field(default_factory=bytearray)
    _parts: list[bytes] = field(default_factory=list)
    _parts_bytes: int = 0
    _within: bool = False  # a fragmented message
    _fault: WebSocketError | None = None  # found behind messages that were good

    def feed(self, data: bytes) -> list[Message]:
        """Messages that are whole with `data`; WebSocketError for what no server may send.

        Messages before a fault are given first: the error comes with the next call, whatever its data.
        """
        self.check()
        self._buffer += data
        messages: list[Message] = []
        used = 0
        try:
            while (head := self._head(used)) is not None and head.start + head.length <= len(self._buffer):
                used = head.start + head.length
                message = self._take(head, bytes(self._buffer[head.start : used]))
                if message is not None:
                    messages.append(message)
        except WebSocketError as fault:
            self._fault = fault
            self._buffer.clear()
            if not messages:
                raise
        del self._buffer[:used]
        return messages

    def check(self) -> None:
        """WebSocketError if a fault was found."""
        if self._fault is not None:
            raise self._fault

    def _head(self, at: int) -> _Head | None:
        buffer = self._buffer
        if len(buffer) < at + 2:
            return None
        first, second = buffer[at], buffer[at + 1]
        if first & _RESERVED:
            raise WebSocketError("a frame has reserved bits set")
        if second & _MASKED:
            raise WebSocketError("a server's frame is masked")
        try:
            opcode = Opcode(first & 0x0F)
        except ValueError:
            raise WebSocketError(f"a frame has the unknown opcode {first & 0x0F}") from None
        length, start = second & 0x7F, at + 2
        if length > _SHORT_MAX:
            size = 2 if length == _TWO_BYTES else 8
            if len(buffer) < start + size:
                return None
            length = int.from_bytes(buffer[start : start + size], "big")
            start += size
            if length <= _SHORT_MAX or (size == 8 and length < 1 << 16):
                raise WebSocketError(f"a length of {length} takes {size} bytes more than it needs")
        self._check(opcode, length, final=bool(first & _FIN))
        return _Head(bool(first & _FIN), opcode, start, length)

    def _check(self, opcode: Opcode, length: int, *, final: bool) -> None:
        if opcode >= Opcode.CLOSE:
            if not final or length > CONTROL_BYTES_MAX:
                raise WebSocketError(f"a {opcode.name.lower()} frame is fragmented or longer than 125 bytes")
            return
        if opcode == Opcode.BINARY:
            raise WebSocketError("a binary message where the feed has text")
        if (opcode == Opcode.CONTINUATION) != self._within:
            raise WebSocketError("a fragment without a beginning, or a beginning within a message")
        if self._parts_bytes + length > self.message_bytes_max:
            raise WebSocketError(f"a message has more than {self.message_bytes_max} bytes")

    def _take(self, head: _Head, payload: bytes) -> Message | None:
        if head.opcode >= Opcode.CLOSE:
            return Message(head.opcode, payload)
        # Fragments of nothing would be kept for ever without counting.
        if payload:
            self._parts.append(payload)
        self._parts_bytes += len(payload)
        self._within = not head.final
        if self._within:
            return None
        whole = b"".join(self._parts)
        self._parts, self._parts_bytes = [], 0
        return Message(Opcode.TEXT, whole)
