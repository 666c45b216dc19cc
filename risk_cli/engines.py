"""`risk engines`: which engines are there, on this machine or at a server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table

from risk_cli.answers import Form, show
from risk_cli.refusals import DONE
from risk_cli.server_options import Server


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    available: bool
    device: str
    reason: str
    cannot: tuple[str, ...]


def run_engines(server: Server, form: Callable[[], Form]) -> int:
    """Shows them; the exit status."""
    shape = form()
    found, serving = _of_server(server) if server else _of_this_machine()
    rows = [{**asdict(one), "serving": one.name == serving} for one in found]
    table = Table(
        "engine", "there", "device", "why", "cannot", box=SIMPLE_HEAD, pad_edge=False, show_edge=False
    )
    for row in found:
        name = f"[bold]{row.name}[/bold] ◀" if row.name == serving else row.name
        there = "[green]yes[/green]" if row.available else "[red]no[/red]"
        table.add_row(name, there, row.device, row.reason, "; ".join(row.cannot))
    show(shape, "engines", [table], {"serving": serving, "engines": rows}, rows)
    return DONE


def _of_this_machine() -> tuple[list[_Row], str]:
    import gpu_kernels as gk

    rows = []
    for probe in gk.available_engines():
        there = probe.engine is not None
        device = probe.engine.device if probe.engine is not None else ""
        why = "" if there else probe.reason
        if there and probe.name == "cpu":
            from gpu_kernels.engines.cpu.readiness import is_compiled

            why = "" if is_compiled(american=True) else "not compiled yet: risk warm-up does it, once"
        rows.append(_Row(probe.name, there, device, why, gk.cannot(probe.name)))
    return rows, gk.engine("auto").name


def _of_server(server: Server) -> tuple[list[_Row], str]:
    from risk_cli.servers import risk_server

    with risk_server(server) as client:
        answer = client.list_engines()
    rows = [
        _Row(one.name, one.available, one.device, one.reason, tuple(one.cannot)) for one in answer.engines
    ]
    return rows, answer.serving
