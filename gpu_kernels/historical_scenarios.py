"""Scenarios from history: what happened over past days happens again, from where the market is now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpu_kernels.errors import InvalidInput
from gpu_kernels.scenarios import Scenarios

Floats = NDArray[np.float64]
Weighting = Literal["plain", "age", "filtered_ewma", "filtered_garch"]
Missing = Literal["refuse", "carry", "drop"]

WEIGHTINGS = ("plain", "age", "filtered_ewma", "filtered_garch")
MISSING_RULES = ("refuse", "carry", "drop")
# Weight of a day against the day after it: Boudoukh, Richardson and Whitelaw (1998); RiskMetrics (1996).
AGE_DECAY = 0.98
EWMA_DECAY = 0.94
# Longest run of missing prices that "carry" fills; a longer one is no market to speak of.
CARRY_DAYS_MAX = 5
# A daily log return beyond this is taken for an unadjusted split (2:1 is 0.69) and refused.
JUMP_LIMIT = 0.6
# Days that start the recursion of a filtered volatility.
FILTER_START_DAYS = 20


@dataclass(frozen=True)
class CorporateAction:
    """A split or dividend that takes effect on day ``row`` for underlying ``column``.

    ``ratio`` new shares stand for one old one, which also paid ``dividend`` in currency. Earlier prices are
    divided by the ratio and lowered in proportion to the dividend, so that earlier returns stay as they were.
    """

    row: int
    column: int
    ratio: float = 1.0
    dividend: float = 0.0


def historical_scenarios(
    prices: ArrayLike,
    vols: ArrayLike | None = None,
    rates: ArrayLike | None = None,
    *,
    horizon_days: int = 1,
    window_days: int | None = None,
    weighting: Weighting = "plain",
    decay: float | None = None,
    missing: Missing = "refuse",
    actions: Sequence[CorporateAction] = (),
    jump_limit: float | None = JUMP_LIMIT,
    days_per_year: float = 252.0,
) -> Scenarios:
    """Scenarios from daily ``prices`` (T, U), ``vols`` (T, U) or (T, 1), ``rates`` (T,), oldest first.

    Horizons of several days overlap. ``age`` weights a day ``decay`` times the day after it;
    ``filtered_ewma`` and ``filtered_garch`` scale each return by today's over that day's volatility (Hull
    and White 1998). Vol and rate changes are taken as they were. A missing (NaN) price is refused, filled
    with the last one (``carry``, at most CARRY_DAYS_MAX days) or its day left out for all (``drop``).
    """
    _checked_choices(weighting, missing, horizon_days, decay)
    history = _history(prices, "prices")
    vol_history = None if vols is None else _vol_history(vols, history)
    rate_history = None if rates is None else _rate_history(rates, len(history))
    adjusted = _adjusted(history, actions)
    notes: list[str] = []
    adjusted, kept = _without_gaps(adjusted, missing, notes)
    vol_history = None if vol_history is None else vol_history[kept]
    rate_history = None if rate_history is None else rate_history[kept]
    if window_days is not None:
        tail = slice(max(0, len(adjusted) - window_days - 1), None)
        adjusted = adjusted[tail]
        vol_history = None if vol_history is None else vol_history[tail]
        rate_history = None if rate_history is None else rate_history[tail]
    daily = _daily_returns(adjusted, kept, jump_limit)
    if len(daily) < horizon_days:
        raise InvalidInput("prices", f"{len(adjusted)} days are too few for a horizon of {horizon_days}")
    if weighting in ("filtered_ewma", "filtered_garch"):
        daily = _filtered(daily, weighting, decay)
    returns = _over_horizon(daily, horizon_days)
    count = len(returns)
    changes = 0.0 if vol_history is None else vol_history[horizon_days:] - vol_history[:-horizon_days]
    moved = 0.0 if rate_history is None else rate_history[horizon_days:] - rate_history[:-horizon_days]
    weights = None
    if weighting == "age":
        weights = (AGE_DECAY if decay is None else decay) ** np.arange(count - 1, -1, -1.0)
    return Scenarios(
        spot_return=returns,
        vol_change=changes,
        rate_change=moved,
        elapsed=horizon_days / days_per_year,
        weights=weights,
        notes=notes,
    )


def ewma_variance(returns: Floats, decay: float = EWMA_DECAY) -> Floats:
    """Variance forecast for each day and, last, for the day after the last one: (T + 1, U)."""
    start = np.square(returns[:FILTER_START_DAYS]).mean(axis=0)
    return _recursion((1.0 - decay) * np.square(returns), decay, start)


@dataclass(frozen=True)
class Garch:
    """A GARCH(1,1) variance: ω + α·r² + β·σ², ω set so that the long-run variance is the sample's."""

    omega: float
    alpha: float
    beta: float
    variance: Floats  # (T + 1,), the last entry for the day after the last one


def fit_garch(returns: ArrayLike) -> Garch:
    """Gaussian quasi-likelihood fit to log returns (T,) with variance targeting."""
    series = np.asarray(returns, dtype=np.float64)
    squares = np.square(series)
    level = float(squares.mean())
    if level == 0.0:
        return Garch(0.0, 0.0, 0.0, np.zeros(len(series) + 1))

    def variance(alpha: float, beta: float) -> Floats:
        omega = level * (1.0 - alpha - beta)
        return _recursion((omega + alpha * squares)[:, None], beta, np.array([level]))[:, 0]

    def objective(at: Floats) -> float:
        forecast = variance(float(at[0]), float(at[1]))[:-1]
        return float(np.mean(np.log(forecast) + squares / forecast))

    from scipy import optimize

    # α ≥ 0, β ≥ 0, α + β < 1: a long-run variance exists.
    minimise: Any = optimize.minimize
    found = minimise(
        objective,
        np.array([0.07, 0.9]),
        method="SLSQP",
        bounds=[(0.0, 0.5), (0.0, 0.999)],
        constraints=[{"type": "ineq", "fun": lambda at: 0.999 - at[0] - at[1]}],
    )
    alpha, beta = (float(x) for x in found.x)
    return Garch(level * (1.0 - alpha - beta), alpha, beta, variance(alpha, beta))


def _recursion(news: Floats, decay: float, start: Floats) -> Floats:
    """v[0] = start, v[t + 1] = news[t] + decay·v[t], for every column."""
    from scipy import signal  # loads half of SciPy, which plain weighting does not need

    state = decay * start[None, :]
    later, _ = signal.lfilter([1.0], [1.0, -decay], news, axis=0, zi=state)
    return np.concatenate([start[None, :], later])


def _filtered(daily: Floats, weighting: str, decay: float | None) -> Floats:
    if weighting == "filtered_ewma":
        variance = ewma_variance(daily, EWMA_DECAY if decay is None else decay)
    else:
        variance = np.stack([fit_garch(column).variance for column in daily.T], axis=1)
    # A series that has not moved yet has no volatility to scale by.
    past = np.where(variance[:-1] > 0.0, variance[:-1], 1.0)
    scale = np.where(variance[:-1] > 0.0, np.sqrt(variance[-1] / past), 1.0)
    return np.asarray(daily * scale)


def _over_horizon(daily: Floats, days: int) -> Floats:
    total = np.concatenate([np.zeros((1, daily.shape[1])), np.cumsum(daily, axis=0)])
    return np.asarray(daily if days == 1 else total[days:] - total[:-days])


def _daily_returns(prices: Floats, kept: NDArray[np.int64], jump_limit: float | None) -> Floats:
    daily = np.diff(np.log(prices), axis=0)
    if jump_limit is not None:
        wild = np.argwhere(np.abs(daily) > jump_limit)
        if len(wild):
            row, column = (int(i) for i in wild[0])
            day = int(kept[len(kept) - len(prices) + row + 1])
            raise InvalidInput(
                "prices",
                f"moves by e^{daily[row, column]:.4g} in column {column}: give its corporate "
                "action, or a larger jump_limit if it was a real move",
                day,
            )
    return daily


def _without_gaps(prices: Floats, missing: str, notes: list[str]) -> tuple[Floats, NDArray[np.int64]]:
    """Prices without gaps, and the numbers of the days that are left."""
    gaps = np.isnan(prices)
    days = np.arange(len(prices))
    if not gaps.any():
        return prices, days
    row, column = (int(i) for i in np.argwhere(gaps)[0])
    if missing == "refuse":
        raise InvalidInput("prices", f"is missing in column {column}", row)
    if missing == "drop":
        whole = ~gaps.any(axis=1)
        notes.append(f"{int((~whole).sum())} days with missing prices were left out")
        return prices[whole], days[whole]
    last = np.where(gaps, 0, days[:, None])
    np.maximum.accumulate(last, axis=0, out=last)
    stale = days[:, None] - last
    unfilled = np.argwhere(gaps & ((stale > CARRY_DAYS_MAX) | np.isnan(prices[0])[None, :] & (last == 0)))
    if len(unfilled):
        row, column = (int(i) for i in unfilled[0])
        raise InvalidInput("prices", f"is missing in column {column} with no price to carry", row)
    notes.append(f"{int(gaps.sum())} missing prices were filled with the last one")
    return np.take_along_axis(prices, last, axis=0), days


def _adjusted(prices: Floats, actions: Sequence[CorporateAction]) -> Floats:
    """Prices before each action restated in the shares after it, latest action first."""
    adjusted = prices.copy()
    for number, action in enumerate(actions):
        if not (0 <= action.row < len(prices) and 0 <= action.column < prices.shape[1]):
            raise InvalidInput("actions", f"names day {action.row}, column {action.column}", number)
        if not (action.ratio > 0.0 and action.dividend >= 0.0):
            raise InvalidInput("actions", "must have a ratio above 0 and no negative dividend", number)
    for action in sorted(actions, key=lambda one: one.row):
        before = adjusted[: action.row, action.column]
        if action.row:
            last = before[~np.isnan(before)]
            kept = 1.0 - action.dividend / last[-1] if len(last) else 1.0
            if kept <= 0.0:
                raise InvalidInput("actions", f"has a dividend above the price, {action.dividend}")
            before *= kept / action.ratio
    return adjusted


def _history(prices: ArrayLike, field: str) -> Floats:
    history = np.asarray(prices, dtype=np.float64)
    if history.ndim != 2 or len(history) < 2:
        raise InvalidInput(field, f"must have shape (T, U) with at least 2 days, got {history.shape}")
    bad = np.argwhere(np.isinf(history) | (history <= 0.0))
    if len(bad):
        row, column = (int(i) for i in bad[0])
        raise InvalidInput(field, f"must be above 0, got {history[row, column]} in column {column}", row)
    return history


def _vol_history(vols: ArrayLike, prices: Floats) -> Floats:
    history = np.asarray(vols, dtype=np.float64)
    if history.shape not in (prices.shape, (len(prices), 1)):
        raise InvalidInput(
            "vols", f"must have shape {prices.shape} or ({len(prices)}, 1), got {history.shape}"
        )
    bad = np.argwhere(~(np.isfinite(history) & (history >= 0.0)))
    if len(bad):
        row, column = (int(i) for i in bad[0])
        raise InvalidInput(
            "vols", f"must not be negative, got {history[row, column]} in column {column}", row
        )
    return history


def _rate_history(rates: ArrayLike, days: int) -> Floats:
    history = np.asarray(rates, dtype=np.float64)
    if history.shape != (days,):
        raise InvalidInput("rates", f"must have shape ({days},), got {history.shape}")
    bad = np.flatnonzero(~np.isfinite(history))
    if len(bad):
        raise InvalidInput("rates", f"is {history[bad[0]]}", int(bad[0]))
    return history


def _checked_choices(weighting: str, missing: str, horizon_days: int, decay: float | None) -> None:
    if weighting not in WEIGHTINGS:
        raise InvalidInput("weighting", f"must be one of {WEIGHTINGS}, got {weighting!r}")
    if missing not in MISSING_RULES:
        raise InvalidInput("missing", f"must be one of {MISSING_RULES}, got {missing!r}")
    if horizon_days < 1:
        raise InvalidInput("horizon_days", f"must be at least 1, got {horizon_days}")
    if decay is not None and not 0.0 < decay < 1.0:
        raise InvalidInput("decay", f"must lie strictly between 0 and 1, got {decay}")
