"""Interpolants moved to another spot and other vols against exact prices from there."""

from __future__ import annotations

import numpy as np
import pytest

import gpu_kernels as gk
from gpu_kernels.american_book import AmericanBook
from gpu_kernels.revaluation import shocks
from gpu_kernels.shocked_options import repriced_pnl

COUNT = 24


def book_of(rng: np.random.Generator, spot: float, vol: np.ndarray) -> gk.Portfolio:
    options = gk.Options(
        spot=spot,
        strike=np.linspace(70.0, 130.0, COUNT),
        expiry=np.tile([0.02, 0.3, 1.5], COUNT // 3),
        vol=vol,
        rate=0.04,
        dividend_yield=np.tile([0.0, 0.06], COUNT // 2),
        is_call=np.arange(COUNT) % 4 < 2,
        american=np.arange(COUNT) % 6 > 0,
    )
    return gk.Portfolio(options, rng.normal(size=COUNT), 100.0)


def test_a_moved_book_is_as_good_as_its_bound_and_one_that_goes_too_far_is_refused(
    cpu: gk.Engine, rng: np.random.Generator
) -> None:
    vol = rng.uniform(0.15, 0.5, COUNT)
    book = book_of(rng, 100.0, vol)
    wide = gk.Scenarios([[-0.15], [0.15]], [[-0.06], [0.06]], elapsed=1 / 252)
    made = AmericanBook(cpu, book, wide, tolerance=2e-4)
    assert len(made.interpolated) == int(book.american.sum())
    moves = rng.uniform(-0.1, 0.1, 200)[:, None]
    scenarios = gk.Scenarios(moves, rng.uniform(-0.02, 0.02, 200)[:, None], elapsed=1 / 252)
    for spot in (104.5, 96.0):
        vols = vol + rng.uniform(-0.04, 0.04, COUNT)
        moved = made.moved([spot], vols)
        now = book.with_spots([spot]).with_vols(vols)
        wanted, plain = np.empty((2, COUNT, len(scenarios)))
        repriced_pnl(cpu, now, shocks(now, scenarios), wanted)
        repriced_pnl(cpu, now.europeans(), shocks(now, scenarios), plain)
        size = np.abs(book.quantity * book.multiplier) * 100.0
        off = np.abs(moved.position_pnl(scenarios) - wanted).max(axis=1) / size
        print(spot, off.max(), made.error)
        assert (off <= made.error).all()
        premiums = moved.premium_pnl(scenarios)
        assert (np.abs(premiums - (wanted - plain)).max(axis=1) / size <= made.error).all()
        assert np.abs(premiums).max() > 100.0 * made.error
    # The book it was moved from is what it was.
    wanted = np.empty((COUNT, len(scenarios)))
    repriced_pnl(cpu, book, shocks(book, scenarios), wanted)
    assert (np.abs(made.position_pnl(scenarios) - wanted).max(axis=1) / size <= made.error).all()
    with pytest.raises(gk.InvalidInput, match="spot_return"):
        made.moved([107.0], vol).position_pnl(scenarios)
    with pytest.raises(gk.InvalidInput, match="vol_change"):
        made.moved([100.0], vol + 0.05).position_pnl(scenarios)
