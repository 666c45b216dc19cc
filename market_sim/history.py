"""Years of daily history with crises in them: closes and an implied-volatility index of every underlying."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from market_sim.model import Dynamics, Market
from market_sim.streams import stream
from market_sim.trading_days import Dates, trading_days
from market_sim.universe import Underlying

TRADING_DAYS_PER_YEAR = 252
_VOL_SUFFIX = ".vol"
_INDEX_YEARS = 30 / 365  # the volatility index looks this far ahead
_RISK_PREMIUM = 1.08  # implied over expected volatility: what sellers of options are paid for


@dataclass(frozen=True, slots=True)
class Crisis:
    """An episode: the market's log return on each of its days, and what variance is multiplied by on each."""

    name: str
    first_day: int  # row of the history on which its first return is seen
    market_returns: tuple[float, ...]
    variance_factors: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class History:
    """Daily columns: `close` and `implied_vol` (per 1.00, 30 days ahead), dates down, symbols across."""

    dates: Dates
    symbols: tuple[str, ...]
    close: NDArray[np.float64]
    implied_vol: NDArray[np.float64]
    crises: tuple[Crisis, ...] = ()

    def __post_init__(self) -> None:
        shape = (len(self.dates), len(self.symbols))
        for name in ("close", "implied_vol"):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name}: has shape {getattr(self, name).shape}, expected {shape}")

    @property
    def log_returns(self) -> NDArray[np.float64]:
        """Log returns from day to day, one row less than there are dates."""
        return np.diff(np.log(self.close), axis=0)


def simulate_history(
    underlyings: Sequence[Underlying],
    years: float,
    seed: int,
    start: date,
    crises: Sequence[Crisis] | None = None,
    dynamics: Dynamics | None = None,
) -> History:
    """`years` of 252 trading days from `start`; `crises` None puts in a crash, a bear and a gap by seed."""
    count = round(years * TRADING_DAYS_PER_YEAR)
    if count < 2:
        raise ValueError(f"years: must hold at least two trading days, got {years}")
    dates = trading_days(start, count)
    episodes = usual_crises(count, seed) if crises is None else tuple(crises)
    market = Market(underlyings, seed, dynamics)
    noise = [stream(seed, "volatility index", u.symbol) for u in underlyings]
    close = np.empty((count, len(underlyings)))
    implied = np.empty_like(close)
    for day in range(count):
        if day:
            market.advance(1 / TRADING_DAYS_PER_YEAR)
        for crisis in episodes:
            into = day - crisis.first_day
            if 0 <= into < len(crisis.market_returns):
                market.shock(crisis.market_returns[into], crisis.variance_factors[into])
        close[day] = market.spot
        wobble = np.array([s.standard_normal() for s in noise])
        expected = np.sqrt(market.average_variance(np.arange(len(underlyings)), _INDEX_YEARS))
        implied[day] = _RISK_PREMIUM * expected * np.exp(0.02 * wobble)
    return History(dates, tuple(u.symbol for u in underlyings), close, implied, episodes)


def usual_crises(days: int, seed: int) -> tuple[Crisis, ...]:
    """A two-week crash, a slow bear market and a one-day gap, spread over a history of `days` by seed."""
    random = stream(seed, "crises")
    share = random.uniform(0.0, 1.0, 3)
    order = random.permutation(3)
    third = days // 3
    made: list[Crisis] = []
    for place, kind in enumerate((_crash, _bear, _gap)):
        crisis = kind(random)
        room = third - len(crisis.market_returns) - 1
        first = int(order[place]) * third + 1 + int(share[place] * max(room, 0))
        if room > 0:
            made.append(Crisis(crisis.name, first, crisis.market_returns, crisis.variance_factors))
    return tuple(sorted(made, key=lambda crisis: crisis.first_day))


def _crash(random: np.random.Generator) -> Crisis:
    """Two weeks that take off a fifth, with rallies between the falls; a quarter of a year wins half back."""
    falls = np.array([-0.025, -0.035, 0.015, -0.045, -0.03, 0.025, -0.055, 0.02, -0.06, -0.02])
    returns = np.concatenate([falls + 0.005 * random.standard_normal(10), np.full(60, 0.0025)])
    factors = np.array([1.8, 1.5, 1.0, 1.6, 1.25, 0.95, 1.4, 1.0, 1.4, 1.0])
    return Crisis("two-week crash", 0, tuple(returns.tolist()), (*factors.tolist(), *(1.0,) * 60))


def _bear(random: np.random.Generator) -> Crisis:
    """Half a year that grinds down by about a quarter, with a volatility that stays high."""
    returns = -0.0021 + 0.004 * random.standard_normal(130)
    return Crisis("slow bear", 0, tuple(returns.tolist()), (1.01,) * 130)


def _gap(random: np.random.Generator) -> Crisis:
    """A single day's fall out of a quiet market."""
    return Crisis("one-day gap", 0, (-0.075 + 0.01 * float(random.standard_normal()),), (5.0,))


def write_csv(history: History, path: Path) -> None:
    """Writes `date`, a column of closes per symbol and a column `<symbol>.vol` per symbol."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["date", *history.symbols, *(s + _VOL_SUFFIX for s in history.symbols)])
        for day, closes, vols in zip(
            history.dates, history.close.tolist(), history.implied_vol.tolist(), strict=True
        ):
            writer.writerow([str(day), *map(repr, closes), *map(repr, vols)])
