"""`risk feed` on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from risk_cli.options import Csv, InFile, Json, Parquet, Settings

if TYPE_CHECKING:
    from book_service.adapters.replay_pace import Times


def feed(
    where: Annotated[str, typer.Argument(help="A file or address of market data; none: simulated.")] = "",
    format_: Annotated[
        str, typer.Option("--format", help="itch, lobster, csv, parquet, websocket, venue.")
    ] = "",
    sources: Annotated[Path | None, InFile(help="Many sources, TOML.")] = None,
    name: Annotated[str, typer.Option(help="Of the source; else the format.")] = "",
    day: Annotated[str, typer.Option(help="Of an itch or lobster file.", metavar="YYYY-MM-DD")] = "",
    orderbook: Annotated[str, typer.Option(help="The second lobster file.", metavar="PATH")] = "",
    symbol: Annotated[list[str] | None, typer.Option(help="To subscribe to, or lobster's.")] = None,
    map_: Annotated[
        list[str] | None, typer.Option("--map", help="Our name of a symbol.", metavar="THEIRS=OURS")
    ] = None,
    tick: Annotated[
        list[str] | None, typer.Option(help="Tick size; of 'default' for all.", metavar="OURS=SIZE")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="Of a csv or parquet file.", metavar="FIELD=COLUMN")
    ] = None,
    constant: Annotated[
        list[str] | None, typer.Option(help="The same in all rows.", metavar="FIELD=VALUE")
    ] = None,
    time_unit: Annotated[str, typer.Option(help="Of a csv or parquet file: ns, us, ms, s.")] = "ns",
    speed: Annotated[
        float | None, typer.Option(help="Seconds of the files per second; 0: all at once.", min=0.0)
    ] = None,
    now: Annotated[bool, typer.Option("--now", help="Stamps events with the time they go out.")] = False,
    settings: Settings = None,
    json: Json = False,
    csv: Csv = False,
    parquet: Parquet = None,
) -> None:
    """Runs the synthetic market, or plays market data of files and sockets, onto Kafka."""
    if not where and sources is None:
        from risk_cli.services import run_feed_service

        run_feed_service(settings)
    from risk_cli.extras import extra_needed
    from risk_cli.refusals import BadInput, exit_status

    def work() -> int:
        from risk_cli.answers import Form

        with extra_needed("feed"):
            from risk_cli.feed.run import run_sources
            from risk_cli.feed.sources_file import SingleSource, feed_of_file, feed_of_line
        form = Form(json, csv, parquet)
        times: Times | None = "now" if now else None
        if sources is not None:
            if where:
                raise BadInput("--sources: names its own files; give no other")
            return run_sources(feed_of_file(sources, speed, times), settings, form)
        one = SingleSource(
            where, format_, name, day, orderbook, symbol or [], map_ or [], tick or [], column or [],
            constant or [], time_unit,
        )  # fmt: skip
        return run_sources(feed_of_line(one, speed, times), settings, form)

    raise typer.Exit(exit_status(work))
