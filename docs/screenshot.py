"""Writes docs/demo.svg: the demo's screen, from a real run of the whole system.

python docs/screenshot.py [SECONDS]
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich.console import Console

from risk_cli.demo import Demo
from risk_cli.screen import render
from service_kit.lifecycle import run_service

WIDTH = 150


def main() -> int:
    """Runs the demo for some seconds and draws its last state."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 12.0
    runs: list[Demo] = []

    def run(stop: object) -> None:
        runs.append(Demo(stop, seconds))  # type: ignore[arg-type]
        runs[0].run()

    status = run_service(run, name="screenshot", stop_within_s=2.9)
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(render(runs[0].view, "gpu-risk demo — Ctrl-C ends it", WIDTH))
    console.save_svg(str(Path(__file__).with_name("demo.svg")), title="make demo")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
