"""What a handler may know about the call it serves."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass

from service_kit.errors import ServiceKitError
from service_kit.telemetry.traces import NO_SPAN, Span


@dataclass(slots=True, eq=False)
class CallContext:
    """One call: who makes it, what it asks for, and how long it may take."""

    method: str  # "/package.Service/Method"
    principal: str
    ends_at: float  # event loop time, seconds
    span: Span = NO_SPAN  # for attributes; `span.inject` carries the trace on into Kafka or another call
    stopping: bool = False  # the server wants this call to end
    endless: bool = False  # a watch: it ends as soon as the server stops, the others may finish

    def remaining_s(self) -> float:
        """Seconds left until the deadline, never below 0."""
        return max(0.0, self.ends_at - asyncio.get_running_loop().time())


CURRENT: ContextVar[CallContext] = ContextVar("gpu_risk_call")


def current_call() -> CallContext:
    """The call that this task serves; raises outside a handler."""
    call = CURRENT.get(None)
    if call is None:
        raise ServiceKitError("no call is served here: current_call() belongs in an RPC handler")
    return call
