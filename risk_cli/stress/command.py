"""`risk stress`: files in, losses out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from risk_cli.answers import Form, check_writable, expect_apart, show
from risk_cli.progress_bar import progress_bar
from risk_cli.refusals import DONE, LIMIT_BREACHED, BadInput, CannotDo
from risk_cli.server_options import Server
from risk_cli.stress.market_file import Dividends, Market, dividends_in, market_of, read_market
from risk_cli.stress.outcome import Outcome
from risk_cli.stress.portfolio_file import Desk, read_portfolio
from risk_cli.stress.scenario_file import Plan, read_scenarios
from risk_cli.stress.tables import body, tables, tidy_rows
from risk_cli.stress.toml_file import read_toml

SAMPLES = Path(__file__).parent.parent / "samples"


@dataclass(frozen=True, slots=True)
class Request:
    """The command line."""

    portfolio: Path | None
    scenarios: Path | None
    market: Path | None
    engine: str
    server: Server
    report: Path | None
    sample: bool


def run_stress(request: Request, form: Callable[[], Form]) -> int:
    """Runs it; the exit status."""
    shape = form()
    portfolio, scenarios, market_file = _files(request)
    check_writable("--report", request.report)
    expect_apart(
        {"--report": request.report, "--parquet": shape.parquet},
        {"--portfolio": portfolio, "--scenarios": scenarios, "--market": market_file},
    )
    desk = read_portfolio(portfolio, "stress")
    plan = read_scenarios(scenarios)
    outcome = _worked_out(request, desk, plan, market_file)
    if request.report is not None:
        from risk_cli.stress.report import write_report

        write_report(request.report, outcome, portfolio.name)
    show(shape, "stress", tables(outcome), body(outcome), tidy_rows(outcome))
    return LIMIT_BREACHED if any(one.breached for one in outcome.usages) else DONE


def dividends_for_server(market: Path | None, plan: Plan) -> Dividends:
    """A server has a market of its own: of ours only cash dividends go there, which no market tells."""
    source = plan.market if market is None else market
    if source is None:
        return {}
    found = dividends_in(read_toml(source) if isinstance(source, Path) else source)
    if market is not None and not any(found.values()):
        raise BadInput(
            f"--market: the server has its own; it takes cash dividends, and {market.name} has none"
        )
    return found


@contextmanager
def sample_explained(sample: bool, desk: Desk) -> Iterator[None]:
    """Says beside a server's refusal of the sample desk what that desk needs."""
    try:
        yield
    except (BadInput, CannotDo) as fault:
        if not sample:
            raise
        held = ", ".join(desk.positions.underlying.named().distinct)
        raise type(fault)(
            f"{fault} (the sample desk holds {held}: a server must have their market and history; without "
            "--server it needs none)"
        ) from None


def _files(request: Request) -> tuple[Path, Path, Path | None]:
    if request.sample:
        if request.portfolio or request.scenarios or request.market:
            raise BadInput("--sample: brings its own --portfolio, --scenarios and --market")
        return SAMPLES / "desk.csv", SAMPLES / "scenarios.toml", SAMPLES / "market.toml"
    if request.portfolio is None or request.scenarios is None:
        missing = "--portfolio" if request.portfolio is None else "--scenarios"
        raise BadInput(f"{missing}: is missing (or try --sample)")
    return request.portfolio, request.scenarios, request.market


def _market(path: Path | None, plan: Plan) -> Market:
    if path is not None:
        return read_market(path)
    if isinstance(plan.market, Path):
        return read_market(plan.market)
    if plan.market is not None:
        return market_of(plan.market)
    raise BadInput(f"--market: is missing, and {plan.file} has no market of its own")


def _worked_out(request: Request, desk: Desk, plan: Plan, market_file: Path | None) -> Outcome:
    if request.server:
        from risk_cli.stress.through_server import run_through_server

        with progress_bar("asking the server") as progress, sample_explained(request.sample, desk):
            dividends = dividends_for_server(request.market, plan)
            return run_through_server(desk, plan, request.server, request.engine, progress, dividends)
    from risk_cli.stress.in_process import run_in_process

    market = _market(market_file, plan)
    with progress_bar("revaluing") as progress:
        return run_in_process(desk, plan, market, request.engine, progress)
