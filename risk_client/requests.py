"""The methods of both clients, each as the messages that it sends and how their answers are read.

A function here becomes the method of its name in `RiskClient` and, awaited, in `AsyncRiskClient`; its
parameters and its words are theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from risk_client.answers import ExpectedShortfall, Hedge, StressTest
from risk_client.jobs import Ask, Job, Pages, Progress
from risk_client.option_jobs import greeks_job, implied_volatility_job, price_job
from risk_client.scenarios import ScenarioMessage
from risk_client.tables import frame_kind

Convention = Literal["exact_tail", "discrete"]
Objective = Literal["delta", "delta_gamma_vega", "min_expected_shortfall"]

_CONVENTIONS: dict[Convention, wire.TailConvention.ValueType] = {
    "exact_tail": wire.TAIL_CONVENTION_EXACT,
    "discrete": wire.TAIL_CONVENTION_DISCRETE,
}
_OBJECTIVES: dict[Objective, wire.HedgeRequest.Objective.ValueType] = {
    "delta": wire.HedgeRequest.OBJECTIVE_DELTA,
    "delta_gamma_vega": wire.HedgeRequest.OBJECTIVE_DELTA_GAMMA_VEGA,
    "min_expected_shortfall": wire.HedgeRequest.OBJECTIVE_MIN_EXPECTED_SHORTFALL,
}


def price(
    frame: Any = None,
    /,
    *,
    engine: str = "",
    fast: bool = False,
    prefix: str = "",
    deadline_s: float | None = None,
    **options: Any,
) -> Job[Any]:
    """Prices of options: of a table, or of columns (`spot=`, `strike=`, `expiry=` in years, `vol=`, ...).

    A table of pandas, polars or arrow comes back with the columns price and status, their names after
    `prefix`; a keyword replaces a column of it, `vol="iv"` takes another. Columns alone give `Columns`.
    """
    return price_job(frame, engine, fast, prefix, options, deadline_s)


def greeks(
    frame: Any = None,
    /,
    *,
    engine: str = "",
    fast: bool = False,
    prefix: str = "",
    deadline_s: float | None = None,
    **options: Any,
) -> Job[Any]:
    """Price and eight Greeks of options, as `price`."""
    return greeks_job(frame, engine, fast, prefix, options, deadline_s)


def implied_volatility(
    given: Any = None,
    /,
    *,
    engine: str = "",
    fast: bool = False,
    prefix: str = "",
    deadline_s: float | None = None,
    **options: Any,
) -> Job[Any]:
    """Vols that reprice options: of a table with a column price, or of prices and columns of options."""
    if given is not None and frame_kind(given) is None:
        given, options = None, {**options, "price": given}
    return implied_volatility_job(given, engine, fast, prefix, options, deadline_s)


def put_portfolio(
    portfolio: wire.Portfolio, expected_version: int = 0, *, deadline_s: float | None = None
) -> Job[int]:
    """Stores a portfolio; returns its new version. Never sent twice by itself."""
    request = wire.PutPortfolioRequest(portfolio=portfolio, expected_version=expected_version)
    return Ask("PutPortfolio", request, lambda answer: int(answer.version), deadline_s)


def get_portfolio(name: str, *, deadline_s: float | None = None) -> Job[wire.Portfolio]:
    """A portfolio as it was put, with its version."""
    return Ask("GetPortfolio", wire.GetPortfolioRequest(portfolio=name), _as_is, deadline_s)


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
    request = wire.DeletePortfolioRequest(portfolio=name, expected_version=expected_version)
    return Ask("DeletePortfolio", request, lambda _: None, deadline_s)


def expected_shortfall(
    portfolio: str | wire.Portfolio,
    scenarios: ScenarioMessage,
    *,
    levels: Sequence[float] = (),
    convention: Convention = "exact_tail",
    with_components: bool = False,
    with_pnl: bool = False,
    bootstrap: int = 0,
    confidence: float = 0.0,
    liquidity_horizons: wire.LiquidityHorizons | None = None,
    stressed_window: int = 0,
    without_fills: bool = False,
    engine: str = "",
    progress: Progress | None = None,
    deadline_s: float | None = None,
) -> Job[ExpectedShortfall]:
    """VaR and ES of a portfolio, stored (its name) or sent along, at `levels` (none: 0.975).

    `scenarios` come from `risk_client.historical`, `monte_carlo` or `shocks`. The fills of a stored portfolio
    count, unless `without_fills`. `progress` is called with the fraction that is done, from 0 to 1.
    `bootstrap` resamples give each ES an interval of `confidence` (0: 0.95); `liquidity_horizons` ask for the
    ES over Basel's, and `stressed_window` for the worst so many scenarios in a row.
    """
    request = wire.ExpectedShortfallRequest(
        levels=levels,
        convention=_CONVENTIONS[convention],
        with_components=with_components,
        with_pnl=with_pnl,
        bootstrap=bootstrap,
        confidence=confidence,
        liquidity_horizons=liquidity_horizons,
        stressed_window=stressed_window,
        without_fills=without_fills,
        engine=engine,
    )
    _set_book(request, portfolio)
    _set_scenarios(request, scenarios)
    return Ask("ExpectedShortfall", request, ExpectedShortfall.of, deadline_s, progress)


def stress_test(
    portfolio: str | wire.Portfolio,
    scenarios: wire.ScenarioColumns | None = None,
    *,
    named: Sequence[str] = (),
    reverse: wire.ReverseStress | None = None,
    by_group: bool = False,
    by_position: bool = False,
    without_fills: bool = False,
    engine: str = "",
    progress: Progress | None = None,
    deadline_s: float | None = None,
) -> Job[StressTest]:
    """What given scenarios (`risk_client.shocks`) and named events do to a portfolio.

    `reverse` asks the other way: which is the most likely scenario that loses so much? `without_fills` and
    `progress` are as in `expected_shortfall`.
    """
    request = wire.StressTestRequest(
        scenarios=scenarios,
        named=named,
        reverse=reverse,
        by_group=by_group,
        by_position=by_position,
        without_fills=without_fills,
        engine=engine,
    )
    _set_book(request, portfolio)
    return Ask("StressTest", request, StressTest.of, deadline_s, progress)


def what_if(
    portfolio: str,
    trade: wire.Positions,
    *,
    level: float = 0.0,
    without_fills: bool = False,
    engine: str = "",
    deadline_s: float | None = None,
) -> Job[wire.WhatIfResponse]:
    """ES of a stored portfolio with and without a trade in its underlyings; level 0 is 0.975."""
    request = wire.WhatIfRequest(
        portfolio=portfolio, trade=trade, level=level, without_fills=without_fills, engine=engine
    )
    return Ask("WhatIf", request, _as_is, deadline_s)


def hedge(
    portfolio: str,
    objective: Objective,
    instruments: wire.Positions | None = None,
    *,
    lot_size: ArrayLike = (),
    cost_per_lot: ArrayLike = (),
    budget: float = 0.0,
    scenarios: ScenarioMessage | None = None,
    level: float = 0.0,
    cost_rate: ArrayLike = (),
    risk_aversion: float = 0.0,
    without_fills: bool = False,
    engine: str = "",
    progress: Progress | None = None,
    deadline_s: float | None = None,
) -> Job[Hedge]:
    """Trades that take risk off a stored portfolio.

    An instrument's quantity is its largest position either way; without instruments a delta hedge
    trades the underlyings. `lot_size` (units) and `cost_per_lot` (currency) hold one entry for all
    instruments or one for each. The least ES is that at `level` (0: 0.975) under `scenarios` (none: the live
    ones). A delta hedge with a `risk_aversion` per unit of currency leaves what is not worth `cost_rate`, a
    part of the traded value. `without_fills` and `progress` are as in `expected_shortfall`.
    """
    request = wire.HedgeRequest(
        portfolio=portfolio,
        objective=_OBJECTIVES[objective],
        instruments=instruments,
        budget=budget,
        level=level,
        risk_aversion=risk_aversion,
        without_fills=without_fills,
        engine=engine,
    )
    columns = {"lot_size": lot_size, "cost_per_lot": cost_per_lot, "cost_rate": cost_rate}
    for name, values in columns.items():
        packing.write(request, name, np.atleast_1d(np.asarray(values, dtype=np.float64)))
    if scenarios is not None:
        _set_scenarios(request, scenarios)
    return Ask("Hedge", request, Hedge.of, deadline_s, progress)


def list_engines(*, deadline_s: float | None = None) -> Job[wire.ListEnginesResponse]:
    """The engines of the service, and which one answers."""
    return Ask("ListEngines", wire.ListEnginesRequest(), _as_is, deadline_s)


def _as_is(answer: Any) -> Any:
    return answer


def _set_book(
    request: wire.ExpectedShortfallRequest | wire.StressTestRequest, book: str | wire.Portfolio
) -> None:
    if isinstance(book, str):
        request.portfolio = book
    else:
        request.inline_portfolio.CopyFrom(book)


def _set_scenarios(
    request: wire.ExpectedShortfallRequest | wire.HedgeRequest, scenarios: ScenarioMessage
) -> None:
    if isinstance(scenarios, wire.HistoricalScenarios):
        request.historical.CopyFrom(scenarios)
    elif isinstance(scenarios, wire.MonteCarloScenarios):
        request.monte_carlo.CopyFrom(scenarios)
    else:
        request.custom.CopyFrom(scenarios)
