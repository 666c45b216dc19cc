"""A stress run by risk_service at its own live market; the portfolio goes along with each request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

import gpu_kernels as gk
import risk_client
from protos.risk.v1 import risk_pb2 as wire
from risk_cli.progress_bar import Advance, part
from risk_cli.refusals import BadInput, CannotDo
from risk_cli.server_options import Server
from risk_cli.servers import named_engine, risk_server
from risk_cli.stress.book import Layout, arrange
from risk_cli.stress.in_process import ladder_grids, stresses_of
from risk_cli.stress.limits import usages
from risk_cli.stress.market_file import Dividends
from risk_cli.stress.outcome import Distribution, Floats, Outcome, Stress
from risk_cli.stress.portfolio_file import Desk
from risk_cli.stress.scenario_file import LEVELS, WHOLE_FILE, Past, Plan, Simulation
from risk_cli.stress.shocks import TRADING_DAYS, Stresses, build_stresses
from risk_cli.stress.wording import dividend_words
from risk_cli.wire_positions import portfolio_message

# Fewer days than this have no whole outcome beyond the last of LEVELS.
WINDOW_OF_ALL_LEVELS = 110
# A plan without a window means all the history there is: a server gives what it has of so many days.
ALL_DAYS = 1_000_000


def run_through_server(
    desk: Desk,
    plan: Plan,
    server: Server,
    engine: str,
    progress: Callable[[int], Advance],
    dividends: Dividends,
) -> Outcome:
    """The whole run; `engine` is the server's choice if it is auto. Dividends go along with the book."""
    layout = arrange(desk)
    _check_plan(plan)
    book = portfolio_message(layout, "risk stress", dividends)
    stresses = build_stresses(plan, layout.underlyings, (), None)
    asked = plan.distributions or (Past(None, "history"),)
    # One request for all scenarios, one for the worst of them by position, one for each distribution.
    advance = progress((1 if stresses.scenarios is None else 2) + len(asked))
    with risk_server(server) as client:
        asking = _Asking(client, book, named_engine(engine), advance)
        done, worst, answer = _stresses(asking, layout, stresses)
        distributions: list[Distribution] = []
        notes = [*dividend_words(dividends, layout.underlyings)]
        notes += [*stresses.notes, *answer.warnings]
        for one in asked:
            distributions.extend(_distribution(asking, one, notes, plan))
    came = answer.provenance
    outcome = Outcome(
        layout=layout,
        value_today=answer.value_today,
        exposures=(),
        stresses=done,
        ladders=ladder_grids(stresses, done),
        distributions=tuple(distributions),
        worst_by_position=worst,
        made_with={
            "engine": came.engine + (f" (degraded: {came.degraded_reason})" if came.degraded else ""),
            "device": came.device,
            "method": came.method,
            "market": f"live at {server}, snapshot {came.market_snapshot_id}, "
            f"{came.data_age_ns / 1e9:.1f} s old",
            "scenarios": plan.file,
            "positions": f"{len(layout.positions):,} positions, of them {layout.options:,} options",
        },
        notes=tuple(notes),
    )
    return replace(outcome, usages=usages(plan.limits, layout, done, distributions))


@dataclass(frozen=True, slots=True)
class _Asking:
    """One book, asked about time and again; each answer is one step of the progress."""

    client: risk_client.RiskClient
    book: wire.Portfolio
    engine: str
    advance: Advance

    def stress(
        self, scenarios: gk.Scenarios, *, by_group: bool = False, by_position: bool = False
    ) -> risk_client.StressTest:
        """P&L under scenarios."""
        columns = risk_client.shocks(
            scenarios.spot_return,
            scenarios.vol_change,
            scenarios.rate_change,
            elapsed=scenarios.elapsed,
            names=scenarios.names,
        )
        return self.client.stress_test(
            self.book,
            columns,
            by_group=by_group,
            by_position=by_position,
            engine=self.engine,
            progress=part(self.advance),
        )

    def shortfall(self, one: Past | Simulation, levels: Sequence[float]) -> risk_client.ExpectedShortfall:
        """Tail risk, with its parts and every outcome."""
        return self.client.expected_shortfall(
            self.book,
            _asked(one),
            levels=levels,
            with_components=True,
            with_pnl=True,
            engine=self.engine,
            progress=part(self.advance),
        )


def _check_plan(plan: Plan) -> None:
    """What only a market file can give is refused before anything is sent."""
    for replayed in plan.replays:
        raise replayed.section.fault(None, "needs the history of a market file, which --server has not")
    for one in plan.distributions:
        if isinstance(one, Past) and one.section is not None and (one.first or one.last):
            raise one.section.fault("from", "is not known to --server: give window_days")
    for limit in plan.limits:
        if limit.name == "es_975" and limit.scope != WHOLE_FILE:
            raise BadInput(f"{plan.file}, limits.{limit.scope}.es_975: --server tells no ES of one portfolio")


def _stresses(
    asking: _Asking, layout: Layout, asked: Stresses
) -> tuple[tuple[Stress, ...], Floats, risk_client.StressTest]:
    """The stresses, the P&L by position under the worst of them, and the server's last answer."""
    scenarios = asked.scenarios
    if scenarios is None:
        # No stress is asked for: one scenario in which nothing happens tells the value of today.
        return (), np.empty(0), asking.stress(gk.Scenarios(np.zeros((1, len(layout.underlyings)))))
    by_group = asking.stress(scenarios, by_group=True).pnl_by_group
    if by_group is None:
        raise CannotDo("the server has left out the P&L by group")
    done = stresses_of(asked, scenarios, by_group)
    worst = min(range(len(done)), key=lambda number: done[number].pnl)
    answer = asking.stress(scenarios.select([worst]), by_position=True)
    if answer.pnl_by_position is None:
        raise CannotDo("the server has left out the P&L by position")
    return done, answer.pnl_by_position[:, 0], answer


def _distribution(
    asking: _Asking, one: Past | Simulation, notes: list[str], plan: Plan
) -> list[Distribution]:
    """One distribution; none, with a note, where nobody asked for it and the server has no history."""
    short = isinstance(one, Past) and 0 < one.window_days < WINDOW_OF_ALL_LEVELS
    levels = LEVELS[:1] if short else LEVELS
    try:
        answer = asking.shortfall(one, levels)
    except risk_client.PreconditionFailed as fault:
        wanted = plan.distributions or any(limit.name == "es_975" for limit in plan.limits)
        if wanted:
            raise
        notes.append(f"no distribution of losses: {fault}")
        return []
    tails = tuple(
        gk.TailRisk(
            tail.level,
            "exact_tail",
            answer.scenarios,
            tail.value_at_risk,
            tail.expected_shortfall,
            tail.expected_shortfall_std_error,
            warnings=tuple(tail.warnings),
        )
        for tail in answer.tail
    )
    labels = tuple(f"outcome {number + 1}" for number in range(len(answer.pnl)))
    return [
        Distribution(
            one.name,
            answer.provenance.method,
            labels,
            answer.pnl,
            None,
            None,
            tails,
            answer.component_by_position,
            tuple(warning for tail in tails for warning in tail.warnings),
        )
    ]


def _asked(one: Past | Simulation) -> wire.HistoricalScenarios | wire.MonteCarloScenarios:
    if isinstance(one, Past):
        return risk_client.historical(
            one.window_days or ALL_DAYS,
            horizon_days=one.horizon_days,
            weighting=one.weighting,  # type: ignore[arg-type]
            decay=one.decay or 0.0,
        )
    return risk_client.monte_carlo(
        one.scenarios,
        seed=one.seed,
        horizon=one.horizon_days / TRADING_DAYS,
        distribution=one.distribution,  # type: ignore[arg-type]
        degrees_of_freedom=one.dof,
        vol_beta=one.vol_beta,
    )
