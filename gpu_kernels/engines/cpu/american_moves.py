"""American rows under scenarios that move vols and rates: boundaries interpolated between a few solved ones.

The boundary of an option is smooth in log vol and in the rate or its logarithm. So it is solved on a grid of
both that spans the scenarios, and the boundary of each scenario is a tensor of Chebyshev polynomials through
the grid; the premium integral is then taken from it as from a solved one. The last coefficients bound what
the tensor misses, and by the integral's derivative what that does to a value at any spot. Rows whose bound is
above TOLERANCE of their spot go on to a finer grid, and from the finest to single prices.
"""

from __future__ import annotations

from typing import Any

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
from gpu_kernels.portfolio import Portfolio
from gpu_kernels.revaluation import Shocks
from gpu_kernels.scenarios import VOL_FLOOR
from gpu_kernels.shocked_options import kinked_in_rate, options_of, vol_changes

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

METHOD = "accurate"
# Angles of the premium integral and their crowding, as in single prices.
PREMIUM = (SCHEMES[METHOD].premium, 1)
# Solved boundaries along log vol and along the rate; a side that does not move has one. What the first pair
# of numbers does not do for goes on to the next.
LEVELS = ((5, 4), (7, 6), (8, 10))
VOL_NODES, RATE_NODES = LEVELS[-1]
# Fewer scenarios than this many times the boundaries are priced one by one.
WORTHWHILE = 3
# Rows whose error bound is larger, as a part of spot, are priced one by one.
TOLERANCE = 1e-6
# The bound is taken for so many times what the coefficients say.
SAFETY = 2.0
# Wider ranges of log vol, such as those that reach the floor, are too much for so few coefficients to tell.
WIDEST_VOLS = 1.5
TWO_BOUNDARIES = 2.0
# Scenarios whose vols are held at once.
SCENARIOS_AT_ONCE = 4096
BLOCK_ROWS = 2 * LANES
WORK_ROWS = 16
MOST_PRODUCTS = VOL_NODES * RATE_NODES
# Keeps the logarithm of a rate a number where it is not used.
SMALLEST_RATE = 1e-300
# Coefficients that fall off more slowly, or not at all, are taken to fall by this ratio.
SLOWEST = 0.9
# Stands for a spot of 0 in quotients.
SMALLEST = 1e-290
# Products that are added at once, the last few with coefficients of 0.
GROUP = 4

log = ops.log
work_rows = stack(WORK_ROWS * LANES)
basis_rows = stack(MOST_PRODUCTS * LANES)
vol_rows = stack((VOL_NODES + 2) * LANES)
rate_rows = stack((RATE_NODES + 2) * LANES)


def moved_pnl(engine: Engine, portfolio: Portfolio, shocks: Shocks, out: Floats) -> Integers:
    """Write P&L (P, S) through interpolated boundaries; returns the rows it is not good enough for."""
    vols_move = bool(shocks.vol_change.any()) or shocks.surface is not None
    rates = np.zeros(shocks.scenarios) if shocks.rate_change is None else shocks.rate_change
    lost = kinked_in_rate(portfolio, float(rates.min()), float(rates.max()))
    left = np.flatnonzero(~lost)
    today = engine.price(options_of(portfolio)).price
    for vol_nodes, rate_nodes in LEVELS:
        counts = (vol_nodes if vols_move else 1, rate_nodes if shocks.rate_change is not None else 1)
        if not left.size or shocks.scenarios < WORTHWHILE * counts[0] * counts[1]:
            break
        left = left[_on_grid(portfolio, shocks, rates, counts, today, left, out)]
    lost[left] = True
    return np.flatnonzero(lost)


def _on_grid(
    portfolio: Portfolio,
    shocks: Shocks,
    rates: Floats,
    counts: tuple[int, int],
    today: Floats,
    rows: Integers,
    out: Floats,
) -> NDArray[np.bool_]:
    """Write the P&L of some rows; which of them need more boundaries than ``counts``."""
    wrong = np.zeros(len(rows), dtype=bool)

    def work(start: int, stop: int) -> None:
        own = rows[start:stop]
        pnl = np.empty((len(own), shocks.scenarios))
        bad = _block(portfolio.rows(own), shocks.of_rows(own), rates, counts, today[own], pnl)
        good = ~bad
        wrong[start:stop] = bad
        wrong[start:stop][good] = np.isnan(pnl[good]).any(axis=1)
        out[own[good]] = pnl[good]

    workers().run(len(rows), work, BLOCK_ROWS)
    return wrong


def _block(
    part: Portfolio,
    shocks: Shocks,
    rates: Floats,
    counts: tuple[int, int],
    today: Floats,
    out: Floats,
) -> NDArray[np.bool_]:
    """Write the P&L of a few rows; of those for which this grid will not do, which it says, nothing."""
    spans = [
        slice(start, start + SCENARIOS_AT_ONCE) for start in range(0, shocks.scenarios, SCENARIOS_AT_ONCE)
    ]
    low, high = np.full(part.options, np.inf), np.full(part.options, -np.inf)
    for span in spans:
        vols = _vols(part, shocks, span)
        low, high = np.minimum(low, vols.min(axis=1)), np.maximum(high, vols.max(axis=1))
    left = np.maximum(part.expiry - shocks.elapsed, 0.0)
    given = (part.spot, part.strike, left, low, part.rate, part.dividend_yield, part.is_call)
    columns: tuple[Any, ...] = tuple(map(plain, given))
    least, most = part.rate + rates.min(), part.rate + rates.max()
    # The boundary is smoother in the logarithm of the rate, and for a call above its yield, than in the rate.
    in_logs = (least > 0.0) & (~part.is_call | (least > part.dividend_yield))
    ends = (np.log(low), np.log(high), _rate_place(least, in_logs), _rate_place(most, in_logs))
    coefficients, bound = _boundaries(columns, ends, in_logs, counts)
    # In units of today's spot: a call's is the shocked spot, at most.
    highest = np.exp(shocks.spot_return.max(axis=1))[part.underlying]
    bound *= np.where(part.is_call, highest, np.divide(part.strike, np.maximum(part.spot, SMALLEST)))
    bound = np.where(ends[1] - ends[0] > WIDEST_VOLS, np.inf, SAFETY * bound)
    good = np.flatnonzero(bound <= TOLERANCE)
    lost = ~(bound <= TOLERANCE)
    if not good.size:
        return lost
    if good.size < part.options:
        part, shocks, coefficients = part.rows(good), shocks.of_rows(good), coefficients[good]
        columns = tuple(np.ascontiguousarray(column[good]) for column in columns)
        ends = (ends[0][good], ends[1][good], ends[2][good], ends[3][good])
        in_logs, today = in_logs[good], today[good]
    blocks = -(-part.options // LANES)
    filled = np.minimum(np.arange(blocks * LANES), part.options - 1)
    middles = ((ends[0] + ends[1]) / 2.0, (ends[2] + ends[3]) / 2.0)
    halves = (chebyshev.inverse_half(ends[1] - ends[0]), chebyshev.inverse_half(ends[3] - ends[2]))
    scales = np.stack((middles[0], halves[0], middles[1], halves[1], in_logs.astype(np.float64)))
    rule = angles(*PREMIUM)
    wide = -coefficients.shape[1] % GROUP
    padded = np.pad(coefficients, ((0, 0), (0, wide), (0, 0)))
    packed = np.ascontiguousarray(
        padded[filled].reshape(blocks, LANES, *padded.shape[1:]).transpose(0, 3, 2, 1)
    )
    packed_scales = np.ascontiguousarray(scales[:, filled].reshape(5, blocks, LANES).transpose(1, 0, 2))
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
        out[good, span] = (piece - today[:, None]) * (part.quantity * part.multiplier)[:, None]
    return lost


def _rate_place(rate: Floats, in_logs: NDArray[np.bool_]) -> Floats:
    """Where a rate lies along its side of the grid: its logarithm, or itself."""
    return np.where(in_logs, np.log(np.where(in_logs, rate, 1.0)), rate)


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
    columns: tuple[NDArray[np.generic], ...],
    ends: tuple[Floats, ...],
    in_logs: NDArray[np.bool_],
    counts: tuple[int, int],
) -> tuple[Floats, Floats]:
    """Coefficients (P, M, 1 + angles) of the boundary at expiry and at the angles; the bound of their error.

    The bound (P,) is that of the value in units of the put's strike, taking what the coefficients leave out
    for what `_missing` says.
    """
    number, every = len(ends[0]), counts[0] * counts[1]
    log_vols = chebyshev.scaled_nodes(counts[0], ends[0], ends[1])
    places = chebyshev.scaled_nodes(counts[1], ends[2], ends[3])
    rates = np.where(in_logs[:, None], np.exp(np.where(in_logs[:, None], places, 0.0)), places)
    grid = [np.repeat(column, every) for column in columns]
    grid[3] = np.repeat(np.exp(log_vols), counts[1], axis=1).reshape(-1)
    grid[4] = np.tile(rates, (1, counts[0])).reshape(-1)
    state = block_state(tuple(grid), METHOD, PREMIUM)
    rows = state.swapaxes(1, 2).reshape(-1, state.shape[1])[: number * every]
    values = np.concatenate([rows[:, EDGE : EDGE + 1], rows[:, STATE:]], axis=1)
    power, used = chebyshev.orders(*counts), _used(counts)
    matrix = chebyshev.mixed(*counts)
    coefficients = np.einsum("mn,pnk->pmk", matrix, values.reshape(number, every, -1), optimize=True)
    usable, kind = (rows[:, place].reshape(number, every) for place in (USABLE, KIND))
    # Where no node has a boundary none is read: such a row is not exercised early in any scenario.
    mixed = (usable != usable[:, :1]).any(axis=1) | (kind == TWO_BOUNDARIES).any(axis=1)
    missing = np.abs(coefficients[:, ~used]).sum(axis=1)
    for order in power:
        if order.any():
            missing += _missing(
                *(np.abs(coefficients[:, order == order.max() - k]).sum(axis=1) for k in (0, 1))
            )
    bound = np.where(usable[:, 0] > 0.5, _premium_bound(rows, missing), 0.0)
    return coefficients[:, used], np.where(mixed | np.isnan(bound), np.inf, bound)


def _missing(last: Floats, before: Floats) -> Floats:
    """What lies beyond the last coefficients: no less than they are, more where they fall off slowly.

    Falling off as they last did, by a ratio r at each step, the rest adds up to r / (1 − r) of them.
    """
    ratio = np.divide(last, before, out=np.full_like(last, SLOWEST), where=before > 0.0)
    ratio = np.minimum(ratio, SLOWEST)
    return np.asarray(last * np.maximum(ratio / (1.0 - ratio), 1.0))


def _premium_bound(rows: Floats, missing: Floats) -> Floats:
    """What an error of the boundary can do to a value at any spot (P,), as a part of the put's strike.

    ``missing`` (P, 1 + angles) is that of log B at expiry and of h = log(X/B) at the angles. The premium is
    an integral over u of r e^(−ru) N(−d−) − q S e^(−qu) N(−d+); its derivative to log B at u is
    e^(−ru) (r − qB) φ(d−) / (vol √u), and φ is at most 1/√(2π). An integrand can change by no more than
    e^(−ru) |r − qB|. Exercise at a wrong spot costs ½ Γ S² of the square, and Γ S² = 2 (r − qB) / vol² there.
    """
    number = len(missing)
    rule = angles(*PREMIUM)
    expiry, vol, rate, dividend, log_x = (
        rows[:, place].reshape(number, -1, 1) for place in (EXPIRY, VOL, RATE, YIELD, LOG_X)
    )
    boundary = np.exp(log_x - rows[:, STATE:].reshape(number, -1, len(rule.weight)))
    gain = np.abs(rate - dividend * boundary)
    square = np.square(rule.cosine)
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = missing[:, None, 1:] / (np.sqrt(2.0 * np.pi * expiry) * vol * rule.cosine)
        change = gain * np.exp(-rate * expiry * square) * expiry * np.minimum(moved, 1.0) * rule.weight
        wrong = gain[:, :, 0] / np.square(vol[:, :, 0]) * np.square(missing[:, :1])
        return np.asarray((change.sum(axis=2) + wrong).max(axis=1))


def _used(counts: tuple[int, int]) -> NDArray[np.bool_]:
    """Products that are used: what is high in both vol and rate is as small as what was never there."""
    vol, rate = chebyshev.orders(*counts)
    return np.asarray(vol * (counts[1] - 1) + rate * (counts[0] - 1) <= (counts[0] - 1) * (counts[1] - 1))


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
                along = log(max(put[4, a], SMALLEST_RATE)) if scale[4, a] > 0.5 else put[4, a]
                of_rate[1, a] = (along - scale[2, a]) * scale[3, a]
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
