"""What a request will cost, before anything of it is computed: revaluations, of which one is one European
option under one scenario."""

from __future__ import annotations

import numpy as np

from protos.risk.v1 import risk_pb2 as wire
from risk_service.api import stress_requests
from risk_service.api.monte_carlo_requests import DRAWN_COST, SCENARIOS_DEFAULT
from risk_service.api.scenario_requests import ScenarioReader, TailRequest
from risk_service.on_demand.option_blocks import AMERICAN_COST
from risk_service.on_demand.sizing import PLAN_STEPS
from risk_service.on_demand.tail import TailQuestion
from risk_service.portfolios import HeldPortfolio

# What is done once per position besides its scenarios: implied vol, Greeks, the way out; one that comes with
# the request is read and checked too. The vol of an American option takes longer.
COST_PER_POSITION = 400
COST_PER_INLINE_POSITION = 2_500
COST_PER_AMERICAN = 6_000
# Tables of an American option with dividends, made once for all scenarios, and its vol, found on the grid.
COST_PER_DIVIDEND_TABLE = 400_000
# Hedges in whole lots try many combinations for each instrument; about this many revaluations each.
COST_PER_INSTRUMENT = 100_000
# About how many scenarios the search for the nearest loss looks at.
REVERSE_SCENARIOS = 20_000


def expected_shortfall(
    request: wire.ExpectedShortfallRequest,
    held: HeldPortfolio | None,
    scenarios: ScenarioReader,
    asked: TailQuestion,
    *,
    vector_at_hand: bool,
) -> int:
    """Cost of an ES; components price the tail a second time, liquidity horizons the book at each of them."""
    count = scenarios_of(request, scenarios)
    underlyings = request.inline_portfolio.underlyings if held is None else held.underlyings
    positions = _positions(request.inline_portfolio.positions) if held is None else _held(held)
    horizons = 0 if asked.horizons is None else positions * count * len(asked.horizons.steps())
    drawn = round(asked.bootstrap * sum(count * (1.0 - level) for level in asked.levels))
    beside = (
        dividend_tables(held, request.inline_portfolio)
        + _draws(request, len(underlyings))
        + horizons
        + drawn
        + asked.stressed_window * max(0, count - asked.stressed_window)
    )
    if not vector_at_hand:
        return positions * count + _made(held, request.inline_portfolio.positions) + beside
    return count + (positions * max(1, count // 20) if request.with_components else 0) + beside


def stress_test(
    request: wire.StressTestRequest, held: HeldPortfolio | None, scenarios: ScenarioReader
) -> int:
    """Cost of a stress test; groups and positions are revalued apart."""
    count = stress_requests.count(request, scenarios)
    positions = _positions(request.inline_portfolio.positions) if held is None else _held(held)
    times = 1 + request.by_group + request.by_position
    searched = REVERSE_SCENARIOS if request.HasField("reverse") else 0
    made = _made(held, request.inline_portfolio.positions) + dividend_tables(held, request.inline_portfolio)
    return positions * (count * times + searched) + made


def what_if(
    request: wire.WhatIfRequest, held: HeldPortfolio, scenarios: ScenarioReader, vector_at_hand: bool
) -> int:
    """Cost of a what-if: the trade, and the book where its vector is not at hand."""
    rows = _positions(request.trade) + (0 if vector_at_hand else _held(held))
    count = scenarios_of(request, scenarios) if request.WhichOneof("scenarios") else _live(scenarios)
    made = _made(None, request.trade) + (0 if vector_at_hand else _made(held))
    return rows * count + made + _draws(request, len(held.underlyings)) + dividend_tables(held)


def hedge(
    request: wire.HedgeRequest, held: HeldPortfolio, scenarios: ScenarioReader, vector_at_hand: bool
) -> int:
    """Cost of a hedge: Greeks, or the tail, and the search."""
    instruments = len(request.instruments.symbol)
    count = draws = 0
    if request.objective == wire.HedgeRequest.OBJECTIVE_MIN_EXPECTED_SHORTFALL:
        draws = _draws(request, len(held.underlyings))
        count = scenarios_of(request, scenarios) if request.WhichOneof("scenarios") else _live(scenarios)
    book = _made(held) + (0 if vector_at_hand else _held(held) * count)
    if request.plan_reach:
        book += _held(held) * 2 * PLAN_STEPS
    return book + instruments * (count + COST_PER_INSTRUMENT) + draws + dividend_tables(held)


def dividend_tables(held: HeldPortfolio | None, inline: wire.Portfolio | None = None) -> int:
    """Cost of the American options whose underlying pays dividends."""
    if held is not None:
        if not len(held.dividends):
            return 0
        paying = np.isin(held.underlying_index, held.dividends.underlying)
        return COST_PER_DIVIDEND_TABLE * int(np.count_nonzero(paying & held.american & held.is_option))
    if inline is None or not inline.dividends.amount:
        return 0
    return COST_PER_DIVIDEND_TABLE * _american(inline.positions)


def scenarios_of(request: TailRequest, reader: ScenarioReader) -> int:
    """How many scenarios the request asks for."""
    which = request.WhichOneof("scenarios")
    if which == "monte_carlo":
        return request.monte_carlo.scenarios or SCENARIOS_DEFAULT
    if which == "custom":
        return request.custom.spot_return.rows
    return reader.past_days(request.historical)


def _draws(request: TailRequest, underlyings: int) -> int:
    """Cost of the scenarios themselves, where they are drawn."""
    if request.WhichOneof("scenarios") != "monte_carlo":
        return 0
    return DRAWN_COST * underlyings * (request.monte_carlo.scenarios or SCENARIOS_DEFAULT)


def _live(reader: ScenarioReader) -> int:
    return 0 if reader.history is None else min(reader.days, reader.history.days)


def _made(held: HeldPortfolio | None, inline: wire.Positions | None = None) -> int:
    """Cost of a book before its first scenario."""
    if held is not None:
        return COST_PER_POSITION * len(held) + COST_PER_AMERICAN * int(np.count_nonzero(held.american))
    if inline is None:
        return 0
    return COST_PER_INLINE_POSITION * len(inline.symbol) + COST_PER_AMERICAN * _american(inline)


def _held(held: HeldPortfolio) -> int:
    return len(held) + AMERICAN_COST * int(np.count_nonzero(held.american))


def _positions(positions: wire.Positions) -> int:
    return int(len(positions.symbol) + AMERICAN_COST * _american(positions))


def _american(positions: wire.Positions) -> int:
    american = positions.american
    return int(len(positions.symbol) * american[0] if len(american) == 1 else sum(american))
