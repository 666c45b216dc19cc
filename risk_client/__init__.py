"""The desk's Python client of risk_service."""

from risk_client.answers import Columns, ExpectedShortfall, Hedge, StressTest
from risk_client.book_client import BookClient
from risk_client.client import RiskClient
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
from risk_client.scenarios import historical, monte_carlo, shocks

__all__ = [
    "AlreadyChanged",
    "BookClient",
    "Columns",
    "DeadlinePassed",
    "ExpectedShortfall",
    "Hedge",
    "InvalidRequest",
    "NotFound",
    "NotSupported",
    "PermissionDenied",
    "PreconditionFailed",
    "QuotaExceeded",
    "RiskClient",
    "RiskClientError",
    "ServiceFault",
    "StressTest",
    "Unauthenticated",
    "Unavailable",
    "Violation",
    "historical",
    "monte_carlo",
    "shocks",
]
