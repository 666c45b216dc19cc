"""The simulated market as messages: raw market data, orders and portfolios. No Kafka, no clock.

An underlying and its options share a record key, so that they share a partition and stay in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from market_sim.chains import OptionChain, build_chains
from market_sim.desks import sample_portfolios
from market_sim.dirt import Dirt, soil
from market_sim.live_orders import LiveOrders
from market_sim.model import TRADING_SECONDS_PER_YEAR, Dynamics, Market
from market_sim.quotes import fair_values, option_quotes, spot_quotes, years_to_expiry
from market_sim.raw_columns import RawColumns, columns_of, joined, raw_batch
from market_sim.streams import stream
from market_sim.universe import UNIVERSE, Underlying
from protos.market.v1.market_pb2 import (
    EVENT_KIND_QUOTE,
    EVENT_KIND_REFERENCE,
    EVENT_KIND_STATUS,
    EVENT_KIND_TRADE,
    SIDE_SELL,
    TRADING_STATE_OPEN,
    RawBatch,
)
from protos.orders.v1.orders_pb2 import OrderBatch
from protos.risk.v1.risk_pb2 import Portfolio

SOURCE = "sim"
_SPOT_SHARE = 0.4  # of ticks; the others are of options
_TRADE_SHARE = 0.1  # of ticks; the others are quotes


class MarketFeed:
    """A market that quotes, trades and sends orders. Same seed and same calls, same messages."""

    def __init__(
        self,
        seed: int,
        *,
        start: date,
        underlyings: int | Sequence[Underlying] = 4,
        expiries: int = 2,
        strikes: int = 9,
        ticks_per_second: float = 30.0,
        orders_per_second: float = 40.0,
        regime: str = "normal",
        speed: float = 1.0,
        dynamics: Dynamics | None = None,
        dirt: Dirt | None = None,
    ) -> None:
        """`start` is the listing date of the options; `speed` is market seconds per second of `step`."""
        if isinstance(underlyings, int):
            if not 1 <= underlyings <= len(UNIVERSE):
                raise ValueError(f"underlyings: must be 1 to {len(UNIVERSE)}, got {underlyings}")
            underlyings = UNIVERSE[:underlyings]
        if not ticks_per_second >= 0 or not speed >= 0:
            raise ValueError(f"ticks_per_second, speed: must not be negative: {ticks_per_second}, {speed}")
        self.market = Market(underlyings, seed, dynamics)
        self.chains: tuple[OptionChain, ...] = build_chains(underlyings, start, expiries, strikes)
        self._seed = seed
        self._speed = speed
        self._dirt = dirt
        self._symbols = [(chain.underlying.symbol, *chain.symbols) for chain in self.chains]
        self._sequence = [np.zeros(len(names), dtype=np.uint64) for names in self._symbols]
        activity = np.array([u.activity for u in underlyings])
        self._ticks_per_second = ticks_per_second * activity / activity.sum()
        names = [u.symbol for u in underlyings]
        self._random = [stream(seed, "feed", name) for name in names]
        self._dirt_random = [stream(seed, "dirt", name) for name in names]
        self._orders = LiveOrders(underlyings, seed, orders_per_second, regime)

    @classmethod
    def demo(cls, seed: int, start: date) -> MarketFeed:
        """The market of the demo: 4 underlyings of 36 options, about 30 ticks a second, faster than life."""
        return cls(seed, start=start, speed=20.0)

    @classmethod
    def benchmark(cls, seed: int, start: date) -> MarketFeed:
        """The market of the benchmarks: 20 underlyings of 100 options, 2,000 ticks a second."""
        return cls(seed, start=start, underlyings=20, expiries=5, strikes=10, ticks_per_second=2000.0)

    @property
    def symbols(self) -> tuple[str, ...]:
        """All symbols: each underlying before its options."""
        return tuple(symbol for names in self._symbols for symbol in names)

    def reference_batches(self, time_ns: int) -> list[tuple[str, RawBatch]]:
        """Per underlying: trading state, rate and dividend yield, and a quote of every instrument."""
        return [self._encode(place, self._opening(place, time_ns)) for place in range(len(self.chains))]

    def step(self, dt_seconds: float, time_ns: int) -> list[tuple[str, RawBatch]]:
        """Moves the market on by `dt_seconds` and returns its ticks, stamped `time_ns`, by record key."""
        self.market.advance(dt_seconds * self._speed / TRADING_SECONDS_PER_YEAR)
        batches: list[tuple[str, RawBatch]] = []
        for place, random in enumerate(self._random):
            count = int(random.poisson(self._ticks_per_second[place] * dt_seconds))
            if not count:
                continue
            columns = self._ticks(place, count, time_ns)
            if self._dirt is not None:
                columns = soil(columns, self._dirt, self._dirt_random[place])
            if len(columns):
                batches.append(self._encode(place, columns))
        return batches

    def orders(self, dt_seconds: float, time_ns: int) -> list[tuple[str, OrderBatch]]:
        """Orders that came in the `dt_seconds` up to `time_ns`, around the present market, by record key."""
        return self._orders.advance(dt_seconds, self.market.spot, time_ns)

    def portfolios(self, count: int, positions: int) -> list[Portfolio]:
        """Sample desks: `count` portfolios of `positions` options, spot and futures positions, in groups."""
        return sample_portfolios(self.chains, self._seed, count, positions)

    def _opening(self, place: int, time_ns: int) -> RawColumns:
        underlying = self.chains[place].underlying
        state = columns_of(1, kind=EVENT_KIND_STATUS, state=TRADING_STATE_OPEN)
        reference = columns_of(
            1, kind=EVENT_KIND_REFERENCE, rate=underlying.rate, dividend_yield=underlying.dividend_yield
        )
        quotes = self._quotes(place, np.arange(len(self._symbols[place])), time_ns)
        return self._numbered(place, joined([state, reference, quotes]), time_ns)

    def _ticks(self, place: int, count: int, time_ns: int) -> RawColumns:
        random = self._random[place]
        options = len(self.chains[place])
        spot = random.random(count) < _SPOT_SHARE
        instrument = np.where(spot, 0, random.integers(1, options + 1, count))
        ticks = self._quotes(place, instrument, time_ns)
        trades = np.flatnonzero((random.random(count) < _TRADE_SHARE) & (ticks.bid > 0))
        return self._numbered(place, _as_trades(ticks, trades, random), time_ns)

    def _quotes(self, place: int, instrument: NDArray[np.intp], time_ns: int) -> RawColumns:
        chain, random = self.chains[place], self._random[place]
        spot = float(self.market.spot[place])
        columns = columns_of(len(instrument), instrument=instrument, kind=EVENT_KIND_QUOTE)
        is_spot = instrument == 0
        rows = instrument[~is_spot] - 1
        variance = self.market.average_variance(years_to_expiry(chain, rows, time_ns))[place]
        listed = option_quotes(fair_values(chain, rows, spot, variance, time_ns), random)
        here = np.full(np.count_nonzero(is_spot), spot)
        traded = spot_quotes(here, np.full_like(here, chain.underlying.tick), random)
        for name in ("bid", "ask", "bid_quantity", "ask_quantity"):
            column = getattr(columns, name)
            column[~is_spot], column[is_spot] = getattr(listed, name), getattr(traded, name)
        return columns

    def _numbered(self, place: int, columns: RawColumns, time_ns: int) -> RawColumns:
        """The events with the time and with each symbol's next sequence numbers."""
        counters = self._sequence[place]
        sequence = np.empty(len(columns), dtype=np.uint64)
        order = np.argsort(columns.instrument, kind="stable")
        of_symbol = columns.instrument[order]
        first = np.searchsorted(of_symbol, of_symbol)
        sequence[order] = counters[of_symbol] + (np.arange(len(order)) - first + 1).astype(np.uint64)
        np.add.at(counters, columns.instrument, np.uint64(1))
        times = np.full(len(columns), time_ns, dtype=np.int64)
        return columns.with_values(source_sequence=sequence, source_time_ns=times)

    def _encode(self, place: int, columns: RawColumns) -> tuple[str, RawBatch]:
        names = self._symbols[place]
        return names[0], raw_batch(SOURCE, names, columns)


def _as_trades(ticks: RawColumns, rows: NDArray[np.intp], random: np.random.Generator) -> RawColumns:
    """The quotes `rows` turned into trades at their bid or ask."""
    sells = random.random(len(rows)) < 0.5
    kind, price, quantity, side = (
        ticks.kind.copy(),
        ticks.price.copy(),
        ticks.quantity.copy(),
        ticks.side.copy(),
    )
    kind[rows], side[rows] = EVENT_KIND_TRADE, np.where(sells, SIDE_SELL, 0)
    price[rows] = np.where(sells, ticks.bid[rows], ticks.ask[rows])
    quantity[rows] = np.ceil(
        np.where(sells, ticks.bid_quantity[rows], ticks.ask_quantity[rows]) * random.random()
    )
    changed: dict[str, NDArray[Any]] = {"kind": kind, "price": price, "quantity": quantity, "side": side}
    for name in ("bid", "ask", "bid_quantity", "ask_quantity"):
        column = getattr(ticks, name).copy()
        column[rows] = 0.0
        changed[name] = column
    return ticks.with_values(**changed)
