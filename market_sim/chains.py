"""Option chains: expiries, rounded strikes and OSI symbols around an opening level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from market_sim.trading_days import SECONDS_PER_YEAR, expiry_dates, expiry_time_ns
from market_sim.universe import Underlying

OPTION_MULTIPLIER = 100.0
STRIKE_STEPS = (0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0)
"""Distances between strikes that an exchange lists."""
_HALF_WIDTH = 2.0  # standard deviations that the strikes reach to either side of spot


@dataclass(frozen=True, slots=True)
class OptionChain:
    """The listed options of one underlying, one row each: by expiry, by strike, call then put."""

    underlying: Underlying
    symbols: tuple[str, ...]
    expiry_time_ns: NDArray[np.int64]
    strike: NDArray[np.float64]
    is_call: NDArray[np.bool_]
    american: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.symbols)


def osi_symbol(root: str, expiry: date, *, is_call: bool, strike: float) -> str:
    """The 21-character OSI symbol: root, yymmdd, C or P, strike in thousandths."""
    thousandths = round(strike * 1000)
    if not root or len(root) > 6:
        raise ValueError(f"root: {root!r} must have 1 to 6 characters")
    if not 0 < thousandths < 10**8 or abs(thousandths - strike * 1000) > 1e-6:
        raise ValueError(f"strike: {strike} has no OSI form")
    return f"{root:<6}{expiry:%y%m%d}{'C' if is_call else 'P'}{thousandths:08d}"


def strike_ladder(spot: float, vol: float, years: float, count: int) -> tuple[float, ...]:
    """`count` strikes around `spot` at a listed distance, about two standard deviations to either side."""
    wanted = 2 * _HALF_WIDTH * spot * vol * years**0.5 / max(count - 1, 1)
    # The whole ladder has to stay above zero, which caps the distance for long expiries of wild underlyings.
    widest = spot / (count // 2 + 2)
    fitting = [step for step in STRIKE_STEPS if step <= max(widest, STRIKE_STEPS[0])]
    step = min(fitting, key=lambda candidate: abs(np.log(candidate / wanted)))
    lowest = max(round(spot / step) - count // 2, 1)
    return tuple((lowest + row) * step for row in range(count))


def build_chain(underlying: Underlying, start: date, expiries: int, strikes: int) -> OptionChain:
    """A chain listed on `start`: `expiries` dates by `strikes` strikes, a call and a put at each."""
    if expiries < 1 or strikes < 1:
        raise ValueError(f"expiries, strikes: must be at least 1, got {expiries} and {strikes}")
    rows: list[tuple[str, int, float, bool]] = []
    for day in expiry_dates(start, expiries):
        years = max((day - start).days * 86_400 / SECONDS_PER_YEAR, 1 / 365)
        for strike in strike_ladder(underlying.spot, underlying.vol, years, strikes):
            for is_call in (True, False):
                symbol = osi_symbol(underlying.symbol, day, is_call=is_call, strike=strike)
                rows.append((symbol, expiry_time_ns(day), strike, is_call))
    return OptionChain(
        underlying=underlying,
        symbols=tuple(row[0] for row in rows),
        expiry_time_ns=np.array([row[1] for row in rows], dtype=np.int64),
        strike=np.array([row[2] for row in rows]),
        is_call=np.array([row[3] for row in rows]),
        american=np.full(len(rows), underlying.american),
    )


def build_chains(
    underlyings: Sequence[Underlying], start: date, expiries: int, strikes: int
) -> tuple[OptionChain, ...]:
    """One chain for each underlying."""
    return tuple(build_chain(underlying, start, expiries, strikes) for underlying in underlyings)
