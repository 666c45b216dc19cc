"""`risk es`: value-at-risk and expected shortfall of a portfolio, from history or simulation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from risk_cli.answers import Form, show
from risk_cli.progress_bar import progress_bar
from risk_cli.refusals import DONE, BadInput
from risk_cli.server_options import Server
from risk_cli.stress.command import SAMPLES, dividends_for_server, sample_explained
from risk_cli.stress.in_process import run_in_process
from risk_cli.stress.market_file import read_market
from risk_cli.stress.outcome import Outcome
from risk_cli.stress.portfolio_file import read_portfolio
from risk_cli.stress.scenario_file import DISTRIBUTIONS, WEIGHTINGS, Past, Plan, Simulation
from risk_cli.stress.tables import distribution_body, es_tables


@dataclass(frozen=True, slots=True)
class Request:
    """The command line. `monte_carlo` is a number of draws; 0: history, if there is one."""

    portfolio: Path | None
    market: Path | None
    engine: str
    sample: bool
    window_days: int
    horizon_days: int
    weighting: str
    monte_carlo: int
    seed: int
    distribution: str
    vol_beta: float
    server: Server


def run_es(request: Request, form: Callable[[], Form]) -> int:
    """Runs it; the exit status."""
    shape = form()
    outcome = _of_server(request) if request.server else _of_this_machine(request)
    show(shape, "es", es_tables(outcome), _body(outcome), _rows(outcome))
    return DONE


def _of_this_machine(request: Request) -> Outcome:
    portfolio, market_file = _files(request)
    desk = read_portfolio(portfolio, "es")
    market = read_market(market_file)
    if not request.monte_carlo and market.history is None:
        raise BadInput(f"{market.file}: has no history; give one, or --monte-carlo N")
    plan = Plan(file="", distributions=(_wanted(request),))
    with progress_bar("revaluing") as progress:
        return run_in_process(desk, plan, market, request.engine, progress)


def _of_server(request: Request) -> Outcome:
    """At the server's live market and history; the portfolio goes along."""
    if request.portfolio is None and not request.sample:
        raise BadInput("--portfolio: is missing (or try --sample)")
    desk = read_portfolio(request.portfolio or SAMPLES / "desk.csv", "es")
    plan = Plan(file="", distributions=(_wanted(request),))
    from risk_cli.stress.through_server import run_through_server

    with progress_bar("asking the server") as progress, sample_explained(request.sample, desk):
        dividends = dividends_for_server(request.market, plan)
        return run_through_server(desk, plan, request.server, request.engine, progress, dividends)


def _files(request: Request) -> tuple[Path, Path]:
    if request.sample:
        if request.portfolio or request.market:
            raise BadInput("--sample: brings its own --portfolio and --market")
        return SAMPLES / "desk.csv", SAMPLES / "market.toml"
    if request.portfolio is None or request.market is None:
        missing = "--portfolio" if request.portfolio is None else "--market"
        raise BadInput(f"{missing}: is missing (or try --sample)")
    return request.portfolio, request.market


def _wanted(request: Request) -> Past | Simulation:
    if request.weighting not in WEIGHTINGS:
        raise BadInput(f"--weighting: {request.weighting!r} is none of {', '.join(WEIGHTINGS)}")
    if request.distribution not in DISTRIBUTIONS:
        raise BadInput(f"--distribution: {request.distribution!r} is none of {', '.join(DISTRIBUTIONS)}")
    if request.monte_carlo:
        return Simulation(
            None,
            "simulation",
            scenarios=request.monte_carlo,
            seed=request.seed,
            horizon_days=float(request.horizon_days),
            distribution=request.distribution,
            vol_beta=request.vol_beta,
        )
    return Past(
        None,
        "history",
        window_days=request.window_days,
        horizon_days=request.horizon_days,
        weighting=request.weighting,
    )


def _body(outcome: Outcome) -> dict[str, Any]:
    return {
        "value_today": outcome.value_today,
        "made_with": dict(outcome.made_with),
        **distribution_body(outcome, outcome.distributions[0]),
    }


def _rows(outcome: Outcome) -> list[dict[str, Any]]:
    return [
        {
            "distribution": one.name,
            "scenarios": len(one.pnl),
            "level": tail.level,
            "var": tail.var,
            "es": tail.es,
            "es_std_error": tail.es_std_error,
        }
        for one in outcome.distributions
        for tail in one.tails
    ]
