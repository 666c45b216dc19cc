"""What can go wrong in a service process, as one tree.

    ServiceKitError
    ├── SettingError           a setting is missing, unknown or bad; names it
    ├── PortTaken              another process listens there
    ├── BrokerUnreachable      no Kafka broker answers
    ├── StopTimedOut           a resource did not close in its time
    └── CallError              what the caller of an RPC is told (grpc_server/status.py maps each to a code)
        ├── InvalidRequest     a field, or one row of it, is wrong
        ├── DeadlineMissing    the call carries no deadline and the server wants one
        ├── DeadlineTooLong    the deadline is longer than the server allows
        ├── DeadlinePassed     the time ran out
        ├── NotFound           no such portfolio, symbol, engine
        ├── AlreadyExists      the name is taken
        ├── AlreadyChanged     somebody else changed it first: read again, retry
        ├── PreconditionFailed not in this state of the service
        ├── Unauthenticated    no identity, or one that does not hold
        ├── PermissionDenied   identity known, not allowed
        ├── QuotaExceeded      too many calls, or too much work, for this principal; says when to retry
        ├── TooLarge           one request is more than the server ever takes
        ├── Unavailable        not now; says when to retry where it is known
        ├── NotSupported       this server does not do that
        └── ServerFault        our own fault, known and safe to name

Every class can be pickled (workers send them to their front) and prints as one line.
"""

from __future__ import annotations


class ServiceKitError(Exception):
    """Root of every error that a service process raises knowingly."""


class SettingError(ServiceKitError):
    """A setting is missing, unknown or bad."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(name, why)
        self.name = name
        self.why = why

    def __str__(self) -> str:
        return f"setting {self.name}: {self.why}"


class PortTaken(ServiceKitError):
    """Another process already listens on the address."""

    def __init__(self, what: str, host: str, port: int, why: str = "another process listens there") -> None:
        super().__init__(what, host, port, why)
        self.what = what
        self.host = host
        self.port = port
        self.why = why

    def __str__(self) -> str:
        return f"{self.what}: cannot listen on {self.host}:{self.port}: {self.why}"


class BrokerUnreachable(ServiceKitError):
    """No Kafka broker answers at the bootstrap addresses."""

    def __init__(self, bootstrap: str, why: str) -> None:
        super().__init__(bootstrap, why)
        self.bootstrap = bootstrap
        self.why = why

    def __str__(self) -> str:
        return f"Kafka broker {self.bootstrap} cannot be reached: {self.why}"


class StopTimedOut(ServiceKitError):
    """Resources that did not close within their time (seconds)."""

    def __init__(self, what: tuple[str, ...], seconds: float) -> None:
        super().__init__(what, seconds)
        self.what = what
        self.seconds = seconds

    def __str__(self) -> str:
        return f"did not stop within {self.seconds:g} s: {', '.join(self.what)}"


class CallError(ServiceKitError):
    """What the caller of an RPC is told; the text goes over the wire, so it holds nothing internal."""

    retry_after_s: float | None = None

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return self.why


class InvalidRequest(CallError):
    """A field of the request, or one row of it (counted from 0), is wrong."""

    def __init__(self, field: str, why: str, row: int | None = None) -> None:
        super().__init__(why)
        self.args = (field, why, row)
        self.field = field
        self.row = row

    @property
    def where(self) -> str:
        """`field` or `field[row]`."""
        return self.field if self.row is None else f"{self.field}[{self.row}]"

    def __str__(self) -> str:
        return f"{self.where}: {self.why}"


class DeadlineMissing(CallError):
    """The call carries no deadline and this server demands one."""

    def __init__(self, longest_s: float) -> None:
        super().__init__(f"the call carries no deadline; set one of at most {longest_s:g} s")
        self.args = (longest_s,)
        self.longest_s = longest_s


class DeadlineTooLong(CallError):
    """The call's deadline (seconds) is longer than the server allows."""

    def __init__(self, asked_s: float, longest_s: float) -> None:
        super().__init__(f"the deadline of {asked_s:.1f} s is longer than the allowed {longest_s:g} s")
        self.args = (asked_s, longest_s)
        self.asked_s = asked_s
        self.longest_s = longest_s


class DeadlinePassed(CallError):
    """The call's time ran out before its answer was ready."""

    def __init__(self, why: str = "the deadline passed before the answer was ready") -> None:
        super().__init__(why)


class NotFound(CallError):
    """Nothing of that kind has that name."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"no {kind} named {name!r}")
        self.args = (kind, name)
        self.kind = kind
        self.name = name


class AlreadyExists(CallError):
    """Something of that kind has that name already."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"{kind} {name!r} exists already")
        self.args = (kind, name)
        self.kind = kind
        self.name = name


class AlreadyChanged(CallError):
    """Somebody else changed it since the caller read it: read again and retry."""

    def __init__(self, kind: str, name: str, why: str) -> None:
        super().__init__(f"{kind} {name!r} has changed meanwhile: {why}")
        self.args = (kind, name, why)
        self.kind = kind
        self.name = name


class PreconditionFailed(CallError):
    """The service is not in a state where this can be done; retrying alone does not help."""


class Unauthenticated(CallError):
    """No identity, or one that does not hold."""


class PermissionDenied(CallError):
    """The identity is known and may not do this."""


class QuotaExceeded(CallError):
    """A quota of the principal (or of the whole server) is used up; retry after so many seconds."""

    def __init__(self, why: str, retry_after_s: float) -> None:
        super().__init__(why)
        self.args = (why, retry_after_s)
        self.retry_after_s = retry_after_s


class TooLarge(CallError):
    """One request is more than the server ever takes; a retry does not help, a smaller request does."""


class Unavailable(CallError):
    """Not now; retry after so many seconds where that is known."""

    def __init__(self, why: str, retry_after_s: float | None = None) -> None:
        super().__init__(why)
        self.args = (why, retry_after_s)
        self.retry_after_s = retry_after_s


class NotSupported(CallError):
    """This server does not do that (with its engines, in this version)."""


class ServerFault(CallError):
    """The server's own fault, known and safe to name to the caller."""
