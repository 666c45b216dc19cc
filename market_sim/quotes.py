"""Quotes around fair value: implied volatilities from the surface, spreads, ticks and sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from market_sim.chains import OptionChain
from market_sim.smile import INDEX_SMILE, STOCK_SMILE, implied_vol
from market_sim.trading_days import NS_PER_YEAR

Array = NDArray[np.float64]
Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Quotes:
    """Two-sided quotes in the instruments' currency; a bid of 0 with quantity 0 means that nobody bids."""

    bid: Array
    ask: Array
    bid_quantity: Array
    ask_quantity: Array


@dataclass(frozen=True, slots=True)
class FairValues:
    """Model values of option rows: price, implied volatility, vega per 1.00, distance from the money."""

    price: Array
    vol: Array
    vega: Array
    deviations: Array  # log(strike/forward) in standard deviations


def fair_values(
    chain: OptionChain, rows: Rows, spot: float, average_variance: Array, time_ns: int
) -> FairValues:
    """Values of the chain's `rows` at `time_ns`; `average_variance` is expected, per year, to expiry."""
    underlying = chain.underlying
    years = np.maximum((chain.expiry_time_ns[rows] - time_ns) / NS_PER_YEAR, 1e-9)
    strike, is_call = chain.strike[rows], chain.is_call[rows]
    forward = spot * np.exp((underlying.rate - underlying.dividend_yield) * years)
    k = np.log(strike / forward)
    smile = STOCK_SMILE if underlying.american else INDEX_SMILE
    vol = implied_vol(smile, k, average_variance, years)
    sd = vol * np.sqrt(years)
    discount = np.exp(-underlying.rate * years)
    sign = np.where(is_call, 1.0, -1.0)
    d1 = -k / sd + sd / 2
    price = discount * sign * (forward * ndtr(sign * d1) - strike * ndtr(sign * (d1 - sd)))
    price = np.maximum(price, np.where(chain.american[rows], sign * (spot - strike), 0.0))
    vega = discount * forward * np.exp(-(d1**2) / 2) / np.sqrt(2 * np.pi) * np.sqrt(years)
    return FairValues(price=np.maximum(price, 0.0), vol=vol, vega=vega, deviations=k / sd)


def years_to_expiry(chain: OptionChain, rows: Rows, time_ns: int) -> Array:
    """Years left to the expiry of each row, at least a second's worth."""
    return np.maximum((chain.expiry_time_ns[rows] - time_ns) / NS_PER_YEAR, 1e-9)


def option_quotes(fair: FairValues, random: np.random.Generator) -> Quotes:
    """Quotes in ticks of 0.01 below 3.00 and 0.05 above; wings are wide and thin."""
    half = 0.01 + 0.003 * fair.price + fair.vega * 0.0025 * (1 + np.abs(fair.deviations))
    tick = np.where(fair.price < 3.0, 0.01, 0.05)
    centre = fair.price + half * random.uniform(-0.2, 0.2, size=half.shape)
    bid = np.maximum(np.floor((centre - half) / tick + 1e-9), 0.0) * tick
    ask = np.maximum(np.ceil((centre + half) / tick - 1e-9) * tick, bid + tick)
    depth = 60.0 * np.exp(-0.6 * np.abs(fair.deviations))
    sizes = np.ceil(depth * random.exponential(size=(2, *half.shape)))
    # Rounding to the cent: floor(x)·tick carries the binary error of the product into the price.
    bid, ask = np.round(bid, 2), np.round(ask, 2)
    return Quotes(bid=bid, ask=ask, bid_quantity=np.where(bid > 0, sizes[0], 0.0), ask_quantity=sizes[1])


def spot_quotes(spot: Array, tick: Array, random: np.random.Generator) -> Quotes:
    """Quotes of underlyings: one basis point wide, or a tick, with a little noise around spot."""
    half = np.maximum(spot * 0.5e-4, tick / 2)
    centre = spot + half * random.uniform(-0.5, 0.5, size=spot.shape)
    bid = np.floor((centre - half) / tick + 1e-9)
    ask = np.maximum(np.ceil((centre + half) / tick - 1e-9), bid + 1)
    sizes = np.ceil(100.0 * random.pareto(1.6, size=(2, *spot.shape)) + 1)
    decimals = np.maximum(0, np.ceil(-np.log10(tick) - 1e-9)).astype(int).max(initial=0)
    return Quotes(
        bid=np.round(np.maximum(bid, 1) * tick, decimals),
        ask=np.round(ask * tick, decimals),
        bid_quantity=sizes[0],
        ask_quantity=sizes[1],
    )
