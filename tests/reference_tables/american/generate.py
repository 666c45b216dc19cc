"""Writes box.csv and greeks.csv afresh: minutes of QuantLib's slowest and most accurate scheme. Run by hand.

    python -m tests.reference_tables.american.generate box 600
    python -m tests.reference_tables.american.generate greeks 40

Prices are those of QdFpTanhSinhIterationScheme(64, 64, 1e-13), kept where 40 in place of the first 64 agrees
to 1e-9. Greeks are differences of fourth order of such prices.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import QuantLib as ql

HERE = Path(__file__).parent
FIELDS = ["spot", "strike", "days", "vol", "rate", "dividend_yield", "is_call"]
GREEKS = ["price", "delta", "gamma", "vega", "theta", "rho", "vanna", "volga", "charm"]
TODAY = ql.Date(1, 1, 2025)
DAYS = ql.Actual365Fixed()


def quantlib_price(
    scheme: object,
    spot: float,
    strike: float,
    days: int,
    vol: float,
    rate: float,
    dividend_yield: float,
    is_call: bool,
) -> float:
    """American price by QuantLib's fixed-point engine with this scheme."""
    ql.Settings.instance().evaluationDate = TODAY
    process = ql.BlackScholesMertonProcess(
        ql.QuoteHandle(ql.SimpleQuote(spot)),
        ql.YieldTermStructureHandle(ql.FlatForward(TODAY, dividend_yield, DAYS)),
        ql.YieldTermStructureHandle(ql.FlatForward(TODAY, rate, DAYS)),
        ql.BlackVolTermStructureHandle(ql.BlackConstantVol(TODAY, ql.NullCalendar(), vol, DAYS)),
    )
    payoff = ql.PlainVanillaPayoff(ql.Option.Call if is_call else ql.Option.Put, strike)
    option = ql.VanillaOption(payoff, ql.AmericanExercise(TODAY, TODAY + int(days)))
    option.setPricingEngine(ql.QdFpAmericanEngine(process, scheme))
    return float(option.NPV())


def truth(*row: float) -> float:
    """The price taken as true."""
    return quantlib_price(ql.QdFpTanhSinhIterationScheme(64, 64, 1e-13), *row)  # type: ignore[arg-type]


def box(count: int, seed: int = 20150901) -> None:
    """Random options of the issue's box, some on its edges."""
    rng = np.random.default_rng(seed)

    def rate() -> float:
        u = rng.random()
        return 0.0 if u < 0.05 else 0.1 if u < 0.1 else 0.001 if u < 0.13 else round(rng.uniform(0.0, 0.1), 5)

    with open(HERE / "box.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*FIELDS, "price"])
        kept = 0
        while kept < count:
            spot = round(rng.uniform(60, 140), 3)
            days = int(rng.integers(1, 1096)) if rng.random() < 0.8 else int(rng.integers(1, 60))
            u = rng.random()
            vol = 0.1 if u < 0.05 else 0.8 if u < 0.1 else round(rng.uniform(0.1, 0.8), 4)
            row = (spot, 100.0, days, vol, rate(), rate(), bool(rng.random() < 0.5))
            price = truth(*row)
            if abs(price - quantlib_price(ql.QdFpTanhSinhIterationScheme(64, 40, 1e-13), *row)) <= 1e-9:
                writer.writerow([*row[:6], int(row[6]), repr(price)])
                kept += 1


def greeks(count: int, seed: int = 7) -> None:
    """Greeks of rows of box.csv that are well inside the continuation region and away from rate = yield."""
    with open(HERE / "box.csv") as file:
        rows = list(csv.DictReader(file))
    with open(HERE / "greeks.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*FIELDS, *GREEKS])
        kept = 0
        for index in np.random.default_rng(seed).permutation(len(rows)):
            spot, strike, days, vol, r, q, call, price = (float(v) for v in rows[index].values())
            payoff = max(spot - strike if call else strike - spot, 0.0)
            if days < 30 or min(r, q) < 0.004 or abs(r - q) < 0.004 or max(r, q) > 0.099:
                continue
            if price - payoff < 0.3 or price < 0.05 or kept == count:
                continue
            values = _differences(spot, strike, int(days), vol, r, q, bool(call))
            writer.writerow([spot, strike, int(days), vol, r, q, int(call), *(repr(v) for v in values)])
            kept += 1


def _differences(
    spot: float, strike: float, days: int, vol: float, r: float, q: float, call: bool
) -> list[float]:
    ds, dv, dr, dt = 0.01 * spot, 0.02 * vol, 0.002, 0.02
    years = days / 365.0

    def value(s: int = 0, v: int = 0, rho: int = 0, t: int = 0) -> float:
        # Days are whole: a longer expiry is a larger variance and larger rates over the same days.
        scale = 1.0 + t * dt
        sigma = (vol + v * dv) * np.sqrt(scale)
        return truth(spot + s * ds, strike, days, sigma, (r + rho * dr) * scale, q * scale, call)

    def first(f: Callable[[int], float], h: float) -> float:
        return (f(-2) - 8.0 * f(-1) + 8.0 * f(1) - f(2)) / (12.0 * h)

    def second(f: Callable[[int], float], h: float) -> float:
        return (-f(-2) + 16.0 * f(-1) - 30.0 * f(0) + 16.0 * f(1) - f(2)) / (12.0 * h * h)

    return [
        value(),
        first(lambda k: value(s=k), ds),
        second(lambda k: value(s=k), ds),
        first(lambda k: value(v=k), dv),
        -first(lambda k: value(t=k), dt * years),
        first(lambda k: value(rho=k), dr),
        first(lambda k: first(lambda m: value(s=m, v=k), ds), dv),
        second(lambda k: value(v=k), dv),
        -first(lambda k: first(lambda m: value(s=m, t=k), ds), dt * years),
    ]


if __name__ == "__main__":
    {"box": box, "greeks": greeks}[sys.argv[1]](int(sys.argv[2]))
