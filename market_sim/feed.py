"""The simulated market as messages: raw market data, orders and portfolios. No Kafka, no clock.

An underlying and its options share a record key, so that they share a partition and stay in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from market_sim.chains import OptionChain, build_chains
from market_sim.desks import sample_portfolios
from market_sim.dirt import Dirt, soil
from market_sim.listing import listing_of
from market_sim.live_orders import LiveOrders
from market_sim.model import TRADING_SECONDS_PER_YEAR, Dynamics, Market
from market_sim.quotes import QUOTE_UNIFORMS, quotes
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

if TYPE_CHECKING:
    from gpu_kernels import Engine

SOURCE = "sim"
_SPOT_SHARE = 0.4  # of ticks; the others are of options
_UNIFORMS = 5 + QUOTE_UNIFORMS  # random numbers that a tick takes
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
        engine: Engine | None = None,
    ) -> None:
        """`start` lists the options; `speed` is market seconds a second; no `engine`: the reference."""
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
        self.listing = listing_of(self.chains)
        self._engine = engine or gk.engine("reference")
        self._sequence = np.zeros(len(self.listing), dtype=np.uint64)
        activity = np.array([u.activity for u in underlyings])
        self._ticks_per_second = ticks_per_second * activity / activity.sum()
        names = [u.symbol for u in underlyings]
        self._random = [stream(seed, "feed", name) for name in names]
        self._dirt_random = [stream(seed, "dirt", name) for name in names]
        self._orders = LiveOrders(underlyings, seed, orders_per_second, regime)

    @property
    def symbols(self) -> tuple[str, ...]:
        """All symbols: each underlying before its options."""
        return self.listing.symbols

    def reference_batches(self, time_ns: int) -> list[tuple[str, RawBatch]]:
        """Per underlying: trading state, rate and dividend yield, and a quote of every instrument."""
        return [self._encode(place, self._opening(place, time_ns)) for place in range(len(self.chains))]

    def step(self, dt_seconds: float, time_ns: int) -> list[tuple[str, RawBatch]]:
        """Moves the market on by `dt_seconds` and returns its ticks, stamped `time_ns`, by record key."""
        self.market.advance(dt_seconds * self._speed / TRADING_SECONDS_PER_YEAR)
        uniforms, place = self._drawn(dt_seconds)
        if not len(place):
            return []
        columns = self._ticks(uniforms, place, time_ns)
        ends = np.searchsorted(place, np.arange(len(self.chains) + 1))
        batches: list[tuple[str, RawBatch]] = []
        for at in np.unique(place).tolist():
            part = columns.take(np.arange(ends[at], ends[at + 1]))
            if self._dirt is not None:
                part = soil(part, self._dirt, self._dirt_random[at])
            if len(part):
                batches.append(self._encode(at, part))
        return batches

    def orders(self, dt_seconds: float, time_ns: int) -> list[tuple[str, OrderBatch]]:
        """Orders that came in the `dt_seconds` up to `time_ns`, around the present market, by record key."""
        return self._orders.advance(dt_seconds, self.market.spot, time_ns)

    def portfolios(self, count: int, positions: int) -> list[Portfolio]:
        """Sample desks: `count` portfolios of `positions` options, spot and futures positions, in groups."""
        return sample_portfolios(self.chains, self._seed, count, positions)

    def _opening(self, place: int, time_ns: int) -> RawColumns:
        underlying, listing = self.chains[place].underlying, self.listing
        here = listing.first[place]
        state = columns_of(1, instrument=here, kind=EVENT_KIND_STATUS, state=TRADING_STATE_OPEN)
        reference = columns_of(
            1,
            instrument=here,
            kind=EVENT_KIND_REFERENCE,
            rate=underlying.rate,
            dividend_yield=underlying.dividend_yield,
        )
        rows = np.arange(here, listing.first[place + 1])
        uniforms = self._random[place].random((len(rows), QUOTE_UNIFORMS))
        return self._numbered(joined([state, reference, self._quotes(rows, uniforms, time_ns)]), time_ns)

    def _drawn(self, dt_seconds: float) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """Random numbers of each tick of the step, and the place of its underlying; places rise."""
        counts = [
            int(random.poisson(rate * dt_seconds))
            for random, rate in zip(self._random, self._ticks_per_second, strict=True)
        ]
        drawn = [
            random.random((count, _UNIFORMS)) for random, count in zip(self._random, counts, strict=True)
        ]
        return np.concatenate(drawn), np.repeat(np.arange(len(counts)), counts)

    def _ticks(self, uniforms: NDArray[np.float64], place: NDArray[np.intp], time_ns: int) -> RawColumns:
        """Quotes and trades of instruments that the first two random numbers of each tick choose."""
        first = self.listing.first
        options = first[place + 1] - first[place] - 1
        option = uniforms[:, 0] >= _SPOT_SHARE
        row = first[place] + np.where(option, 1 + (uniforms[:, 1] * options).astype(np.intp), 0)
        ticks = self._quotes(row, uniforms[:, 5:], time_ns)
        trades = np.flatnonzero((uniforms[:, 2] < _TRADE_SHARE) & (ticks.bid > 0))
        return self._numbered(_as_trades(ticks, trades, uniforms[trades, 3:5]), time_ns)

    def _quotes(self, rows: NDArray[np.intp], uniforms: NDArray[np.float64], time_ns: int) -> RawColumns:
        made = quotes(self.listing, rows, self.market, time_ns, uniforms, self._engine)
        return columns_of(
            len(rows),
            instrument=rows,
            kind=EVENT_KIND_QUOTE,
            bid=made.bid,
            ask=made.ask,
            bid_quantity=made.bid_quantity,
            ask_quantity=made.ask_quantity,
        )

    def _numbered(self, columns: RawColumns, time_ns: int) -> RawColumns:
        """The events with the time and with each symbol's next sequence numbers."""
        sequence = np.empty(len(columns), dtype=np.uint64)
        order = np.argsort(columns.instrument, kind="stable")
        of_symbol = columns.instrument[order]
        before = np.searchsorted(of_symbol, of_symbol)
        sequence[order] = self._sequence[of_symbol] + (np.arange(len(order)) - before + 1).astype(np.uint64)
        np.add.at(self._sequence, columns.instrument, np.uint64(1))
        times = np.full(len(columns), time_ns, dtype=np.int64)
        return columns.with_values(source_sequence=sequence, source_time_ns=times)

    def _encode(self, place: int, columns: RawColumns) -> tuple[str, RawBatch]:
        return self.chains[place].underlying.symbol, raw_batch(SOURCE, self.listing.symbols, columns)


def _as_trades(ticks: RawColumns, rows: NDArray[np.intp], uniforms: NDArray[np.float64]) -> RawColumns:
    """The quotes `rows` turned into trades at their bid or ask."""
    sells = uniforms[:, 0] < 0.5
    kind, price, quantity, side = (
        ticks.kind.copy(),
        ticks.price.copy(),
        ticks.quantity.copy(),
        ticks.side.copy(),
    )
    kind[rows], side[rows] = EVENT_KIND_TRADE, np.where(sells, SIDE_SELL, 0)
    price[rows] = np.where(sells, ticks.bid[rows], ticks.ask[rows])
    size = np.where(sells, ticks.bid_quantity[rows], ticks.ask_quantity[rows])
    quantity[rows] = np.ceil(size * (1 - uniforms[:, 1]))
    changed: dict[str, NDArray[Any]] = {"kind": kind, "price": price, "quantity": quantity, "side": side}
    for name in ("bid", "ask", "bid_quantity", "ask_quantity"):
        column = getattr(ticks, name).copy()
        column[rows] = 0.0
        changed[name] = column
    return ticks.with_values(**changed)
