"""The desk's Python client of risk_service."""

from risk_client.answers import Columns, ExpectedShortfall, Hedge, RowStatus, StressTest, WhatIf
from risk_client.async_client import AsyncRiskClient
from risk_client.book_client import BookClient
from risk_client.client import RiskClient
from risk_client.connection import tls
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
from risk_client.portfolios import portfolio_of
from risk_client.scenario_tables import scenarios_of
from risk_client.scenarios import historical, monte_carlo, shocks, vol_shock_surface

__all__ = [
    "AlreadyChanged",
    "AsyncRiskClient",
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
    "RowStatus",
    "ServiceFault",
    "StressTest",
    "Unauthenticated",
    "Unavailable",
    "Violation",
    "WhatIf",
    "historical",
    "monte_carlo",
    "portfolio_of",
    "scenarios_of",
    "shocks",
    "tls",
    "vol_shock_surface",
]
