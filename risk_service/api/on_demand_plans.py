"""What on-demand calls compute, and what it will cost: expected shortfall, stresses, what-ifs, hedges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.hedging import RebalancingPlan
from protos.risk.v1 import risk_pb2 as wire
from risk_service.api import book_requests, costs, hedge_requests, risk_answers, stress_requests
from risk_service.api.book_requests import within
from risk_service.api.portfolio_rpcs import PortfolioRpcs
from risk_service.api.scenario_requests import ScenarioReader
from risk_service.api.tail_requests import LEVEL_DEFAULT, read_tail
from risk_service.engines import Engines
from risk_service.live_snapshot import LiveSnapshot
from risk_service.on_demand import hedging, sizing, stress, tail
from risk_service.on_demand.blocks import Revaluer
from risk_service.on_demand.books import ValuedBook, book_at, measured_book, same_portfolio, stored_book
from risk_service.on_demand.patient_engine import Limits, PatientEngine
from risk_service.portfolios import HeldPortfolio
from risk_service.worker.fallback import degraded_reason
from service_kit.errors import InvalidRequest, TooLarge

Answer = TypeVar("Answer")
AnyRequest = book_requests.Request | wire.HedgeRequest | wire.WhatIfRequest
Objective = wire.HedgeRequest
# `pnl` is named so by the kernels; a caller knows the vector by the level that needs more scenarios.
_TAIL_NAMES = {
    "pnl": "levels",
    "level": "levels",
    "scenarios": "scenarios",
    "bootstrap": "bootstrap",
    "window": "stressed_window",
    "stressed_window": "stressed_window",
    "liquidity_horizons": "liquidity_horizons",
}
_HEDGE_NAMES = _TAIL_NAMES | {
    "level": "level",
    "pnl": "level",
    "residual_limit": "instruments",
    "budget": "budget",
    "risk_aversion": "risk_aversion",
    "mean": "kelly.expected_return",
    "cov": "kelly.covariance",
    "capital": "kelly.capital",
    "fraction": "kelly.fraction",
    "leverage": "kelly.leverage",
    "plan_reach": "plan_reach",
    "lot_size": "lot_size",
    "cost_per_lot": "cost_per_lot",
}


class Job(NamedTuple):
    """What a computation in a thread is given."""

    snapshot: LiveSnapshot
    revaluer: Revaluer

    @property
    def engine(self) -> PatientEngine:
        """The engine, cut into blocks."""
        return self.revaluer.engine


@dataclass(frozen=True, slots=True)
class Plan(Generic[Answer]):
    """A request that passed every check that needs no market."""

    engine: str  # as asked for
    cost: int  # revaluations, estimated
    compute: Callable[[Job], Answer]


class _Known(NamedTuple):
    """A book, and its vector under the live historical scenarios where the loop has just made it."""

    book: ValuedBook
    pnl: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class OnDemandPlans:
    """Reads requests. Each method raises what is wrong with one, or tells how it is answered."""

    engines: Engines
    portfolios: PortfolioRpcs
    scenarios: ScenarioReader
    limits: Limits

    def expected_shortfall(
        self, request: wire.ExpectedShortfallRequest
    ) -> Plan[wire.ExpectedShortfallResponse]:
        """Tail risk of a book."""
        held = self._readable(request)
        live = held is not None and self.scenarios.is_live(request)
        named = request.inline_portfolio.underlyings if held is None else held.underlyings
        asked = read_tail(request, len(named))
        if request.with_pnl:
            self._expect_answer(1, costs.scenarios_of(request, self.scenarios))
        cost = costs.expected_shortfall(
            request, held, self.scenarios, asked, vector_at_hand=live and self._measured(held)
        )

        def compute(job: Job) -> wire.ExpectedShortfallResponse:
            if held is not None and live:
                book, pnl = self._known(job, held, fills=not request.without_fills)
            else:
                book, pnl = _book(job, held, request), None
            scenarios, words = self.scenarios.of(
                request,
                book.held.underlyings,
                lambda: hedging.gain_per_return(job.engine, book),
                job.engine.did,
            )
            with within("scenarios", _TAIL_NAMES):
                answer = tail.expected_shortfall(job.revaluer, book, scenarios, asked, pnl)
            came = risk_answers.came(job.engine, book, f"full revaluation, {words}, {asked.convention}")
            return risk_answers.tail_response(
                book, answer, came, self._warnings(book, request), with_pnl=request.with_pnl
            )

        return Plan(request.engine, cost, compute)

    def stress_test(self, request: wire.StressTestRequest) -> Plan[wire.StressTestResponse]:
        """What given and named scenarios do to a book."""
        held = self._readable(request)

        def compute(job: Job) -> wire.StressTestResponse:
            book = _book(job, held, request)
            scenarios, words = stress_requests.stresses(request, self.scenarios, book.held.underlyings)
            if request.by_group and not book.held.groups:
                raise InvalidRequest("by_group", "the portfolio has no groups")
            rows = len(book.held) if request.by_position else len(book.held.groups) * request.by_group
            self._expect_answer(rows, len(scenarios))
            answer = stress.stress(
                job.revaluer,
                book,
                scenarios,
                by_group=request.by_group,
                by_position=request.by_position,
            )
            if request.HasField("reverse"):
                asked = self.scenarios.reverse(request.reverse, book.held.underlyings)
                with within("reverse", {"cov": "reverse.covariance"}):
                    answer = replace(answer, reverse=stress.reverse(job.revaluer, book, asked))
            came = risk_answers.came(job.engine, book, f"full revaluation, {words}")
            return risk_answers.stress_response(
                book, scenarios.names, answer, came, self._warnings(book, request)
            )

        return Plan(request.engine, costs.stress_test(request, held, self.scenarios), compute)

    def what_if(self, request: wire.WhatIfRequest) -> Plan[wire.WhatIfResponse]:
        """Expected shortfall with and without a trade, from the live vector where it is at hand."""
        held = self.portfolios.readable(request.portfolio)
        level, convention = request.level or LEVEL_DEFAULT, risk_answers.convention(request.convention)
        live = request.WhichOneof("scenarios") is None or self.scenarios.is_live(request)

        def compute(job: Job) -> wire.WhatIfResponse:
            asked = book_requests.read_positions(request.trade, held, "trade")
            book, pnl = self._book_for_tail(job, held, live=live, fills=not request.without_fills)
            trade = book_at(job.engine, book.market, book.snapshot_id, asked)
            book_requests.expect_valued(trade, "trade")
            scenarios, words = self.scenarios.of_or_live(
                request,
                held.underlyings,
                lambda: hedging.gain_per_return(job.engine, book),
                job.engine.did,
            )
            with within("level", {"pnl": "level", "level": "level", "scenarios": "scenarios"}):
                impact = tail.what_if(job.revaluer, book, trade, scenarios, level, convention, pnl)
            came = risk_answers.came(job.engine, book, f"full revaluation, {words}, {convention}")
            return risk_answers.what_if_response(book, impact, came, self._warnings(book, request))

        cost = costs.what_if(request, held, self.scenarios, live and self._measured(held))
        return Plan(request.engine, cost, compute)

    def hedge(self, request: wire.HedgeRequest) -> Plan[wire.HedgeResponse]:
        """Trades that take risk off a portfolio."""
        held = self.portfolios.readable(request.portfolio)
        budget = hedge_requests.budget_of(request)
        if request.objective not in Objective.Objective.values():
            raise InvalidRequest("objective", f"{request.objective} is no objective")
        hedge_requests.expect_what_the_objective_reads(request)
        fills = not request.without_fills
        tail_asked = request.objective == Objective.OBJECTIVE_MIN_EXPECTED_SHORTFALL
        live = request.WhichOneof("scenarios") is None or self.scenarios.is_live(request)

        def compute(job: Job) -> wire.HedgeResponse:
            book, pnl = self._book_for_tail(job, held, live=tail_asked and live, fills=fills)
            instruments = hedge_requests.instruments_of(job.engine, request, book, budget)
            words, band = "least squares in whole lots", None
            plans: tuple[RebalancingPlan, ...] = ()
            kelly = (
                hedge_requests.kelly_of(request, instruments, self.scenarios)
                if request.objective == Objective.OBJECTIVE_KELLY
                else None
            )
            with within("instruments", _HEDGE_NAMES):
                if tail_asked:
                    scenarios, words = self.scenarios.of_or_live(
                        request,
                        book.held.underlyings,
                        lambda: hedging.gain_per_return(job.engine, book),
                        job.engine.did,
                    )
                    level = request.level or LEVEL_DEFAULT
                    answer = hedging.hedge_tail(job.revaluer, book, instruments, scenarios, level, pnl)
                elif request.objective == Objective.OBJECTIVE_DELTA:
                    answer, band = hedging.hedge_delta(job.engine, book, instruments, request.risk_aversion)
                    if request.plan_reach:
                        plans = sizing.plans(job.engine, book, instruments, band, request.plan_reach)
                elif kelly is not None:
                    answer = sizing.size_by_kelly(job.engine, book, instruments, kelly)
                    words = f"{kelly.fraction:g} of Kelly, {kelly.words}"
                else:
                    answer = hedging.hedge_greeks(job.engine, book, instruments)
            came = risk_answers.came(job.engine, book, words)
            return risk_answers.hedge_response(
                book, instruments, answer, came, self._warnings(book, request), band, plans
            )

        at_hand = live and self._measured(held)
        return Plan(request.engine, costs.hedge(request, held, self.scenarios, at_hand), compute)

    def _warnings(self, book: ValuedBook, request: AnyRequest) -> list[str]:
        """What the numbers leave out of what was asked for."""
        return book.left_out() + self.scenarios.cut_short(request.historical)

    def _book_for_tail(self, job: Job, held: HeldPortfolio, *, live: bool, fills: bool) -> _Known:
        """A stored book, with its vector where the scenarios are live and it is at hand."""
        if live:
            return self._known(job, held, fills=fills)
        return _Known(stored_book(job.engine, job.snapshot, held, fills=fills), None)

    def _expect_answer(self, rows: int, scenarios: int) -> None:
        if rows * scenarios > self.limits.answer_values_max:
            raise TooLarge(
                f"{rows} rows × {scenarios} scenarios are more than the "
                f"{self.limits.answer_values_max} numbers of one answer"
            )

    def _readable(self, request: book_requests.Request) -> HeldPortfolio | None:
        name = book_requests.named_portfolio(request)
        return None if name is None else self.portfolios.readable(name)

    def _measured(self, held: HeldPortfolio | None) -> bool:
        """Whether the live loop has this very portfolio's risk: then its vector is most likely at hand."""
        latest = None if held is None else self.portfolios.board.latest(held.name)
        return held is not None and latest is not None and latest.portfolio_version == held.version

    def _known(self, job: Job, held: HeldPortfolio, *, fills: bool) -> _Known:
        """The portfolio as the loop has just valued it, where it has, with the same engine and positions."""
        measured = job.snapshot.measured.get(held.name)
        if (
            measured is None
            or not same_portfolio(measured.book.held, held)
            or not (fills or measured.book.held is held)
            or not self._is_serving(job.engine)
            # Live numbers may lack options with dividends until their table is there; a request gets them.
            or len(held.dividends)
        ):
            return _Known(stored_book(job.engine, job.snapshot, held, fills=fills), None)
        book = measured_book(measured, job.snapshot, held)
        return _Known(book if fills else book.without_fills(), measured.pnl)

    def _is_serving(self, engine: gk.Engine) -> bool:
        return engine.name == self.engines.serving.name and not degraded_reason(engine)


def _book(
    job: Job,
    held: HeldPortfolio | None,
    request: wire.ExpectedShortfallRequest | wire.StressTestRequest,
) -> ValuedBook:
    if held is not None:
        return stored_book(job.engine, job.snapshot, held, fills=not request.without_fills)
    market = job.snapshot.market
    inline = book_requests.read_inline(request.inline_portfolio)
    return book_at(job.engine, market, market.snapshot_id(), inline)
