"""Whether this machine has the kernels compiled already; asked before any work, so it loads little."""

from __future__ import annotations

from typing import Any

from gpu_kernels.engines.cpu.compile import is_cached


def is_compiled(american: bool) -> bool:
    """Whether the disk cache has what options and books need, of American ones or of European ones alone."""
    return all(map(is_cached, _american() if american else _european()))


def _european() -> list[Any]:
    from gpu_kernels.engines.cpu import european, implied_vol, revaluation

    return [european.greeks_rows, implied_vol.implied_vol_rows, revaluation._add_rows]


def _american() -> list[Any]:
    from gpu_kernels.engines.cpu import american_implied_vol, american_moves, american_rows

    rows = [american_rows.accurate_boundaries, american_rows.price_rows, american_rows.slopes_rows]
    return [*_european(), *rows, american_implied_vol.accurate_vols, american_moves._under_moves]
