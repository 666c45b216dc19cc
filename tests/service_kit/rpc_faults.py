"""Every way in which a call can be refused, as one table to run against every RPC of a service.

    CASES = fault_cases(risk_pb2.DESCRIPTOR.services_by_name["RiskService"])

    @pytest.mark.parametrize("case", CASES, ids=str)
    async def test_refused(case, tmp_path):
        await case.check(make_server, World.make(tmp_path))

`make_server(settings)` gives an async context manager over a running GrpcServer. After each case the server
must still answer health and hold no call, no quota and no forgotten principal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service_kit.grpc_server import GrpcServer, GrpcSettings
from service_kit.grpc_server.status import DETAILS_KEY
from tests.service_kit.certificates import AUDIENCE, Pair, TokenIssuer, World

Metadata = Sequence[tuple[str, str]]
ServerFactory = Callable[[GrpcSettings], AbstractAsyncContextManager[GrpcServer]]
SameCall = Callable[..., Awaitable["Outcome"]]
PATIENCE_S = 30.0
# Past when the call begins: a deadline still to come is rounded up to a millisecond, enough for an answer.
TINY_S = -1.0
SMALL_LIMIT = 4096  # bytes
CORE, TRIES = "Internal error from Core", 20


@dataclass(frozen=True)
class Outcome:
    """How a call ended: its code, its text, the rich details, the messages that came before."""

    code: grpc.StatusCode
    text: str
    details: tuple[Message, ...]
    messages: tuple[Any, ...]

    def detail(self, kind: type[Message]) -> Any:
        """The one detail of that kind."""
        found = [one for one in self.details if isinstance(one, kind)]
        assert len(found) == 1, (kind, self)
        return found[0]


async def call(
    channel: grpc.aio.Channel,
    method: MethodDescriptor,
    *,
    metadata: Metadata = (),
    timeout: float | None = PATIENCE_S,
    request: Message | bytes | None = None,
    messages_max: int = 1,
    compression: grpc.Compression | None = None,
) -> Outcome:
    """Call any RPC, unary or streaming, by its descriptor.

    `request`: a message, raw bytes, or None for an empty one. Of a stream, `messages_max` answers are read.
    """
    streams = (method.client_streaming, method.server_streaming)
    shape = "_".join("stream" if one else "unary" for one in streams)
    answer = message_factory.GetMessageClass(method.output_type)
    path = f"/{method.containing_service.full_name}/{method.name}"
    stub: Any = getattr(channel, shape)(
        path, request_serializer=_bytes_of, response_deserializer=answer.FromString
    )
    data = request if request is not None else message_factory.GetMessageClass(method.input_type)()
    sent = _one(data) if method.client_streaming else data
    opened = stub(sent, metadata=metadata, timeout=timeout, compression=compression)
    messages: list[Any] = []
    try:
        # A server that forgets the deadline it owes fails the test instead of hanging it.
        async with asyncio.timeout(2 * PATIENCE_S):
            if not method.server_streaming:
                messages.append(await opened)
            else:
                async for message in opened:
                    messages.append(message)
                    if len(messages) >= messages_max:
                        opened.cancel()
                        break
    except grpc.aio.AioRpcError as error:
        trailing = dict(error.trailing_metadata() or ())
        return Outcome(error.code(), error.details() or "", rich_details(trailing), tuple(messages))
    return Outcome(grpc.StatusCode.OK, "", (), tuple(messages))


def _bytes_of(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


async def _one(data: Message | bytes) -> Any:
    yield data


def rich_details(trailing: dict[str, Any]) -> tuple[Message, ...]:
    """The google.rpc details in trailing metadata, unpacked."""
    status = status_pb2.Status.FromString(trailing.get(DETAILS_KEY, b""))
    kinds = [
        error_details_pb2.BadRequest,
        error_details_pb2.RetryInfo,
        error_details_pb2.ErrorInfo,
        error_details_pb2.ResourceInfo,
    ]
    found = []
    for packed in status.details:
        kind = next(one for one in kinds if packed.Is(one.DESCRIPTOR))
        found.append(kind())
        packed.Unpack(found[-1])
    return tuple(found)


def oversized(method: MethodDescriptor, size: int) -> bytes:
    """A valid message of at least `size` bytes: one unknown field full of zeros."""
    number = max((field.number for field in method.input_type.fields), default=0) + 1
    return _varint(number << 3 | 2) + _varint(size) + bytes(size)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


@dataclass(frozen=True)
class Fault:
    """One way to be refused: what the server is set to, what the client does, what must come back."""

    name: str
    code: grpc.StatusCode
    says: str = ""
    settings: tuple[tuple[str, Any], ...] = ()
    token: Callable[[TokenIssuer], str | None] = TokenIssuer.token
    client: Callable[[World], Pair | None] = lambda world: world.client
    prepare: Callable[[GrpcServer, SameCall], Awaitable[None]] | None = None
    request: Callable[[MethodDescriptor], bytes] | None = None
    compression: grpc.Compression | None = None
    timeout: float | None = PATIENCE_S
    holds: int = 0  # slots that `prepare` keeps
    detail: type[Message] | None = None


async def _use_up_rate(server: GrpcServer, same_call: SameCall) -> None:
    # A watch says nothing until something happens, so it is cut short; on a slow machine perhaps too short.
    while server.guard.quotas.principals == 0:
        first = await same_call(timeout=0.2)
        assert first.code is not grpc.StatusCode.RESOURCE_EXHAUSTED, first


async def _hold_own_slot(server: GrpcServer, _same_call: SameCall) -> None:
    server.guard.quotas.enter("desk-1", asyncio.get_running_loop().time())


async def _hold_every_slot(server: GrpcServer, _same_call: SameCall) -> None:
    server.guard.quotas.enter("somebody else", asyncio.get_running_loop().time())


_C = grpc.StatusCode
_BAD_REQUEST, _RETRY = error_details_pb2.BadRequest, error_details_pb2.RetryInfo
SLOW_RATE = (("rate_per_principal", 0.001), ("burst_per_principal", 1))

FAULTS = (
    Fault("no_certificate", _C.UNAVAILABLE, client=lambda _: None),
    Fault("strangers_certificate", _C.UNAVAILABLE, client=lambda world: world.stranger),
    Fault("no_token", _C.UNAUTHENTICATED, "no bearer token", token=lambda _: None),
    Fault("garbage_token", _C.UNAUTHENTICATED, "does not hold", token=lambda _: "a.b.c"),
    Fault("forged_token", _C.UNAUTHENTICATED, "does not hold", token=lambda _: TokenIssuer().token()),
    Fault("expired_token", _C.UNAUTHENTICATED, "has expired", token=lambda one: one.token(exp=1_600_000_000)),
    Fault("token_without_expiry", _C.UNAUTHENTICATED, "claim exp", token=lambda one: one.token(exp=None)),
    Fault("token_without_subject", _C.UNAUTHENTICATED, "claim sub", token=lambda one: one.token(sub=None)),
    Fault("wrong_audience", _C.UNAUTHENTICATED, "another audience", token=lambda one: one.token(aud="x")),
    Fault("wrong_issuer", _C.UNAUTHENTICATED, "another issuer", token=lambda one: one.token(iss=AUDIENCE)),
    Fault("algorithm_none", _C.UNAUTHENTICATED, "does not hold", token=TokenIssuer.unsigned),
    Fault("algorithm_confusion", _C.UNAUTHENTICATED, "does not hold", token=TokenIssuer.confused),
    Fault(
        "over_rate", _C.RESOURCE_EXHAUSTED, "calls per second", SLOW_RATE, prepare=_use_up_rate, detail=_RETRY
    ),
    Fault(
        "over_own_concurrency",
        _C.RESOURCE_EXHAUSTED,
        "one principal",
        (("max_calls_per_principal", 1),),
        prepare=_hold_own_slot,
        holds=1,
        detail=_RETRY,
    ),
    Fault(
        "over_all_concurrency",
        _C.RESOURCE_EXHAUSTED,
        "of this server",
        (("max_calls", 1),),
        prepare=_hold_every_slot,
        holds=1,
        detail=_RETRY,
    ),
    Fault("past_deadline_at_the_client", _C.DEADLINE_EXCEEDED, timeout=TINY_S),
    Fault(
        "past_deadline_at_the_server",
        _C.DEADLINE_EXCEEDED,
        "deadline passed",
        (("default_deadline_s", 1e-9), ("default_stream_deadline_s", 1e-9)),
        timeout=None,
    ),
    Fault("no_deadline", _C.INVALID_ARGUMENT, "no deadline", (("deadline", "required"),), timeout=None),
    Fault("deadline_too_long", _C.INVALID_ARGUMENT, "longer than the allowed", timeout=1e6),
    Fault(
        "oversized_message",
        _C.RESOURCE_EXHAUSTED,
        settings=(("max_message_bytes", SMALL_LIMIT),),
        request=lambda method: oversized(method, 2 * SMALL_LIMIT),
    ),
    Fault(
        "oversized_when_unpacked",
        _C.RESOURCE_EXHAUSTED,
        settings=(("max_message_bytes", SMALL_LIMIT),),
        request=lambda method: oversized(method, 1000 * SMALL_LIMIT),
        compression=grpc.Compression.Gzip,
    ),
    Fault(
        "not_a_message",
        _C.INVALID_ARGUMENT,
        "request: is not a message",
        request=lambda _: b"\xff" * 20,
        detail=_BAD_REQUEST,
    ),
)


@dataclass(frozen=True)
class FaultCase:
    """One fault against one RPC."""

    method: MethodDescriptor
    fault: Fault

    def __str__(self) -> str:
        return f"{self.method.name}-{self.fault.name}"

    async def check(self, factory: ServerFactory, world: World) -> None:
        """Run the case against a new server and look at what is left behind."""
        fault = self.fault
        settings = GrpcSettings(**world.settings(**dict(fault.settings)))
        token = fault.token(world.issuer)
        metadata = () if token is None else world.bearer(token)
        data = None if fault.request is None else fault.request(self.method)
        async with factory(settings) as server:
            async with secure_channel(server, world, fault.client(world)) as channel:

                async def same_call(timeout: float | None = fault.timeout) -> Outcome:
                    # grpc.aio's own client says INTERNAL when the call ends while it still sends a stream.
                    for _ in range(TRIES if self.method.client_streaming else 1):
                        outcome = await call(
                            channel,
                            self.method,
                            metadata=metadata,
                            timeout=timeout,
                            request=data,
                            compression=fault.compression,
                        )
                        if outcome.text != CORE:
                            break
                    return outcome

                if fault.prepare is not None:
                    await fault.prepare(server, same_call)
                outcome = await same_call()
            core = fault.timeout == TINY_S and outcome.text == CORE
            assert outcome.code is fault.code or core, (str(self), outcome)
            assert fault.says in outcome.text, (str(self), outcome)
            if fault.detail is not None:
                outcome.detail(fault.detail)
            await check_alive(server, world, fault.holds)


def fault_cases(service: ServiceDescriptor) -> list[FaultCase]:
    """Every fault against every RPC of a service."""
    return [FaultCase(method, fault) for method in service.methods for fault in FAULTS]


def secure_channel(server: GrpcServer, world: World, client: Pair | None) -> grpc.aio.Channel:
    """A channel over mutual TLS that gives up at the first failed handshake."""
    target = f"localhost:{server.port}"
    return grpc.aio.secure_channel(target, world.channel_credentials(client))


async def check_alive(server: GrpcServer, world: World, held: int = 0) -> None:
    """The server answers health, has no open call and remembers no more principals than it may."""
    async with secure_channel(server, world, world.client) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    # The server learns a moment later that a client has gone; nothing but the event loop is waited for.
    async with asyncio.timeout(PATIENCE_S):
        while server.guard.open or server.guard.quotas.open != held:
            await asyncio.sleep(0.001)
    assert server.guard.quotas.principals <= 2
