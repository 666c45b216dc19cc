"""Timing side by side: interleaved rounds, medians with spread, a JSON file and a table per benchmark."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
ROUNDS = 7
LIBRARIES = ("numpy", "scipy", "numba", "llvmlite", "jax", "QuantLib", "fast-vollib")


@dataclass(frozen=True)
class Case:
    """Something to time: `run` does `rows` options; `bytes_per_row` is what must cross the memory bus."""

    name: str
    rows: int
    run: Callable[[], Any]
    bytes_per_row: int = 0


@dataclass(frozen=True)
class Timing:
    """Seconds of each round of one case."""

    case: Case
    seconds: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Options per second, median."""
        return self.case.rows / statistics.median(self.seconds)

    def as_dict(self) -> dict[str, Any]:
        """For the result file."""
        return {
            "name": self.case.name,
            "rows": self.case.rows,
            "median_seconds": statistics.median(self.seconds),
            "least_seconds": min(self.seconds),
            "most_seconds": max(self.seconds),
            "rows_per_second": self.rate,
            "bytes_per_row": self.case.bytes_per_row,
        }


def interleaved(cases: Sequence[Case], rounds: int = ROUNDS) -> dict[str, Timing]:
    """Time the cases in turn, round after round, so that a busy moment of the machine hits all alike."""
    for case in cases:
        case.run()
    seconds: dict[str, list[float]] = {case.name: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            start = time.perf_counter()
            case.run()
            seconds[case.name].append(time.perf_counter() - start)
    return {case.name: Timing(case, tuple(seconds[case.name])) for case in cases}


def absent(name: str) -> str:
    """A line that says that a peer was not measured; empty when it is installed."""
    if _version(name) is not None:
        return ""
    return f"{name} is not installed, so it was not measured (python -m pip install '{name}')"


def machine() -> dict[str, Any]:
    """Where and with what a result was measured."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {name: found for name in LIBRARIES if (found := _version(name))},
        "command": f"python -m {_module()}",
    }


def write(name: str, result: Mapping[str, Any], table: str) -> None:
    """Put a result into benchmarks/results/NAME.json and its table into NAME.md; show the table."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(table)
    print(table)


def table(title: str, timings: Sequence[Timing], notes: Sequence[str], bandwidth: float = 0.0) -> str:
    """Rates of all cases, the first being what others are compared with; bandwidth in bytes per second."""
    first = timings[0].rate
    lines = [
        f"### {title}",
        "",
        "| what | M options/s | spread | first is | part of memory bound |",
        "|---|---|---|---|---|",
    ]
    for timing in timings:
        low = timing.case.rows / max(timing.seconds) / 1e6
        high = timing.case.rows / min(timing.seconds) / 1e6
        bound = (
            "" if not (bandwidth and timing.case.bytes_per_row) else f"{bound_part(timing, bandwidth):.2f}"
        )
        ratio = "" if timing is timings[0] else f"{first / timing.rate:.1f}×"
        rate = f"{timing.rate / 1e6:.4g}"
        lines.append(f"| {timing.case.name} | {rate} | {low:.4g}–{high:.4g} | {ratio} | {bound} |")
    return "\n".join([*lines, "", *(f"- {note}" for note in notes), ""])


def bound_part(timing: Timing, bandwidth: float) -> float:
    """Rate as a part of what the copy bandwidth (bytes per second) would allow."""
    return timing.rate * timing.case.bytes_per_row / bandwidth


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    return f"{named[0] if named else platform.machine()}{' with AVX-512' if 'avx512dq' in flags else ''}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _module() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec is not None else "benchmarks"
