"""The typed error behind a failed call."""

from __future__ import annotations

from typing import cast

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from risk_client.errors import (
    AlreadyChanged,
    DeadlinePassed,
    InvalidRequest,
    NotFound,
    NotSupported,
    PermissionDenied,
    PreconditionFailed,
    QuotaExceeded,
    RiskClientError,
    ServiceFault,
    Unauthenticated,
    Unavailable,
    Violation,
)

_BY_CODE: dict[grpc.StatusCode, type[RiskClientError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyChanged,
    grpc.StatusCode.ABORTED: AlreadyChanged,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionFailed,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: QuotaExceeded,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlinePassed,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.UNIMPLEMENTED: NotSupported,
}


def from_rpc(error: grpc.RpcError) -> RiskClientError:
    """The typed error behind a failed call, with the details that the service gave."""
    # Every error that a call raises is also the call; grpc's types do not say so.
    call = cast(grpc.Call, error)
    kind = _BY_CODE.get(call.code(), ServiceFault)
    violations: list[Violation] = []
    retry_after_s: float | None = None
    status = rpc_status.from_call(call)
    for detail in status.details if status is not None else ():
        bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(bad):
            violations.extend(Violation(one.field, one.description) for one in bad.field_violations)
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
    return kind(str(call.details()), tuple(violations), retry_after_s)
