"""The `risk` command. Results go to stdout, progress and logs to stderr.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 a limit was breached, 130 Ctrl-C, 143 SIGTERM.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from risk_cli.book.commands import book_app
from risk_cli.extras import MissingExtra
from risk_cli.feed.commands import feed
from risk_cli.interrupts import end_at_once
from risk_cli.options import Csv, Dividend, Engine, InFile, Json, Number, Parquet, Settings
from risk_cli.server_options import Server, asks_server

app = typer.Typer(
    name="risk",
    help="The whole options book, revalued in full on every tick.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(book_app, name="book")
app.command()(feed)


@app.command()
def demo() -> None:
    """Runs everything on this machine and shows it live; needs no Kafka, Docker, Java or GPU."""
    from risk_cli.demo import run_demo

    raise typer.Exit(run_demo())


@app.command()
def serve(settings: Settings = None) -> None:
    """Runs risk_service."""
    from risk_cli.services import run_risk_service

    run_risk_service(settings)


@app.command()
def topics(settings: Settings = None) -> None:
    """Makes the topics on a broker, with the right partitions; those that are there are checked."""
    from risk_cli.services import make_topics

    make_topics(settings)


@app.command("warm-up")
def warm_up(
    services: Annotated[
        bool, typer.Option("--services", help="Only what a service needs before it can answer.")
    ] = False,
) -> None:
    """Compiles every kernel for this machine, once; else the first start of a service does."""
    from risk_cli.warm_up import run_warm_up

    raise typer.Exit(run_warm_up(services))


@app.command()
@asks_server("Address of risk_service.", default="127.0.0.1:50051")
def watch(
    portfolio: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    seconds: Annotated[float, typer.Option(help="End after so long; 0: at Ctrl-C.", min=0.0)] = 0.0,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per update.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="One row per update and underlying.")] = False,
    parquet: Annotated[
        Path | None,
        typer.Option("--parquet", help="Also the CSV's rows as a Parquet file.", metavar="PATH"),
    ] = None,
    *,
    server: Server,
) -> None:
    """Shows the live risk of portfolios, and how long a tick takes to become a risk number."""
    from risk_cli.refusals import exit_status

    def work() -> int:
        from risk_cli.answers import Form
        from risk_cli.watch import run_watch

        return run_watch(server, portfolio or [], seconds, lambda: Form(json, csv, parquet))

    raise typer.Exit(exit_status(work))


@app.command()
@asks_server("Those of a risk_service instead.")
def engines(json: Json = False, csv: Csv = False, parquet: Parquet = None, *, server: Server) -> None:
    """Lists the engines: which are there, why not, and which one answers."""
    from risk_cli.refusals import exit_status

    def work() -> int:
        from risk_cli.answers import Form
        from risk_cli.engines import run_engines

        return run_engines(server, lambda: Form(json, csv, parquet))

    raise typer.Exit(exit_status(work))


@app.command()
@asks_server("Ask a risk_service, at its market.")
def stress(
    portfolio: Annotated[Path | None, InFile(help="Positions, CSV or Parquet.")] = None,
    scenarios: Annotated[Path | None, InFile(help="Scenarios and limits, TOML.")] = None,
    market: Annotated[Path | None, InFile(help="Spots, vols, rates, TOML.")] = None,
    engine: Engine = "auto",
    report: Annotated[
        Path | None, typer.Option(help="Also a self-contained HTML report.", metavar="OUT.html")
    ] = None,
    sample: Annotated[bool, typer.Option("--sample", help="The sample desk instead of files.")] = False,
    json: Json = False,
    csv: Csv = False,
    parquet: Parquet = None,
    *,
    server: Server,
) -> None:
    """What a desk loses under scenarios, at its worst days and at its limits (status 3: one is breached)."""
    from risk_cli.answers import Form
    from risk_cli.refusals import exit_status
    from risk_cli.stress.command import Request, run_stress

    request = Request(portfolio, scenarios, market, engine, server, report, sample)
    raise typer.Exit(exit_status(lambda: run_stress(request, lambda: Form(json, csv, parquet))))


@app.command()
@asks_server("Ask a risk_service, at its market.")
def es(
    portfolio: Annotated[Path | None, InFile(help="Positions, CSV or Parquet.")] = None,
    market: Annotated[Path | None, InFile(help="Spots, vols, rates, TOML.")] = None,
    window_days: Annotated[int, typer.Option(help="Days of history; 0: all.", min=0)] = 0,
    horizon_days: Annotated[int, typer.Option(help="Trading days ahead.", min=1, max=252)] = 1,
    weighting: Annotated[str, typer.Option(help="plain, age, filtered_ewma or filtered_garch.")] = "plain",
    monte_carlo: Annotated[int, typer.Option(help="Simulate so many moves instead.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Of the simulation.", min=0)] = 1,
    distribution: Annotated[str, typer.Option(help="normal, student_t or jump.")] = "normal",
    vol_beta: Annotated[float, typer.Option(help="Simulated vol change per log return.")] = 0.0,
    engine: Engine = "auto",
    sample: Annotated[bool, typer.Option("--sample", help="The sample desk instead of files.")] = False,
    json: Json = False,
    csv: Csv = False,
    parquet: Parquet = None,
    *,
    server: Server,
) -> None:
    """Value-at-risk and expected shortfall of a portfolio, from history or simulation."""
    from risk_cli.refusals import exit_status

    def work() -> int:
        from risk_cli.answers import Form
        from risk_cli.es import Request, run_es

        request = Request(
            portfolio, market, engine, sample, window_days, horizon_days, weighting,
            monte_carlo, seed, distribution, vol_beta, server,
        )  # fmt: skip
        return run_es(request, lambda: Form(json, csv, parquet))

    raise typer.Exit(exit_status(work))


@app.command()
@asks_server("Ask a risk_service instead.")
def price(
    options: Annotated[Path | None, InFile(help="Options in a file, CSV or Parquet.")] = None,
    spot: Number = None,
    strike: Number = None,
    expiry: Annotated[float | None, typer.Option(help="Years.")] = None,
    vol: Annotated[float | None, typer.Option(help="Per year, 0.2 for 20 %.")] = None,
    rate: Annotated[float | None, typer.Option(help="Continuous, per year.")] = None,
    dividend_yield: Annotated[float | None, typer.Option(help="Continuous, per year.")] = None,
    put: Annotated[bool, typer.Option("--put", help="A put; else a call.")] = False,
    american: Annotated[bool, typer.Option("--american", help="Exercise at any time.")] = False,
    dividend: Dividend = None,
    engine: Engine = "auto",
    json: Json = False,
    csv: Csv = False,
    parquet: Parquet = None,
    *,
    server: Server,
) -> None:
    """Price and Greeks of one option, or of a file of options (status 1: some row has no price)."""
    from risk_cli.answers import Form
    from risk_cli.pricing import Quote, run_price
    from risk_cli.refusals import exit_status

    quote = Quote(spot, strike, expiry, vol, rate, dividend_yield, put, american, None, dividend or ())
    form = partial(Form, json, csv, parquet)
    raise typer.Exit(exit_status(lambda: run_price(quote, options, engine, form, server)))


@app.command()
@asks_server("Ask a risk_service instead.")
def iv(
    options: Annotated[Path | None, InFile(help="Options in a file, CSV or Parquet.")] = None,
    price: Number = None,
    spot: Number = None,
    strike: Number = None,
    expiry: Annotated[float | None, typer.Option(help="Years.")] = None,
    rate: Annotated[float | None, typer.Option(help="Continuous, per year.")] = None,
    dividend_yield: Annotated[float | None, typer.Option(help="Continuous, per year.")] = None,
    put: Annotated[bool, typer.Option("--put", help="A put; else a call.")] = False,
    american: Annotated[bool, typer.Option("--american", help="Exercise at any time.")] = False,
    dividend: Dividend = None,
    engine: Engine = "auto",
    json: Json = False,
    csv: Csv = False,
    parquet: Parquet = None,
    *,
    server: Server,
) -> None:
    """Implied volatility of one price, or of a file of prices (status 1: some row has none)."""
    from risk_cli.answers import Form
    from risk_cli.pricing import Quote, run_implied_vol
    from risk_cli.refusals import exit_status

    quote = Quote(spot, strike, expiry, None, rate, dividend_yield, put, american, price, dividend or ())
    form = partial(Form, json, csv, parquet)
    raise typer.Exit(exit_status(lambda: run_implied_vol(quote, options, engine, form, server)))


@app.command()
@asks_server("Ask a risk_service, at its market.")
def hedge(
    portfolio: Annotated[Path | None, InFile(help="Positions, CSV or Parquet.")] = None,
    instruments: Annotated[
        Path | None, InFile(help="What may be traded; quantity: the largest trade.")
    ] = None,
    market: Annotated[Path | None, InFile(help="Spots, vols, rates, TOML.")] = None,
    objective: Annotated[
        str, typer.Option(help="delta, delta_gamma_vega, min_expected_shortfall or kelly.")
    ] = "delta",
    lot_size: Annotated[float, typer.Option(help="Units that are traded at once.")] = 1.0,
    cost_per_lot: Annotated[float, typer.Option(help="Currency.")] = 0.0,
    budget: Annotated[float, typer.Option(help="The most that trades may cost; 0: any.")] = 0.0,
    monte_carlo: Annotated[int, typer.Option(help="Simulate so many moves; 0: history.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Of the simulation.", min=0)] = 1,
    cost_rate: Annotated[float, typer.Option(help="delta: cost as a part of the traded value.")] = 0.0,
    risk_aversion: Annotated[
        float, typer.Option(help="delta: per unit of currency; leaves alone what is not worth the cost.")
    ] = 0.0,
    plan_reach: Annotated[
        float, typer.Option(help="delta: the next trades within this part of the spot; 0: none.")
    ] = 0.0,
    expected_return: Annotated[
        list[str] | None, typer.Option(help="kelly: SYMBOL=PER_YEAR beyond the rate; may be repeated.")
    ] = None,
    capital: Annotated[float, typer.Option(help="kelly: currency.")] = 0.0,
    fraction: Annotated[float, typer.Option(help="kelly: part of it; 0: a half.")] = 0.0,
    leverage: Annotated[float, typer.Option(help="kelly: most, in capitals; 0: any.")] = 0.0,
    name: Annotated[str, typer.Option(help="A portfolio that the server keeps.")] = "",
    engine: Engine = "auto",
    sample: Annotated[bool, typer.Option("--sample", help="The sample desk instead of files.")] = False,
    json: Json = False,
    csv: Csv = False,
    parquet: Parquet = None,
    *,
    server: Server,
) -> None:
    """What to trade against the risk of a portfolio, in whole lots, and what is left of it."""
    from risk_cli.refusals import exit_status

    def work() -> int:
        from risk_cli.answers import Form
        from risk_cli.hedge import Request, run_hedge
        from risk_cli.hedge_sizing import Sizing

        sizing = Sizing(
            tuple(expected_return or ()), capital, fraction, leverage, cost_rate, risk_aversion, plan_reach
        )
        request = Request(
            portfolio, instruments, market, name, server, engine, objective, lot_size, cost_per_lot, budget,
            monte_carlo, seed, sample, sizing,
        )  # fmt: skip
        return run_hedge(request, lambda: Form(json, csv, parquet))

    raise typer.Exit(exit_status(work))


@app.command()
def bench(
    engine: Engine = "auto",
    options: Annotated[int, typer.Option(help="Options at once.")] = 100_000,
    json: Json = False,
    csv: Csv = False,
    parquet: Parquet = None,
) -> None:
    """How much an engine does per second on this machine, in some seconds; its answers are checked."""
    from risk_cli.refusals import exit_status

    def work() -> int:
        from risk_cli.answers import Form
        from risk_cli.bench import run_bench

        return run_bench(engine, options, lambda: Form(json, csv, parquet))

    raise typer.Exit(exit_status(work))


def main() -> None:
    """Entry point of the console script."""
    end_at_once()
    try:
        app()
    except MissingExtra as missing:
        print(f"risk: {missing}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
