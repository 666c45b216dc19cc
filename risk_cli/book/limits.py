"""`risk book limits`: shows and sets the limits that span symbols, as budgets of the venue's partitions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from protos.book.v1 import book_pb2 as wire
from risk_cli.answers import Form, plain_table, show
from risk_cli.refusals import DONE, BadInput
from risk_cli.server_options import Server
from risk_cli.servers import book_server

COLUMNS = ("limit", "account", "partition", "value", "open_value")


@dataclass(frozen=True, slots=True)
class Limits:
    """What is to be set; None stays as it is."""

    open_exposure: float | None = None
    loss: float | None = None
    message_rate: int | None = None
    execution_rate: int | None = None
    capital: float | None = None
    breaker_loss: float | None = None


def run_limits(
    accounts: Sequence[int], limits: Limits, by_use: bool, server: Server, form: Callable[[], Form]
) -> int:
    """Sets what is given, then shows what is in force; the exit status."""
    shape = form()
    request = wire.SetLimitsRequest(by_use=by_use)
    try:
        request.accounts.extend(accounts)
    except ValueError as fault:
        raise BadInput(f"--account: {fault}") from None
    for one in fields(limits):
        value = getattr(limits, one.name)
        if value is not None:
            setattr(request, one.name, value)
    with book_server(server) as client:
        answer = client.set_limits(request)
    show_budgets(answer, shape)
    return DONE


def show_budgets(answer: wire.SetLimitsResponse, form: Form) -> None:
    """One line for each limit, with what every partition has of it."""
    rows: list[dict[str, Any]] = [
        {
            "limit": one.limit,
            "account": None if one.every_account else one.account,
            "partition": one.partition,
            "value": None if one.value < 0 else one.value,
            "open_value": one.open_value,
        }
        for one in answer.budgets
    ]
    partitions = sorted({row["partition"] for row in rows})
    lines: dict[tuple[str, int | None], list[dict[str, Any]]] = {}
    for row in rows:
        lines.setdefault((row["limit"], row["account"]), []).append(row)
    cells = [
        [limit, "every" if account is None else str(account), *map(_number, values), _sum(values)]
        for (limit, account), found in lines.items()
        for values in [[row["value"] for row in found]]
    ]
    names = ("limit", "account", *(f"partition {home}" for home in partitions), "together")
    show(form, "book limits", [plain_table("budgets in force", names, cells, left=2)], rows, rows, COLUMNS)


def _sum(values: Sequence[float | None]) -> str:
    return "none" if any(value is None for value in values) else _number(sum(filter(None, values)))


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:,.6g}" if abs(value) < 1.0 else f"{value:,.2f}"
