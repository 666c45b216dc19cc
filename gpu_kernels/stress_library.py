"""Stress scenarios: named days of the past, one's own shocks, and grids of spot and vol.

Every figure of a named event carries its source, which was opened when it was entered; a figure without one
is illustrative: of a plausible size, not a quotation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from gpu_kernels.errors import InvalidInput
from gpu_kernels.scenarios import Scenarios

# A simple return is not let below this: nothing falls by more than all of it, and its logarithm must exist.
LOWEST_RETURN = -0.99

SP500_DAYS = "en.wikipedia.org/wiki/List_of_largest_daily_changes_in_the_S%26P_500_Index"


@dataclass(frozen=True)
class Figure:
    """One number of an event; ``source`` None means illustrative."""

    value: float
    source: str | None = None
    what: str = ""

    @property
    def illustrative(self) -> bool:
        """Whether the number is no quotation."""
        return self.source is None


@dataclass(frozen=True)
class StressEvent:
    """A day the market remembers: simple return of ``what`` moved, absolute vol and rate changes."""

    name: str
    title: str
    spot: Figure
    vol: Figure
    rate: Figure = Figure(0.0, None, "left as it is")


EVENTS: tuple[StressEvent, ...] = (
    StressEvent(
        "1987-10-19",
        "Black Monday",
        Figure(-0.2047, SP500_DAYS, "S&P 500, close to close"),
        Figure(0.50, None, "no VIX in its present form existed"),
    ),
    StressEvent(
        "2008-09",
        "29 September 2008, the first bail-out bill fails",
        Figure(-0.0879, SP500_DAYS, "S&P 500, close to close"),
        Figure(0.12),
    ),
    StressEvent(
        "2008-10",
        "15 October 2008, the worst day of the financial crisis",
        Figure(-0.0904, SP500_DAYS, "S&P 500, close to close"),
        Figure(0.1356, "sesyixo.ru/vix-all-time-high", "VIX from 55.69 at the open to 69.25"),
    ),
    StressEvent(
        "2010-05-06",
        "the Flash Crash, at its low",
        Figure(
            -0.0847,
            "vantagepointtrading.com/trading-glossary/trading-glossary-1/2010-flash-crash-definition-and-brief-history",
            "S&P 500 from 1164.38 at the open to a low of 1065.79",
        ),
        Figure(0.12),
    ),
    StressEvent(
        "2011-08-08",
        "the day after the downgrade of the United States",
        Figure(-0.067, "calculatedriskblog.com/2011/08/dow-down-500-s-500-down-44.html", "S&P 500"),
        Figure(
            0.16,
            "futuresknowledge.com/news-and-analysis/indexes/five-biggest-single-day-jumps-in-vix-history",
            "VIX from 32.00 to 48.00",
        ),
    ),
    StressEvent(
        "2015-01-15",
        "the Swiss franc is let go",
        Figure(
            -0.1333,
            "economaldives.net/2017/01/on-this-day-in-2015-switzerland.html",
            "EUR/CHF from 1.20 to 1.04",
        ),
        Figure(0.10),
        Figure(
            -0.005, "economaldives.net/2017/01/on-this-day-in-2015-switzerland.html", "-0.25 % to -0.75 %"
        ),
    ),
    StressEvent(
        "2018-02-05",
        "the end of short volatility",
        Figure(
            -0.04,
            "tangiblesbook.wixsite.com/explore/post/"
            "volmageddon-explained-how-a-4-drop-blew-up-the-market-on-february-5-2018",
            "S&P 500, about 4 %",
        ),
        Figure(0.20, "minimumeffort.pages.dev/posts/volmageddon-2018", "VIX up 115.6 % to 37.32"),
    ),
    StressEvent(
        "2020-03",
        "16 March 2020, the pandemic",
        Figure(-0.1198, SP500_DAYS, "S&P 500, close to close"),
        Figure(
            0.25, "poletoparis.com/what-is-the-highest-the-vix-has-ever-been", "VIX up nearly 25 to 82.69"
        ),
    ),
)

_BY_NAME = {event.name: event for event in EVENTS}


def stress_event(name: str) -> StressEvent:
    """A named event of the library; an unknown name is refused with the list of known ones."""
    if name not in _BY_NAME:
        raise InvalidInput("name", f"unknown event {name!r}; there are {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def stress_scenarios(names: Sequence[str], underlyings: int, *, beta: ArrayLike = 1.0) -> Scenarios:
    """Named events for ``underlyings`` underlyings, each moved by ``beta`` (U,) times the simple return."""
    if not names:
        raise InvalidInput("names", "is empty")
    events = [stress_event(name) for name in names]
    spot = np.array([event.spot.value for event in events])[:, None] * _betas(beta, underlyings)
    guesses = [
        f"{event.name}: {label} change is illustrative"
        for event in events
        for label, figure in (("vol", event.vol), ("spot", event.spot))
        if figure.illustrative
    ]
    return Scenarios(
        spot_return=_log_returns(spot),
        vol_change=np.array([[event.vol.value] for event in events]),
        rate_change=np.array([event.rate.value for event in events]),
        names=names,
        notes=guesses,
    )


def shock_scenario(
    name: str,
    symbols: Sequence[str],
    *,
    spot: Mapping[str, float] | float = 0.0,
    vol: Mapping[str, float] | float = 0.0,
    rate: float = 0.0,
    elapsed: float = 0.0,
) -> Scenarios:
    """One scenario from simple returns and absolute vol changes by symbol, ``default`` for all others."""
    return Scenarios(
        spot_return=_log_returns(_by_symbol(spot, symbols, "spot")[None, :]),
        vol_change=_by_symbol(vol, symbols, "vol")[None, :],
        rate_change=rate,
        elapsed=elapsed,
        names=[name],
    )


def ladder(
    spot: Sequence[float],
    vol: Sequence[float],
    underlyings: int,
    *,
    beta: ArrayLike = 1.0,
    rate: float = 0.0,
    elapsed: float = 0.0,
    name: str = "ladder",
) -> Scenarios:
    """Every spot move (simple return) with every vol change (absolute), vol running fastest."""
    if not len(spot) or not len(vol):
        raise InvalidInput("spot" if not len(spot) else "vol", "is empty")
    moves = np.repeat(np.asarray(spot, dtype=np.float64), len(vol))
    changes = np.tile(np.asarray(vol, dtype=np.float64), len(spot))
    return Scenarios(
        spot_return=_log_returns(moves[:, None] * _betas(beta, underlyings)),
        vol_change=changes[:, None],
        rate_change=rate,
        elapsed=elapsed,
        names=[
            f"{name}: spot {move:+.1%}, vol {change:+.1%}"
            for move, change in zip(moves, changes, strict=True)
        ],
    )


def _by_symbol(
    shock: Mapping[str, float] | float, symbols: Sequence[str], field: str
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if not isinstance(shock, Mapping):
        return np.full(len(symbols), float(shock))
    unknown = set(shock) - set(symbols) - {"default"}
    if unknown:
        raise InvalidInput(field, f"names {min(unknown)!r}, which is no underlying here")
    default = float(shock.get("default", 0.0))
    return np.array([float(shock.get(symbol, default)) for symbol in symbols])


def _betas(beta: ArrayLike, underlyings: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    column = np.asarray(beta, dtype=np.float64)
    if column.shape not in ((), (underlyings,)):
        raise InvalidInput("beta", f"must be a number or have shape ({underlyings},), got {column.shape}")
    return np.array(np.broadcast_to(column, (underlyings,)))


def _log_returns(simple: ArrayLike) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    moves = np.asarray(simple, dtype=np.float64)
    bad = np.argwhere(~np.isfinite(moves) | (moves <= -1.0))
    if len(bad) and not np.isfinite(moves[tuple(bad[0])]):
        raise InvalidInput("spot", f"is {moves[tuple(bad[0])]}", int(bad[0][0]))
    return np.log1p(np.maximum(moves, LOWEST_RETURN))
