"""When small requests for an engine in a process of its own are answered sooner together.

    python -m benchmarks.gathering

What the service measures at its start, and decides by (risk_service/on_demand/break_even.py).
"""

from __future__ import annotations

import gpu_kernels as gk
from benchmarks import measure
from risk_service.on_demand.break_even import GAIN_LEAST, SIDE_BY_SIDE, Gathered, gathering_times
from risk_service.worker.engine import WorkerEngine
from risk_service.worker.supervisor import Supervisor


def main() -> None:
    """Measures every engine that there is, prints and keeps the result."""
    result: dict[str, list[Gathered]] = {}
    for probe in gk.available_engines():
        if probe.engine is None or probe.name == "reference":
            continue
        supervisor = Supervisor(probe.name)
        try:
            supervisor.start()
            result[probe.name] = list(gathering_times(WorkerEngine(supervisor)))
        finally:
            supervisor.close()
    measure.write("gathering", {"machine": measure.machine(), "engines": result}, table(result))


def table(result: dict[str, list[Gathered]]) -> str:
    """The result in words."""
    lines = [
        f"### {SIDE_BY_SIDE} requests for Greeks side by side, the engine in a process of its own",
        "",
        "| engine | options each | apart | together | gathered |",
        "|---|---|---|---|---|",
    ]
    for name, times in result.items():
        for size, apart_s, together_s in times:
            gains = "yes" if apart_s >= GAIN_LEAST * together_s else "no"
            lines.append(
                f"| {name} | {size:,} | {apart_s * 1e3:.2f} ms | {together_s * 1e3:.2f} ms | {gains} |"
            )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
