"""Clustered arrivals: a Hawkes process with an exponential kernel, drawn exactly by its families.

Every order is either an immigrant (a Poisson process) or the child of an earlier order; an order has a
Poisson number of children after exponential delays (Hawkes and Oakes 1974). Families need no loop over time:
one generation is one set of array operations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from market_sim.regimes import Regime, crash_phase

Array = NDArray[np.float64]

_SAME_SYMBOL = 0.95  # of children; the others excite a symbol drawn afresh
_SAME_SIDE = 0.75


@dataclass(frozen=True, slots=True)
class Arrivals:
    """New orders in no particular order: time in seconds, symbol and side (0 buy, 1 sell)."""

    seconds: Array
    symbol: NDArray[np.uint32]
    side: NDArray[np.uint8]


def arrivals(
    random: np.random.Generator,
    regime: Regime,
    *,
    begins: float,
    ends: float,
    orders_per_second: float,
    weights: Array,
) -> Arrivals:
    """Families whose immigrants come in [begins, ends); children may come later. `weights` are per symbol."""
    cumulative = np.cumsum(weights) / np.sum(weights)
    seconds = _immigrants(random, regime, begins, ends, orders_per_second * (1 - regime.branching))
    generation = Arrivals(
        seconds,
        _symbols(random, cumulative, len(seconds)),
        random.integers(0, 2, len(seconds), dtype=np.uint8),
    )
    found = [generation]
    while len(generation.seconds):
        generation = _children(random, regime, cumulative, generation)
        found.append(generation)
    return Arrivals(
        np.concatenate([g.seconds for g in found]),
        np.concatenate([g.symbol for g in found]),
        np.concatenate([g.side for g in found]),
    )


def _immigrants(
    random: np.random.Generator, regime: Regime, begins: float, ends: float, rate: float
) -> Array:
    """A Poisson process whose rate is higher while the regime is in turmoil, by thinning."""
    peak = regime.crash.intensity if regime.crash else 1.0
    candidates = begins + (ends - begins) * random.random(random.poisson(rate * peak * (ends - begins)))
    turmoil = crash_phase(regime, candidates)[1]
    return np.asarray(candidates[random.random(len(candidates)) * peak < np.where(turmoil, peak, 1.0)])


def _children(random: np.random.Generator, regime: Regime, cumulative: Array, parents: Arrivals) -> Arrivals:
    parent = np.repeat(
        np.arange(len(parents.seconds)), random.poisson(regime.branching, len(parents.seconds))
    )
    count = len(parent)
    elsewhere = random.random(count) >= _SAME_SYMBOL
    other_side = random.random(count) >= _SAME_SIDE
    return Arrivals(
        parents.seconds[parent] + random.exponential(1 / regime.decay, count),
        np.where(elsewhere, _symbols(random, cumulative, count), parents.symbol[parent]),
        parents.side[parent] ^ other_side.astype(np.uint8),
    )


def _symbols(random: np.random.Generator, cumulative: Array, count: int) -> NDArray[np.uint32]:
    drawn = np.searchsorted(cumulative, random.random(count), side="right")
    return np.minimum(drawn, len(cumulative) - 1).astype(np.uint32)
