"""SetLimits in the venue's units: money as whole parts of a currency, shares as parts per million."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from book_service.budgets import NO_LIMIT, Budget, Wanted
from book_service.matching import Limit
from book_service.matching.controls import highest
from protos.book.v1 import book_pb2 as wire
from service_kit.errors import InvalidRequest

ACCOUNTS_MAX: Final = 1_000
ACCOUNT_LAST: Final = (1 << 32) - 1
_FIELDS: Final = {
    Limit.OPEN_EXPOSURE: "open_exposure",
    Limit.LOSS: "loss",
    Limit.MESSAGE_RATE: "message_rate",
    Limit.EXECUTION_RATE: "execution_rate",
    Limit.BREAKER_LOSS: "breaker_loss",
}
_MILLION: Final = 1_000_000


def wanted_of(request: wire.SetLimitsRequest, money_unit: float) -> list[Wanted]:
    """The totals that a request asks for; InvalidRequest naming the field that is wrong."""
    if len(request.accounts) > ACCOUNTS_MAX:
        raise InvalidRequest("accounts", f"has more than {ACCOUNTS_MAX}")
    if len(set(request.accounts)) != len(request.accounts):
        raise InvalidRequest("accounts", "names an account twice")
    if request.by_use and len(request.accounts) != 1:
        raise InvalidRequest("by_use", "needs one account: each has its own use")
    accounts: list[int | None] = list(request.accounts) or [None]
    found = []
    for limit, field in _FIELDS.items():
        if request.HasField(field):  # type: ignore[arg-type]
            total = _units(field, getattr(request, field), scale_of(limit, money_unit), highest(limit))
            whom = [None] if limit is Limit.BREAKER_LOSS else accounts
            found += [Wanted(limit, account, total) for account in whom]
    return found


def capital_of(request: wire.SetLimitsRequest, money_unit: float) -> dict[int, int]:
    """The capital of each account named."""
    if not request.HasField("capital"):
        return {}
    if not request.accounts:
        raise InvalidRequest("capital", "is of accounts; name them")
    most = highest(Limit.OPEN_EXPOSURE)
    return dict.fromkeys(request.accounts, _units("capital", request.capital, money_unit, most))


def scale_of(limit: Limit, money_unit: float) -> float:
    """What one unit of a limit is worth: currency, a fraction, or one message."""
    if limit in (Limit.OPEN_EXPOSURE, Limit.LOSS):
        return money_unit
    return 1.0 / _MILLION if limit is Limit.BREAKER_LOSS else 1.0


def budgets_of(budgets: list[Budget], money_unit: float) -> Iterator[wire.SetLimitsResponse.Budget]:
    """What is in force, as the answer says it."""
    for one in budgets:
        none = one.value < 0 or one.value >= highest(one.limit)
        yield wire.SetLimitsResponse.Budget(
            limit=_FIELDS[one.limit],
            account=one.account or 0,
            every_account=one.account is None,
            partition=one.partition,
            value=-1.0 if none else one.value * scale_of(one.limit, money_unit),
            open_value=one.open_value * money_unit,
        )


def _units(field: str, value: float, scale: float, most: int) -> int:
    """Whole units, rounded down: never more than was asked for. What a float blurs is no unit less."""
    if math.isnan(value):
        raise InvalidRequest(field, "is no number")
    if value < 0:
        return NO_LIMIT
    exact = value / scale
    if exact > most:
        raise InvalidRequest(field, f"is more than {most * scale:g}")
    return math.floor(exact * (1.0 + 1e-12))
