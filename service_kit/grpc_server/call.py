"""What a handler may know about the call it serves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass

from service_kit.errors import ServiceKitError
from service_kit.grpc_server.call_log import request_id
from service_kit.telemetry.traces import NO_SPAN, Headers, Span


@dataclass(slots=True, eq=False)
class CallContext:
    """One call: who makes it, what it asks for, and how long it may take."""

    method: str  # "/package.Service/Method"
    principal: str
    ends_at: float  # event loop time, seconds
    span: Span = NO_SPAN  # for attributes; `span.inject` carries the trace on into Kafka or another call
    stopping: bool = False  # the server wants this call to end
    endless: bool = False  # a watch: it ends as soon as the server stops, the others may finish
    metadata: Callable[[], Iterable[tuple[str, str | bytes]]] = tuple
    _request_id: str = ""

    def remaining_s(self) -> float:
        """Seconds left until the deadline, never below 0."""
        return max(0.0, self.ends_at - asyncio.get_running_loop().time())

    @property
    def request_id(self) -> str:
        """The caller's `x-request-id`, or one of our own; looked for when it is first wanted."""
        if not self._request_id:
            self._request_id = request_id(self.metadata())
        return self._request_id

    def log_fields(self) -> dict[str, str]:
        """What every log line of this call carries."""
        fields = {"request_id": self.request_id, "method": self.method, "principal": self.principal}
        headers: Headers = []
        self.span.inject(headers)
        for name, value in headers:
            if name == "traceparent":
                fields["trace_id"] = value.decode("ascii").split("-")[1]
        return fields


CURRENT: ContextVar[CallContext] = ContextVar("gpu_risk_call")


def current_call() -> CallContext:
    """The call that this task serves; raises outside a handler."""
    call = CURRENT.get(None)
    if call is None:
        raise ServiceKitError("no call is served here: current_call() belongs in an RPC handler")
    return call
