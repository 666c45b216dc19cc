"""Quotes around fair value: implied volatilities from the surface, spreads, ticks and sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from market_sim.listing import Listing
from market_sim.model import Market
from market_sim.smile import INDEX_SMILE, STOCK_SMILE, implied_vol
from market_sim.trading_days import NS_PER_YEAR

if TYPE_CHECKING:
    from gpu_kernels import Engine

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

QUOTE_UNIFORMS = 3  # random numbers that a quote takes
_SHORTEST_YEARS = 1e-9  # an expired option is quoted at what it pays


@dataclass(frozen=True, slots=True)
class Quotes:
    """Two-sided quotes in the instruments' currency; a bid of 0 with quantity 0 means that nobody bids."""

    bid: Array
    ask: Array
    bid_quantity: Array
    ask_quantity: Array


@dataclass(frozen=True, slots=True)
class FairValues:
    """Model values of option rows: price, implied vol per 1.00, and where they stand to the money."""

    price: Array
    vol: Array
    deviations: Array  # log(strike/forward) in standard deviations
    per_vol: Array  # about how much the price moves per 1.00 of vol


def fair_values(listing: Listing, rows: Rows, market: Market, time_ns: int, engine: Engine) -> FairValues:
    """Values of the options `rows` of the listing at `time_ns`, by the present state of the market."""
    owner, strike = listing.owner[rows], listing.strike[rows]
    rate, dividend_yield, american = listing.rate[rows], listing.dividend_yield[rows], listing.american[rows]
    years = np.maximum((listing.expiry_time_ns[rows] - time_ns) / NS_PER_YEAR, _SHORTEST_YEARS)
    spot = market.spot[owner]
    log_moneyness = np.log(strike / spot) - (rate - dividend_yield) * years
    variance = market.average_variance(owner, years)
    vol = np.where(
        american,
        implied_vol(STOCK_SMILE, log_moneyness, variance, years),
        implied_vol(INDEX_SMILE, log_moneyness, variance, years),
    )
    options = gk.Options(
        spot=spot,
        strike=strike,
        expiry=years,
        vol=vol,
        rate=rate,
        dividend_yield=dividend_yield,
        is_call=listing.is_call[rows],
    )
    pays_now = np.where(listing.is_call[rows], spot - strike, strike - spot)
    # What early exercise is worth beyond that is left to those who trade these quotes.
    price = np.maximum(engine.price(options).price, np.where(american, pays_now, 0.0))
    deviations = log_moneyness / (vol * np.sqrt(years))
    per_vol = spot * np.sqrt(years / (2 * np.pi)) * np.exp(-(deviations**2) / 2)
    return FairValues(price, vol, deviations, per_vol)


def option_quotes(fair: FairValues, uniforms: Array) -> Quotes:
    """Quotes in ticks of 0.01 below 3.00 and 0.05 above; wings are wide and thin."""
    half = 0.01 + 0.003 * fair.price + fair.per_vol * 0.0025 * (1 + np.abs(fair.deviations))
    half = np.minimum(half, 0.01 + 0.12 * fair.price)
    tick = np.where(fair.price < 3.0, 0.01, 0.05)
    centre = fair.price + half * (0.4 * uniforms[:, 0] - 0.2)
    bid = np.maximum(np.floor((centre - half) / tick + 1e-9), 0.0) * tick
    ask = np.maximum(np.ceil((centre + half) / tick - 1e-9) * tick, bid + tick)
    depth = 60.0 * np.exp(-0.6 * np.abs(fair.deviations))
    sizes = np.ceil(depth[:, None] * -np.log1p(-uniforms[:, 1:3])) + 1
    # Rounding to the cent: floor(x)·tick carries the binary error of the product into the price.
    bid, ask = np.round(bid, 2), np.round(ask, 2)
    return Quotes(bid, ask, np.where(bid > 0, sizes[:, 0], 0.0), sizes[:, 1])


def spot_quotes(spot: Array, tick: Array, uniforms: Array) -> Quotes:
    """Quotes of underlyings: one basis point wide, or a tick, with a little noise around spot."""
    half = np.maximum(spot * 0.5e-4, tick / 2)
    centre = spot + half * (uniforms[:, 0] - 0.5)
    bid = np.maximum(np.floor((centre - half) / tick + 1e-9), 1.0)
    ask = np.maximum(np.ceil((centre + half) / tick - 1e-9), bid + 1)
    sizes = np.ceil(100.0 * (1 - uniforms[:, 1:3]) ** (-1 / 1.6))
    # A multiple of a decimal tick has at most eight decimals; the rest is binary error.
    return Quotes(np.round(bid * tick, 8), np.round(ask * tick, 8), sizes[:, 0], sizes[:, 1])


def quotes(
    listing: Listing, rows: Rows, market: Market, time_ns: int, uniforms: Array, engine: Engine
) -> Quotes:
    """Quotes of any instruments; `uniforms` has QUOTE_UNIFORMS random numbers for each row."""
    option = listing.is_option[rows]
    found = {name: np.empty(len(rows)) for name in ("bid", "ask", "bid_quantity", "ask_quantity")}
    parts: list[tuple[NDArray[np.bool_], Quotes]] = []
    if option.any():
        fair = fair_values(listing, rows[option], market, time_ns, engine)
        parts.append((option, option_quotes(fair, uniforms[option])))
    if not option.all():
        plain = rows[~option]
        spot = market.spot[listing.owner[plain]]
        parts.append((~option, spot_quotes(spot, listing.tick[plain], uniforms[~option])))
    for which, part in parts:
        for name, column in found.items():
            column[which] = getattr(part, name)
    return Quotes(**found)
