"""Correlated underlyings with stochastic volatility, leverage and jumps, stepped through time at any speed.

Returns load on a market factor, a sector factor and their own noise. Each underlying's variance follows the
Heston model under full truncation (Lord, Koekkoek and van Dijk 2010), its shocks tied to the returns
(leverage) and to each other. Jumps are common crashes, which also raise variance, and news of one underlying.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from market_sim.streams import stream
from market_sim.universe import Underlying

TRADING_SECONDS_PER_YEAR = 252 * 6.5 * 3600.0
LONGEST_STEP_YEARS = 1.0 / (252 * 4)
"""Longer advances are cut into equal steps: longer ones take variance below zero too often."""

_BLOCK = 128  # steps drawn at once per stream: one call of a generator costs as much as a hundred numbers

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Dynamics:
    """How the market moves. Rates are per year; jump sizes are log returns of an underlying with beta 1."""

    mean_reversion: float = 8.0
    vol_of_vol: float = 2.2  # times the long-run vol; keeps variance above zero (Feller): 2·8·0.87 > 2.2²
    leverage: float = -0.7  # correlation of an underlying's return and variance shocks
    common_variance: float = (
        0.7  # correlation of the parts of two variance shocks that returns do not explain
    )
    premium: float = 0.07  # drift of the market factor above the rate
    crash_rate: float = 2.0
    crash_mean: float = -0.025
    crash_sd: float = 0.015
    crash_variance: float = 20.0  # rise of variance in units of its long-run level, per unit of fall
    news_rate: float = 4.0
    news_sd: float = 0.15  # times the underlying's long-run vol


def _crash_variance_rate(d: Dynamics) -> float:
    """What crashes add to variance per year, relative to its long-run level, which already contains it."""
    deep = -d.crash_mean / d.crash_sd
    mean_fall = -d.crash_mean * ndtr(deep) + d.crash_sd * np.exp(-(deep**2) / 2) / np.sqrt(2 * np.pi)
    return float(d.crash_rate * d.crash_variance * mean_fall)


class _Draws:
    """Row t of every stream's numbers at step t, drawn in blocks."""

    def __init__(self, streams: Sequence[np.random.Generator], normals: int) -> None:
        self._streams = streams
        self._normals = normals
        self._next = _BLOCK
        self._z = np.empty((0, 0, 0))
        self._u = np.empty((0, 0))

    def step(self) -> tuple[Array, Array]:
        """Normals (streams, normals) and uniforms (streams,) of the next step."""
        if self._next == _BLOCK:
            self._z = np.stack([s.standard_normal((_BLOCK, self._normals)) for s in self._streams], axis=1)
            self._u = np.stack([s.random(_BLOCK) for s in self._streams], axis=1)
            self._next = 0
        row = self._next
        self._next += 1
        return self._z[row], self._u[row]


class Market:
    """The state of all underlyings; `advance` moves it. Same seed and same steps, same market."""

    def __init__(
        self, underlyings: Sequence[Underlying], seed: int, dynamics: Dynamics | None = None
    ) -> None:
        if not underlyings:
            raise ValueError("underlyings: at least one is needed")
        symbols = [u.symbol for u in underlyings]
        if len(set(symbols)) != len(symbols):
            raise ValueError("underlyings: a symbol occurs twice")
        self.underlyings = tuple(underlyings)
        self.dynamics = dynamics or Dynamics()
        self.log_spot: Array = np.log([u.spot for u in underlyings])
        self.long_run_variance: Array = np.array([u.vol**2 for u in underlyings])
        self.variance: Array = self.long_run_variance.copy()
        sectors = sorted({u.sector for u in underlyings})
        self._sector = np.array([sectors.index(u.sector) for u in underlyings])
        self._to_market = np.array([u.market_correlation for u in underlyings])
        self._to_sector = np.array([u.sector_correlation for u in underlyings])
        self._to_self = np.sqrt(1 - self._to_market**2 - self._to_sector**2)
        self._beta = np.array([u.beta for u in underlyings])
        self._carry = np.array([u.rate - u.dividend_yield for u in underlyings])
        self._crash_variance_rate = _crash_variance_rate(self.dynamics) * self.long_run_variance
        self._own = _Draws([stream(seed, "underlying", s) for s in symbols], 3)
        self._factors = _Draws([stream(seed, "sector", s) for s in sectors], 1)
        self._common = _Draws([stream(seed, "market")], 3)

    @property
    def spot(self) -> Array:
        """Prices now."""
        return np.exp(self.log_spot)

    @property
    def vol(self) -> Array:
        """Instantaneous volatilities, per 1.00."""
        return np.sqrt(np.maximum(self.variance, 0.0))

    def average_variance(self, place: ArrayLike, years: ArrayLike) -> Array:
        """Expected mean variance per year of the underlyings `place` over the coming `years`, row by row."""
        decay = self.dynamics.mean_reversion * np.asarray(years, dtype=np.float64)
        weight = np.where(decay > 1e-8, -np.expm1(-decay) / np.maximum(decay, 1e-8), 1.0)
        at = np.asarray(place)
        long_run = self.long_run_variance[at]
        return np.asarray(long_run + (np.maximum(self.variance[at], 0.0) - long_run) * weight)

    def advance(self, dt_years: float) -> None:
        """Moves time on by `dt_years`, in steps of at most LONGEST_STEP_YEARS."""
        if not dt_years >= 0 or dt_years == np.inf:
            raise ValueError(f"dt_years: must be finite and not negative, got {dt_years}")
        steps = int(np.ceil(dt_years / LONGEST_STEP_YEARS * (1 - 1e-12)))
        for _ in range(steps):
            self._step(dt_years / steps)

    def shock(self, market_return: float, variance_factor: float = 1.0) -> None:
        """Moves all by beta times a log return of the market; variance follows the tie to the market."""
        self.log_spot = self.log_spot + self._beta * market_return
        self.variance = self.variance * (1 + (variance_factor - 1) * self._to_market)

    def _step(self, dt: float) -> None:
        d = self.dynamics
        (own, news_u), (sector, _), (common, crash_u) = (
            self._own.step(),
            self._factors.step(),
            self._common.step(),
        )
        z = (
            self._to_market * common[0, 0]
            + self._to_sector * sector[self._sector, 0]
            + self._to_self * own[:, 0]
        )
        free = d.common_variance**0.5 * common[0, 1] + (1 - d.common_variance) ** 0.5 * own[:, 1]
        z_variance = d.leverage * z + (1 - d.leverage**2) ** 0.5 * free
        variance = np.maximum(self.variance, 0.0)
        crash = self._crash(dt, common[0, 2], crash_u[0])
        news = self._news(dt, own[:, 2], news_u)
        drift = self._carry + d.premium * self._beta - variance / 2
        self.log_spot = self.log_spot + drift * dt + np.sqrt(variance * dt) * z + crash + news
        pull = (d.mean_reversion * (self.long_run_variance - variance) - self._crash_variance_rate) * dt
        noise = d.vol_of_vol * np.sqrt(self.long_run_variance * variance * dt) * z_variance
        happened = crash_u[0] < -np.expm1(-d.crash_rate * dt)
        fall = max(0.0, -(d.crash_mean + d.crash_sd * float(common[0, 2]))) if happened else 0.0
        self.variance = self.variance + pull + noise + d.crash_variance * fall * self.long_run_variance

    def _crash(self, dt: float, z: float, u: float) -> Array:
        """Log returns of a common jump, or of none, less their expectation so that no drift is added."""
        d = self.dynamics
        probability = -np.expm1(-d.crash_rate * dt)
        growth = np.expm1(self._beta * d.crash_mean + (self._beta * d.crash_sd) ** 2 / 2)
        size = (d.crash_mean + d.crash_sd * z) if u < probability else 0.0
        return np.asarray(self._beta * size - np.log1p(probability * growth))

    def _news(self, dt: float, z: Array, u: Array) -> Array:
        """Log returns of each underlying's own jumps, less their expectation."""
        d = self.dynamics
        probability = -np.expm1(-d.news_rate * dt)
        sd = d.news_sd * np.sqrt(self.long_run_variance)
        compensation = np.log1p(probability * np.expm1(sd**2 / 2))
        return np.asarray(np.where(u < probability, sd * z, 0.0) - compensation)
