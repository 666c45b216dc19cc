"""How far float64 results are from exact ones, and the targets they are held to."""

from __future__ import annotations

from typing import Any

import numpy as np
from grids import Grid

import gpu_kernels as gk

GREEKS = ("delta", "gamma", "vega", "theta", "rho", "vanna", "volga", "charm")

# Price: of max(spot, strike), and relative wherever the price is above LEAST_PRICE of spot.
PRICE_ABSOLUTE = 1e-14
PRICE_RELATIVE = 1e-11
PRICE_RELATIVE_FUSED = 1e-9
LEAST_PRICE = 1e-30
# Greeks: of the sum of the sizes of the terms that each is made of.
GREEK_RELATIVE = 1e-10
# Below this a Greek is lost in the smallest float64 numbers.
LEAST_GREEK = 1e-250
# Implied vol: relative where the price says much about it; elsewhere its price must come out again.
VOL_RELATIVE = 1e-12
REPRICE_RELATIVE = 1e-13
STRONG_VEGA = 1e-3
STRONG_TIME_VALUE = 1e-10
EPSILON = 2.220446049250313e-16


def options(grid: Grid) -> gk.Options:
    """The rows of a grid as options."""
    return gk.Options(**grid._asdict())


def host(array: Any) -> Any:
    """A result as a NumPy array, wherever it was computed."""
    return array.get() if hasattr(array, "get") else np.asarray(array)


def worst(errors: list[float], grid: Grid) -> str:
    """The largest error and the option it belongs to, for a message."""
    row = int(np.argmax(errors))
    return f"{errors[row]:.3g} at {[float(column[row]) for column in grid]}"
