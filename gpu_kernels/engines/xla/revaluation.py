"""Full revaluation on the XLA engine: blocks of positions one after another, all scenarios of a turn at once.

Every shape is padded to one of a few sizes, so that neither another book nor another number of scenarios
compiles anew. Sums are taken block by block in the order of the book, whatever the cut of the scenarios.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from gpu_kernels.engines.engine import Engine
from gpu_kernels.engines.xla import ops
from gpu_kernels.engines.xla.compile import Program, bucket
from gpu_kernels.errors import EngineUnavailable
from gpu_kernels.formulas.revaluation import shocked_value
from gpu_kernels.options import Options
from gpu_kernels.portfolio import Portfolio
from gpu_kernels.revaluation import Shocks, position_pnl_with, revalue_with
from gpu_kernels.scenarios import VOL_FLOOR, Scenarios

Floats = NDArray[np.float64]

# Positions that are priced together; a block holds positions of one group.
BLOCK = 128
# Scenarios priced together: the values of a block are 1 MiB.
TURN_SCENARIOS = 1024
# Stands for √T once an option has expired: its value is then intrinsic to the last bit.
EXPIRED_ROOT_TIME = 1e-100
# Stands for a spot or strike of 0 in logarithms.
SMALLEST = 1e-290

_value = shocked_value(ops)


class Rows(NamedTuple):
    """What the program needs of each option, in blocks; padding has weight 0."""

    weight: Any  # quantity · multiplier
    sign: Any  # 1 call, −1 put
    forward: Any  # S·e^(−qT)
    strike: Any  # K·e^(−rT)
    log_moneyness: Any  # ln(forward/strike)
    vol: Any
    time: Any  # T, years left at the horizon
    root_time: Any
    today: Any  # value at today's inputs
    underlying: Any
    node: Any  # (rows, 4)
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
    return revalue_with(partial(_group_pnl, engine), portfolio, scenarios, by, out)


def position_pnl(engine: Engine, portfolio: Portfolio, scenarios: Scenarios) -> Floats:
    """P&L per position and scenario (P, S)."""
    return position_pnl_with(partial(_position_pnl, engine), portfolio, scenarios)


def _group_pnl(engine: Engine, portfolio: Portfolio, shocks: Shocks, out: Floats) -> None:
    out[:] = 0.0
    if not portfolio.options:
        return
    places, block_group = _layout(portfolio)
    rows = _rows(engine, portfolio, shocks, places)
    moves = _moves(shocks)
    for start in range(0, shocks.scenarios, TURN_SCENARIOS):
        stop = min(start + TURN_SCENARIOS, shocks.scenarios)
        sums = np.asarray(block_sums(moves, rows, _market(shocks, start, stop)))
        for group, block in zip(block_group, sums, strict=False):
            out[group, start:stop] += block[: stop - start]


def _position_pnl(engine: Engine, portfolio: Portfolio, shocks: Shocks, out: Floats) -> None:
    if not portfolio.options:
        return
    places = np.arange(portfolio.options)
    rows = _rows(engine, portfolio, shocks, places)
    moves = _moves(shocks)
    for start in range(0, shocks.scenarios, TURN_SCENARIOS):
        stop = min(start + TURN_SCENARIOS, shocks.scenarios)
        pnl = np.asarray(every_position(moves, rows, _market(shocks, start, stop)))
        out[:, start:stop] = pnl.reshape(-1, pnl.shape[-1])[: len(out), : stop - start]


def _layout(portfolio: Portfolio) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row of the padded blocks for each position, and the group of each block."""
    count = portfolio.options
    group = np.zeros(count, np.int64) if portfolio.group is None else portfolio.group[:count]
    order = np.argsort(group, kind="stable")
    numbers, sizes = np.unique(group, return_counts=True)
    blocks = -(-sizes // BLOCK)
    first_row = np.append(0, np.cumsum(blocks * BLOCK)[:-1])
    first_position = np.append(0, np.cumsum(sizes)[:-1])
    places = np.empty(count, np.int64)
    places[order] = np.repeat(first_row - first_position, sizes) + np.arange(count)
    return places, np.repeat(numbers, blocks)


def _rows(engine: Engine, portfolio: Portfolio, shocks: Shocks, places: NDArray[np.int64]) -> Rows:
    if portfolio.american.any():
        raise EngineUnavailable(f"engine {engine.name!r} does not revalue American options")
    p = portfolio
    today = Options(
        spot=p.spot,
        strike=p.strike,
        expiry=p.expiry,
        vol=p.vol,
        rate=p.rate,
        dividend_yield=p.dividend_yield,
        is_call=p.is_call,
    )
    time = np.maximum(p.expiry - shocks.elapsed, 0.0)
    ratio = np.log(np.maximum(p.spot, SMALLEST) / np.maximum(p.strike, SMALLEST))
    blocks = bucket(-(-(int(places.max()) + 1) // BLOCK))

    def in_blocks(column: Any, padding: float = 1.0) -> Any:
        wide = np.full((blocks * BLOCK, *column.shape[1:]), padding, column.dtype)
        wide[places] = column
        return wide.reshape(blocks, BLOCK, *column.shape[1:])

    nodes = (p.options, 0)
    return Rows(
        weight=in_blocks(p.quantity * p.multiplier, 0.0),
        sign=in_blocks(np.where(p.is_call, 1.0, -1.0)),
        forward=in_blocks(p.spot * np.exp(-p.dividend_yield * time)),
        strike=in_blocks(p.strike * np.exp(-p.rate * time)),
        log_moneyness=in_blocks(ratio + (p.rate - p.dividend_yield) * time),
        vol=in_blocks(p.vol),
        time=in_blocks(time),
        root_time=in_blocks(np.maximum(np.sqrt(time), EXPIRED_ROOT_TIME)),
        today=in_blocks(engine.price(today).price),
        underlying=in_blocks(p.underlying, 0),
        node=in_blocks(np.empty(nodes, np.int64) if shocks.node is None else shocks.node, 0),
        node_weight=in_blocks(np.empty(nodes) if shocks.node_weight is None else shocks.node_weight),
    )


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


def _block_pnl(moves: Moves, market: Market, rows: Rows) -> Any:
    """P&L of one block's positions under all scenarios of the turn, (BLOCK, S)."""
    move = market.spot_return[rows.underlying]
    vol = jnp.broadcast_to(rows.vol[:, None], move.shape)
    if moves.vols:
        vol = (
            vol + market.vol_change[jnp.zeros_like(rows.underlying) if moves.shared_vols else rows.underlying]
        )
    if moves.surface:
        vol = vol + jnp.sum(rows.node_weight[:, :, None] * market.surface[rows.node], axis=1)
    deviation = jnp.maximum(vol, VOL_FLOOR) * rows.root_time[:, None]
    strike = rows.strike[:, None]
    centre = rows.log_moneyness[:, None] + move
    if moves.rates:
        carry = market.rate_change[None, :] * rows.time[:, None]
        strike = strike * jnp.exp(-carry)
        centre = centre + carry
    forward = rows.forward[:, None] * jnp.exp(move)
    value = _value(rows.sign[:, None], forward, strike, centre, deviation, 1.0 / deviation)
    return rows.weight[:, None] * (value - rows.today[:, None])


def _block_sums(moves: Moves, rows: Rows, market: Market) -> Any:
    return jax.lax.map(lambda block: _block_pnl(moves, market, block).sum(axis=0), rows)


def _every_position(moves: Moves, rows: Rows, market: Market) -> Any:
    return jax.lax.map(lambda block: _block_pnl(moves, market, block), rows)


block_sums = Program(_block_sums, static=(0,))
every_position = Program(_every_position, static=(0,))
