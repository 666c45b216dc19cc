"""A WebSocket server for tests: enough of RFC 6455 for one feed, written apart from the client."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import struct


def server_frame(opcode, payload, *, final=True):
    size = len(payload)
    first = bytes([(0x80 if final else 0) | opcode])
    if size < 126:
        return first + bytes([size]) + payload
    if size < 65_536:
        return first + b"\x7e" + struct.pack(">H", size) + payload
    return first + b"\x7f" + struct.pack(">Q", size) + payload


class Peer:
    """One client's connection, from the server's side."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def shake_hands(self):
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        assert head.startswith("GET /feed?v=1 HTTP/1.1\r\n")
        assert (headers["Upgrade"], headers["Connection"], headers["Sec-WebSocket-Version"]) == (
            "websocket",
            "Upgrade",
            "13",
        )
        key = headers["Sec-WebSocket-Key"]
        assert len(base64.b64decode(key)) == 16
        magic = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1((key + magic).encode()).digest()).decode()
        self.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"
            + f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )

    def write(self, data):
        self.writer.write(data)

    def text(self, message):
        self.write(server_frame(1, json.dumps(message).encode()))

    async def receive(self):
        """(opcode, payload) of the next frame; clients must mask."""
        first, second = await self.reader.readexactly(2)
        assert first & 0xF0 == 0x80
        assert second & 0x80, "a client's frame must be masked"
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", await self.reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", await self.reader.readexactly(8))
        mask = await self.reader.readexactly(4)
        masked = await self.reader.readexactly(size)
        return first & 0x0F, bytes(byte ^ mask[place % 4] for place, byte in enumerate(masked))

    async def subscription(self):
        opcode, payload = await self.receive()
        assert opcode == 1
        message = json.loads(payload)
        assert message["op"] == "subscribe"
        return message["symbols"]

    def hang_up(self):
        self.writer.transport.abort()


class Server:
    """Runs one script per connection, in turn; the last one's for all that follow."""

    def __init__(self, *scripts):
        self.scripts, self.connections, self.faults = scripts, 0, []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        self.url = f"ws://127.0.0.1:{port}/feed?v=1"
        return self

    async def __aexit__(self, *_):
        self.server.close()
        await self.server.wait_closed()
        assert self.faults == []

    async def _serve(self, reader, writer):
        script = self.scripts[min(self.connections, len(self.scripts) - 1)]
        self.connections += 1
        peer = Peer(reader, writer)
        try:
            await script(peer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except AssertionError as fault:
            self.faults.append(fault)
        finally:
            peer.hang_up()
