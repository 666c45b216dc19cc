"""What is sent for each method, and how its answer is read: the same for both clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from risk_client.answers import ExpectedShortfall, Hedge, StressTest
from risk_client.scenarios import ScenarioMessage

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

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Ask(Generic[Answer]):
    """One call: the RPC, its message, and how to read what comes back."""

    rpc: str
    request: Any
    read: Callable[[Any], Answer]


def put_portfolio(portfolio: wire.Portfolio, expected_version: int) -> Ask[int]:
    """Stores a portfolio."""
    request = wire.PutPortfolioRequest(portfolio=portfolio, expected_version=expected_version)
    return Ask("PutPortfolio", request, lambda answer: int(answer.version))


def get_portfolio(name: str) -> Ask[wire.Portfolio]:
    """Reads a portfolio."""
    return Ask("GetPortfolio", wire.GetPortfolioRequest(portfolio=name), _as_is)


def list_portfolios(page_token: str) -> Ask[wire.ListPortfoliosResponse]:
    """One page of the list."""
    return Ask("ListPortfolios", wire.ListPortfoliosRequest(page_token=page_token), _as_is)


def delete_portfolio(name: str, expected_version: int) -> Ask[None]:
    """Deletes a portfolio."""
    request = wire.DeletePortfolioRequest(portfolio=name, expected_version=expected_version)
    return Ask("DeletePortfolio", request, lambda _: None)


def expected_shortfall(
    portfolio: str | wire.Portfolio,
    scenarios: ScenarioMessage,
    levels: Sequence[float],
    convention: Convention,
    with_components: bool,
    with_pnl: bool,
    engine: str,
) -> Ask[ExpectedShortfall]:
    """VaR and ES."""
    request = wire.ExpectedShortfallRequest(
        levels=levels,
        convention=_CONVENTIONS[convention],
        with_components=with_components,
        with_pnl=with_pnl,
        engine=engine,
    )
    _set_book(request, portfolio)
    if isinstance(scenarios, wire.HistoricalScenarios):
        request.historical.CopyFrom(scenarios)
    elif isinstance(scenarios, wire.MonteCarloScenarios):
        request.monte_carlo.CopyFrom(scenarios)
    else:
        request.custom.CopyFrom(scenarios)
    return Ask("ExpectedShortfall", request, ExpectedShortfall.of)


def stress_test(
    portfolio: str | wire.Portfolio,
    scenarios: wire.ScenarioColumns | None,
    named: Sequence[str],
    by_group: bool,
    by_position: bool,
    engine: str,
) -> Ask[StressTest]:
    """Given and named scenarios."""
    request = wire.StressTestRequest(
        scenarios=scenarios, named=named, by_group=by_group, by_position=by_position, engine=engine
    )
    _set_book(request, portfolio)
    return Ask("StressTest", request, StressTest.of)


def what_if(portfolio: str, trade: wire.Positions, level: float, engine: str) -> Ask[wire.WhatIfResponse]:
    """ES with and without a trade."""
    request = wire.WhatIfRequest(portfolio=portfolio, trade=trade, level=level, engine=engine)
    return Ask("WhatIf", request, _as_is)


def hedge(
    portfolio: str,
    objective: Objective,
    instruments: wire.Positions | None,
    lot_size: ArrayLike,
    cost_per_lot: ArrayLike,
    budget: float,
    engine: str,
) -> Ask[Hedge]:
    """Trades that take risk off."""
    request = wire.HedgeRequest(
        portfolio=portfolio,
        objective=_OBJECTIVES[objective],
        instruments=instruments,
        budget=budget,
        engine=engine,
    )
    for name, values in (("lot_size", lot_size), ("cost_per_lot", cost_per_lot)):
        packing.write(request, name, np.atleast_1d(np.asarray(values, dtype=np.float64)))
    return Ask("Hedge", request, Hedge.of)


def list_engines() -> Ask[wire.ListEnginesResponse]:
    """The engines of the service."""
    return Ask("ListEngines", wire.ListEnginesRequest(), _as_is)


def watch_risk(portfolios: Sequence[str], min_interval_ms: int) -> wire.WatchRiskRequest:
    """What is watched, and how often at most."""
    return wire.WatchRiskRequest(portfolios=portfolios, min_interval_ms=min_interval_ms)


def _as_is(answer: Any) -> Any:
    return answer


def _set_book(
    request: wire.ExpectedShortfallRequest | wire.StressTestRequest, book: str | wire.Portfolio
) -> None:
    if isinstance(book, str):
        request.portfolio = book
    else:
        request.inline_portfolio.CopyFrom(book)
