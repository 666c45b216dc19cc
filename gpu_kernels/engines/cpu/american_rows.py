"""Kernels over blocks of American rows: boundaries once per row, then prices or slopes from them, many times.

A block is LANES rows side by side. Its state is one slice of a float64 array (blocks, STATE + angles, LANES):
the row seen as a put on a strike of 1, then h = log(X/B) at the angles of the premium integral. The last
block of a batch is filled up with copies of its last row, so that a row's result does not depend on the
number of rows after it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpu_kernels.engines.cpu import ops
from gpu_kernels.engines.cpu.american_one_row import angle_row, one_row_solver, premium_of_row
from gpu_kernels.engines.cpu.american_solver import (
    LANES,
    boundary_solver,
    carray,
    compiled,
    sizes_at,
    stack,
)
from gpu_kernels.engines.cpu.compile import kernel
from gpu_kernels.formulas.american import american
from gpu_kernels.formulas.american_tables import SCHEMES, Scheme
from gpu_kernels.formulas.black_scholes import black_scholes

put_frame, perpetual, bend, _, seed, _, _, premium_term, premium_slopes, unscaled, certain_value = american(
    ops
)
european_price, _, row_status = black_scholes(ops)
exp = ops.exp
sqrt = ops.sqrt

# Rows of a block's state, before the boundary.
LOG_SPOT, EXPIRY, VOL, RATE, YIELD, LOG_X, SCALE, EDGE, USABLE, KIND, FAR, GAP, LOG_RT, STATE = range(14)

NAN = float("nan")
INVALID_INPUT, NOT_CONVERGED = 2, 5
# log(S/B) is only looked at where both fit; beyond, the premium is 0 to the last digit.
MOST_LOG_SPOT = 700.0

input_rows = stack(8 * LANES)
h_rows = stack(96 * LANES)
MOST_NODES = 96

# Blocks with this many rows or fewer have each row's nodes, not its neighbours, side by side in a vector:
# the most rows for which that was measured to take less time. A block of `fast` has fewer nodes than a vector
# has room for twice over, and so gains less.
FEW_ROWS = {"fast": 5, "accurate": 12}
FEW_PREMIUMS = 4


@compiled
def load(block, rows, put):  # type: ignore[no-untyped-def]
    """Copy one block of seven columns, the last row repeated to fill it."""
    size = rows[0].shape[0]
    first = block * LANES
    count = min(LANES, size - first)
    for a in range(LANES):
        i = first + min(a, count - 1)
        put[0, a] = rows[0][i]
        put[1, a] = rows[1][i]
        put[2, a] = rows[2][i]
        put[3, a] = rows[3][i]
        put[4, a] = rows[4][i]
        put[5, a] = rows[5][i]
        put[6, a] = 1.0 if rows[6][i] else 0.0
    return count


@compiled
def frame_block(put, state, lanes):  # type: ignore[no-untyped-def]
    """The rows of a block as puts on a strike of 1."""
    for a in range(lanes):
        kind, usable, scale, x, t, v, r, q, log_x = put_frame(
            put[0, a], put[1, a], put[2, a], put[3, a], put[4, a], put[5, a], put[6, a] > 0.5
        )
        state[LOG_SPOT, a] = x
        state[EXPIRY, a] = t
        state[VOL, a] = v
        state[RATE, a] = r
        state[YIELD, a] = q
        state[LOG_X, a] = log_x
        state[SCALE, a] = scale
        state[USABLE, a] = 1.0 if usable else 0.0
        state[KIND, a] = kind
        state[FAR, a] = perpetual(v, r, q, log_x)
        gap, log_rt = bend(t, v, r, log_x)
        state[GAP, a] = gap
        state[LOG_RT, a] = log_rt


@compiled
def seed_block(state, at, h, lanes):  # type: ignore[no-untyped-def]
    """First guess of the boundary at the nodes."""
    for j in range(at.shape[0]):
        place = at[j, 0]
        for a in range(lanes):
            root = place * sqrt(state[EXPIRY, a])
            pull = state[RATE, a] - min(state[YIELD, a], 0.0)
            h[j, a] = seed(root, state[VOL, a], pull, state[LOG_X, a], state[FAR, a])


@compiled
def interpolate(matrix, places, g, one, lanes):  # type: ignore[no-untyped-def]
    """h at the angles of the premium integral, into the block's state."""
    size = carray(h_rows(), (MOST_NODES, LANES))
    sizes_at(places, one[GAP], one[LOG_RT], size, lanes)
    for k in range(matrix.shape[0]):
        for a in range(lanes):
            one[STATE + k, a] = 0.0
        for j in range(matrix.shape[1]):
            weight = matrix[k, j]
            for a in range(lanes):
                one[STATE + k, a] += weight * g[j, a]
        for a in range(lanes):
            one[STATE + k, a] = max(one[STATE + k, a] * size[k, a], 1e-14)


@compiled
def lanes_of(count):  # type: ignore[no-untyped-def]
    """How many lanes of a block to compute: whole vectors of eight."""
    return 8 if count <= 8 else LANES


def boundary_kernel(scheme: Scheme, few_rows: int) -> Any:
    """rows(columns, tables, steps, state): the boundary of every row; few rows are solved one by one."""
    solver = boundary_solver(scheme.nodes, scheme.angles)
    one_row = one_row_solver(scheme.nodes, scheme.angles)

    def rows(columns, tables, steps, state):  # type: ignore[no-untyped-def]
        at, places, cosine, inv_cosine, weight, matrix, sines, to_premium, across = tables
        put = carray(input_rows(), (8, LANES))
        h = carray(h_rows(), (MOST_NODES, LANES))
        few = carray(angle_row(), (MOST_NODES,))
        for block in range(state.shape[0]):
            one = state[block]
            count = load(block, columns, put)
            lanes = lanes_of(count)
            frame_block(put, one, lanes)
            if count <= few_rows:
                node_at, all_places, by_node, all_sines, by_angle = across
                for a in range(count):
                    one[EDGE, a] = one_row(
                        one[EXPIRY, a], one[VOL, a], one[RATE, a], one[YIELD, a], one[LOG_X, a], one[FAR, a],
                        one[GAP, a], one[LOG_RT, a], steps, node_at, all_places, cosine, inv_cosine, weight,
                        by_node, all_sines, by_angle, at.shape[0], sines.shape[0], few,
                    )  # fmt: skip
                    for k in range(sines.shape[0]):
                        one[STATE + k, a] = few[k]
                continue
            for a in range(lanes):
                put[0, a] = sqrt(one[EXPIRY, a])
            seed_block(one, at, h, lanes)
            solver(
                h, put[0], one[VOL], one[RATE], one[YIELD], one[LOG_X], one[GAP], one[LOG_RT], steps,
                at, places, cosine, inv_cosine, weight, matrix, lanes,
            )  # fmt: skip
            interpolate(to_premium, sines, h, one, lanes)
            sizes_at(at[:1], one[GAP], one[LOG_RT], put, lanes)
            for a in range(lanes):
                one[EDGE, a] = one[LOG_X, a] - h[0, a] * put[0, a]

    return rows


_fast_rows = compiled(boundary_kernel(SCHEMES["fast"], FEW_ROWS["fast"]))
_accurate_rows = compiled(boundary_kernel(SCHEMES["accurate"], FEW_ROWS["accurate"]))


# Functions of their own: the disk cache tells kernels apart by what they close over, and a compiled function
# in a closure is a new one in every process.
@kernel
def fast_boundaries(columns, tables, steps, state):  # type: ignore[no-untyped-def]
    """The boundaries of a batch, by the fast scheme."""
    _fast_rows(columns, tables, steps, state)


@kernel
def accurate_boundaries(columns, tables, steps, state):  # type: ignore[no-untyped-def]
    """The boundaries of a batch, by the accurate scheme."""
    _accurate_rows(columns, tables, steps, state)


@kernel
def move_spots(columns, state):  # type: ignore[no-untyped-def]
    """Put other spots and strikes in the state; its boundary, in units of the put's strike, stays."""
    put = carray(input_rows(), (8, LANES))
    for block in range(state.shape[0]):
        one = state[block]
        count = load(block, columns, put)
        for a in range(lanes_of(count)):
            _, usable, scale, x, _, _, _, _, _ = put_frame(
                put[0, a], put[1, a], put[2, a], put[3, a], put[4, a], put[5, a], put[6, a] > 0.5
            )
            one[LOG_SPOT, a] = x
            one[SCALE, a] = scale
            one[USABLE, a] = one[USABLE, a] if usable else 0.0


@kernel
def price_rows(columns, state, angles, price, status):  # type: ignore[no-untyped-def]
    """Value and status of each row from its boundary; rows with two boundaries get NaN and NOT_CONVERGED."""
    cosine, inv_cosine, weight = angles
    put = carray(input_rows(), (8, LANES))
    work = carray(h_rows(), (MOST_NODES, LANES))
    few = carray(angle_row(), (MOST_NODES,))
    for block in range(state.shape[0]):
        one = state[block]
        count = load(block, columns, put)
        lanes = lanes_of(count)
        if count <= FEW_PREMIUMS:
            for a in range(count):
                for k in range(cosine.shape[0]):
                    few[k] = one[STATE + k, a]
                x = min(max(one[LOG_SPOT, a], -MOST_LOG_SPOT), MOST_LOG_SPOT)
                work[6, a] = premium_of_row(
                    x, one[LOG_X, a], few, one[EXPIRY, a], one[VOL, a], one[RATE, a], one[YIELD, a],
                    cosine, inv_cosine, weight,
                )  # fmt: skip
            # The other lanes are computed and dropped.
            for a in range(count, lanes):
                work[6, a] = 0.0
                one[EDGE, a] = 0.0
        else:
            premium_block(one, cosine, inv_cosine, weight, work, lanes)
        for a in range(lanes):
            value, mark = settle(
                put[0, a], put[1, a], put[2, a], put[3, a], put[4, a], put[5, a], put[6, a] > 0.5,
                one[USABLE, a], one[KIND, a], one[EXPIRY, a], one[LOG_SPOT, a] <= one[EDGE, a],
                work[6, a] * one[SCALE, a],
            )  # fmt: skip
            work[0, a] = value
            work[1, a] = mark
        for a in range(count):
            price[block * LANES + a] = work[0, a]
            status[block * LANES + a] = np.uint8(work[1, a])


@compiled
def premium_block(one, cosine, inv_cosine, weight, work, lanes):  # type: ignore[no-untyped-def]
    """Premium of early exercise of a block, in units of the put's strike, into work[6]."""
    for a in range(lanes):
        root = sqrt(one[EXPIRY, a])
        v = one[VOL, a] * root
        work[0, a] = min(max(one[LOG_SPOT, a], -MOST_LOG_SPOT), MOST_LOG_SPOT)
        work[1, a] = exp(work[0, a])
        work[0, a] -= one[LOG_X, a]
        work[2, a] = one[RATE, a] * one[EXPIRY, a]
        work[3, a] = one[YIELD, a] * one[EXPIRY, a]
        work[4, a] = v
        work[5, a] = 1.0 / v
        work[6, a] = 0.0
    for k in range(cosine.shape[0]):
        c = cosine[k]
        inv_c = inv_cosine[k]
        w = weight[k]
        for a in range(lanes):
            r_tau = work[2, a]
            q_tau = work[3, a]
            work[6, a] += w * premium_term(
                work[0, a],
                one[STATE + k, a],
                work[1, a],
                r_tau - q_tau,
                r_tau,
                q_tau,
                work[4, a],
                work[5, a],
                c,
                inv_c,
            )


@ops.function
def settle(spot, strike, expiry, vol, rate, dividend_yield, is_call, usable, kind, span, exercised, premium):  # type: ignore[no-untyped-def]
    """Value and status of one row from its premium.

    Bounded from below by exercise now and by the European value.
    """
    european = european_price(
        spot, strike, span if usable > 0.5 else expiry, vol, rate, dividend_yield, is_call
    )
    now = max(spot - strike, 0.0) if is_call else max(strike - spot, 0.0)
    certain = certain_value(spot, strike, expiry, rate, dividend_yield, is_call)
    early = now if exercised else max(european + max(premium, 0.0), now)
    value = early if usable > 0.5 else max(certain, european)
    value = european if kind == 0.0 else value
    status = row_status(spot, strike, expiry, vol, rate, dividend_yield)
    value = now if expiry == 0.0 else value
    state = NOT_CONVERGED if kind == 2.0 and status == 0 else status
    state = state if value - value == 0.0 else (INVALID_INPUT if status == INVALID_INPUT else NOT_CONVERGED)
    return (value if state == status and status != INVALID_INPUT else NAN), state


@kernel
def slopes_rows(columns, state, angles, out):  # type: ignore[no-untyped-def]
    """What Greeks are made of, out (9, n).

    The premium and its first three derivatives with respect to spot, the expiry it was computed for, whether
    the row is exercised now, whether there is a premium at all, its kind, and log S/B of the put.
    """
    cosine, inv_cosine, weight = angles
    put = carray(input_rows(), (8, LANES))
    work = carray(h_rows(), (MOST_NODES, LANES))
    for block in range(state.shape[0]):
        one = state[block]
        count = load(block, columns, put)
        slopes_block(one, cosine, inv_cosine, weight, work, lanes_of(count))
        for a in range(count):
            i = block * LANES + a
            f0, f1, f2, f3 = unscaled(
                work[6, a], work[7, a], work[8, a], work[9, a], work[1, a], one[SCALE, a], put[6, a] > 0.5
            )
            out[0, i] = f0
            out[1, i] = f1
            out[2, i] = f2
            out[3, i] = f3
            out[4, i] = one[EXPIRY, a]
            out[5, i] = 1.0 if one[LOG_SPOT, a] <= one[EDGE, a] else 0.0
            out[6, i] = one[USABLE, a]
            out[7, i] = one[KIND, a]
            out[8, i] = one[LOG_SPOT, a] - one[EDGE, a]


@compiled
def slopes_block(one, cosine, inv_cosine, weight, work, lanes):  # type: ignore[no-untyped-def]
    """Premium and its derivatives of a block, in units of the put's strike, into work[6:10]."""
    for a in range(lanes):
        root = sqrt(one[EXPIRY, a])
        v = one[VOL, a] * root
        work[0, a] = min(max(one[LOG_SPOT, a], -MOST_LOG_SPOT), MOST_LOG_SPOT)
        work[1, a] = exp(work[0, a])
        work[0, a] -= one[LOG_X, a]
        work[2, a] = one[RATE, a] * one[EXPIRY, a]
        work[3, a] = one[YIELD, a] * one[EXPIRY, a]
        work[4, a] = v
        work[5, a] = 1.0 / v
        for m in range(6, 10):
            work[m, a] = 0.0
    for k in range(cosine.shape[0]):
        c = cosine[k]
        inv_c = inv_cosine[k]
        w = weight[k]
        for a in range(lanes):
            r_tau = work[2, a]
            q_tau = work[3, a]
            f0, f1, f2, f3 = premium_slopes(
                work[0, a], one[STATE + k, a], work[1, a], r_tau - q_tau, r_tau, q_tau, one[LOG_X, a],
                work[4, a], work[5, a], c, inv_c,
            )  # fmt: skip
            work[6, a] += w * f0
            work[7, a] += w * f1
            work[8, a] += w * f2
            work[9, a] += w * f3
