"""What every engine of European options is held to beside the reference engine and SciPy."""

from __future__ import annotations

import grids
import numpy as np
from scenario_books import scipy_pnl

import gpu_kernels as gk
from gpu_kernels.revaluation import position_pnl

BAD_AND_EXPIRED = gk.Options(
    spot=[100.0, np.nan, 100.0, -1.0, 100.0, np.inf, 0.0, 100.0],
    strike=[100.0, 100.0, 100.0, 100.0, 90.0, 100.0, 100.0, 100.0],
    expiry=[1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0],
    vol=[0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.0],
    rate=0.01,
)
AT_MONEY = gk.Options(spot=100.0, strike=100.0, expiry=np.ones(7))
IMPOSSIBLE = np.array([np.nan, -1.0, 0.0, 200.0, 10.0, np.inf, 1e-312])


def random_rows(rng: np.random.Generator, size: int) -> gk.Options:
    """European options of every kind that has a price."""
    return gk.Options(**grids.everything(rng, size)._asdict())


def values_and_greeks(engine: gk.Engine, options: gk.Options) -> None:
    """Prices to a few units in the last place, Greeks to 1e-9 of their size, the same statuses."""
    found, wanted = engine.greeks(options), gk.engine("reference").greeks(options)
    scale = np.maximum(options.spot, options.strike)
    assert (np.abs(found.price - wanted.price) <= 4e-15 * scale).all()
    np.testing.assert_array_equal(found.status, wanted.status)
    seen = wanted.price > 1e-30 * options.spot
    for name in found.COLUMNS[:-1]:
        one, other = getattr(found, name)[seen], getattr(wanted, name)[seen]
        size = np.maximum(np.abs(other), 1e-6 * np.abs(other).max())
        assert (np.abs(one - other) <= 1e-9 * size).all(), name
    price = engine.price(options).price
    assert (np.abs(price - wanted.price)[seen] <= 1e-11 * wanted.price[seen]).all()


def implied_vols(engine: gk.Engine, options: gk.Options) -> None:
    """Vols as well as the price tells them."""
    prices = gk.engine("reference").greeks(options)
    found = engine.implied_vol(options, prices.price)
    wanted = gk.engine("reference").implied_vol(options, prices.price)
    # A price in its last digits above intrinsic value may fall on either side of a status.
    assert (found.status == wanted.status).mean() > 0.99
    clear = (prices.vega * options.vol > 1e-3 * prices.price) & (found.status == 0) & (wanted.status == 0)
    assert clear.sum() > 0.2 * options.size
    leverage = prices.price[clear] / (prices.vega * options.vol)[clear]
    error = np.abs(found.vol - wanted.vol)[clear] / wanted.vol[clear]
    assert (error <= 1e-12 + 8e-16 * leverage).all()


def rows_without_a_value(engine: gk.Engine) -> None:
    """Bad and expired rows, and prices that no vol explains, are those of the reference."""
    found, wanted = engine.greeks(BAD_AND_EXPIRED), gk.engine("reference").greeks(BAD_AND_EXPIRED)
    for name in found.COLUMNS:
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-12, atol=1e-300)
    vols = engine.implied_vol(AT_MONEY, IMPOSSIBLE)
    again = gk.engine("reference").implied_vol(AT_MONEY, IMPOSSIBLE)
    np.testing.assert_array_equal(vols.status, again.status)
    assert np.isnan(vols.vol[vols.status != 0]).all()


def revaluation(engine: gk.Engine, book: gk.Portfolio, scenarios: gk.Scenarios) -> None:
    """P&L by scenario, group and position, the same bits each time."""
    each, gross = scipy_pnl(book, scenarios)
    found = engine.revalue(book, scenarios)
    assert np.abs(found - each.sum(axis=0)).max() <= 1e-11 * gross
    np.testing.assert_array_equal(found, engine.revalue(book, scenarios))
    by_group = engine.revalue(book, scenarios, by="group")
    expected = np.array([each[book.group == group].sum(axis=0) for group in range(book.groups)])
    assert np.abs(by_group - expected).max() <= 1e-11 * gross
    assert np.abs(position_pnl(engine, book, scenarios) - each).max() <= 1e-11 * gross
