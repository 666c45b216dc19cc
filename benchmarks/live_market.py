"""The market and the books of the live benchmark: made before its clock runs, only moments are missing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import norm

from protos import packing
from protos.market.v1 import market_pb2 as market
from protos.risk.v1 import risk_pb2 as risk

UNDERLYINGS, PORTFOLIOS, OPTIONS = 20, 10, 1_000
STRIKES, EXPIRIES_YEARS = np.linspace(76.0, 124.0, 25), (0.25, 0.75)
OPTION_TICK_EVERY = 20
SPOT, RATE, YIELD = 100.0, 0.04, 0.01
YEAR_NS = 365 * 86_400_000_000_000
FIRST_DAY = np.datetime64("2024-01-01")
NAMES = tuple(f"U{number:02d}" for number in range(UNDERLYINGS))
SEED = 5


def contracts(opened_ns: int) -> list[tuple[float, int, bool, float]]:
    """Strike, expiry, right and vol of the contracts that every underlying has."""
    return [
        (float(strike), opened_ns + round(years * YEAR_NS), is_call, 0.2 + 0.1 * (strike / SPOT - 1.0) ** 2)
        for years in EXPIRIES_YEARS
        for strike in STRIKES
        for is_call in (True, False)
    ]


def symbol(name: str, expiry_ns: int, is_call: bool, strike: float) -> str:
    """An OSI symbol."""
    day = time.strftime("%y%m%d", time.gmtime(expiry_ns / 1e9))
    return f"{name:<6}{day}{'C' if is_call else 'P'}{round(strike * 1000):08d}"


def worth(spot: float, strike: Any, years: Any, vol: Any, is_call: Any) -> Any:
    """Black-Scholes, as the market's quotes."""
    root = vol * np.sqrt(years)
    forward = spot * np.exp((RATE - YIELD) * years)
    d1 = np.log(forward / strike) / root + 0.5 * root
    sign = np.where(is_call, 1.0, -1.0)
    return (
        np.exp(-RATE * years) * sign * (forward * norm.cdf(sign * d1) - strike * norm.cdf(sign * (d1 - root)))
    )


def batch(kind: int, symbols: list[str], time_ns: int, **columns: Any) -> bytes:
    """A clean batch."""
    message = market.NormalizedBatch(source="benchmark", symbols=symbols, normalized_time_ns=time_ns)
    packing.write(message, "symbol_index", np.arange(len(symbols)))
    packing.write(message, "kind", [kind])
    packing.write(message, "source_time_ns", [time_ns])
    for name, values in columns.items():
        packing.write(message, name, np.broadcast_to(values, len(symbols)))
    return message.SerializeToString()


def portfolio(number: int, opened_ns: int, *, american: bool) -> risk.Portfolio:
    """One of the books: fifty contracts of each underlying, long and short."""
    random = np.random.default_rng([SEED, number])
    listed, per_name = contracts(opened_ns), OPTIONS // UNDERLYINGS
    message = risk.Portfolio(portfolio=f"book-{number}", underlyings=NAMES, version=1)
    rows = message.positions
    picked = [
        (place, listed[row])
        for place in range(UNDERLYINGS)
        for row in random.choice(len(listed), per_name, replace=False)
    ]
    rows.symbol.extend(symbol(NAMES[place], expiry, call, k) for place, (k, expiry, call, _) in picked)
    packing.write(rows, "underlying_index", [place for place, _ in picked])
    packing.write(rows, "quantity", random.integers(-50, 50, len(picked)).astype(float))
    packing.write(rows, "multiplier", [100.0])
    packing.write(rows, "strike", [terms[0] for _, terms in picked])
    packing.write(rows, "expiry_time_ns", [terms[1] for _, terms in picked])
    packing.write(rows, "is_call", [terms[2] for _, terms in picked])
    packing.write(rows, "american", [american])
    return message


def write_history(path: Path) -> None:
    """Two years of closes and vols."""
    random = np.random.default_rng(SEED)
    closes = SPOT * np.exp(np.cumsum(0.012 * random.standard_t(5, (501, UNDERLYINGS)), axis=0))
    vols = 0.2 * np.exp(0.04 * random.standard_normal((501, UNDERLYINGS)))
    lines = [",".join(["date", *NAMES, *(f"{name}.vol" for name in NAMES)])]
    lines += [
        ",".join([str(FIRST_DAY + day), *(f"{value:.6f}" for value in (*closes[day], *vols[day]))])
        for day in range(501)
    ]
    path.write_text("\n".join(lines) + "\n")


class Tick(NamedTuple):
    """A batch of one quote, made before the clock runs: only its moment is missing."""

    begin: bytes

    def at(self, time_ns: int) -> bytes:
        """The record of a tick that is sent now."""
        now = time_ns.to_bytes(8, "little")
        return b"".join((self.begin, _SOURCE_TIME, now, _NORMALIZED_TIME, now))


_SOURCE_TIME = packing.head(market.NormalizedBatch, "source_time_ns", 8)
_NORMALIZED_TIME = market.NormalizedBatch(normalized_time_ns=1).SerializeToString()[:-8]


def ticks(opened_ns: int, count: int, names: list[list[str]]) -> Iterator[tuple[str, Tick]]:
    """Underlyings that walk, and now and then an option's quote."""
    listed = contracts(opened_ns)
    random, spots = np.random.default_rng(SEED), np.full(UNDERLYINGS, SPOT)
    strike, vol, is_call = (np.array([terms[k] for terms in listed]) for k in (0, 3, 2))
    years = np.array([(terms[1] - opened_ns) / YEAR_NS for terms in listed])
    for number in range(count):
        place = int(random.integers(UNDERLYINGS))
        if number % OPTION_TICK_EVERY == 0:
            row = int(random.integers(len(listed)))
            mid = float(worth(spots[place], strike[row], years[row], vol[row], is_call[row]))
            mid = max(mid * (1.0 + 0.001 * random.standard_normal()), 0.01)
            symbols, bid, ask = [names[place][row]], mid, mid
        else:
            spots[place] *= np.exp(5e-5 * random.standard_normal())
            symbols, bid, ask = [NAMES[place]], spots[place] - 0.01, spots[place] + 0.01
        message = market.NormalizedBatch(source="benchmark", symbols=symbols)
        for name, value in {
            "symbol_index": 0,
            "kind": market.EVENT_KIND_QUOTE,
            "bid": bid,
            "ask": ask,
        }.items():
            packing.write(message, name, [value])
        yield NAMES[place], Tick(message.SerializeToString())
