"""`risk engines`: which engines are there, on this machine or at a server."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    available: bool
    device: str
    reason: str


def run_engines(server: str) -> int:
    """Prints the table; the exit status."""
    rows, serving = _of_server(server) if server else _of_this_machine()
    table = Table("engine", "there", "device", "why")
    for row in rows:
        name = f"[bold]{row.name}[/bold] ◀" if row.name == serving else row.name
        there = "[green]yes[/green]" if row.available else "[red]no[/red]"
        table.add_row(name, there, row.device, row.reason)
    Console().print(table)
    return 0


def _of_this_machine() -> tuple[list[_Row], str]:
    import gpu_kernels as gk

    rows = []
    for probe in gk.available_engines():
        there = probe.engine is not None
        device = probe.engine.device if probe.engine is not None else ""
        rows.append(_Row(probe.name, there, device, "" if there else probe.reason))
    return rows, gk.engine("auto").name


def _of_server(server: str) -> tuple[list[_Row], str]:
    from risk_client import RiskClient

    with RiskClient(server) as client:
        answer = client.list_engines()
    rows = [_Row(one.name, one.available, one.device, one.reason) for one in answer.engines]
    return rows, answer.serving
