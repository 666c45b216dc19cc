"""Chebyshev interpolation in one and two directions: nodes, coefficients, and the order of products."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def nodes(count: int) -> Floats:
    """Chebyshev points of the first kind in (−1, 1); one point is the middle."""
    return np.asarray(np.cos(np.pi * (np.arange(count) + 0.5) / count))


def extrema(count: int) -> Floats:
    """Where the polynomial of this degree is ±1, ends of (−1, 1) included; the middle for one node."""
    return np.cos(np.pi * np.arange(count + 1) / count) if count > 1 else np.zeros(1)


def polynomials(count: int, at: Floats) -> Floats:
    """The first ``count`` Chebyshev polynomials at some places in −1..1, (count, places)."""
    return np.cos(np.arange(count)[:, None] * np.arccos(np.clip(at, -1.0, 1.0))[None, :])


def scaled_nodes(count: int, low: Floats, high: Floats) -> Floats:
    """The points spread over low to high, (P, count)."""
    return np.asarray((low + high)[:, None] / 2.0 + (high - low)[:, None] / 2.0 * nodes(count))


def to_coefficients(count: int) -> Floats:
    """The matrix from values at the nodes to Chebyshev coefficients."""
    angle = np.pi * (np.arange(count) + 0.5) / count
    matrix = np.cos(np.outer(np.arange(count), angle)) * (2.0 / count)
    matrix[0] /= 2.0
    return np.asarray(matrix)


def orders(first: int, second: int) -> Integers:
    """Powers of both directions in every product, (2, first · second), lowest sums first."""
    both = np.stack(np.divmod(np.arange(first * second), second))
    return np.asarray(both[:, np.argsort(both.sum(axis=0), kind="stable")])


def mixed(first: int, second: int) -> Floats:
    """The matrix from values on a grid of both directions to coefficients of the products in `orders`."""
    power = orders(first, second)
    return np.asarray(np.kron(to_coefficients(first), to_coefficients(second))[power[0] * second + power[1]])


def inverse_half(width: Floats) -> Floats:
    """2/width, what a distance from the middle is multiplied by; 0 where there is no width."""
    return np.divide(2.0, width, out=np.zeros_like(width), where=width > 0.0)
