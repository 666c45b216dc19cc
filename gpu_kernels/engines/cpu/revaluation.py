"""Full revaluation on the CPU: positions outside, scenarios inside, where LLVM vectorises the shared formula.

Sums are taken in an order that depends on the portfolio only. Each block of positions is added up by itself,
blocks in order within a strip, strips in order at the end; a thread works on one strip and one tile of
scenarios at a time. So neither the number of threads nor the cut of the scenarios changes a bit.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.dividend_revaluation import apart_pnl
from gpu_kernels.engines.cpu import ops
from gpu_kernels.engines.cpu.american_revaluation import american_pnl
from gpu_kernels.engines.cpu.columns import plain
from gpu_kernels.engines.cpu.compile import kernel
from gpu_kernels.engines.cpu.threads import workers
from gpu_kernels.engines.engine import Engine
from gpu_kernels.formulas.revaluation import shocked_value
from gpu_kernels.options import Options
from gpu_kernels.portfolio import Portfolio
from gpu_kernels.revaluation import Shocks, position_pnl_with, revalue_with
from gpu_kernels.scenarios import VOL_FLOOR, Scenarios

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Positions that are added up by themselves before their sum goes to the strip's.
BLOCK_POSITIONS = 256
# Positions in a strip, and at most so many strips: partial sums stay small beside a large book.
STRIP_POSITIONS = 1024
STRIPS_MAX = 256
# Scenarios are padded to a multiple of this, so that every one goes through the vectorised loop.
LANES = 32
# Scenarios in a tile: the rows of a handful of underlyings stay in the second-level cache.
TILE_MAX = 1024
# Fewer scenarios than this are not cut: setting a position up would cost more than a second thread gains.
TILE_MIN = 256
# Pieces of work per thread: each is as wide as it may be, since every piece sets its positions up anew.
PIECES_PER_THREAD = 1
# Partial sums held at once, in doubles (64 MiB); more scenarios are done in turns.
PARTIAL_MAX = 1 << 23
# Stands for √T of an expired option, whose value is then intrinsic to the last bit.
EXPIRED_ROOT_TIME = 1e-100
# Stands for a spot or strike of 0 in logarithms.
SMALLEST = 1e-290

_value = shocked_value(ops)
_exp = ops.exp


class Rows(NamedTuple):
    """What the kernels need of each option, worked out once per portfolio and horizon."""

    weight: Floats  # quantity · multiplier
    sign: Floats  # 1 call, −1 put
    forward: Floats  # S·e^(−qT)
    strike: Floats  # K·e^(−rT)
    log_moneyness: Floats  # ln(forward/strike)
    vol: Floats
    time: Floats  # years left at the horizon
    root_time: Floats
    today: Floats  # value at today's inputs
    underlying: Integers
    node: Integers  # (P, 4), or (0, 4) without a vol shock surface
    node_weight: Floats


class Market(NamedTuple):
    """What the kernels need of scenarios: a row per underlying, a column per scenario, padded to LANES."""

    spot_return: Floats
    spot_factor: Floats  # e^return
    vol_change: Floats
    rate_change: Floats
    surface: Floats


def revalue(engine: Engine, portfolio: Portfolio, scenarios: Scenarios, by: str | None, out: Any) -> Floats:
    """P&L per scenario (S,), or per group and scenario (G, S)."""
    apart = partial(apart_pnl, engine, partial(american_pnl, engine))
    return revalue_with(partial(_group_pnl, engine), portfolio, scenarios, by, out, apart)


def position_pnl(engine: Engine, portfolio: Portfolio, scenarios: Scenarios) -> Floats:
    """P&L per position and scenario (P, S)."""
    apart = partial(apart_pnl, engine, partial(american_pnl, engine))
    return position_pnl_with(partial(_position_pnl, engine), portfolio, scenarios, apart)


def _group_pnl(engine: Engine, portfolio: Portfolio, shocks: Shocks, out: Floats) -> None:
    order, strips = _strips(portfolio)
    rows = _rows(engine, portfolio, shocks, order)
    market = _market(shocks)
    count = shocks.scenarios
    out[:] = 0.0
    turn = max(TILE_MAX, PARTIAL_MAX // max(1, len(strips)) // TILE_MAX * TILE_MAX)
    for start in range(0, count, turn):
        stop = min(start + turn, count)
        partial_sums = _strip_sums(rows, market, strips, start, _padded(stop - start))
        for strip, sums in zip(strips, partial_sums, strict=True):
            out[strip.group, start:stop] += sums[: stop - start]


def _position_pnl(engine: Engine, portfolio: Portfolio, shocks: Shocks, out: Floats) -> None:
    rows = _rows(engine, portfolio, shocks, None)
    market = _market(shocks)
    padded = market.spot_return.shape[1]
    flags = _flags(market)

    def work(start: int, stop: int) -> None:
        block = np.empty((stop - start, padded))
        _write_rows(rows, market, *flags, start, stop, 0, block)
        out[start:stop] = block[:, : shocks.scenarios]

    workers().run(len(rows.weight), work, max(1, (1 << 18) // max(1, padded)))


class Strip(NamedTuple):
    """Positions start..stop (in kernel order) whose sum goes to one group."""

    start: int
    stop: int
    group: int


def _strips(portfolio: Portfolio) -> tuple[Integers | None, list[Strip]]:
    """Positions in the order of their groups (None: as they are), cut into strips of one group each."""
    count = portfolio.options
    if portfolio.group is None:
        order, edges, numbers = None, np.array([0, count]), np.array([0])
    else:
        group = portfolio.group[:count]
        order = np.argsort(group, kind="stable")
        numbers, first = np.unique(group[order], return_index=True)
        edges = np.append(first, count)
    size = STRIP_POSITIONS * max(1, -(-count // (STRIP_POSITIONS * STRIPS_MAX)))
    strips = [
        Strip(start, min(start + size, int(end)), int(number))
        for number, begin, end in zip(numbers, edges[:-1], edges[1:], strict=True)
        for start in range(int(begin), int(end), size)
    ]
    return order, strips


def _strip_sums(rows: Rows, market: Market, strips: list[Strip], offset: int, width: int) -> Floats:
    """P&L of every strip in the scenarios from ``offset`` on, one row per strip."""
    sums = np.zeros((len(strips), width))
    tile = _tile(len(strips), width)
    tiles = -(-width // tile)
    flags = _flags(market)

    def work(start: int, stop: int) -> None:
        for piece in range(start, stop):
            strip, low = strips[piece // tiles], piece % tiles * tile
            high = min(low + tile, width)
            _add_rows(
                rows, market, *flags, strip.start, strip.stop, offset + low, sums[piece // tiles, low:high]
            )

    workers().run(len(strips) * tiles, work, 1)
    return sums


def _tile(strips: int, width: int) -> int:
    wanted = -(-PIECES_PER_THREAD * workers().threads // max(1, strips))
    return min(TILE_MAX, _padded(max(TILE_MIN, -(-width // wanted))))


def _padded(scenarios: int) -> int:
    return -(-scenarios // LANES) * LANES


def _flags(market: Market) -> tuple[bool, bool, bool]:
    """Do vols move, do rates move, is there a vol shock surface."""
    return (
        bool(market.vol_change.any()) or market.surface.size > 0,
        bool(market.rate_change.any()),
        market.surface.size > 0,
    )


def _market(shocks: Shocks) -> Market:
    count = shocks.scenarios
    width = _padded(count)

    def padded(rows: Floats) -> Floats:
        wide = np.zeros((len(rows), width))
        wide[:, :count] = rows
        return wide

    moves = padded(shocks.spot_return)
    rates = np.zeros((1, count)) if shocks.rate_change is None else shocks.rate_change[None]
    return Market(
        spot_return=moves,
        spot_factor=np.exp(moves),
        vol_change=padded(shocks.vol_change),
        rate_change=padded(rates)[0],
        surface=np.empty((0, width)) if shocks.surface is None else padded(shocks.surface),
    )


def _rows(engine: Engine, portfolio: Portfolio, shocks: Shocks, order: Integers | None) -> Rows:
    take = (lambda column: column) if order is None else (lambda column: np.ascontiguousarray(column[order]))
    spot, strike, rate, dividend = (
        take(c) for c in (portfolio.spot, portfolio.strike, portfolio.rate, portfolio.dividend_yield)
    )
    expiry, vol, is_call = take(portfolio.expiry), take(portfolio.vol), take(portfolio.is_call)
    time = np.maximum(expiry - shocks.elapsed, 0.0)
    today = Options(
        spot=spot, strike=strike, expiry=expiry, vol=vol, rate=rate, dividend_yield=dividend, is_call=is_call
    )
    rows = Rows(
        weight=take(portfolio.quantity) * take(portfolio.multiplier),
        sign=np.where(is_call, 1.0, -1.0),
        forward=spot * np.exp(-dividend * time),
        strike=strike * np.exp(-rate * time),
        log_moneyness=np.log(np.maximum(spot, SMALLEST) / np.maximum(strike, SMALLEST))
        + (rate - dividend) * time,
        vol=vol,
        time=time,
        root_time=np.maximum(np.sqrt(time), EXPIRED_ROOT_TIME),
        today=engine.price(today).price,
        underlying=take(portfolio.underlying),
        node=np.empty((0, 4), np.int64) if shocks.node is None else take(shocks.node),
        node_weight=np.empty((0, 4)) if shocks.node_weight is None else take(shocks.node_weight),
    )
    return Rows(*map(plain, rows))


@kernel
def _add_rows(rows, market, vol_moves, rate_moves, has_surface, start, stop, low, out):  # type: ignore[no-untyped-def]
    """Add the P&L of positions start..stop in the scenarios from ``low`` on to ``out``."""
    width = out.shape[0]
    block = np.empty(width)
    shift = np.zeros(width)
    for first in range(start, stop, BLOCK_POSITIONS):
        block[:] = 0.0
        for p in range(first, min(first + BLOCK_POSITIONS, stop)):
            _add_position(rows, market, vol_moves, rate_moves, has_surface, p, low, shift, block)
        for s in range(width):
            out[s] += block[s]


@kernel
def _write_rows(rows, market, vol_moves, rate_moves, has_surface, start, stop, low, out):  # type: ignore[no-untyped-def]
    """Write the P&L of positions start..stop in the scenarios from ``low`` on, one row each."""
    shift = np.zeros(out.shape[1])
    for p in range(start, stop):
        out[p - start, :] = 0.0
        _add_position(rows, market, vol_moves, rate_moves, has_surface, p, low, shift, out[p - start])


@kernel
def _add_position(rows, market, vol_moves, rate_moves, has_surface, p, low, shift, out):  # type: ignore[no-untyped-def]
    width = out.shape[0]
    u = rows.underlying[p]
    moves = market.spot_return[u, low : low + width]
    factors = market.spot_factor[u, low : low + width]
    weight, sign, today = rows.weight[p], rows.sign[p], rows.today[p]
    forward, strike, centre = rows.forward[p], rows.strike[p], rows.log_moneyness[p]
    vol, time, root = rows.vol[p], rows.time[p], rows.root_time[p]
    if not (vol_moves or rate_moves):
        deviation = max(vol, VOL_FLOOR) * root
        inverse = 1.0 / deviation
        for s in range(width):
            value = _value(sign, forward * factors[s], strike, centre + moves[s], deviation, inverse)
            out[s] += weight * (value - today)
        return
    vols = market.vol_change[u if market.vol_change.shape[0] > 1 else 0, low : low + width]
    if has_surface:
        for s in range(width):
            shift[s] = vols[s]
        for k in range(4):
            share = rows.node_weight[p, k]
            node = market.surface[rows.node[p, k], low : low + width]
            for s in range(width):
                shift[s] += share * node[s]
        vols = shift
    if not rate_moves:
        for s in range(width):
            deviation = max(vol + vols[s], VOL_FLOOR) * root
            value = _value(sign, forward * factors[s], strike, centre + moves[s], deviation, 1.0 / deviation)
            out[s] += weight * (value - today)
        return
    rates = market.rate_change[low : low + width]
    for s in range(width):
        deviation = max(vol + vols[s], VOL_FLOOR) * root
        carry = rates[s] * time
        value = _value(
            sign,
            forward * factors[s],
            strike * _exp(-carry),
            centre + moves[s] + carry,
            deviation,
            1.0 / deviation,
        )
        out[s] += weight * (value - today)
