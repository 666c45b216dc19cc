"""An implied-volatility surface without static arbitrage, tied to the variance that the model expects.

SSVI with the power-law curvature of Gatheral and Jacquier, "Arbitrage-free SVI volatility surfaces" (2014),
section 4: with exponent 1/2, eta·(1+|rho|) <= 2 and total at-the-money variance rising with expiry there is
neither butterfly nor calendar arbitrage.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class Smile:
    """The shape of a surface: `rho` tilts it, `eta` bends it."""

    rho: float
    eta: float

    def __post_init__(self) -> None:
        if not -1 < self.rho < 1:
            raise ValueError(f"rho: must lie between -1 and 1, got {self.rho}")
        if not 0 < self.eta * (1 + abs(self.rho)) <= 2:
            raise ValueError(f"eta: eta·(1+|rho|) must lie in (0, 2], got {self.eta * (1 + abs(self.rho))}")


INDEX_SMILE = Smile(rho=-0.7, eta=0.8)
STOCK_SMILE = Smile(rho=-0.45, eta=0.6)


def total_variance(smile: Smile, log_moneyness: ArrayLike, atm: ArrayLike) -> NDArray[np.float64]:
    """Implied variance times years at log(strike/forward), given the same at the money, `atm` (positive)."""
    k, theta = np.asarray(log_moneyness, dtype=np.float64), np.asarray(atm, dtype=np.float64)
    phi = smile.eta / np.sqrt(theta * (1 + theta))
    tilted = phi * k + smile.rho
    return np.asarray(theta / 2 * (1 + smile.rho * phi * k + np.sqrt(tilted**2 + 1 - smile.rho**2)))


def implied_vol(
    smile: Smile, log_moneyness: ArrayLike, average_variance: ArrayLike, years: ArrayLike
) -> NDArray[np.float64]:
    """Implied volatility per 1.00, given the expected variance per year to expiry in `years` (positive)."""
    t = np.asarray(years, dtype=np.float64)
    atm = np.asarray(average_variance, dtype=np.float64) * t
    return np.asarray(np.sqrt(total_variance(smile, log_moneyness, atm) / t))
