"""Tail measures, components, Monte-Carlo scenarios and the minimum-ES hedge, beside plain NumPy.

python -m benchmarks.tail_risk
"""

from __future__ import annotations

import statistics

import numpy as np

import gpu_kernels as gk
from benchmarks import measure
from benchmarks.revaluation import columns, portfolio, shocks
from gpu_kernels.es_components import component_es
from gpu_kernels.optimise.min_es_hedge import min_es_hedge
from gpu_kernels.tail_risk import tail_risks

OUTCOMES = 1_000_000
LEVELS = (0.95, 0.975, 0.99)


def by_sorting(pnl: np.ndarray) -> list[float]:
    """ES at the levels from a full sort."""
    losses = -np.sort(pnl)
    return [float(losses[: round(len(pnl) * (1 - level))].mean()) for level in LEVELS]


def cases() -> list[measure.Case]:
    """What is timed; rows are outcomes, uniforms or positions × tail scenarios."""
    rng = np.random.default_rng(5)
    pnl = rng.standard_t(4, OUTCOMES)
    found = [t.es for t in tail_risks(pnl, LEVELS)]
    assert np.allclose(found, by_sorting(pnl), rtol=1e-12)
    engine = gk.engine("cpu")
    book, scenarios = portfolio(columns(10_000)), gk.Scenarios(**shocks(1000, "vol"))
    held = engine.revalue(book, scenarios)
    cov = 0.04 * (0.5 * np.eye(10) + 0.5)
    instruments = rng.standard_t(4, (10, 1000))
    target = rng.normal(size=10) @ instruments + rng.normal(size=1000)
    return [
        measure.Case("tail_risks, 3 levels", OUTCOMES, lambda: tail_risks(pnl, LEVELS)),
        measure.Case("NumPy, full sort, 3 levels", OUTCOMES, lambda: by_sorting(pnl)),
        measure.Case(
            "component ES, 10,000 positions × 25 tail scenarios",
            250_000,
            lambda: component_es(engine, book, scenarios, pnl=held),
        ),
        measure.Case(
            "simulate_scenarios, Sobol, 10 assets",
            10 * (1 << 16),
            lambda: gk.simulate_scenarios(1 << 16, mean=0.0, cov=cov, seed=1, horizon=0.04),
        ),
        measure.Case(
            "simulate_scenarios, Philox, 10 assets",
            10 * (1 << 16),
            lambda: gk.simulate_scenarios(1 << 16, mean=0.0, cov=cov, seed=1, horizon=0.04, sampler="philox"),
        ),
        measure.Case(
            "minimum-ES hedge, 10 instruments × 1,000 scenarios",
            10_000,
            lambda: min_es_hedge(target, instruments, limit=5.0, lot_size=None),
        ),
    ]


def main() -> None:
    """Measure and write the result files."""
    machine = measure.machine()
    timings = list(measure.interleaved(cases(), rounds=5).values())
    lines = ["### Tail measures", "", "| what | ms | spread | M rows/s |", "|---|---|---|---|"]
    for timing in timings:
        middle = statistics.median(timing.seconds) * 1e3
        low, high = min(timing.seconds) * 1e3, max(timing.seconds) * 1e3
        lines.append(
            f"| {timing.case.name} | {middle:.4g} | {low:.4g}–{high:.4g} | {timing.rate / 1e6:.4g} |"
        )
    lines += ["", f"- load of the machine before the run: {machine['load_average_before']}", ""]
    measure.write(
        "tail_risk",
        {"machine": machine, "timings": [timing.as_dict() for timing in timings]},
        "\n".join(lines),
    )


if __name__ == "__main__":
    main()
