"""Full revaluation on the XLA engine: blocks of positions one after another, all scenarios of a turn at once.

Every shape is padded to one of a few sizes, so that neither another book nor another number of scenarios
compiles anew. Sums are taken block by block in the order of the book, whatever the cut of the scenarios.
Books stay on JAX's device: a tick sends spots and shocks, and one vector comes back.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from gpu_kernels.dividend_revaluation import apart_pnl
from gpu_kernels.engines.engine import Engine
from gpu_kernels.engines.held_books import HeldBook, HeldBooks
from gpu_kernels.engines.xla import ops
from gpu_kernels.engines.xla.compile import Program, bucket, float64
from gpu_kernels.formulas.black_scholes import black_scholes
from gpu_kernels.formulas.revaluation import shocked_value
from gpu_kernels.portfolio import Portfolio
from gpu_kernels.revaluation import Shocks, position_pnl_with, revalue_with
from gpu_kernels.scenarios import VOL_FLOOR, Scenarios
from gpu_kernels.shocked_options import repriced_pnl

Floats = NDArray[np.float64]

# Positions that are priced together; a block holds positions of one group.
BLOCK = 128
# Scenarios priced together: the values of a block are 1 MiB.
TURN_SCENARIOS = 1024
# Stands for √T once an option has expired: its value is then intrinsic to the last bit.
EXPIRED_ROOT_TIME = 1e-100
# Stands for a spot or strike of 0 in logarithms.
SMALLEST = 1e-290

# Values that padding has where 1 would not do.
PADDING = {"quantity": 0.0, "underlying": 0, "is_call": True}

_price = black_scholes(ops)[0]
_value = shocked_value(ops)


class Rows(NamedTuple):
    """Columns of the book in blocks, kept on JAX's device; padding has quantity 0."""

    quantity: Any
    multiplier: Any
    underlying: Any
    spot: Any
    strike: Any
    expiry: Any
    vol: Any
    rate: Any
    dividend_yield: Any
    is_call: Any
    node: Any  # (rows, 4), or (rows, 0) without a vol shock surface
    node_weight: Any


class Market(NamedTuple):
    """Shocks of a turn: one row per underlying or surface node, one column per scenario."""

    spot_return: Any
    vol_change: Any
    rate_change: Any  # (S,)
    surface: Any


class Moves(NamedTuple):
    """Which shocks there are: each combination is a program of its own."""

    vols: bool
    shared_vols: bool
    rates: bool
    surface: bool


def revalue(engine: Engine, portfolio: Portfolio, scenarios: Scenarios, by: str | None, out: Any) -> Floats:
    """P&L per scenario (S,), or per group and scenario (G, S)."""
    apart = partial(apart_pnl, engine, partial(repriced_pnl, engine))
    return revalue_with(_group_pnl, portfolio, scenarios, by, out, apart)


def position_pnl(engine: Engine, portfolio: Portfolio, scenarios: Scenarios) -> Floats:
    """P&L per position and scenario (P, S)."""
    apart = partial(apart_pnl, engine, partial(repriced_pnl, engine))
    return position_pnl_with(_position_pnl, portfolio, scenarios, apart)


def _group_pnl(portfolio: Portfolio, shocks: Shocks, out: Floats) -> None:
    out[:] = 0.0
    if not portfolio.options:
        return
    book = _books.of(portfolio)
    rows = book.rows(portfolio, shocks)
    for start, stop, sums in _turns(block_sums, rows, shocks):
        for group, block in zip(book.block_group, sums, strict=False):
            out[group, start:stop] += block[: stop - start]


def _position_pnl(portfolio: Portfolio, shocks: Shocks, out: Floats) -> None:
    if not portfolio.options:
        return
    book = _books.of(portfolio)
    rows = book.rows(portfolio, shocks)
    for start, stop, pnl in _turns(every_position, rows, shocks):
        out[:, start:stop] = pnl.reshape(-1, pnl.shape[-1])[book.places, : stop - start]


def _turns(program: Program, rows: Rows, shocks: Shocks) -> Iterator[tuple[int, int, Floats]]:
    """The program's answers for all scenarios, so many at a time."""
    moves = _moves(shocks)
    elapsed = np.float64(shocks.elapsed)
    for start in range(0, shocks.scenarios, TURN_SCENARIOS):
        stop = min(start + TURN_SCENARIOS, shocks.scenarios)
        yield start, stop, np.asarray(program(moves, elapsed, rows, _market(shocks, start, stop)))


class _Book(HeldBook):
    """Where a book's positions are in its blocks, and the columns that are on the device."""

    def __init__(self, portfolio: Portfolio) -> None:
        super().__init__(portfolio)
        order = np.argsort(self.group, kind="stable")
        numbers, sizes = np.unique(self.group, return_counts=True)
        blocks = -(-sizes // BLOCK)
        first_row = np.append(0, np.cumsum(blocks * BLOCK)[:-1])
        first_position = np.append(0, np.cumsum(sizes)[:-1])
        self.places = np.empty(self.positions, np.int64)
        self.places[order] = np.repeat(first_row - first_position, sizes) + np.arange(self.positions)
        self.block_group = np.repeat(numbers, blocks)
        self._blocks = bucket(len(self.block_group))

    def rows(self, portfolio: Portfolio, shocks: Shocks) -> Rows:
        """All columns on the device."""
        with self.lock:
            held = self.sent(
                portfolio,
                Rows._fields[:-2],
                lambda name, host: self._in_blocks(host, PADDING.get(name, 1.0)),
            )
        none = (self.positions, 0)
        node = np.empty(none, np.int64) if shocks.node is None else shocks.node
        weight = np.empty(none) if shocks.node_weight is None else shocks.node_weight
        return Rows(**held, node=self._in_blocks(node, 0), node_weight=self._in_blocks(weight, 0.0))

    def _in_blocks(self, column: Any, padding: float) -> Any:
        wide = np.full((self._blocks * BLOCK, *column.shape[1:]), padding, column.dtype)
        wide[self.places] = column
        with float64():
            return jnp.asarray(wide.reshape(self._blocks, BLOCK, *column.shape[1:]))


def _moves(shocks: Shocks) -> Moves:
    surface = shocks.surface is not None
    return Moves(
        vols=surface or bool(shocks.vol_change.any()),
        shared_vols=len(shocks.vol_change) == 1,
        rates=shocks.rate_change is not None,
        surface=surface,
    )


def _market(shocks: Shocks, start: int, stop: int) -> Market:
    width = bucket(stop - start)

    def padded(rows: Floats | None) -> Floats:
        if rows is None:
            return np.zeros((0, width))
        height = 1 if len(rows) == 1 else bucket(len(rows))
        wide = np.zeros((height, width))
        wide[: len(rows), : stop - start] = rows[:, start:stop]
        return wide

    rates = np.zeros(width)
    if shocks.rate_change is not None:
        rates[: stop - start] = shocks.rate_change[start:stop]
    return Market(padded(shocks.spot_return), padded(shocks.vol_change), rates, padded(shocks.surface))


def _block_pnl(moves: Moves, elapsed: Any, market: Market, rows: Rows) -> Any:
    """P&L of one block's positions under all scenarios of the turn, (BLOCK, S)."""
    p = rows
    today = _price(p.spot, p.strike, p.expiry, p.vol, p.rate, p.dividend_yield, p.is_call)
    time = jnp.maximum(p.expiry - elapsed, 0.0)
    root_time = jnp.maximum(jnp.sqrt(time), EXPIRED_ROOT_TIME)[:, None]
    ratio = ops.log_ratio(jnp.maximum(p.spot, SMALLEST), jnp.maximum(p.strike, SMALLEST))
    move = market.spot_return[p.underlying]
    vol = jnp.broadcast_to(p.vol[:, None], move.shape)
    if moves.vols:
        vol = vol + market.vol_change[jnp.zeros_like(p.underlying) if moves.shared_vols else p.underlying]
    if moves.surface:
        vol = vol + jnp.sum(p.node_weight[:, :, None] * market.surface[p.node], axis=1)
    deviation = jnp.maximum(vol, VOL_FLOOR) * root_time
    strike = (p.strike * jnp.exp(-p.rate * time))[:, None]
    centre = (ratio + (p.rate - p.dividend_yield) * time)[:, None] + move
    if moves.rates:
        carry = market.rate_change[None, :] * time[:, None]
        strike = strike * jnp.exp(-carry)
        centre = centre + carry
    forward = (p.spot * jnp.exp(-p.dividend_yield * time))[:, None] * jnp.exp(move)
    sign = jnp.where(p.is_call, 1.0, -1.0)[:, None]
    value = _value(sign, forward, strike, centre, deviation, 1.0 / deviation)
    return (p.quantity * p.multiplier)[:, None] * (value - today[:, None])


def _block_sums(moves: Moves, elapsed: Any, rows: Rows, market: Market) -> Any:
    return jax.lax.map(lambda block: _block_pnl(moves, elapsed, market, block).sum(axis=0), rows)


def _every_position(moves: Moves, elapsed: Any, rows: Rows, market: Market) -> Any:
    return jax.lax.map(lambda block: _block_pnl(moves, elapsed, market, block), rows)


block_sums = Program(_block_sums, static=(0,))
every_position = Program(_every_position, static=(0,))
_books = HeldBooks(_Book)
