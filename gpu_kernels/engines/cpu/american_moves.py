"""American rows under scenarios that move vols and rates: boundaries interpolated between a few solved ones.

The boundary of an option is smooth in log vol and rate. So it is solved on a grid of both that spans the
scenarios, and the boundary of each scenario is a tensor of Chebyshev polynomials through the grid; the
premium integral is then taken from it as from a solved one. Every option is priced exactly in a few of its
scenarios, among them those of its lowest and highest vol and rate. Where that shows an error above TOLERANCE
of its spot, or the last coefficients do not vanish, every scenario of the option is priced exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.engines.cpu import chebyshev, ops
from gpu_kernels.engines.cpu.american import block_state
from gpu_kernels.engines.cpu.american_rows import (
    EDGE,
    EXPIRY,
    KIND,
    LOG_SPOT,
    LOG_X,
    RATE,
    SCALE,
    STATE,
    USABLE,
    VOL,
    YIELD,
    input_rows,
    load,
    premium_block,
    put_frame,
    settle,
)
from gpu_kernels.engines.cpu.american_solver import LANES, carray, stack
from gpu_kernels.engines.cpu.columns import plain
from gpu_kernels.engines.cpu.compile import kernel
from gpu_kernels.engines.cpu.threads import workers
from gpu_kernels.engines.engine import Engine
from gpu_kernels.formulas.american_tables import SCHEMES, angles
from gpu_kernels.options import Options
from gpu_kernels.portfolio import Portfolio
from gpu_kernels.revaluation import Shocks
from gpu_kernels.scenarios import VOL_FLOOR
from gpu_kernels.shocked_options import kinked_in_rate, options_of, vol_changes

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

METHOD = "accurate"
# Angles of the premium integral and their crowding, as in single prices.
PREMIUM = (SCHEMES[METHOD].premium, 1)
# Solved boundaries along log vol and along the rate; a side that does not move has one.
VOL_NODES = 8
RATE_NODES = 5
# Fewer scenarios than this many times the boundaries are priced one by one.
WORTHWHILE = 3
# Largest error accepted in the scenarios that are checked, as a part of spot.
TOLERANCE = 1e-7
# Scenarios checked beside those of the lowest and highest vol and rate.
CHECKS = 4
# The last coefficients of log(X/B), as they are in it: the premium's error is of their square.
TAIL = 1e-2
TWO_BOUNDARIES = 2.0
# Scenarios whose vols are held at once.
SCENARIOS_AT_ONCE = 4096
BLOCK_ROWS = 2 * LANES
WORK_ROWS = 16
MOST_PRODUCTS = VOL_NODES * RATE_NODES
# Products that are added at once, the last few with coefficients of 0.
GROUP = 4

log = ops.log
work_rows = stack(WORK_ROWS * LANES)
basis_rows = stack(MOST_PRODUCTS * LANES)
vol_rows = stack((VOL_NODES + 2) * LANES)
rate_rows = stack((RATE_NODES + 2) * LANES)


def moved_pnl(engine: Engine, portfolio: Portfolio, shocks: Shocks, out: Floats) -> Integers:
    """Write P&L (P, S) through interpolated boundaries; returns the rows it is not good enough for."""
    counts = (
        VOL_NODES if shocks.vol_change.any() or shocks.surface is not None else 1,
        RATE_NODES if shocks.rate_change is not None else 1,
    )
    every = np.arange(portfolio.options)
    if shocks.scenarios < WORTHWHILE * counts[0] * counts[1]:
        return every
    rates = np.zeros(shocks.scenarios) if shocks.rate_change is None else shocks.rate_change
    lost = kinked_in_rate(portfolio, float(rates.min()), float(rates.max()))
    today = engine.price(options_of(portfolio)).price

    def work(start: int, stop: int) -> None:
        part = portfolio.rows(every[start:stop])
        own = shocks.of_rows(every[start:stop])
        lost[start:stop] |= _block(engine, part, own, rates, counts, today[start:stop], out[start:stop])

    workers().run(portfolio.options, work, BLOCK_ROWS)
    return np.flatnonzero(lost | np.isnan(out).any(axis=1))


def _block(
    engine: Engine,
    part: Portfolio,
    shocks: Shocks,
    rates: Floats,
    counts: tuple[int, int],
    today: Floats,
    out: Floats,
) -> NDArray[np.bool_]:
    """P&L of a few rows; which of them are to be priced exactly."""
    spans = [
        slice(start, start + SCENARIOS_AT_ONCE) for start in range(0, shocks.scenarios, SCENARIOS_AT_ONCE)
    ]
    low, high = np.full(part.options, np.inf), np.full(part.options, -np.inf)
    for span in spans:
        vols = _vols(part, shocks, span)
        low, high = np.minimum(low, vols.min(axis=1)), np.maximum(high, vols.max(axis=1))
    left = np.maximum(part.expiry - shocks.elapsed, 0.0)
    given = (part.spot, part.strike, left, low, part.rate, part.dividend_yield, part.is_call)
    columns = tuple(map(plain, given))
    ends = (np.log(low), np.log(high), part.rate + rates.min(), part.rate + rates.max())
    coefficients, lost = _boundaries(columns, ends, counts)
    blocks = -(-part.options // LANES)
    filled = np.minimum(np.arange(blocks * LANES), part.options - 1)
    middles = ((ends[0] + ends[1]) / 2.0, (ends[2] + ends[3]) / 2.0)
    halves = (chebyshev.inverse_half(ends[1] - ends[0]), chebyshev.inverse_half(ends[3] - ends[2]))
    scales = np.stack((middles[0], halves[0], middles[1], halves[1]))
    rule = angles(*PREMIUM)
    wide = -coefficients.shape[1] % GROUP
    padded = np.pad(coefficients, ((0, 0), (0, wide), (0, 0)))
    packed = np.ascontiguousarray(
        padded[filled].reshape(blocks, LANES, *padded.shape[1:]).transpose(0, 3, 2, 1)
    )
    packed_scales = np.ascontiguousarray(scales[:, filled].reshape(4, blocks, LANES).transpose(1, 0, 2))
    power = np.pad(
        chebyshev.orders(*counts)[:, _used(counts)], ((0, 0), (0, packed.shape[2] - coefficients.shape[1]))
    )
    for span in spans:
        vols = _vols(part, shocks, span)
        lanes = np.ascontiguousarray(vols[filled].reshape(blocks, LANES, -1).transpose(0, 2, 1))
        factors = np.exp(shocks.spot_return[:, span])
        piece = np.empty(vols.shape)
        _under_moves(
            columns,
            plain(part.underlying),
            factors,
            lanes,
            np.ascontiguousarray(rates[span]),
            np.empty((STATE + PREMIUM[0], LANES)),
            packed,
            packed_scales,
            power,
            (rule.cosine, rule.inv_cosine, rule.weight),
            LANES,
            piece,
        )
        out[:, span] = piece
    lost |= _wrong(engine, part, shocks, rates, out)
    out -= today[:, None]
    out *= (part.quantity * part.multiplier)[:, None]
    return lost


def _vols(part: Portfolio, shocks: Shocks, span: slice) -> Floats:
    """Shocked vols of the rows in some of the scenarios."""
    own = Shocks(
        spot_return=shocks.spot_return[:, span],
        vol_change=shocks.vol_change[:, span],
        rate_change=None,
        elapsed=shocks.elapsed,
        surface=None if shocks.surface is None else shocks.surface[:, span],
        node=shocks.node,
        node_weight=shocks.node_weight,
    )
    return np.maximum(part.vol[:, None] + vol_changes(part, own), VOL_FLOOR)


def _boundaries(
    columns: tuple[NDArray[np.generic], ...], ends: tuple[Floats, ...], counts: tuple[int, int]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Coefficients (P, M, 1 + angles) of the boundary at expiry and at the angles; rows they do not fit."""
    number, every = len(ends[0]), counts[0] * counts[1]
    log_vols = chebyshev.scaled_nodes(counts[0], ends[0], ends[1])
    rates = chebyshev.scaled_nodes(counts[1], ends[2], ends[3])
    grid = [np.repeat(column, every) for column in columns]
    grid[3] = np.repeat(np.exp(log_vols), counts[1], axis=1).reshape(-1)
    grid[4] = np.tile(rates, (1, counts[0])).reshape(-1)
    state = block_state(tuple(grid), METHOD, PREMIUM)
    rows = state.swapaxes(1, 2).reshape(-1, state.shape[1])[: number * every]
    values = np.concatenate([rows[:, EDGE : EDGE + 1], rows[:, STATE:]], axis=1)
    power, used = chebyshev.orders(*counts), _used(counts)
    matrix = chebyshev.mixed(*counts)
    coefficients = np.einsum("mn,pnk->pmk", matrix, values.reshape(number, every, -1), optimize=True)
    tail = np.zeros(number)
    for order in power:
        if order.any():
            last = np.abs(coefficients[:, order == order.max()]).sum(axis=1).max(axis=1)
            tail = np.maximum(tail, last)
    usable, kind = (rows[:, place].reshape(number, every) for place in (USABLE, KIND))
    # Where no node has a boundary none is read: such a row is not exercised early in any scenario.
    mixed = (usable != usable[:, :1]).any(axis=1) | (kind == TWO_BOUNDARIES).any(axis=1)
    return coefficients[:, used], np.asarray(mixed | ~(tail <= TAIL))


def _used(counts: tuple[int, int]) -> NDArray[np.bool_]:
    """Products that are used: what is high in both vol and rate is as small as what was never there."""
    vol, rate = chebyshev.orders(*counts)
    return np.asarray(vol * (counts[1] - 1) + rate * (counts[0] - 1) <= (counts[0] - 1) * (counts[1] - 1))


def _wrong(
    engine: Engine, part: Portfolio, shocks: Shocks, rates: Floats, values: Floats
) -> NDArray[np.bool_]:
    """Rows whose values in a few of their scenarios are not those of single prices."""
    count = shocks.scenarios
    ends = [int(rates.argmin()), int(rates.argmax())]
    spread = [(2 * number + 1) * count // (2 * CHECKS) for number in range(CHECKS)]
    common = np.array(sorted({*ends, *spread}))
    change = vol_changes(part, shocks)
    at = np.concatenate(
        [np.tile(common, (part.options, 1)), change.argmin(axis=1)[:, None], change.argmax(axis=1)[:, None]],
        axis=1,
    )
    row = np.arange(part.options)[:, None]

    def wide(column: NDArray[np.generic]) -> NDArray[np.generic]:
        return np.ascontiguousarray(np.broadcast_to(column[:, None], at.shape))

    exact = engine.price(
        Options(
            spot=part.spot[:, None] * np.exp(shocks.spot_return[part.underlying[:, None], at]),
            strike=wide(part.strike),
            expiry=wide(np.maximum(part.expiry - shocks.elapsed, 0.0)),
            vol=np.maximum(part.vol[:, None] + change[row, at], VOL_FLOOR),
            rate=part.rate[:, None] + rates[at],
            dividend_yield=wide(part.dividend_yield),
            is_call=wide(part.is_call),
            american=True,
        )
    ).price
    error = np.abs(values[row, at] - exact)
    return np.asarray(~(error <= TOLERANCE * part.spot[:, None]).all(axis=1))


@kernel
def _under_moves(  # type: ignore[no-untyped-def]
    columns, underlying, factors, vols, rates, one, coefficients, scales, power, angles, lanes, out
):
    """Value of each row in every scenario, its boundary summed from coefficients (block, angle, M, lane)."""
    cosine, inv_cosine, quadrature = angles
    put = carray(input_rows(), (8, LANES))
    work = carray(work_rows(), (WORK_ROWS, LANES))
    basis = carray(basis_rows(), (MOST_PRODUCTS, LANES))
    of_vol = carray(vol_rows(), (VOL_NODES + 2, LANES))
    of_rate = carray(rate_rows(), (RATE_NODES + 2, LANES))
    products = power.shape[1]
    most_vol, most_rate = 0, 0
    for m in range(products):
        most_vol = max(most_vol, power[0, m])
        most_rate = max(most_rate, power[1, m])
    for block in range(coefficients.shape[0]):
        count = load(block, columns, put)
        own, scale = coefficients[block], scales[block]
        for a in range(lanes):
            work[8, a] = put[0, a]
            work[9, a] = put[4, a]
        for s in range(factors.shape[1]):
            for a in range(lanes):
                put[0, a] = work[8, a] * factors[underlying[block * LANES + min(a, count - 1)], s]
                put[3, a] = vols[block, s, a]
                put[4, a] = work[9, a] + rates[s]
            for a in range(lanes):
                kind, usable, size, x, t, v, r, q, log_x = put_frame(
                    put[0, a], put[1, a], put[2, a], put[3, a], put[4, a], put[5, a], put[6, a] > 0.5
                )
                one[LOG_SPOT, a] = x
                one[EXPIRY, a] = t
                one[VOL, a] = v
                one[RATE, a] = r
                one[YIELD, a] = q
                one[LOG_X, a] = log_x
                one[SCALE, a] = size
                one[USABLE, a] = 1.0 if usable else 0.0
                one[KIND, a] = kind
                of_vol[0, a] = 1.0
                of_vol[1, a] = (log(put[3, a]) - scale[0, a]) * scale[1, a]
                of_rate[0, a] = 1.0
                of_rate[1, a] = (put[4, a] - scale[2, a]) * scale[3, a]
            for i in range(2, most_vol + 1):
                for a in range(lanes):
                    of_vol[i, a] = 2.0 * of_vol[1, a] * of_vol[i - 1, a] - of_vol[i - 2, a]
            for i in range(2, most_rate + 1):
                for a in range(lanes):
                    of_rate[i, a] = 2.0 * of_rate[1, a] * of_rate[i - 1, a] - of_rate[i - 2, a]
            for m in range(products):
                i, j = power[0, m], power[1, m]
                for a in range(lanes):
                    basis[m, a] = of_vol[i, a] * of_rate[j, a]
            for k in range(own.shape[0]):
                for a in range(lanes):
                    work[10, a] = 0.0
                for m in range(0, products, 4):
                    for a in range(lanes):
                        work[10, a] += (own[k, m, a] * basis[m, a] + own[k, m + 1, a] * basis[m + 1, a]) + (
                            own[k, m + 2, a] * basis[m + 2, a] + own[k, m + 3, a] * basis[m + 3, a]
                        )
                if k == 0:
                    for a in range(lanes):
                        one[EDGE, a] = work[10, a]
                else:
                    for a in range(lanes):
                        one[STATE + k - 1, a] = max(work[10, a], 1e-14)
            premium_block(one, cosine, inv_cosine, quadrature, work, lanes)
            for a in range(lanes):
                value, mark = settle(
                    put[0, a], put[1, a], put[2, a], put[3, a], put[4, a], put[5, a], put[6, a] > 0.5,
                    one[USABLE, a], one[KIND, a], one[EXPIRY, a], one[LOG_SPOT, a] <= one[EDGE, a],
                    work[6, a] * one[SCALE, a],
                )  # fmt: skip
                work[0, a] = value + 0.0 * mark
            for a in range(count):
                out[block * LANES + a, s] = work[0, a]
