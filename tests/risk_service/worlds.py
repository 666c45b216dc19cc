"""Small markets and portfolios for the tests: a European index with a chain of options on it."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from scipy.stats import norm

from protos import packing
from protos.market.v1 import market_pb2 as market
from protos.risk.v1 import risk_pb2 as risk
from risk_service import market_events
from risk_service.market_state import MarketState

NOW_NS = 1_700_000_000_000_000_000
DAY_NS = 86_400_000_000_000
YEAR_NS = 365 * DAY_NS
SPOT, RATE, YIELD = 100.0, 0.03, 0.01


def record(kind, symbols, *, time_ns=NOW_NS, normalized_ns=NOW_NS + 1, **columns):
    """A clean batch as the service reads it."""
    batch = market.NormalizedBatch(source="test", symbols=symbols, normalized_time_ns=normalized_ns)
    packing.write(batch, "symbol_index", np.arange(len(symbols)))
    packing.write(batch, "kind", [kind])
    packing.write(batch, "source_time_ns", [time_ns])
    for name, values in columns.items():
        packing.write(batch, name, np.broadcast_to(values, len(symbols)))
    return market_events.decode(batch.SerializeToString())


def quotes(symbols, mids, spread=0.0, **more):
    mids = np.asarray(mids, float)
    return record(market.EVENT_KIND_QUOTE, symbols, bid=mids - spread, ask=mids + spread, **more)


def reference(symbol, rate=RATE, dividend_yield=YIELD):
    return record(market.EVENT_KIND_REFERENCE, [symbol], rate=rate, dividend_yield=dividend_yield)


def expiry_of(years):
    return NOW_NS + round(years * YEAR_NS)


HALF_A_YEAR_NS = expiry_of(0.5)


def osi(underlying, right, strike, expiry_ns=HALF_A_YEAR_NS):
    day = datetime.fromtimestamp(expiry_ns // 10**9, UTC)
    return f"{underlying:<6}{day:%y%m%d}{right}{round(strike * 1000):08d}"


def black_scholes(spot, strike, years, vol, is_call, rate=RATE, dividend_yield=YIELD):
    """Written anew with SciPy, as the oracle."""
    forward = spot * np.exp((rate - dividend_yield) * years)
    d1 = np.log(forward / strike) / (vol * np.sqrt(years)) + 0.5 * vol * np.sqrt(years)
    d2 = d1 - vol * np.sqrt(years)
    sign = np.where(is_call, 1.0, -1.0)
    value = sign * (forward * norm.cdf(sign * d1) - strike * norm.cdf(sign * d2))
    return np.exp(-rate * years) * value


def portfolio(name="desk", rows=(), underlyings=("IDX",), groups=(), **more):
    """A message; each row is (symbol, kind, quantity, strike, is_call, years, underlying, group)."""
    message = risk.Portfolio(portfolio=name, underlyings=underlyings, groups=groups, **more)
    positions = message.positions
    for symbol, kind, quantity, strike, is_call, years, underlying, group in rows:
        positions.symbol.append(symbol)
        positions.kind.append(kind)
        positions.quantity.append(quantity)
        positions.strike.append(strike)
        positions.is_call.append(is_call)
        positions.expiry_time_ns.append(expiry_of(years))
        positions.underlying_index.append(underlying)
        positions.group_index.append(group)
    return message


def option(strike, is_call, quantity=10.0, years=0.5, underlying="IDX", place=0, group=0):
    symbol = osi(underlying, "C" if is_call else "P", strike, expiry_of(years))
    return (symbol, risk.INSTRUMENT_KIND_OPTION, quantity, strike, is_call, years, place, group)


def spot_position(quantity, underlying="IDX", place=0, group=0):
    return (underlying, risk.INSTRUMENT_KIND_SPOT, quantity, 0.0, False, 0.0, place, group)


def smile(strike):
    return 0.2 + 0.1 * (strike / SPOT - 1.0) ** 2


def priced_market(strikes=(80.0, 90.0, 100.0, 110.0, 120.0), years=0.5, underlying="IDX"):
    """A state in which the index, and a call and a put at each strike, are quoted at their values."""
    state = MarketState()
    state.apply(reference(underlying), underlying, 0, 0)
    state.apply(quotes([underlying], [SPOT]), underlying, 0, 1)
    strikes = np.asarray(strikes)
    for offset, (right, is_call) in enumerate((("C", True), ("P", False)), start=2):
        values = black_scholes(SPOT, strikes, years, smile(strikes), is_call)
        symbols = [osi(underlying, right, strike, expiry_of(years)) for strike in strikes]
        state.apply(quotes(symbols, values), underlying, 0, offset)
    return state


ROWS_OF_DESK = (option(90.0, False, 10.0), option(100.0, True, -20.0), spot_position(150.0))
