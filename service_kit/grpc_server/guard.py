"""The one chain around every handler: identity, quota, deadline, handler, errors, metrics, trace.

The handlers are wrapped once, when the server is built, instead of going through grpc's interceptors: an
interceptor is asked again for a handler on every call. To grpc every request is a stream of bytes, also the
single one of a unary call: so nothing is read, kept or parsed before the caller is known and within its
quota, and a caller that never sends its message runs into its deadline. On the wire there is no difference.
"""

from __future__ import annotations

import asyncio
import inspect
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc.aio import EOF  # type: ignore[attr-defined]

from service_kit import errors
from service_kit.errors import CallError
from service_kit.grpc_server.call import CURRENT, CallContext
from service_kit.grpc_server.call_log import CallLog, request_id
from service_kit.grpc_server.identity import ANYBODY, Identities
from service_kit.grpc_server.quota import RETRY_WHEN_BUSY_S, Account, Quotas
from service_kit.grpc_server.settings import GrpcSettings
from service_kit.grpc_server.status import WireStatus, internal_status, wire_status
from service_kit.telemetry.logs import ABOUT, logger
from service_kit.telemetry.metrics import GrpcMetrics
from service_kit.telemetry.traces import NO_SPAN, Span, Traces

RETRY_AFTER_STOP_S = 1.0
PUBLIC_CALLS_MAX = 64  # open at once, all callers together
# Deadlines travel with few digits, rounded up: 200 s arrives as 201.
WIRE_ROUNDING = 1.01
Translate = Callable[[Exception], CallError | None]


@dataclass(frozen=True, slots=True)
class _Route:
    """What the chain needs to know about one RPC."""

    method: str
    public: bool
    streams_in: bool
    streams_out: bool


class _Open:
    """A call between its admission and its end."""

    __slots__ = ("account", "call", "timeout")

    def __init__(self, call: CallContext, account: Account | None, timeout: asyncio.Timeout) -> None:
        self.call, self.account, self.timeout = call, account, timeout


class Guard:
    """Wraps the handlers of a server and knows all calls that are open."""

    def __init__(
        self, settings: GrpcSettings, metrics: GrpcMetrics, traces: Traces, translate: Translate | None = None
    ) -> None:
        self._settings, self._metrics, self._traces, self._translate = settings, metrics, traces, translate
        self._identities = Identities(settings)
        self.quotas = Quotas(settings)
        self.open: set[_Open] = set()
        self.stopping = False
        self._log = logger("grpc")
        self._calls = CallLog(settings.slow_call_s)

    def wrap(self, method: str, handler: Any, *, public: bool = False) -> Any:
        """The grpc handler with the chain around it; `public` leaves out identity and quota (health)."""
        self._metrics.serve(method)
        streams_in, streams_out = handler.request_streaming, handler.response_streaming
        shape = f"{'stream' if streams_in else 'unary'}_{'stream' if streams_out else 'unary'}"
        behaviour, route = getattr(handler, shape), _Route(method, public, streams_in, streams_out)
        read = partial(_each if streams_in else _single, handler.request_deserializer)
        if not (inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour)):
            # What generated code gives for an RPC that the servicer does not define.
            behaviour = partial(_not_served, method)

        async def answer_once(_data: Any, context: Any) -> Any:
            return await self._run(route, behaviour, read, context)

        async def answer_stream(_data: Any, context: Any) -> None:
            await self._run(route, partial(_send, behaviour), read, context)

        write = partial(_written, handler.response_serializer)
        if streams_out:
            return grpc.stream_stream_rpc_method_handler(answer_stream, None, write)
        return grpc.stream_unary_rpc_method_handler(answer_once, None, write)

    async def _run(
        self,
        route: _Route,
        body: Callable[[Any, Any], Awaitable[Any]],
        read: Callable[[Any], Any],
        context: Any,
    ) -> Any:
        started, code, opened, principal = time.perf_counter(), "OK", None, ANYBODY
        try:
            if not route.public:
                principal = self._identities.principal(context)
            opened = self._admit(route, principal, context)
            try:
                async with opened.timeout:
                    request = read(context) if route.streams_in else await read(context)
                    if self._traces.enabled:
                        with self._span(opened.call, context):
                            answer = await body(request, context)
                    else:
                        answer = await body(request, context)
                if opened.call.remaining_s() <= 0:
                    # Computed past its deadline without ever waiting, so nothing could cancel it.
                    raise errors.DeadlinePassed
                return answer
            finally:
                self.open.discard(opened)
                if opened.account is not None:
                    self.quotas.leave(opened.account)
        except grpc.aio.AbortError:
            code = _name_of(context.code())
            raise
        except asyncio.CancelledError:
            # The client went away, or the core saw the client's deadline before our own clock did.
            code = "DEADLINE_EXCEEDED" if context.time_remaining() == 0 else "CANCELLED"
            raise
        except Exception as error:  # noqa: BLE001 the edge of a call: every exception becomes a status
            status = self._status(error, opened, route.method)
            code = status.code.name
            await context.abort(status.code, status.text, status.trailing)
        finally:
            self._ended(route, principal, code, time.perf_counter() - started, opened, context)

    def _ended(
        self, route: _Route, principal: str, code: str, seconds: float, opened: _Open | None, context: Any
    ) -> None:
        self._metrics.ended(route.method, code, seconds)
        if code != "OK":
            self._metrics.refused(principal, code)
        endless = route.streams_out and not route.streams_in
        if endless and self.stopping:
            return  # watches end with the server; a line for each would say nothing new
        if self._calls.wants(code, seconds, endless):
            request = opened.call.request_id if opened else request_id(context.invocation_metadata())
            self._calls.ended(route.method, principal, code, seconds, request, endless=endless)

    def _admit(self, route: _Route, principal: str, context: Any) -> _Open:
        """Let a call in, or raise the CallError that tells why not. Nothing here waits."""
        now = asyncio.get_running_loop().time()
        account = None
        if route.public:
            # Without identity there is no account; a flood of health watches must not fill the server.
            if sum(one.account is None for one in self.open) >= PUBLIC_CALLS_MAX:
                raise errors.QuotaExceeded("too many open calls of this kind", RETRY_WHEN_BUSY_S)
            seconds = context.time_remaining() or self._settings.max_stream_deadline_s
        else:
            if self.stopping:
                raise errors.Unavailable("the server is stopping", RETRY_AFTER_STOP_S)
            seconds = self._deadline(context.time_remaining(), route.streams_out)
            account = self.quotas.enter(principal, now)
        endless = route.streams_out and not route.streams_in
        call = CallContext(
            route.method, principal, now + seconds, endless=endless, metadata=context.invocation_metadata
        )
        CURRENT.set(call)
        ABOUT.set(call)
        opened = _Open(call, account, asyncio.timeout_at(call.ends_at))
        self.open.add(opened)
        return opened

    def _deadline(self, asked_s: float | None, stream: bool) -> float:
        """Seconds that the call may take."""
        own = self._settings
        longest = own.max_stream_deadline_s if stream else own.max_deadline_s
        if asked_s is None:
            if own.deadline == "required":
                raise errors.DeadlineMissing(longest)
            return own.default_stream_deadline_s if stream else own.default_deadline_s
        # Refused, not cut: who plans on an hour must learn it now, not after a minute.
        if asked_s > longest * WIRE_ROUNDING + 1.0:
            raise errors.DeadlineTooLong(asked_s, longest)
        return asked_s

    def _span(self, call: CallContext, context: Any) -> AbstractContextManager[Span]:
        return _Spanned(self._traces.span(call.method, context.invocation_metadata()), call)

    def _status(self, error: Exception, opened: _Open | None, method: str) -> WireStatus:
        if isinstance(error, TimeoutError) and opened is not None and opened.timeout.expired():
            if opened.call.stopping:
                return wire_status(errors.Unavailable("the server is stopping", RETRY_AFTER_STOP_S))
            return wire_status(errors.DeadlinePassed())
        if self._translate is not None and not isinstance(error, CallError):
            error = self._translate(error) or error
        if isinstance(error, CallError):
            return wire_status(error)
        error_id = uuid.uuid4().hex[:12]
        principal = opened.call.principal if opened is not None else ANYBODY
        self._log.error("call failed", error_id=error_id, method=method, principal=principal, exc_info=error)
        return internal_status(error_id)

    def end_calls(self, within_s: float) -> None:
        """Have every open call end as UNAVAILABLE: watches at once, the others after so many seconds."""
        self.stopping = True
        now = asyncio.get_running_loop().time()
        for opened in self.open:
            when = now if opened.call.endless else min(opened.call.ends_at, now + within_s)
            if when < opened.call.ends_at and not opened.timeout.expired():
                opened.call.stopping = True
                opened.timeout.reschedule(when)


class _Spanned:
    """Puts the span into the call while it is open."""

    def __init__(self, span: AbstractContextManager[Span], call: CallContext) -> None:
        self._span, self._call = span, call

    def __enter__(self) -> Span:
        self._call.span = self._span.__enter__()
        self._call.span.set("rpc.system", "grpc")
        self._call.span.set("enduser.id", self._call.principal)
        return self._call.span

    def __exit__(self, *raised: Any) -> bool | None:
        self._call.span = NO_SPAN
        return self._span.__exit__(*raised)


def _parsed(parse: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return parse(data)
    except DecodeError as error:
        raise errors.InvalidRequest("request", "is not a message of the expected type") from error


def _written(write: Callable[[Any], bytes], answer: Any) -> bytes:
    """The answer's bytes; a handler may answer with those of its message, made quicker than the message."""
    return answer if type(answer) is bytes else write(answer)


async def _single(parse: Callable[[bytes], Any], context: Any) -> Any:
    """The one request of a unary call."""
    data = await context.read()
    if data is EOF:
        raise errors.InvalidRequest("request", "no message came")
    return _parsed(parse, data)


async def _each(parse: Callable[[bytes], Any], context: Any) -> AsyncIterator[Any]:
    """The requests of a stream."""
    while (data := await context.read()) is not EOF:
        yield _parsed(parse, data)


async def _send(behaviour: Callable[[Any, Any], Any], requests: Any, context: Any) -> None:
    """Run a handler that answers with a stream: an async generator, or a coroutine that writes by itself."""
    if not inspect.isasyncgenfunction(behaviour):
        # Such a handler uses context.write.
        await behaviour(requests, context)
        return
    # Closed here and now on any way out, so that the handler's own clean-up runs within the call.
    async with aclosing(behaviour(requests, context)) as responses:
        async for response in responses:
            await context.write(response)


async def _not_served(method: str, _request: Any, _context: Any) -> None:
    raise errors.NotSupported(f"this server does not serve {method}")


def _name_of(code: Any) -> str:
    """Name of the code that a handler set itself, which grpc keeps as a number."""
    for known in grpc.StatusCode:
        if code in (known, known.value[0]):
            return known.name
    return "UNKNOWN"
