"""Errors on the wire: one table from exception to gRPC code, and the google.rpc details that go with it."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from service_kit import errors
from service_kit.errors import CallError, InvalidRequest, ServiceKitError

DOMAIN = "gpu-risk"
DETAILS_KEY = "grpc-status-details-bin"
# Trailing metadata has a soft limit of 8 KiB in gRPC; the text is in there twice.
TEXT_MAX = 1024

Code = grpc.StatusCode

# Every error class and what its caller sees. A subclass without a line of its own takes its parent's.
# Errors outside CallError reach a caller only as INTERNAL with an id: their text may hold addresses or paths.
CODES: dict[type[ServiceKitError], grpc.StatusCode] = {
    errors.InvalidRequest: Code.INVALID_ARGUMENT,
    errors.DeadlineMissing: Code.INVALID_ARGUMENT,
    errors.DeadlineTooLong: Code.INVALID_ARGUMENT,
    errors.DeadlinePassed: Code.DEADLINE_EXCEEDED,
    errors.NotFound: Code.NOT_FOUND,
    errors.AlreadyExists: Code.ALREADY_EXISTS,
    errors.AlreadyChanged: Code.ABORTED,
    errors.PreconditionFailed: Code.FAILED_PRECONDITION,
    errors.Unauthenticated: Code.UNAUTHENTICATED,
    errors.PermissionDenied: Code.PERMISSION_DENIED,
    errors.QuotaExceeded: Code.RESOURCE_EXHAUSTED,
    errors.TooLarge: Code.RESOURCE_EXHAUSTED,
    errors.Unavailable: Code.UNAVAILABLE,
    errors.NotSupported: Code.UNIMPLEMENTED,
    errors.ServerFault: Code.INTERNAL,
    errors.CallError: Code.UNKNOWN,
    errors.SettingError: Code.INTERNAL,
    errors.PortTaken: Code.INTERNAL,
    errors.BrokerUnreachable: Code.INTERNAL,
    errors.StopTimedOut: Code.INTERNAL,
    errors.ServiceKitError: Code.INTERNAL,
}


@dataclass(frozen=True, slots=True)
class WireStatus:
    """A status ready to be sent: code, text and the trailing metadata with the details."""

    code: grpc.StatusCode
    text: str
    trailing: tuple[tuple[str, bytes], ...]


def code_of(kind: type[ServiceKitError]) -> grpc.StatusCode:
    """The gRPC code of an error class: its own line of the table, or its nearest ancestor's."""
    return next(CODES[parent] for parent in kind.__mro__ if parent in CODES)


def wire_status(error: CallError) -> WireStatus:
    """The rich status of an error that a caller may see."""
    return _packed(code_of(type(error)), str(error)[:TEXT_MAX], _details(error))


def internal_status(error_id: str) -> WireStatus:
    """What a caller sees of an unknown failure: an id that the server's log explains."""
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"error_id": error_id})
    return _packed(Code.INTERNAL, f"internal error {error_id}; the server's log explains it", [info])


def _packed(code: grpc.StatusCode, text: str, details: list[Message]) -> WireStatus:
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    status = status_pb2.Status(code=code.value[0], message=text, details=packed)
    return WireStatus(code, text, ((DETAILS_KEY, status.SerializeToString()),))


def _details(error: CallError) -> list[Message]:
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=_reason(type(error)), domain=DOMAIN)]
    if isinstance(error, InvalidRequest):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.where[:TEXT_MAX], description=error.why[:TEXT_MAX]
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, (errors.NotFound, errors.AlreadyExists, errors.AlreadyChanged)):
        details.append(
            error_details_pb2.ResourceInfo(resource_type=error.kind, resource_name=error.name[:TEXT_MAX])
        )
    if error.retry_after_s is not None:
        seconds = max(0.0, error.retry_after_s)
        delay = duration_pb2.Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return details


def _reason(kind: type) -> str:
    """`QuotaExceeded` → `QUOTA_EXCEEDED`, the form that ErrorInfo asks for."""
    name = kind.__name__
    return "".join("_" * (i > 0 and c.isupper()) + c.upper() for i, c in enumerate(name))
