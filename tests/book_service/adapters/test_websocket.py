"""The WebSocket client: RFC 6455's own examples, a real local server, hostile bytes."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from book_service.adapters.errors import WebSocketError
from book_service.adapters.websocket import WebSocketLimits, check_handshake, connect
from book_service.adapters.websocket_frames import FrameReader, Message, Opcode, accept_key, encode
from tests.book_service.adapters.websocket_server import Server, server_frame

LIMITS = WebSocketLimits(connect_s=10.0, idle_s=10.0, message_bytes_max=100_000)


def test_the_examples_of_the_rfc():
    # Section 1.3.
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    # Section 5.7: unmasked text; fragmented text; ping; masked text and masked pong, which clients send.
    hello = Message(Opcode.TEXT, b"Hello")
    assert FrameReader().feed(bytes.fromhex("810548656c6c6f")) == [hello]
    assert FrameReader().feed(bytes.fromhex("010348656c 80026c6f")) == [hello]
    assert FrameReader().feed(bytes.fromhex("890548656c6c6f")) == [Message(Opcode.PING, b"Hello")]
    mask = bytes.fromhex("37fa213d")
    assert encode(Opcode.TEXT, b"Hello", mask) == bytes.fromhex("818537fa213d7f9f4d5158")
    assert encode(Opcode.PONG, b"Hello", mask) == bytes.fromhex("8a8537fa213d7f9f4d5158")


@pytest.mark.parametrize(
    ("size", "head"),
    [(125, "817d"), (126, "817e007e"), (65_535, "817effff"), (65_536, "817f0000000000010000")],
)
def test_lengths_at_their_edges(size, head):
    text = b"x" * size
    assert FrameReader().feed(bytes.fromhex(head) + text) == [Message(Opcode.TEXT, text)]
    first, second, *rest = bytes.fromhex(head)
    masked = bytes([first, second | 0x80, *rest]) + bytes(4)
    assert encode(Opcode.TEXT, text, bytes(4)) == masked + text


def test_control_frames_may_come_between_fragments():
    data = server_frame(1, b"Hel", final=False) + server_frame(9, b"") + server_frame(0, b"lo")
    assert FrameReader().feed(data) == [Message(Opcode.PING, b""), Message(Opcode.TEXT, b"Hello")]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("c100", "reserved bits"),
        ("8180", "masked"),
        ("8300", "unknown opcode 3"),
        ("8200", "binary"),
        ("8000", "fragment without a beginning"),
        ("0100 8100", "beginning within a message"),
        ("0900", "ping frame is fragmented"),
        ("897e007e", "longer than 125"),
        ("817e007d", "more than it needs"),
        ("817f000000000000ffff", "more than it needs"),
        ("817fffffffffffffffff", "more than 1000 bytes"),
        ("017e03e8" + "61" * 1000 + "8001", "more than 1000 bytes"),
    ],
)
def test_what_no_server_may_send_is_refused_before_it_is_kept(data, says):
    reader = FrameReader(message_bytes_max=1000)
    with pytest.raises(WebSocketError, match=says):
        reader.feed(bytes.fromhex(data))


@given(
    st.lists(st.tuples(st.binary(max_size=300), st.integers(1, 3)), max_size=6), st.lists(st.integers(1, 50))
)
def test_messages_fragmented_and_cut_anywhere_come_out_whole(messages, cuts):
    stream, expected = b"", []
    for payload, pieces in messages:
        step = len(payload) // pieces + 1
        parts = [payload[at : at + step] for at in range(0, max(len(payload), 1), step)]
        for place, part in enumerate(parts):
            stream += server_frame(1 if place == 0 else 0, part, final=place == len(parts) - 1)
        expected.append(Message(Opcode.TEXT, payload))
    reader, got = FrameReader(), []
    for cut in [*cuts, len(stream)]:
        got += reader.feed(stream[:cut])
        stream = stream[cut:]
    assert got == expected


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_hostile_bytes_are_refused_or_read_and_memory_is_bounded(pieces):
    reader = FrameReader(message_bytes_max=50)
    try:
        for piece in pieces:
            for message in reader.feed(piece):
                assert len(message.payload) <= max(50, 125)
            assert len(reader._buffer) <= 50 + 125 + 10
            assert sum(map(len, reader._parts)) <= 50
    except WebSocketError:
        pass


def test_fragments_of_nothing_are_not_kept():
    reader = FrameReader()
    reader.feed(server_frame(1, b"", final=False) + server_frame(0, b"", final=False) * 1_000)
    assert reader._parts == []


async def test_talk_with_a_server():
    async def script(peer):
        await peer.shake_hands()
        peer.write(server_frame(9, b"are you there"))
        assert await peer.receive() == (1, "grüß dich".encode())
        assert await peer.receive() == (10, b"are you there")
        peer.write(server_frame(1, b"x" * 70_000))
        peer.write(server_frame(8, b"\x03\xe8bye"))
        assert await peer.receive() == (8, b"\x03\xe8")

    async with Server(script) as server, await connect(server.url, LIMITS) as socket:
        await socket.send("grüß dich")
        assert await socket.receive() == "x" * 70_000
        assert await socket.receive() is None


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (server_frame(1, b"\xff\xfe"), "not UTF-8"),
        (server_frame(1, b"x" * 100_001), "more than 100000 bytes"),
    ],
)
async def test_a_server_that_breaks_the_rules_is_left(frame, says):
    async def script(peer):
        await peer.shake_hands()
        peer.write(frame)
        opcode, payload = await peer.receive()
        assert (opcode, payload) == (8, b"\x03\xea")  # 1002: a protocol error

    async with Server(script) as server:
        with pytest.raises(WebSocketError, match=says):
            async with await connect(server.url, LIMITS) as socket:
                await socket.receive()


async def test_a_silent_server_is_pinged_and_then_left():
    pinged = asyncio.Event()

    async def script(peer):
        await peer.shake_hands()
        assert await peer.receive() == (9, b"")
        pinged.set()
        await peer.receive()

    async with Server(script) as server:
        with pytest.raises(WebSocketError, match="not a word"):
            async with await connect(server.url, WebSocketLimits(idle_s=0.05)) as socket:
                await socket.receive()
        assert pinged.is_set()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "403 Forbidden"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "SSH-2.0-OpenSSH"),
        (b"", "closed during the handshake"),
        (b"HTTP/1.1 101 x\r\n" + b"a: b\r\n" * 5_000 + b"\r\n", "more than 16384 bytes"),
    ],
)
async def test_what_is_no_websocket_server_is_refused(answer, says):
    async def script(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.write(answer)
        await peer.writer.drain()
        peer.writer.close()
        await peer.reader.read()

    async with Server(script) as server:
        with pytest.raises(WebSocketError, match=says):
            await connect(server.url, LIMITS)


GOOD = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"Upgrade": "h2c"}, "something else"),
        ({"Connection": "close"}, "does not upgrade"),
        ({"Sec-WebSocket-Accept": "nonsense"}, "does not match"),
        ({"Sec-WebSocket-Extensions": "permessage-deflate"}, "not offered"),
    ],
)
def test_handshakes_that_do_not_hold(change, says):
    def answer(headers):
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 101 Switching Protocols\r\n{lines}\r\n".encode()

    check_handshake(answer(GOOD), "dGhlIHNhbXBsZSBub25jZQ==")
    with pytest.raises(WebSocketError, match=says):
        check_handshake(answer(GOOD | change), "dGhlIHNhbXBsZSBub25jZQ==")


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "ws://", "127.0.0.1:80"])
async def test_addresses_that_can_never_work(url):
    with pytest.raises(ValueError, match="no ws://"):
        await connect(url, LIMITS)
