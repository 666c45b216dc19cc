"""The desk's Python client of risk_service."""

from risk_client.book_client import BookClient
from risk_client.client import Columns, RiskClient
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

__all__ = [
    "AlreadyChanged",
    "BookClient",
    "Columns",
    "DeadlinePassed",
    "InvalidRequest",
    "NotFound",
    "NotSupported",
    "PermissionDenied",
    "PreconditionFailed",
    "QuotaExceeded",
    "RiskClient",
    "RiskClientError",
    "ServiceFault",
    "Unauthenticated",
    "Unavailable",
    "Violation",
]
