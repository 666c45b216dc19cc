"""What a call to the service can end in, as one tree.

RiskClientError
├── InvalidRequest      the request is wrong; `violations` name fields and rows
├── NotFound            no such portfolio, symbol or engine
├── AlreadyChanged      somebody else changed it first: read again, retry
├── PreconditionFailed  not in this state of the service
├── Unauthenticated     no identity, or one that does not hold
├── PermissionDenied    identity known, not allowed
├── QuotaExceeded       too much at once; `retry_after_s` says when to come back
├── DeadlinePassed      the answer was not ready in time
├── Unavailable         the service cannot be reached, or not now
├── NotSupported        this service does not do that
├── ClientClosed        the client was closed before
└── ServiceFault        the service's own fault
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing wrong with a request: the field, with its row where it has one, and why."""

    field: str  # as the service names it, with its row: `positions.quantity[3]`
    why: str

    @property
    def row(self) -> int | None:
        """The row, counted from 0, where the fault has one."""
        place = self.field.rpartition("[")[2]
        return int(place[:-1]) if self.field.endswith("]") and place[:-1].isdigit() else None

    @property
    def column(self) -> str:
        """The field without its row."""
        return self.field if self.row is None else self.field.rpartition("[")[0]


class RiskClientError(Exception):
    """Root of every error of this package."""

    def __init__(
        self, message: str, violations: tuple[Violation, ...] = (), retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.violations = violations
        self.retry_after_s = retry_after_s


class InvalidRequest(RiskClientError):
    """The request is wrong; `violations` name fields and rows."""


class NotFound(RiskClientError):
    """No such portfolio, symbol or engine."""


class AlreadyChanged(RiskClientError):
    """Somebody else changed it first."""


class PreconditionFailed(RiskClientError):
    """The service is not in a state where this can be done."""


class Unauthenticated(RiskClientError):
    """No identity, or one that does not hold."""


class PermissionDenied(RiskClientError):
    """The identity is known and may not do this."""


class QuotaExceeded(RiskClientError):
    """Too much at once; `retry_after_s` says when to come back."""


class DeadlinePassed(RiskClientError):
    """The answer was not ready in time."""


class Unavailable(RiskClientError):
    """The service cannot be reached, or not now."""


class NotSupported(RiskClientError):
    """This service does not do that."""


class ClientClosed(RiskClientError):
    """The client was closed before the call; make a new one."""


class ServiceFault(RiskClientError):
    """The service's own fault."""
