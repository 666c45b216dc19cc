"""Tables, random rows and an independent oracle for the tests of American options."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import solve_banded

import gpu_kernels as gk

TABLES = Path(__file__).parent.parent / "reference_tables" / "american"
GREEKS = ("price", "delta", "gamma", "vega", "theta", "rho", "vanna", "volga", "charm")


def table(name: str) -> dict[str, Any]:
    """Columns of a committed table."""
    with open(TABLES / name) as file:
        rows = list(csv.DictReader(file))
    return {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}


def options_of(columns: dict[str, Any]) -> gk.Options:
    """The options of a table."""
    names = ("spot", "strike", "vol", "rate", "dividend_yield")
    fields = {name: columns[name] for name in names}
    return gk.Options(
        **fields, expiry=columns["days"] / 365.0, is_call=columns["is_call"] > 0.5, american=True
    )


def random_fields(rng: np.random.Generator, size: int, lowest_rate: float = -0.05) -> dict[str, Any]:
    """Fields of options well beyond the box, without rows that have two exercise boundaries."""
    fields = {
        "spot": 100.0 * np.exp(rng.normal(0.0, 0.4, size)),
        "strike": np.full(size, 100.0),
        "expiry": 10.0 ** rng.uniform(-3.0, 1.2, size),
        "vol": 10.0 ** rng.uniform(-1.5, 0.3, size),
        "rate": rng.uniform(lowest_rate, 0.2, size),
        "dividend_yield": rng.uniform(lowest_rate, 0.2, size),
        "is_call": rng.random(size) < 0.5,
    }
    r = np.where(fields["is_call"], fields["dividend_yield"], fields["rate"])
    q = np.where(fields["is_call"], fields["rate"], fields["dividend_yield"])
    single = ~((r < 0.0) & (q < r))
    return {name: values[single] for name, values in fields.items()}


@cache
def grid_price(
    spot: float, strike: float, expiry: float, vol: float, rate: float, dividend_yield: float, is_call: bool
) -> float:
    """American price on a plain implicit grid in log spot, exercise by policy iteration.

    Right to some 0.02 %.
    """
    nodes, steps = 1201, 400
    spread = vol * np.sqrt(expiry)
    half = max(6.0 * spread + abs(rate - dividend_yield) * expiry, abs(np.log(strike / spot)) + 3.0 * spread)
    y = np.linspace(-half, half, nodes)
    prices = spot * np.exp(y)
    payoff = np.maximum(prices - strike if is_call else strike - prices, 0.0)
    dy, dt = y[1] - y[0], expiry / steps
    a, b = 0.5 * (vol / dy) ** 2, (rate - dividend_yield - 0.5 * vol**2) / (2.0 * dy)
    value = payoff.copy()
    older = payoff.copy()
    for step in range(steps):
        # Backward differences of second order, after one step of first order.
        lead = 1.0 if step == 0 else 1.5
        right = value if step == 0 else 2.0 * value - 0.5 * older
        bands = np.zeros((3, nodes))
        bands[0, 2:] = -dt * (a + b)
        bands[1, 1:-1] = lead + dt * (2.0 * a + rate)
        bands[2, :-2] = -dt * (a - b)
        bands[1, [0, -1]] = 1.0
        edge = np.array([payoff[0], payoff[-1]])
        held = np.zeros(nodes, dtype=bool)
        held[[0, -1]] = True
        older = value
        for _ in range(20):
            matrix = bands.copy()
            target = right.copy()
            target[[0, -1]] = edge
            matrix[1, held] = 1.0
            matrix[0, 1:][held[:-1]] = 0.0
            matrix[2, :-1][held[1:]] = 0.0
            target[held] = payoff[held]
            value = solve_banded((1, 1), matrix, target)
            moved = np.zeros(nodes)
            moved[1:-1] = lead * value[1:-1] - right[1:-1]
            moved[1:-1] -= dt * ((a - b) * value[:-2] - (2.0 * a + rate) * value[1:-1] + (a + b) * value[2:])
            now = np.where(held, moved > 0.0, value < payoff)
            now[[0, -1]] = True
            if (now == held).all():
                break
            held = now
    return float(value[nodes // 2])
