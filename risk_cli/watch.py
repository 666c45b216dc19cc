"""`risk watch`: the live risk of a server's portfolios."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from google.protobuf.json_format import MessageToDict
from rich.console import Console
from rich.live import Live

from protos.risk.v1.risk_pb2 import RiskMetrics
from risk_cli.answers import Form
from risk_cli.desk_view import DeskView
from risk_cli.interrupts import on_signal
from risk_cli.refusals import DONE
from risk_cli.screen import plain_lines, render, timing_line
from risk_cli.server_options import Server
from risk_cli.servers import risk_server
from risk_cli.watch_rows import CsvRows, ParquetRows, rows_of
from risk_client import DeadlinePassed, RiskClientError

REFRESH_PER_SECOND = 8
PLAIN_EVERY_S = 1.0


def run_watch(server: Server, portfolios: Sequence[str], seconds: float, form: Callable[[], Form]) -> int:
    """Watches until Ctrl-C, or for `seconds`; the exit status."""
    shape = form()
    ended = threading.Event()
    with risk_server(server) as client, _kept(shape.parquet) as keep:

        def end() -> None:
            ended.set()
            client.close()

        with on_signal(end):
            try:
                _take(_also(client.watch_risk(portfolios, deadline_s=seconds or None), keep), shape, server)
            except (DeadlinePassed, KeyboardInterrupt):
                pass
            except (RiskClientError, ValueError):
                # A stream that we have closed ends with an error; one that cannot be opened any more, too.
                if not ended.is_set():
                    raise
    return DONE


def _take(stream: Iterator[RiskMetrics], shape: Form, server: Server) -> None:
    if shape.json:
        _print_json(stream)
    elif shape.csv:
        _print_csv(stream)
    elif sys.stdout.isatty():
        _show(stream, server.address)
    else:
        _print_lines(stream)


def _kept(path: Path | None) -> AbstractContextManager[ParquetRows | None]:
    return nullcontext() if path is None else ParquetRows(path)


def _also(stream: Iterator[RiskMetrics], keep: ParquetRows | None) -> Iterator[RiskMetrics]:
    """The same, with a copy of each kept."""
    for metrics in stream:
        if keep is not None:
            for row in rows_of(metrics):
                keep.add(row)
        yield metrics


def _print_csv(stream: Iterator[RiskMetrics]) -> None:
    out = CsvRows(sys.stdout)
    for metrics in stream:
        for row in rows_of(metrics):
            out.add(row)


def _show(stream: Iterator[RiskMetrics], server: str) -> None:
    view, console = DeskView(), Console()
    with Live(console=console, refresh_per_second=REFRESH_PER_SECOND, screen=True) as live:
        for metrics in stream:
            view.take_metrics(metrics)
            live.update(render(view, f"gpu-risk at {server}", console.width))


def _print_lines(stream: Iterator[RiskMetrics]) -> None:
    view, printed_at = DeskView(), float("-inf")
    for metrics in stream:
        view.take_metrics(metrics)
        if time.monotonic() - printed_at >= PLAIN_EVERY_S:
            printed_at = time.monotonic()
            for line in (*plain_lines(view), timing_line(view)):
                print(line, flush=True)


def _print_json(stream: Iterator[RiskMetrics]) -> None:
    import json

    for metrics in stream:
        print(json.dumps(MessageToDict(metrics, preserving_proto_field_name=True)), flush=True)
