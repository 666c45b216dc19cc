"""The five kinds of order flow, and the middle price that each of them trades around."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from market_sim.streams import stream

Array = NDArray[np.float64]

GRID_SECONDS = 0.01
"""Middle prices are simulated on this grid and hold until its next point."""
_CHUNK = 1000  # grid points per draw, so that a longer path begins with the shorter one


@dataclass(frozen=True, slots=True)
class Crash:
    """A fall and a partial rebound, again and again; times in seconds, sizes as log returns."""

    every: float = 40.0
    begins: float = 12.0
    falls_for: float = 4.0
    rebounds_for: float = 12.0
    depth: float = 0.08
    recovered: float = 0.85
    intensity: float = 3.0  # arrivals during fall and rebound, relative to quiet
    sells: float = 0.75  # share of sells among aggressive orders while falling


@dataclass(frozen=True, slots=True)
class Regime:
    """What distinguishes one flow from another. Moves are log returns, times in seconds."""

    name: str
    branching: float  # children per order: clustering of arrivals
    decay: float  # per second: how fast excitement dies
    vol_per_root_second: float
    depth_tail: float  # index of the power law of placement depth: smaller is deeper
    lifetime_median: float
    swing: float = 0.0  # amplitude of a sine of the middle price
    swing_period: float = 8.0
    crash: Crash | None = None


REGIMES: dict[str, Regime] = {
    regime.name: regime
    for regime in (
        Regime("calm", 0.45, 20.0, 1e-5, depth_tail=1.8, lifetime_median=0.8),
        Regime("normal", 0.65, 20.0, 4e-5, depth_tail=1.4, lifetime_median=0.5),
        Regime("swinging_small", 0.70, 15.0, 6e-5, depth_tail=1.3, lifetime_median=0.4, swing=0.01),
        Regime("swinging_large", 0.75, 12.0, 1.2e-4, depth_tail=1.2, lifetime_median=0.3, swing=0.05),
        Regime("flash_crash", 0.80, 10.0, 1.5e-4, depth_tail=1.0, lifetime_median=0.25, crash=Crash()),
    )
}


class MiddlePrice(Protocol):
    """Where the market is: the price in ticks, possibly between two, that orders are placed around."""

    def __call__(self, symbol: NDArray[np.uint32], seconds: Array) -> Array:
        """Middle prices of `symbol` at `seconds`, row by row."""


@dataclass(slots=True)
class SimulatedMiddle:
    """A regime's own middle prices: noise of each symbol, and the regime's swing or crash common to all."""

    regime: Regime
    seed: int
    opening_ticks: Array  # per symbol
    _noise: list[Array] = field(default_factory=list)
    _streams: list[np.random.Generator] = field(default_factory=list)

    def __call__(self, symbol: NDArray[np.uint32], seconds: Array) -> Array:
        """Middle prices of `symbol` at `seconds`, in ticks and at least 2."""
        point = (seconds / GRID_SECONDS).astype(np.intp)
        self._extend(int(point.max(initial=0)) + 1)
        noise = np.concatenate([chunk.reshape(-1) for chunk in self._noise]).reshape(
            -1, len(self.opening_ticks)
        )
        relative = noise[point, symbol] + common_move(self.regime, np.asarray(point * GRID_SECONDS))
        return np.asarray(np.maximum(self.opening_ticks[symbol] * np.exp(relative), 2.0))

    def _extend(self, points: int) -> None:
        symbols = len(self.opening_ticks)
        if not self._streams:
            self._streams = [stream(self.seed, "middle", self.regime.name, s) for s in range(symbols)]
        while len(self._noise) * _CHUNK < points:
            sd = self.regime.vol_per_root_second * GRID_SECONDS**0.5
            steps = np.stack([s.standard_normal(_CHUNK) for s in self._streams], axis=1) * sd
            start = self._noise[-1][-1] if self._noise else np.zeros(symbols)
            self._noise.append(start + np.cumsum(steps, axis=0))


def common_move(regime: Regime, seconds: Array) -> Array:
    """Log return since the opening that the regime prescribes for all symbols."""
    move = regime.swing * np.sin(2 * np.pi * seconds / regime.swing_period)
    if regime.crash is None:
        return np.asarray(move)
    crash = regime.crash
    phase = seconds % crash.every - crash.begins
    # Slow at first, then faster and faster, as sellers meet a book that others have left.
    falling = np.clip(phase / crash.falls_for, 0.0, 1.0) ** 2
    rebound = np.clip((phase - crash.falls_for) / crash.rebounds_for, 0.0, 1.0) ** 0.5
    cycles_done = np.floor(seconds / crash.every)
    lost = cycles_done * (1 - crash.recovered) + falling - crash.recovered * rebound
    # Each cycle loses a little for good, but a long flow must not march to zero.
    return np.asarray(move - crash.depth * np.minimum(lost, 6.0))


def crash_phase(regime: Regime, seconds: Array) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether the market falls, and whether it is in turmoil (falls or rebounds), at each time."""
    crash = regime.crash
    if crash is None:
        quiet = np.zeros(np.shape(seconds), dtype=np.bool_)
        return quiet, quiet
    phase = seconds % crash.every - crash.begins
    falls = (phase >= 0) & (phase < crash.falls_for)
    return falls, (phase >= 0) & (phase < crash.falls_for + crash.rebounds_for)
