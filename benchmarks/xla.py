"""The XLA engine on this machine's processor beside the CPU engine and plain copying, interleaved in one run.

    python -m benchmarks.xla             # into benchmarks/results/xla.json

Median of the rounds; the answers are checked against each other. First calls, which compile, are timed apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import gpu_kernels as gk
from benchmarks.measure import machine

RESULTS = Path(__file__).parent / "results" / "xla.json"
ROUNDS = 7
ROWS = 262_144
POSITIONS, SCENARIOS, UNDERLYINGS = 2_000, 500, 20


def options_and_prices(engine: gk.Engine) -> tuple[gk.Options, Any]:
    """Listed-option-like rows and what they are worth."""
    rng = np.random.default_rng(1)
    spot = rng.uniform(20.0, 200.0, ROWS)
    options = gk.Options(
        spot=spot,
        strike=spot * np.exp(rng.normal(0.0, 0.2, ROWS)),
        expiry=rng.uniform(0.05, 2.0, ROWS),
        vol=rng.uniform(0.15, 0.8, ROWS),
        rate=rng.uniform(0.0, 0.06, ROWS),
        dividend_yield=rng.uniform(0.0, 0.04, ROWS),
        is_call=rng.random(ROWS) < 0.5,
    )
    return options, engine.price(options).price


def book_and_scenarios(options: gk.Options) -> tuple[gk.Portfolio, gk.Scenarios]:
    """A small book with vol shocks."""
    rng = np.random.default_rng(2)
    book = gk.Portfolio(
        options.rows(np.arange(POSITIONS)),
        quantity=rng.normal(0.0, 20.0, POSITIONS),
        multiplier=100.0,
        underlying=rng.integers(0, UNDERLYINGS, POSITIONS),
    )
    scenarios = gk.Scenarios(
        spot_return=rng.normal(0.0, 0.02, (SCENARIOS, UNDERLYINGS)),
        vol_change=rng.normal(0.0, 0.01, (SCENARIOS, UNDERLYINGS)),
    )
    return book, scenarios


def work_of(engine: gk.Engine, options: gk.Options, prices: Any) -> dict[str, tuple[Callable[[], Any], int]]:
    """What is timed, and how many rows or revaluations it is."""
    book, scenarios = book_and_scenarios(options)
    price = engine.price(options)
    greeks = engine.greeks(options)
    vols = engine.implied_vol(options, prices)
    return {
        "price": (lambda: engine.price(options, out=price), ROWS),
        "greeks": (lambda: engine.greeks(options, out=greeks), ROWS),
        "implied_vol": (lambda: engine.implied_vol(options, prices, out=vols), ROWS),
        "revaluation": (lambda: engine.revalue(book, scenarios), POSITIONS * SCENARIOS),
    }


def seconds(work: Callable[[], Any]) -> float:
    """One timing."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def largest_differences(
    one: gk.Engine, other: gk.Engine, options: gk.Options, prices: Any
) -> dict[str, float]:
    """Between two engines, by column, in units of the column's largest value."""
    wanted = other.greeks(options)
    pairs = zip(one.greeks(options).columns(), wanted.columns(), strict=True)
    names = gk.GreeksResult.COLUMNS
    found = {
        name: float(np.abs(a - b).max() / np.abs(b).max())
        for name, (a, b) in zip(names, pairs, strict=True)
        if name != "status"
    }
    a, b = one.implied_vol(options, prices), other.implied_vol(options, prices)
    # Where the price says something about the vol.
    solved = (a.status == 0) & (b.status == 0) & (wanted.vega * options.vol > 1e-3 * wanted.price)
    found["implied_vol"] = float(np.abs(a.vol / b.vol - 1.0)[solved].max())
    return found


def main() -> int:
    """Measure, check, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where to write the figures (JSON)")
    chosen = parser.parse_args()
    xla, cpu = gk.engine("xla"), gk.engine("cpu")
    options, prices = options_and_prices(cpu)
    start = time.perf_counter()
    ours = work_of(xla, options, prices)
    compile_seconds = time.perf_counter() - start
    works = {"xla": ours, "cpu": work_of(cpu, options, prices)}
    source, target = np.ones(ROWS * 15), np.empty(ROWS * 15)
    times: dict[tuple[str, str], list[float]] = {}
    copies = []
    for round_number in range(ROUNDS + 1):
        took = seconds(lambda: np.copyto(target, source))
        # The first round warms up.
        if round_number:
            copies.append(took)
        for engine, cases in works.items():
            for name, (work, _) in cases.items():
                took = seconds(work)
                if round_number:
                    times.setdefault((engine, name), []).append(took)
    results: dict[str, Any] = {
        "command": "python -m benchmarks.xla",
        "engines": {"xla": xla.device, "cpu": cpu.device},
        "machine": machine(),
        "rows": ROWS,
        "first_calls_seconds": compile_seconds,
        "copy_bytes_per_second": 2 * source.nbytes / statistics.median(copies),
        "differences_from_cpu": largest_differences(xla, cpu, options, prices),
        "per_second": {},
    }
    for (engine, name), taken in times.items():
        amount = works[engine][name][1]
        results["per_second"].setdefault(name, {})[engine] = amount / statistics.median(taken)
    for name, rates in results["per_second"].items():
        rates["ratio"] = rates["xla"] / rates["cpu"]
        print(f"{name:12} xla {rates['xla'] / 1e6:8.1f} M/s, cpu {rates['cpu'] / 1e6:8.1f} M/s")
    print(f"first calls {compile_seconds:.1f} s; differences {results['differences_from_cpu']}")
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
