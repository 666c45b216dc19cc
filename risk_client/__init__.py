"""The desk's Python client of risk_service.

Names are loaded when first used: whoever reads tables alone waits for no gRPC.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from risk_client.errors import (
    AlreadyChanged,
    ClientClosed,
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

if TYPE_CHECKING:
    from risk_client.answers import Columns, ExpectedShortfall, Hedge, RowStatus, StressTest, WhatIf
    from risk_client.async_client import AsyncRiskClient
    from risk_client.book_client import BookClient
    from risk_client.client import RiskClient
    from risk_client.connection import tls
    from risk_client.portfolios import portfolio_of
    from risk_client.scenario_tables import scenarios_of
    from risk_client.scenarios import historical, monte_carlo, shocks, vol_shock_surface
    from risk_client.sizing import kelly

_LAZY = {
    "Columns": "risk_client.answers",
    "ExpectedShortfall": "risk_client.answers",
    "Hedge": "risk_client.answers",
    "RowStatus": "risk_client.answers",
    "StressTest": "risk_client.answers",
    "WhatIf": "risk_client.answers",
    "AsyncRiskClient": "risk_client.async_client",
    "BookClient": "risk_client.book_client",
    "RiskClient": "risk_client.client",
    "tls": "risk_client.connection",
    "portfolio_of": "risk_client.portfolios",
    "scenarios_of": "risk_client.scenario_tables",
    "historical": "risk_client.scenarios",
    "monte_carlo": "risk_client.scenarios",
    "shocks": "risk_client.scenarios",
    "vol_shock_surface": "risk_client.scenarios",
    "kelly": "risk_client.sizing",
}

__all__ = [
    "AlreadyChanged",
    "AsyncRiskClient",
    "BookClient",
    "ClientClosed",
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
    "kelly",
    "monte_carlo",
    "portfolio_of",
    "scenarios_of",
    "shocks",
    "tls",
    "vol_shock_surface",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
