"""The commands under `risk book`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from risk_cli.options import Csv, Json, Parquet, Settings
from risk_cli.server_options import Server, asks_server

book_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@book_app.callback(invoke_without_command=True)
def book(context: typer.Context, settings: Settings = None) -> None:
    """Runs book_service; or shows a book, rebuilds one from the log, checks an audit log."""
    if context.invoked_subcommand is not None:
        return
    from risk_cli.services import run_book_service

    run_book_service(settings)


@book_app.command("show")
@asks_server("Address of book_service.", default="127.0.0.1:50051")
def show_book(
    symbol: Annotated[str, typer.Argument(help="An instrument of book_service.")],
    levels: Annotated[int, typer.Option(help="On each side.", min=1, max=1000)] = 10,
    live: Annotated[bool, typer.Option("--live", help="Draws it again and again until Ctrl-C.")] = False,
    png: Annotated[Path | None, typer.Option(help="Also a picture of the depth.", metavar="PATH")] = None,
    json: Json = False,
    csv: Csv = False,
    parquet: Parquet = None,
    *,
    server: Server,
) -> None:
    """Draws the depth of an instrument."""
    from risk_cli.refusals import exit_status

    def work() -> int:
        from risk_cli.answers import Form
        from risk_cli.book.show import Request, run_show

        return run_show(Request(symbol, server, levels, png, live), lambda: Form(json, csv, parquet))

    raise typer.Exit(exit_status(work))


@book_app.command()
def replay(
    symbols: Annotated[list[str] | None, typer.Argument(help="Whose depth to show.")] = None,
    partition: Annotated[
        int | None, typer.Option(help="Of orders.incoming; else the symbols'.", min=0)
    ] = None,
    offset: Annotated[int | None, typer.Option(help="After this record; else the latest.", min=0)] = None,
    until: Annotated[
        str, typer.Option(help="Before the first order that is later than this.", metavar="UTC|NS")
    ] = "",
    audit: Annotated[
        Path | None, typer.Option(help="From this audit log instead of Kafka.", exists=True, file_okay=False)
    ] = None,
    snapshots: Annotated[
        Path | None, typer.Option(help="Begin with a snapshot of this folder.", exists=True, file_okay=False)
    ] = None,
    levels: Annotated[int, typer.Option(help="On each side.", min=1, max=1000)] = 10,
    settings: Settings = None,
    json: Json = False,
    csv: Csv = False,
    parquet: Parquet = None,
) -> None:
    """Rebuilds the venue at any moment, from the log; prints its state hash and depth."""
    from risk_cli.refusals import exit_status

    def work() -> int:
        from risk_cli.answers import Form
        from risk_cli.book.replay import Request, run_replay

        request = Request(symbols or [], partition, offset, until, audit, snapshots, levels, settings)
        return run_replay(request, lambda: Form(json, csv, parquet))

    raise typer.Exit(exit_status(work))


@book_app.command()
def verify(
    audit: Annotated[Path, typer.Argument(help="An audit log: its folder, or one file of it.", exists=True)],
    head: Annotated[str, typer.Option(help="The hash that the log must end with.", metavar="HEX")] = "",
    kafka: Annotated[
        bool, typer.Option("--kafka", help="Also against the marks on orders.executed: shows a cut end.")
    ] = False,
    settings: Settings = None,
    json: Json = False,
    csv: Csv = False,
    parquet: Parquet = None,
) -> None:
    """Checks the hash chain of an audit log (status 1: a record is not what was written)."""
    from risk_cli.refusals import exit_status

    def work() -> int:
        from risk_cli.answers import Form
        from risk_cli.book.verify import run_verify

        return run_verify(audit, head, kafka, settings, lambda: Form(json, csv, parquet))

    raise typer.Exit(exit_status(work))


@book_app.command()
@asks_server("Address of book_service.", default="127.0.0.1:50051")
def limits(
    account: Annotated[list[int] | None, typer.Option(help="Of this account; none: of every one.")] = None,
    open_exposure: Annotated[float | None, typer.Option(help="Value of all open orders.")] = None,
    loss: Annotated[float | None, typer.Option(help="Beyond it only reducing.")] = None,
    message_rate: Annotated[int | None, typer.Option(help="Messages in a second.")] = None,
    execution_rate: Annotated[int | None, typer.Option(help="Orders that traded in a second.")] = None,
    capital: Annotated[float | None, typer.Option(help="Of each account named.")] = None,
    breaker_loss: Annotated[float | None, typer.Option(help="Fraction of the capital of all.")] = None,
    by_use: Annotated[
        bool, typer.Option("--by-use", help="More for partitions with more open; of one account.")
    ] = False,
    json: Json = False,
    csv: Csv = False,
    parquet: Parquet = None,
    *,
    server: Server,
) -> None:
    """Shows and sets the limits that span symbols, as budgets of partitions (below 0: no limit)."""
    from risk_cli.refusals import exit_status

    def work() -> int:
        from risk_cli.answers import Form
        from risk_cli.book.limits import Limits, run_limits

        wanted = Limits(open_exposure, loss, message_rate, execution_rate, capital, breaker_loss)
        return run_limits(account or [], wanted, by_use, server, lambda: Form(json, csv, parquet))

    raise typer.Exit(exit_status(work))
