"""Random books and scenarios for tests of revaluation, and the plain SciPy loop they are checked against."""

from __future__ import annotations

import os

import numpy as np
from scipy.special import ndtr

import gpu_kernels as gk


def fresh_rng() -> np.random.Generator:
    """A generator with a new seed, printed so that a failure can be had again."""
    seed = int(os.environ.get("GPU_RISK_TEST_SEED", np.random.SeedSequence().entropy % 2**32))
    print(f"GPU_RISK_TEST_SEED={seed}")
    return np.random.default_rng(seed)


def random_options(rng: np.random.Generator, count: int) -> gk.Options:
    """Options of every kind: near and far, expired, short, without vol, negative rates."""
    expiry = rng.uniform(0.003, 3.0, count)
    expiry[rng.random(count) < 0.05] = 0.0
    expiry[rng.random(count) < 0.1] = 2 / 252
    vol = rng.uniform(0.05, 0.9, count)
    vol[rng.random(count) < 0.03] = 0.0
    spot = rng.uniform(20.0, 200.0, count)
    return gk.Options(
        spot=spot,
        strike=spot * np.exp(rng.normal(0.0, 0.3, count)),
        expiry=expiry,
        vol=vol,
        rate=rng.uniform(-0.02, 0.08, count),
        dividend_yield=rng.uniform(0.0, 0.05, count),
        is_call=rng.random(count) < 0.5,
    )


def random_book(
    rng: np.random.Generator, count: int, underlyings: int, groups: int = 0, linear: int = 0
) -> gk.Portfolio:
    """A book of European options and, if asked for, spot positions; in groups if asked for."""
    stocks = None
    if linear:
        stocks = {
            "underlying": rng.integers(0, underlyings, linear),
            "quantity": rng.normal(0.0, 50.0, linear),
            "multiplier": 1.0,
            "spot": rng.uniform(20.0, 200.0, linear),
        }
        if groups:
            stocks["group"] = rng.integers(0, groups, linear)
    return gk.Portfolio(
        options=random_options(rng, count),
        quantity=rng.normal(0.0, 20.0, count),
        multiplier=rng.choice([1.0, 10.0, 100.0], count),
        underlying=rng.integers(0, underlyings, count),
        group=rng.integers(0, groups, count) if groups else None,
        linear=stocks,
    )


def random_scenarios(
    rng: np.random.Generator, count: int, underlyings: int, *, vols: bool = True, rates: bool = True
) -> gk.Scenarios:
    """Shocks up to deep crashes and vol falls through the floor."""
    return gk.Scenarios(
        spot_return=rng.standard_t(3, (count, underlyings)) * 0.05,
        vol_change=rng.normal(0.0, 0.15, (count, underlyings)) if vols else 0.0,
        rate_change=rng.normal(0.0, 0.01, count) if rates else 0.0,
        elapsed=3 / 252,
    )


def black_scholes(spot, strike, expiry, vol, rate, dividend_yield, is_call):
    """A plain value in doubles, intrinsic once expired."""
    with np.errstate(divide="ignore", invalid="ignore"):
        deviation = vol * np.sqrt(expiry)
        plus = (np.log(spot / strike) + (rate - dividend_yield) * expiry) / deviation + 0.5 * deviation
        minus = plus - deviation
    sign = np.where(is_call, 1.0, -1.0)
    forward, discounted = spot * np.exp(-dividend_yield * expiry), strike * np.exp(-rate * expiry)
    value = sign * (forward * ndtr(sign * plus) - discounted * ndtr(sign * minus))
    return np.where(deviation > 0.0, value, np.maximum(sign * (forward - discounted), 0.0))


def scipy_pnl(book: gk.Portfolio, scenarios: gk.Scenarios, vol_shock=None) -> tuple[np.ndarray, float]:
    """P&L per position and scenario from a plain loop over scenarios, and the book's gross value."""
    today = black_scholes(
        book.spot, book.strike, book.expiry, book.vol, book.rate, book.dividend_yield, book.is_call
    )
    size = book.quantity * book.multiplier
    held = book.linear
    worth = held.quantity * held.multiplier * held.spot
    rows = np.empty((len(book), len(scenarios)))
    vols = np.broadcast_to(scenarios.vol_change, scenarios.spot_return.shape)
    for s in range(len(scenarios)):
        move = scenarios.spot_return[s]
        vol = book.vol + vols[s][book.underlying]
        if vol_shock is not None:
            vol = vol + vol_shock[:, s]
        shocked = black_scholes(
            book.spot * np.exp(move[book.underlying]),
            book.strike,
            np.maximum(book.expiry - scenarios.elapsed[s], 0.0),
            np.maximum(vol, 1e-4),
            book.rate + scenarios.rate_change[s],
            book.dividend_yield,
            book.is_call,
        )
        rows[: book.options, s] = size * (shocked - today)
        rows[book.options :, s] = worth * (np.exp(move[held.underlying]) - 1.0)
    return rows, float(np.abs(size * today).sum() + np.abs(worth).sum())
