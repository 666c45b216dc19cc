"""Scenarios and positions in words for a reader who knows neither the file nor option symbols."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date

import numpy as np

import gpu_kernels as gk
from risk_cli.stress.market_file import Dividends
from risk_client.positions import Position

DAYS_A_YEAR = 365.0
# Below these a change is not worth a word: 0.05 % of spot, 0.05 vol points, 0.01 basis points, 0.05 days.
_LEAST = 5e-4


def scenario_words(kinds: Sequence[str], scenarios: gk.Scenarios) -> tuple[str, ...]:
    """What each scenario moves: `spot −25 % to −10 %, vol +15 points`; a day of the past with its story."""
    moves = np.expm1(scenarios.spot_return)
    vols = np.broadcast_to(scenarios.vol_change, (len(scenarios), scenarios.vol_change.shape[1]))
    elapsed = np.broadcast_to(scenarios.elapsed, len(scenarios))
    words = []
    for row, (kind, name) in enumerate(zip(kinds, scenarios.names, strict=True)):
        parts = _range("spot", 100.0 * moves[row], " %")
        parts += _range("vol", 100.0 * vols[row], " points")
        parts += _range("rates", 100.0 * scenarios.rate_change[row : row + 1], " %")
        days = float(elapsed[row]) * DAYS_A_YEAR
        if days > _LEAST:
            parts.append(f"{days:.3g} days pass")
        moves_so = ", ".join(parts) or "nothing moves"
        words.append(f"{_story(name)}: {moves_so}" if kind == "named" else moves_so)
    return tuple(words)


def position_words(position: Position) -> str:
    """`short 2 NDX 25,300 calls, 20 Nov 2026`; other positions by their own name."""
    side = "short" if position.quantity < 0 else "long"
    size = f"{abs(position.quantity):,g}"
    if position.kind != "option":
        return f"{side} {size} {position.label}"
    right = ("call" if position.is_call else "put") + "s" * (size != "1")
    when = position.expiry
    ends = f"{when.day} {when:%b %Y}" if isinstance(when, date) else f"{when:g} years"
    return f"{side} {size} {position.underlying} {position.strike:,g} {right}, {ends}"


def dividend_words(paid: Dividends, held: Sequence[str]) -> tuple[str, ...]:
    """Which cash dividends the numbers count, in one note; none where there are none."""
    said = []
    for symbol in held:
        if paid.get(symbol):
            (day, amount), *more = sorted(paid[symbol])
            said.append(f"{symbol} {amount:g} on {day}" + (f" and {len(more)} later" if more else ""))
    return (f"cash dividends counted, beside dividend yields: {'; '.join(said)}",) if said else ()


def _story(name: str) -> str:
    from gpu_kernels.stress_library import stress_event

    return stress_event(name).title


def _range(what: str, percent: np.ndarray[tuple[int], np.dtype[np.float64]], unit: str) -> list[str]:
    low, high = float(percent.min()), float(percent.max())
    if max(abs(low), abs(high)) < 100.0 * _LEAST * (0.1 if what == "rates" else 1.0):
        return []
    if math.isclose(low, high, rel_tol=1e-6, abs_tol=0.05):
        return [f"{what} {low:+.3g}{unit}"]
    return [f"{what} {low:+.3g} to {high:+.3g}{unit}"]
