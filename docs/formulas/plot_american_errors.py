"""Draws american_error.png: errors on the table of 600 options, and the curve of error and speed.

python -m docs.formulas.plot_american_errors
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

import gpu_kernels as gk
from tests.gpu_kernels.american_cases import options_of, table

HERE = Path(__file__).parent
RESULT = HERE.parent.parent / "benchmarks" / "results" / "american.json"


def main() -> None:
    """Write american_error.png beside this file."""
    rows = table("box.csv")
    options = options_of(rows)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.0, 4.2))
    for method, colour in (("fast", "tab:orange"), ("accurate", "tab:blue")):
        price = gk.engine("cpu").price(options, american_method=method).price
        error = np.maximum(np.abs(price - rows["price"]), 1e-11)
        left.semilogy(rows["spot"], error, ".", color=colour, markersize=4, label=method)
    left.axhline(5e-6, color="grey", linewidth=0.8, linestyle="--", label="allowed for accurate")
    left.set_xlabel("spot (strike 100)")
    left.set_ylabel("absolute error of the price")
    left.legend(fontsize=8)
    result = json.loads(RESULT.read_text())
    rate = {timing["name"]: timing["rows_per_second"] for timing in result["timings"]}
    for who, colour in (("cpu engine", "tab:blue"), ("QuantLib", "tab:red")):
        names = [name for name in result["errors"] if name.startswith(who)]
        speeds = [rate[name] for name in names]
        for kind, style in (("max", "o-"), ("rms", "s--")):
            errors = [result["errors"][name][kind] for name in names]
            right.loglog(speeds, errors, style, color=colour, markersize=5, label=f"{who}, {kind}")
    right.set_xlabel("options per second")
    right.set_ylabel("error on the table of 600")
    right.grid(alpha=0.3)
    right.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(HERE / "american_error.png", dpi=110)


if __name__ == "__main__":
    main()
