"""`risk book show`: the book of one instrument, from a running book_service."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live

from risk_cli.answers import Form, show
from risk_cli.book.drawing import drawn, plain
from risk_cli.book.ladder import Ladder, body_of, ladder_of, rows_of
from risk_cli.book.picture import write_picture
from risk_cli.interrupts import on_signal
from risk_cli.refusals import DONE, BadInput
from risk_cli.server_options import Server
from risk_cli.servers import book_server

LIVE_EVERY_S = 0.25
COLUMNS = ("symbol", "side", "level", "price", "price_ticks", "quantity", "orders", "up_to_here")


@dataclass(frozen=True, slots=True)
class Request:
    """The command line."""

    symbol: str
    server: Server
    levels: int
    png: Path | None
    live: bool


def run_show(request: Request, form: Callable[[], Form]) -> int:
    """Fetches and shows it; the exit status."""
    shape = form()
    if request.live and (shape.json or shape.csv or shape.parquet or request.png):
        raise BadInput("--live: draws on a terminal, without --json, --csv, --parquet or --png")
    if request.live and not sys.stdout.isatty():
        raise BadInput("--live: stdout is no terminal")
    with book_server(request.server) as client:

        def fetch() -> Ladder:
            return ladder_of(client.get_book(request.symbol, request.levels))

        if request.live:
            return _follow(fetch)
        answer(fetch(), shape, request.png)
    return DONE


def answer(ladder: Ladder, form: Form, png: Path | None = None) -> None:
    """A book to stdout in the form asked for, and a picture of it."""
    if png is not None:
        write_picture(png, ladder)
    table = drawn(ladder, Console().width) if sys.stdout.isatty() else plain(ladder)
    show(form, "book show", [table], body_of(ladder), rows_of(ladder), columns=COLUMNS)


def _follow(fetch: Callable[[], Ladder]) -> int:
    console, ended = Console(), threading.Event()
    with on_signal(ended.set), Live(console=console, screen=True, auto_refresh=False) as live:
        while not ended.is_set():
            live.update(drawn(fetch(), console.width), refresh=True)
            ended.wait(LIVE_EVERY_S)
    return DONE
