"""Draws the pictures of this folder: python docs/risk/make_plots.py (needs matplotlib)."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

import gpu_kernels as gk
from gpu_kernels.es_components import component_es
from gpu_kernels.optimise.min_es_hedge import min_es_hedge
from gpu_kernels.revaluation import position_pnl
from gpu_kernels.stress_library import ladder

HERE = Path(__file__).parent
IMAGES = HERE / "images"
RESULTS = HERE.parent.parent / "benchmarks" / "results"
BLUE, RED, GREY = "#2b6ca3", "#c0392b", "#888888"


def book(rng: np.random.Generator, count: int = 400) -> gk.Portfolio:
    """A desk that is short options on three underlyings and holds stock against them."""
    spot = np.array([100.0, 50.0, 200.0])
    underlying = rng.integers(0, 3, count)
    options = gk.Options(
        spot=spot[underlying],
        strike=spot[underlying] * rng.uniform(0.8, 1.2, count),
        expiry=rng.uniform(0.05, 1.0, count),
        vol=rng.uniform(0.15, 0.4, count),
        rate=0.03,
        is_call=rng.random(count) < 0.5,
    )
    quantity = np.round(rng.normal(-3.0, 10.0, count))
    stock = {
        "underlying": [0, 1, 2],
        "quantity": [3000.0, -2000.0, 1500.0],
        "spot": spot,
        "group": [0, 1, 2],
    }
    return gk.Portfolio(options, quantity, 100.0, underlying, group=underlying, linear=stock)


def scenarios(count: int) -> gk.Scenarios:
    """Student-t moves of one day, vols rising as spots fall."""
    cov = 0.07 * (0.5 * np.eye(3) + 0.5)
    return gk.simulate_scenarios(
        count,
        mean=0.0,
        cov=cov,
        seed=7,
        horizon=1 / 252,
        distribution="student_t",
        dof=5,
        vol_beta=-0.8,
    )


def save(figure: plt.Figure, name: str) -> None:
    """Write one picture."""
    figure.tight_layout()
    figure.savefig(IMAGES / f"{name}.png", dpi=90)
    plt.close(figure)


def loss_distribution(engine: gk.Engine, held: gk.Portfolio) -> None:
    """Histogram of the P&L with VaR and ES."""
    pnl = engine.revalue(held, scenarios(1 << 14))
    t = gk.tail_risk(pnl)
    figure, axes = plt.subplots(figsize=(8, 4))
    bins = np.linspace(*np.quantile(pnl, [0.0005, 0.9995]), 120)
    axes.hist(pnl / 1e3, bins=bins / 1e3, color=BLUE, alpha=0.7)
    axes.axvline(-t.var / 1e3, color=GREY, linestyle="--", label=f"VaR 97.5 %: {t.var / 1e3:.0f} k")
    label = f"ES 97.5 %: {t.es / 1e3:.0f} ± {t.es_std_error / 1e3:.1f} k"
    axes.axvline(-t.es / 1e3, color=RED, label=label)
    axes.set(
        xlabel="one-day P&L (thousands)", ylabel="scenarios", title="Loss distribution, 16,384 scenarios"
    )
    axes.legend()
    save(figure, "loss_distribution")


def components(engine: gk.Engine, held: gk.Portfolio) -> None:
    """Component ES by group, adding up to ES."""
    parts = component_es(engine, held, scenarios(1 << 14))
    figure, axes = plt.subplots(figsize=(6, 3.2))
    names = ["underlying 0", "underlying 1", "underlying 2", "book"]
    heights = [*parts.by_group, parts.es]
    axes.bar(names, np.array(heights) / 1e3, color=[BLUE, BLUE, BLUE, RED])
    axes.axhline(0.0, color="black", linewidth=0.6)
    axes.set(ylabel="ES 97.5 % (thousands)", title="Euler components add up to the whole")
    save(figure, "components")


def ladder_map(engine: gk.Engine, held: gk.Portfolio) -> None:
    """Heat map of P&L over spot and vol moves."""
    spots, vols = np.linspace(-0.3, 0.3, 25), np.linspace(-0.1, 0.3, 17)
    pnl = engine.revalue(held, ladder(spots, vols, 3)).reshape(25, 17) / 1e3
    figure, axes = plt.subplots(figsize=(8, 4))
    most = np.abs(pnl).max()
    image = axes.pcolormesh(
        spots * 100, vols * 100, pnl.T, cmap="RdBu", vmin=-most, vmax=most, shading="nearest"
    )
    axes.contour(spots * 100, vols * 100, pnl.T, levels=[0.0], colors="black", linewidths=0.8)
    axes.set(xlabel="spot move (%)", ylabel="vol change (points)", title="Ladder: P&L (thousands)")
    figure.colorbar(image)
    save(figure, "ladder")


def convergence() -> None:
    """RMSE of the ES of linear books of 10 assets: Sobol and Philox."""
    rng = np.random.default_rng(3)
    loadings = rng.normal(size=(10, 12))
    cov = loadings @ loadings.T * 0.005
    mixed, longs = rng.normal(size=10), rng.uniform(0.2, 1.0, 10)
    sizes = 2 ** np.arange(9, 17)
    figure, axes = plt.subplots(figsize=(7, 4))
    lines: list[tuple[str, str, str, np.ndarray, np.ndarray | None]] = [
        ("philox", "Philox", GREY, mixed, None),
        ("sobol", "Sobol, longs and shorts", RED, mixed, None),
        ("sobol", "Sobol, long the market", BLUE, longs, None),
        ("sobol", "Sobol, longs and shorts, exposure given", "black", mixed, mixed),
    ]
    for sampler, label, colour, weights, along in lines:
        errors = []
        exact = np.sqrt(weights @ cov @ weights * 0.04) * stats.norm.pdf(stats.norm.ppf(0.975)) / 0.025
        for size in sizes:
            found = [
                gk.tail_risk(
                    gk.simulate_scenarios(
                        int(size), mean=0.0, cov=cov, seed=seed, horizon=0.04, sampler=sampler, exposure=along
                    ).spot_return
                    @ weights
                ).es
                for seed in range(16)
            ]
            errors.append(np.sqrt(np.mean((np.array(found) / exact - 1.0) ** 2)))
        axes.loglog(sizes, errors, "o-", color=colour, label=label)
    axes.set(
        xlabel="scenarios", ylabel="relative RMSE of ES", title="ES of linear books of 10 assets, 16 seeds"
    )
    # Room for the legend below the lines.
    axes.set_ylim(bottom=3e-6)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", fontsize=8)
    save(figure, "convergence")


def scaling() -> None:
    """Processor time by positions and scenarios, from the committed benchmark."""
    found = json.loads((RESULTS / "revaluation.json").read_text())["scaling"]
    figure, axes = plt.subplots(figsize=(7, 4))
    for side, colour in (("positions", BLUE), ("scenarios", RED)):
        sizes = np.array(found[side]["sizes"])
        times = np.array(found[side]["least_processor_seconds"])
        axes.loglog(sizes, times * 1e3, "o-", color=colour, label=f"{side} (other side 2,000)")
    axes.loglog(sizes, times[0] * 1e3 * sizes / sizes[0], "--", color=GREY, label="linear")
    axes.set(xlabel="size", ylabel="processor time (ms)", title="Cost of a revaluation")
    axes.legend()
    axes.grid(alpha=0.3, which="both")
    save(figure, "scaling")


def hedge(engine: gk.Engine, held: gk.Portfolio) -> None:
    """P&L before and after the minimum-ES hedge."""
    sc = scenarios(1 << 10)
    choice = gk.Portfolio(
        gk.Options(
            spot=[100.0, 50.0, 200.0], strike=[95.0, 47.0, 190.0], expiry=0.25, vol=0.25, is_call=False
        ),
        1.0,
        100.0,
        underlying=[0, 1, 2],
        linear={"underlying": [0, 1, 2], "quantity": 1.0, "multiplier": 100.0, "spot": [100.0, 50.0, 200.0]},
    )
    pnl, units = engine.revalue(held, sc), position_pnl(engine, choice, sc)
    found = min_es_hedge(pnl, units, limit=25.0, cost_per_lot=2.0)
    after = pnl + found.trades @ units
    figure, axes = plt.subplots(figsize=(8, 4))
    bins = np.linspace(min(pnl.min(), after.min()), np.quantile(pnl, 0.999), 80) / 1e3
    axes.hist(pnl / 1e3, bins=bins, color=GREY, alpha=0.6, label=f"before: ES {found.risk_before:,.0f}")
    axes.hist(after / 1e3, bins=bins, color=BLUE, alpha=0.6, label=f"after: ES {found.risk_after:,.0f}")
    axes.set(
        xlabel="one-day P&L (thousands)",
        ylabel="scenarios",
        title=f"Minimum-ES hedge with 3 stocks and 3 puts, cost {found.cost:.0f}",
    )
    axes.legend()
    save(figure, "min_es_hedge")


def main() -> None:
    """Draw all."""
    IMAGES.mkdir(exist_ok=True)
    engine = gk.engine("cpu")
    held = book(np.random.default_rng(11))
    loss_distribution(engine, held)
    components(engine, held)
    ladder_map(engine, held)
    convergence()
    scaling()
    hedge(engine, held)


if __name__ == "__main__":
    main()
