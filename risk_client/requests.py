"""Methods of both clients, each as the messages that it sends and how their answers are read.

A function here becomes the method of its name in `RiskClient` and, awaited, in `AsyncRiskClient`; its
parameters and its words are theirs.
"""

from __future__ import annotations

from typing import Any

from protos.risk.v1 import risk_pb2 as wire
from risk_client.dividend_tables import dividends_of
from risk_client.given import table_kind
from risk_client.jobs import Ask, Job, Pages
from risk_client.messages import message_of
from risk_client.option_jobs import How, greeks_job, implied_volatility_job, price_job
from risk_client.portfolios import portfolio_of
from risk_client.tables import frame_kind


def price(
    frame: Any = None,
    /,
    *,
    engine: str = "",
    fast: bool = False,
    prefix: str = "",
    dividends: Any = None,
    paid_by: Any = None,
    deadline_s: float | None = None,
    **options: Any,
) -> Job[Any]:
    """Prices of options: of a table, or of columns (`spot=`, `strike=`, `expiry=` in years, `vol=`, ...).

    A table of pandas, polars or arrow comes back with the columns price and status, their names after
    `prefix`; a keyword replaces a column of it, `vol="iv"` takes another. Columns alone give `Columns`.
    Cash `dividends` are pairs of (years from today, amount) for every option, or a mapping from names to such
    pairs; `paid_by` then says the name of each option, as a column or a table's column's name.
    """
    return price_job(frame, options, How(engine, fast, prefix, dividends, paid_by, deadline_s))


def greeks(
    frame: Any = None,
    /,
    *,
    engine: str = "",
    fast: bool = False,
    prefix: str = "",
    dividends: Any = None,
    paid_by: Any = None,
    deadline_s: float | None = None,
    **options: Any,
) -> Job[Any]:
    """Price and eight Greeks of options, as `price`."""
    return greeks_job(frame, options, How(engine, fast, prefix, dividends, paid_by, deadline_s))


def implied_volatility(
    given: Any = None,
    /,
    *,
    engine: str = "",
    fast: bool = False,
    prefix: str = "",
    dividends: Any = None,
    paid_by: Any = None,
    deadline_s: float | None = None,
    **options: Any,
) -> Job[Any]:
    """Vols that reprice options: of a table with a column price, or of prices and columns of options."""
    if given is not None and frame_kind(given) is None:
        given, options = None, {**options, "price": given}
    how = How(engine, fast, prefix, dividends, paid_by, deadline_s)
    return implied_volatility_job(given, options, how)


def put_portfolio(
    portfolio: Any,
    expected_version: int = 0,
    *,
    name: str = "",
    dividends: Any = None,
    deadline_s: float | None = None,
) -> Job[int]:
    """Stores a portfolio; returns its new version. Never sent twice by itself.

    It is a message, or a table of pandas, polars or arrow with the columns of a portfolio file. A table's
    name is `name`, else the one in its column portfolio. `dividends` is a table of the cash dividends of its
    underlyings: underlying, ex_date (a day) and amount (per unit).
    """
    is_table = not isinstance(portfolio, wire.Portfolio)
    if is_table and table_kind(portfolio) is None:
        raise TypeError(f"portfolio: must be a message or a table, not {type(portfolio).__name__}")
    message = portfolio_of(portfolio, name or None, dividends) if is_table else portfolio
    request = message_of(wire.PutPortfolioRequest, portfolio=message, expected_version=expected_version)
    if name:
        request.portfolio.portfolio = name
    if dividends is not None and not is_table:
        held = tuple(request.portfolio.underlyings)
        request.portfolio.dividends.CopyFrom(dividends_of(dividends, held))
    return Ask("PutPortfolio", request, lambda answer: int(answer.version), deadline_s, of_table=is_table)


def get_portfolio(name: str, *, deadline_s: float | None = None) -> Job[wire.Portfolio]:
    """A portfolio as it was put, with its version."""
    return Ask("GetPortfolio", message_of(wire.GetPortfolioRequest, portfolio=name), _as_is, deadline_s)


def list_portfolios(*, deadline_s: float | None = None) -> Job[list[wire.ListPortfoliosResponse.Entry]]:
    """Every portfolio that the caller may read; the deadline is that of each page."""
    return Pages(
        "ListPortfolios",
        lambda token: wire.ListPortfoliosRequest(page_token=token),
        lambda page: page.portfolios,
        deadline_s,
    )


def delete_portfolio(name: str, expected_version: int = 0, *, deadline_s: float | None = None) -> Job[None]:
    """Deletes a portfolio. Never sent twice by itself."""
    request = message_of(wire.DeletePortfolioRequest, portfolio=name, expected_version=expected_version)
    return Ask("DeletePortfolio", request, lambda _: None, deadline_s)


def list_engines(*, deadline_s: float | None = None) -> Job[wire.ListEnginesResponse]:
    """The engines of the service, and which one answers."""
    return Ask("ListEngines", wire.ListEnginesRequest(), _as_is, deadline_s)


def _as_is(answer: Any) -> Any:
    return answer
