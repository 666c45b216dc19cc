"""Nodes, weights and interpolation matrices of the American boundary.

The same for every option, made once.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Scheme(NamedTuple):
    """How finely one American price is computed."""

    nodes: int  # collocation nodes of the boundary
    angles: int  # of each node's integrals
    steps: int  # Newton steps
    premium: int  # angles of the premium integral


SCHEMES = {
    "fast": Scheme(nodes=8, angles=6, steps=2, premium=12),
    "accurate": Scheme(nodes=16, angles=12, steps=3, premium=32),
}


# Angles of the premium for Greeks: more of them, and closer together where time is short, since gamma and its
# slope are integrals over a peak there when the spot is near the boundary.
GREEK_RULE = (96, 4)


class Angles(NamedTuple):
    """Gauss-Legendre over the angle: sin, cos and 1/cos of each node.

    And weights that sum to 1 over du/tau.
    """

    sine: Floats
    cosine: Floats
    inv_cosine: Floats
    weight: Floats


class BoundaryTables(NamedTuple):
    """What the solver of n nodes and l angles needs."""

    xi: Floats  # (n,) sqrt(tau/T) of the nodes, from 1 down to near 0
    places: Floats  # (n * l,) the same for every angle of every node's integral
    angles: Angles
    matrix: Floats  # (n * l, n) row i * l + k goes from the nodes to where node i's integral has its angle k


@cache
def boundary_tables(nodes: int, angle_count: int) -> BoundaryTables:
    """Tables of the collocation with this many nodes, and angles of each node's integrals."""
    xi = radau_nodes(nodes)
    rule = angles(angle_count)
    places = (xi[:, None] * rule.sine[None, :]).reshape(-1)
    return BoundaryTables(xi, places, rule, interpolation(nodes, places))


@cache
def angles(count: int, crowding: int = 1) -> Angles:
    """Quadrature over theta in (0, pi/2); `crowding` > 1 gathers nodes towards pi/2, where time is short."""
    node, weight = np.polynomial.legendre.leggauss(count)
    y, weight = (1.0 - node) / 2.0, weight / 2.0
    gap = np.pi / 2.0 * y**crowding  # pi/2 - theta
    sine, cosine = np.cos(gap), np.sin(gap)
    weight = weight * crowding * y ** (crowding - 1) * (np.pi / 2.0) * 2.0 * sine * cosine
    return Angles(sine, cosine, 1.0 / cosine, weight)


@cache
def radau_nodes(count: int) -> Floats:
    """Chebyshev-Radau nodes on (0, 1]: 1 is a node, 0, where h is known to vanish, is not."""
    return np.asarray((1.0 + np.cos(2.0 * np.pi * np.arange(count) / (2 * count - 1))) / 2.0)


def interpolation(nodes: int, xi: Floats) -> Floats:
    """(len(xi), nodes): the matrix from a polynomial's values at the nodes to its values at xi."""
    at = radau_nodes(nodes)
    apart = at[:, None] - at[None, :]
    np.fill_diagonal(apart, 1.0)
    weights = 1.0 / (4.0 * apart).prod(axis=1)  # the capacity of (0, 1) is 1/4: products stay near 1
    distance = xi[:, None] - at[None, :]
    same = np.abs(distance) < 1e-15
    terms = weights / np.where(same, 1.0, distance)
    matrix = terms / terms.sum(axis=1, keepdims=True)
    hit = same.any(axis=1, keepdims=True)
    return np.ascontiguousarray(np.where(hit, same.astype(np.float64), matrix))


def place_table(xi: Floats) -> Floats:
    """(len(xi), 4): xi, 1/xi, log(xi^2).

    And how h/xi grows towards expiry where the yield is not above the rate.
    """
    log_square = 2.0 * np.log(xi)
    return np.stack((xi, 1.0 / xi, log_square, np.sqrt(np.log(np.e + np.exp(-log_square)))), axis=1)
