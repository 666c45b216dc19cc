"""Draws the error plots of the European pages: python docs/formulas/plot_european_errors.py [SEED].

Exact values come from the tests' 60-digit formula, options from the tests' random and adversarial grids.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests" / "gpu_kernels"))

import grids  # noqa: E402
import matplotlib as mpl  # noqa: E402
import mpmath as mp  # noqa: E402
import mpmath_truth  # noqa: E402
import numpy as np  # noqa: E402
from scipy.special import ndtr  # noqa: E402

import gpu_kernels as gk  # noqa: E402

mpl.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

ROWS = 8000
FLOOR = 1e-17


def textbook(g: grids.Grid) -> Any:
    """The usual formula with SciPy's distribution function."""
    total = g.vol * np.sqrt(g.expiry)
    d1 = (np.log(g.spot / g.strike) + (g.rate - g.dividend_yield + 0.5 * g.vol**2) * g.expiry) / total
    sign = np.where(g.is_call, 1.0, -1.0)
    spot_leg = g.spot * np.exp(-g.dividend_yield * g.expiry) * ndtr(sign * d1)
    return sign * (spot_leg - g.strike * np.exp(-g.rate * g.expiry) * ndtr(sign * (d1 - total)))


def price_plot(g: grids.Grid, prices: list[Any]) -> None:
    """Relative error of the price over the size of the price."""
    size = np.array([float(price) / spot for price, spot in zip(prices, g.spot, strict=True)])
    shown = size > 1e-60
    figure, axes = plt.subplots(figsize=(8, 4.5))
    for label, values, colour in (
        ("textbook formula, SciPy", textbook(g), "tab:orange"),
        ("gpu_kernels, cpu engine", gk.engine("cpu").price(gk.Options(**g._asdict())).price, "tab:blue"),
    ):
        error = [
            float(abs(mp.mpf(float(v)) - p) / p) if p else 0.0 for v, p in zip(values, prices, strict=True)
        ]
        axes.loglog(size[shown], np.maximum(error, FLOOR)[shown], ".", ms=2, color=colour, label=label)
    axes.hlines(1e-11, 1e-30, 1.0, color="black", lw=1, label="allowed")
    axes.set(xlabel="price / spot", ylabel="relative error of the price", ylim=(FLOOR / 2, 10))
    axes.legend(loc="upper right", markerscale=5)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(HERE / "black_scholes_error.png", dpi=110)


def vol_plot(g: grids.Grid, prices: list[Any]) -> None:
    """Relative error of the implied vol over what a last digit of the price does to it."""
    quotes = np.array([float(price) for price in prices])
    result = gk.engine("cpu").implied_vol(gk.Options(**g._asdict()), quotes)
    across, error = [], []
    for row, quote, vol, status in zip(zip(*g, strict=True), quotes, result.vol, result.status, strict=True):
        if status != gk.Status.OK:
            continue
        option = mpmath_truth.Option(*row)
        value, vega = mpmath_truth.price_at_vol(option, option.vol)
        exact = mp.mpf(float(option.vol)) + (mp.mpf(float(quote)) - value) / vega
        across.append(float(quote / (vega * option.vol)))
        error.append(max(float(abs(mp.mpf(float(vol)) / exact - 1)), FLOOR))
    x = np.array(across)
    order = np.sort(x)
    figure, axes = plt.subplots(figsize=(8, 4.5))
    axes.loglog(x, error, ".", ms=2, color="tab:blue", label="gpu_kernels, cpu engine")
    axes.loglog(order, 2.2e-16 * order, color="tab:grey", lw=1, label="one last digit of the price")
    axes.hlines(1e-12, order[0], 1e3, color="black", lw=1, label="allowed")
    axes.set(
        xlabel="price / (vega · vol): by how much an error of the price is magnified",
        ylabel="relative error of the implied vol",
        xlim=(order[0] / 2, 1e12),
        ylim=(FLOOR / 2, 1e-1),
    )
    axes.legend(loc="upper left", markerscale=5)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(HERE / "implied_vol_error.png", dpi=110)


def main() -> None:
    """Both plots, from one set of options."""
    grid = grids.everything(np.random.default_rng(int(sys.argv[1]) if len(sys.argv) > 1 else 7), ROWS)
    prices = [mpmath_truth.price(mpmath_truth.Option(*row)) for row in zip(*grid, strict=True)]
    price_plot(grid, prices)
    vol_plot(grid, prices)


if __name__ == "__main__":
    main()
