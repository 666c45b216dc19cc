"""Expected shortfall as the Basel market-risk rules build it: liquidity horizons, the stressed period.

The formulas are those of paragraph MAR33 of the Basel framework: MAR33.5 for liquidity horizons, MAR33.6 for
calibration to a stressed period with a reduced set of risk factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike

from gpu_kernels.errors import InvalidInput
from gpu_kernels.tail_risk import Convention, tail_risk

BASEL_LEVEL = 0.975
# Trading days; the first is the base horizon at which all shocks are taken.
LIQUIDITY_HORIZONS: tuple[float, ...] = (10.0, 20.0, 40.0, 60.0, 120.0)


@dataclass(frozen=True)
class StressedPeriod:
    """The window of history with the largest expected shortfall; ``stop`` is one past its last row."""

    start: int
    stop: int
    es: float


def liquidity_horizon_es(
    es_by_horizon: Sequence[float],
    horizons: Sequence[float] = LIQUIDITY_HORIZONS,
    base: float = 10.0,
) -> float:
    """ES over mixed liquidity horizons from ES at the base horizon of nested sets of risk factors.

    ``es_by_horizon[0]`` shocks all factors; entry j only those whose horizon is at least ``horizons[j]``. The
    answer is √(Σ (ES_j·√((LH_j − LH_{j−1})/base))²), with LH_0 for j = 0 counted from 0 days.
    """
    shortfalls = np.asarray(es_by_horizon, dtype=np.float64)
    days = np.asarray(horizons, dtype=np.float64)
    if shortfalls.ndim != 1 or not 1 <= len(shortfalls) <= len(days):
        raise InvalidInput(
            "es_by_horizon", f"must have 1 to {len(days)} entries, got shape {shortfalls.shape}"
        )
    bad = np.flatnonzero(~(np.isfinite(shortfalls) & (shortfalls >= 0.0)))
    if bad.size:
        raise InvalidInput("es_by_horizon", f"must not be negative, got {shortfalls[bad[0]]}", int(bad[0]))
    if days[0] <= 0.0 or (np.diff(days) <= 0.0).any() or base <= 0.0:
        raise InvalidInput("horizons", "must be positive and increasing, and base above 0 days")
    steps = np.diff(days[: len(shortfalls)], prepend=0.0) / base
    return float(np.sqrt(np.sum(np.square(shortfalls) * steps)))


def stressed_es(reduced_stressed: float, full_current: float, reduced_current: float) -> float:
    """ES calibrated to stress: that of the reduced set times full over reduced of today, at least 1."""
    for field, value in (
        ("reduced_stressed", reduced_stressed),
        ("full_current", full_current),
        ("reduced_current", reduced_current),
    ):
        if not (np.isfinite(value) and value >= 0.0):
            raise InvalidInput(field, f"must not be negative, got {value}")
    if reduced_current == 0.0:
        raise InvalidInput("reduced_current", "is 0, so its ratio to full_current has no value")
    return reduced_stressed * max(full_current / reduced_current, 1.0)


def stressed_period(
    pnl: ArrayLike,
    window: int = 250,
    level: float = BASEL_LEVEL,
    convention: Convention = "exact_tail",
) -> StressedPeriod:
    """The ``window`` consecutive outcomes of ``pnl`` (T,) with the largest ES; the earliest of equals."""
    history = np.asarray(pnl, dtype=np.float64)
    if history.ndim != 1:
        raise InvalidInput("pnl", f"must have one dimension, got shape {history.shape}")
    if not 1 <= window <= len(history):
        raise InvalidInput("window", f"must lie between 1 and the {len(history)} outcomes, got {window}")
    first = tail_risk(history[:window], level, convention)
    best = StressedPeriod(0, window, first.es)
    for start, part in enumerate(sliding_window_view(history, window)[1:], start=1):
        es = tail_risk(part, level, convention).es
        if es > best.es:
            best = StressedPeriod(start, start + window, es)
    return best
