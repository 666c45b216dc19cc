"""What a RiskMetrics must say, worked out anew from the logs up to its snapshot ids, record by record.

Plain loops, SciPy's normal distribution and finite differences, and nothing of the service or its kernels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from scipy.optimize import brentq

from protos.market.v1 import market_pb2 as market
from protos.orders.v1 import orders_pb2 as orders
from protos.risk.v1 import risk_pb2 as risk
from tests.risk_service.worlds import RATE, YIELD, black_scholes

YEAR_NS = 365 * 86_400_000_000_000
DAY = 1 / 252
LEVEL = 0.975
# Name, simple return of every spot, change of every vol.
STRESSES = (
    ("spot -20% vol +20", -0.20, 0.20),
    ("spot -10% vol +10", -0.10, 0.10),
    ("spot -5%", -0.05, 0.0),
    ("spot +5%", 0.05, 0.0),
    ("spot +10% vol -5", 0.10, -0.05),
    ("vol +10", 0.0, 0.10),
)


class Terms(NamedTuple):
    """A contract: shares have no strike. The quotes of a strike's call and put tell its vol."""

    underlying: str
    strike: float = 0.0
    is_call: bool = True
    expiry_ns: int = 0
    multiplier: float = 1.0
    call: str = ""
    put: str = ""


class Quote(NamedTuple):
    """The middle of an option's quote, and what else there was at that moment."""

    mid: float
    spot: float
    time_ns: int


@dataclass
class Market:
    """What one prefix of market.data.normalized says."""

    second_ns: int = 0  # the source's last whole second
    spot: dict[str, float] = field(default_factory=dict)
    quotes: dict[str, Quote] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[tuple[str, market.NormalizedBatch]]) -> Market:
        found = cls()
        newest = 0
        for key, batch in records:
            newest = max(newest, *batch.source_time_ns)
            if batch.kind[0] != market.EVENT_KIND_QUOTE:
                continue
            for row, symbol in enumerate(batch.symbols):
                mid = 0.5 * (batch.bid[row] + batch.ask[row])
                if symbol == key:
                    found.spot[key] = mid
                else:
                    spot = found.spot.get(key, math.nan)
                    found.quotes[symbol] = Quote(mid, spot, batch.source_time_ns[0])
        found.second_ns = newest // 1_000_000_000 * 1_000_000_000
        return found

    def years(self, terms: Terms) -> float:
        return (terms.expiry_ns - self.second_ns) / YEAR_NS

    def vol(self, terms: Terms) -> float:
        forward = self.spot[terms.underlying] * math.exp((RATE - YIELD) * self.years(terms))
        is_call = terms.strike >= forward
        quote = self.quotes[terms.call if is_call else terms.put]
        return implied_vol(quote, terms.strike, (terms.expiry_ns - quote.time_ns) / YEAR_NS, is_call)


@cache
def implied_vol(quote: Quote, strike: float, years: float, is_call: bool) -> float:
    def missing(vol: float) -> float:
        return float(black_scholes(quote.spot, strike, years, vol, is_call)) - quote.mid

    return float(brentq(missing, 0.01, 2.0, xtol=1e-14, rtol=1e-14))


@dataclass
class Fills:
    """What one prefix of orders.executed comes to for one account, per symbol, before multipliers."""

    held: dict[str, float] = field(default_factory=dict)
    average: dict[str, float] = field(default_factory=dict)
    realised: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, batches: Iterable[orders.ExecutionBatch]) -> Fills:
        found = cls()
        for batch in batches:
            sign = 1.0 if batch.side[0] == market.SIDE_BUY else -1.0
            price = batch.price_ticks[0] * batch.tick_size[0]
            for _ in range(batch.quantity[0]):
                found._take(batch.symbols[0], sign, price)
        return found

    def _take(self, symbol: str, sign: float, price: float) -> None:
        """One unit: it makes a position larger at an average price, or closes a unit of it."""
        held, average = self.held.get(symbol, 0.0), self.average.get(symbol, 0.0)
        if held * sign >= 0.0:
            average = (abs(held) * average + price) / (abs(held) + 1.0)
        else:
            self.realised[symbol] = self.realised.get(symbol, 0.0) - sign * (price - average)
        self.held[symbol] = held + sign
        self.average[symbol] = average if held + sign else 0.0


class History(NamedTuple):
    """Log returns of the underlyings and changes of their vols, a row per day and a column per underlying."""

    returns: np.ndarray
    vol_changes: np.ndarray


class Recomputed:
    """One book at one prefix of both logs. `left_out` are the symbols that the message names as missing."""

    def __init__(
        self,
        held: dict[str, float],
        terms: dict[str, Terms],
        underlyings: list[str],
        now: Market,
        left_out: set[str],
    ) -> None:
        self.now, self.underlyings = now, underlyings
        self.rows = [
            (terms[symbol], quantity * terms[symbol].multiplier)
            for symbol, quantity in held.items()
            if symbol not in left_out and quantity
        ]
        self.vols = [now.vol(one) if one.strike else math.nan for one, _ in self.rows]
        self.spots = np.array([now.spot.get(name, math.nan) for name in underlyings])

    def worth(
        self,
        spot: np.ndarray,
        vol_change: np.ndarray | float = 0.0,
        elapsed: float = 0.0,
        rate: float = RATE,
        only: str = "",
        of: object = sum,
    ) -> np.ndarray:
        """Value of the book with these spots, in the order of `underlyings` along the last axis."""
        change = np.broadcast_to(vol_change, np.shape(spot))
        values = [np.zeros(np.shape(spot)[:-1])]
        for (terms, size), vol in zip(self.rows, self.vols, strict=True):
            if only and terms.underlying != only:
                continue
            place = self.underlyings.index(terms.underlying)
            at = spot[..., place]
            if terms.strike:
                years = self.now.years(terms) - elapsed
                at = black_scholes(at, terms.strike, years, vol + change[..., place], terms.is_call, rate)
            values.append(size * at)
        return of(values)

    def greek(self, name: str, underlying: str) -> float:
        """A partial derivative of what hangs on one underlying, by differences."""
        if not any(terms.underlying == underlying for terms, _ in self.rows):
            return 0.0
        moved = self.underlyings.index(underlying)
        unit = np.zeros(len(self.underlyings))
        unit[moved] = 1.0
        steps = {"spot": 2e-3 * self.spots[moved], "vol": 2e-3, "rate": 1e-4, "time": 1e-4}

        def value(spot: float = 0.0, vol: float = 0.0, rate: float = 0.0, time: float = 0.0) -> float:
            moved_spots = self.spots + unit * spot * steps["spot"]
            more = (vol * steps["vol"], -time * steps["time"], RATE + rate * steps["rate"], underlying)
            return float(self.worth(moved_spots, *more))

        def first(axis: str) -> float:
            h = steps[axis]
            near, far = (value(**{axis: k}) - value(**{axis: -k}) for k in (1.0, 2.0))
            return (8 * near - far) / (12 * h)

        def second(axis: str) -> float:
            h = steps[axis]
            near, far = (value(**{axis: k}) + value(**{axis: -k}) for k in (1.0, 2.0))
            return (16 * near - far - 30 * value()) / (12 * h * h)

        def mixed(a: str, b: str) -> float:
            corners = (sa * sb * value(**{a: sa, b: sb}) for sa in (1.0, -1.0) for sb in (1.0, -1.0))
            return sum(corners) / (4 * steps[a] * steps[b])

        return {
            "delta": lambda: first("spot"),
            "gamma": lambda: second("spot"),
            "vega": lambda: first("vol"),
            "theta": lambda: -first("time"),
            "rho": lambda: first("rate"),
            "vanna": lambda: mixed("spot", "vol"),
            "volga": lambda: second("vol"),
            "charm": lambda: -mixed("spot", "time"),
        }[name]()

    def losses(self, history: History) -> np.ndarray:
        """Of every day of the history, the worst first."""
        after = self.worth(self.spots * np.exp(history.returns), history.vol_changes, DAY)
        return np.sort(self.worth(self.spots) - after)[::-1]

    def components(self, history: History) -> list[float]:
        """Mean loss of what hangs on each underlying, in the days of the tail."""
        after = self.spots * np.exp(history.returns)
        lost = np.array(
            [
                self.worth(self.spots, only=name) - self.worth(after, history.vol_changes, DAY, only=name)
                for name in self.underlyings
            ]
        )
        worst = np.argsort(-lost.sum(axis=0))
        k = len(worst) * (1 - LEVEL)
        weight = np.clip(k - np.arange(len(worst)), 0.0, 1.0) / k
        return (lost[:, worst] @ weight).tolist()

    def stressed(self) -> list[float]:
        now = float(self.worth(self.spots))
        return [float(self.worth(self.spots * (1.0 + spot), vol)) - now for _, spot, vol in STRESSES]


GREEKS = ("delta", "gamma", "vega", "theta", "rho", "vanna", "volga", "charm")


def check(metrics: risk.RiskMetrics, book: Recomputed, history: History) -> None:
    """The message's value, Greeks, tail, stresses, limits and hedges against the recomputation."""
    value, gross = float(book.worth(book.spots)), gross_value(book)
    assert metrics.value == pytest.approx(value, rel=1e-7, abs=1e-6 * gross)
    assert metrics.gross_value == pytest.approx(gross, rel=1e-7)
    assert metrics.greeks.underlying == book.underlyings
    for place, name in enumerate(book.underlyings):
        for greek in GREEKS:
            told = getattr(metrics.greeks, greek)[place]
            # Differences of a book of this size are exact to about so much of a unit of its kind.
            assert told == pytest.approx(book.greek(greek, name), rel=2e-3, abs=2e-2), (greek, name)
    assert list(metrics.hedge_symbol) == book.underlyings
    assert list(metrics.hedge_quantity) == [-delta for delta in metrics.greeks.delta]
    tail = metrics.historical[0]
    losses = book.losses(history)
    whole, part = divmod(len(losses) * (1 - LEVEL), 1)
    worst = int(whole)
    shortfall = (losses[:worst].sum() + part * losses[worst]) / (worst + part)
    assert tail.expected_shortfall == pytest.approx(shortfall, rel=1e-6, abs=1e-6 * gross)
    assert tail.value_at_risk == pytest.approx(losses[worst], rel=1e-6, abs=1e-6 * gross)
    parts = metrics.historical_component_es_by_underlying
    assert list(parts) == pytest.approx(book.components(history), rel=1e-6, abs=1e-6 * gross)
    assert list(metrics.stress_name) == [name for name, _, _ in STRESSES]
    stressed = book.stressed()
    assert list(metrics.stress_pnl) == pytest.approx(stressed, rel=1e-6, abs=1e-6 * gross)
    limits = {one.name: one for one in metrics.limits}
    for name, used, limit in (
        ("value at risk", losses[worst], 0.02 * gross),
        ("worst stress", -min(stressed), 0.05 * gross),
    ):
        assert limits[name].used == pytest.approx(used, rel=1e-6, abs=1e-6 * gross)
        assert limits[name].limit == pytest.approx(limit, rel=1e-7)
        assert limits[name].breached == (limits[name].used > limits[name].limit)


def gross_value(book: Recomputed) -> float:
    return float(book.worth(book.spots, of=lambda values: sum(map(abs, values))))
