"""The methods of both clients that ask about the risk of a book; as in `requests`.

A book, scenarios, a trade and instruments may each be a table of the caller's: the answer then has tables of
the same kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from numpy.typing import ArrayLike

from protos.risk.v1 import risk_pb2 as wire
from risk_client.answer_tables import Asked
from risk_client.answers import ExpectedShortfall, Hedge, StressTest, WhatIf
from risk_client.given import Book, table_kind
from risk_client.jobs import AboutStored, Ask, Job, Progress
from risk_client.messages import chosen, message_of, write_numbers
from risk_client.portfolios import trade_of
from risk_client.scenario_tables import scenarios_of

Convention = Literal["exact_tail", "discrete"]
Objective = Literal["delta", "delta_gamma_vega", "min_expected_shortfall", "kelly"]
Result = TypeVar("Result")

_CONVENTIONS: dict[Convention, wire.TailConvention.ValueType] = {
    "exact_tail": wire.TAIL_CONVENTION_EXACT,
    "discrete": wire.TAIL_CONVENTION_DISCRETE,
}
_OBJECTIVES: dict[Objective, wire.HedgeRequest.Objective.ValueType] = {
    "delta": wire.HedgeRequest.OBJECTIVE_DELTA,
    "delta_gamma_vega": wire.HedgeRequest.OBJECTIVE_DELTA_GAMMA_VEGA,
    "min_expected_shortfall": wire.HedgeRequest.OBJECTIVE_MIN_EXPECTED_SHORTFALL,
    "kelly": wire.HedgeRequest.OBJECTIVE_KELLY,
}


def expected_shortfall(
    portfolio: Any,
    scenarios: Any,
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

    `scenarios` come from `risk_client.historical`, `monte_carlo` or `shocks`. Both may be tables: positions
    as in `put_portfolio`, scenarios as in `stress_test`. The fills of a stored portfolio count, unless
    `without_fills`. `progress` is called with the fraction that is done, from 0 to 1. `bootstrap` resamples
    give each ES an interval of `confidence` (0: 0.95); `liquidity_horizons` ask for the ES over Basel's, and
    `stressed_window` for the worst so many scenarios in a row.
    """
    book = Book.of(portfolio)

    def ask(held: wire.Portfolio | None) -> Job[ExpectedShortfall]:
        request = message_of(
            wire.ExpectedShortfallRequest,
            levels=levels,
            convention=chosen("convention", convention, _CONVENTIONS),
            with_components=with_components,
            with_pnl=with_pnl,
            bootstrap=bootstrap,
            confidence=confidence,
            liquidity_horizons=liquidity_horizons,
            stressed_window=stressed_window,
            without_fills=without_fills,
            engine=engine,
        )
        book.put_into(request)
        _set_scenarios(request, _moves(scenarios, held))
        asked = Asked.of(book.table, scenarios, held)
        return Ask(
            "ExpectedShortfall",
            request,
            lambda answer: asked.shortfall(ExpectedShortfall.of(answer)),
            deadline_s,
            progress,
            asked.has_table,
        )

    return _about(book, scenarios, ask, deadline_s)


def stress_test(
    portfolio: Any,
    scenarios: Any = None,
    *,
    named: str | Sequence[str] = (),
    shocks: Sequence[wire.Shock] = (),
    ladders: Sequence[wire.Ladder] = (),
    events: Sequence[wire.NamedEvent] = (),
    historical: wire.HistoricalScenarios | None = None,
    reverse: wire.ReverseStress | None = None,
    by_group: bool = False,
    by_position: bool = False,
    without_fills: bool = False,
    engine: str = "",
    progress: Progress | None = None,
    deadline_s: float | None = None,
) -> Job[StressTest]:
    """What given scenarios (`risk_client.shocks`) and named events do to a portfolio, stored or sent along.

    Both may be tables: positions as in `put_portfolio`; a scenario table has a column for each underlying
    with its simple return, `SYMBOL.vol` with the change of its vol, `default` for the others, and `name`,
    `rate`, `elapsed_days`. `reverse` asks the other way: which is the most likely scenario that loses so
    much? `shocks`, `ladders`, `events` and a `historical` window say scenarios in fewer words; the answer has
    them after `scenarios` and `named`, in this order. `without_fills` and `progress` are as in
    `expected_shortfall`.
    """
    book = Book.of(portfolio)

    def ask(held: wire.Portfolio | None) -> Job[StressTest]:
        request = message_of(
            wire.StressTestRequest,
            scenarios=None if scenarios is None else _moves(scenarios, held),
            named=[named] if isinstance(named, str) else named,
            shocks=shocks,
            ladders=ladders,
            events=events,
            historical=historical,
            reverse=reverse,
            by_group=by_group,
            by_position=by_position,
            without_fills=without_fills,
            engine=engine,
        )
        book.put_into(request)
        asked = Asked.of(book.table, scenarios, held)
        return Ask(
            "StressTest",
            request,
            lambda answer: asked.stress(StressTest.of(answer)),
            deadline_s,
            progress,
            asked.has_table,
        )

    return _about(book, scenarios, ask, deadline_s)


def what_if(
    portfolio: str,
    trade: Any,
    *,
    level: float = 0.0,
    scenarios: Any = None,
    convention: Convention = "exact_tail",
    without_fills: bool = False,
    engine: str = "",
    deadline_s: float | None = None,
) -> Job[WhatIf]:
    """ES of a stored portfolio with and without a trade in its underlyings; level 0 is 0.975.

    A trade is a message, or a table as in `put_portfolio`; a table costs a look at the portfolio first.
    `scenarios` (none: the live ones) and `convention` are as in `expected_shortfall`.
    """

    def ask(held: wire.Portfolio | None) -> Job[WhatIf]:
        request = message_of(
            wire.WhatIfRequest,
            portfolio=portfolio,
            trade=_rows("trade", trade, held),
            level=level,
            convention=chosen("convention", convention, _CONVENTIONS),
            without_fills=without_fills,
            engine=engine,
        )
        if scenarios is not None:
            _set_scenarios(request, _moves(scenarios, held))
        asked = Asked.of(trade, None, held)
        return Ask(
            "WhatIf",
            request,
            lambda answer: asked.what_if(WhatIf.of(answer)),
            deadline_s,
            of_table=asked.has_table,
        )

    given = trade if table_kind(trade) is not None else scenarios
    return _about(Book(name=portfolio), given, ask, deadline_s)


def hedge(
    portfolio: str,
    objective: Objective,
    instruments: Any = None,
    *,
    lot_size: ArrayLike = (),
    cost_per_lot: ArrayLike = (),
    budget: float = 0.0,
    scenarios: Any = None,
    level: float = 0.0,
    cost_rate: ArrayLike = (),
    risk_aversion: float = 0.0,
    plan_reach: float = 0.0,
    kelly: wire.KellySizing | None = None,
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
    part of the traded value; `plan_reach`, a part of the spot, asks for a `plan` of the next trades. The
    objective kelly sizes spots or futures as `risk_client.kelly` says. Instruments and scenarios may be
    tables, as in `stress_test`. `without_fills` and `progress` are as in `expected_shortfall`.
    """

    def ask(held: wire.Portfolio | None) -> Job[Hedge]:
        request = message_of(
            wire.HedgeRequest,
            portfolio=portfolio,
            objective=chosen("objective", objective, _OBJECTIVES),
            instruments=None if instruments is None else _rows("instruments", instruments, held),
            budget=budget,
            level=level,
            risk_aversion=risk_aversion,
            plan_reach=plan_reach,
            kelly=kelly,
            without_fills=without_fills,
            engine=engine,
        )
        write_numbers(request, lot_size=lot_size, cost_per_lot=cost_per_lot, cost_rate=cost_rate)
        if scenarios is not None:
            _set_scenarios(request, _moves(scenarios, held))
        asked = Asked.of(instruments, scenarios, held)
        return Ask(
            "Hedge",
            request,
            lambda answer: asked.hedge(Hedge.of(answer)),
            deadline_s,
            progress,
            asked.has_table,
        )

    given = instruments if table_kind(instruments) is not None else scenarios
    return _about(Book(name=portfolio), given, ask, deadline_s)


def _about(
    book: Book, given: Any, ask: Callable[[wire.Portfolio | None], Job[Result]], deadline_s: float | None
) -> Job[Result]:
    """A question about a book; a table beside it needs to know the underlyings of a stored one."""
    if book.message is not None or table_kind(given) is None:
        return ask(book.message)
    return AboutStored(book.name, ask, deadline_s)


def _moves(given: Any, held: wire.Portfolio | None) -> Any:
    """Scenarios as a message."""
    if table_kind(given) is None or held is None:
        return given
    return scenarios_of(given, tuple(held.underlyings))


def _rows(field: str, given: Any, held: wire.Portfolio | None) -> wire.Positions:
    """Positions as a message."""
    if table_kind(given) is not None and held is not None:
        return trade_of(given, tuple(held.underlyings))
    if not isinstance(given, wire.Positions):
        raise TypeError(f"{field}: positions are a message or a table, not {type(given).__name__}")
    return given


def _set_scenarios(
    request: wire.ExpectedShortfallRequest | wire.HedgeRequest | wire.WhatIfRequest, scenarios: Any
) -> None:
    if isinstance(scenarios, wire.HistoricalScenarios):
        request.historical.CopyFrom(scenarios)
    elif isinstance(scenarios, wire.MonteCarloScenarios):
        request.monte_carlo.CopyFrom(scenarios)
    elif isinstance(scenarios, wire.ScenarioColumns):
        request.custom.CopyFrom(scenarios)
    else:
        raise TypeError(f"scenarios are a message or a table, not {type(scenarios).__name__}")
