"""The CUDA kernels of American options: one thread per node of the boundary, a few options in each block.

The threads of an option solve for its boundary together, by Newton's method on all nodes at once: each sets
up and eliminates its own row of the Jacobian in shared memory (Gauss and Jordan without pivoting; the
diagonal dominates, since a node's own derivative is the largest). Then they share the angles of the premium.
"""

from __future__ import annotations

import numpy as np
from cupyx import jit

from gpu_kernels.engines.cuda import ops
from gpu_kernels.engines.cuda.compile import (
    BYTES_OUT,
    COUNT,
    FLOATS,
    FLOATS_OUT,
    OPTION_COLUMNS,
    as_byte,
    as_pointer,
    device,
    kernel,
    not_a_number,
    option_row,
    quotient,
    where,
)
from gpu_kernels.formulas.american import american
from gpu_kernels.formulas.black_scholes import black_scholes

# Threads of a block; a multiple of every scheme's number of nodes.
THREADS = 64
MOST_NODES, MOST_ANGLES = 16, 12
# Numbers that a thread has in shared memory, each beside those of its neighbours: a row of the Jacobian with
# its right side (first the derivatives of the equation's right side), the derivatives of its left side, the
# shape at the places of the integral, and the unknown.
LEFT = MOST_NODES + 1
SHAPES = LEFT + MOST_ANGLES
UNKNOWN = SHAPES + MOST_ANGLES
NUMBERS = (UNKNOWN + 1) * THREADS

LEAST_SUM = 1e-300
LEAST_H = 1e-14
MOST_LOG_SPOT = 700.0
INVALID_INPUT, NOT_CONVERGED = 2, 5
DOUBLE = 2

exp, log, sqrt, maximum, minimum = ops.exp, ops.log, ops.sqrt, ops.maximum, ops.minimum
(
    _put_frame,
    _perpetual,
    _bend,
    _shape,
    _seed,
    _edge_term,
    _integral_term,
    _premium_term,
    _premium_slopes,
    _unscaled,
    _certain_value,
) = american(ops)
_european_price, _, _row_status = black_scholes(ops)

# Size and `varies`; nodes, angles, Newton steps and angles of the premium; the tables of `american.tables`;
# then columns, numbers and results as for European options.
SCHEME = (*[COUNT] * 4, *[FLOATS] * 11)


@device
def _shape_at(table, row, gap, log_rt):  # type: ignore[no-untyped-def]
    """`shape` at one row of a table of places."""
    return _shape(table[row * 4], table[row * 4 + 1], table[row * 4 + 2], table[row * 4 + 3], gap, log_rt)


@device
def _interpolated(matrix, row, shared, first, nodes):  # type: ignore[no-untyped-def]
    """The polynomial through the option's unknowns, at the place that a row of the matrix belongs to."""
    total = 0.0
    for j in range(nodes):
        total += matrix[row * nodes + j] * shared[UNKNOWN * THREADS + first + j]
    return total


@device
def _solve(  # type: ignore[no-untyped-def]
    shared, thread, first, i, nodes, angles, steps, at, places, cosine, inv_cosine, weight, matrix,
    t, v, r, q, log_x, gap, log_rt,
):  # fmt: skip
    """h at this thread's node. All threads of a block come here together; the unknowns stay in `shared`."""
    place = at[i * 4]
    root = sqrt(t)
    size = _shape_at(at, i, gap, log_rt)
    far = _perpetual(v, r, q, log_x)
    g = _seed(place * root, v, r - minimum(q, 0.0), log_x, far) / size
    shared[UNKNOWN * THREADS + thread] = g
    for k in range(angles):
        shared[(SHAPES + k) * THREADS + thread] = _shape_at(places, i * angles + k, gap, log_rt)
    deviation = place * (v * root)
    inverse = 1.0 / deviation
    r_tau = r * (place * place) * t
    q_tau = q * (place * place) * t
    carry = r_tau - q_tau
    lag = q_tau * inverse
    for _ in range(steps):
        # Everyone's unknowns are there.
        jit.syncthreads()
        h = g * size
        left, edge_slope = _edge_term(h, log_x, q_tau, carry, deviation, inverse)
        lead = r_tau * inverse * exp(h - log_x)
        right = 0.0
        gains = 0.0
        for k in range(angles):
            g_u = _interpolated(matrix, i * angles + k, shared, first, nodes)
            h_u = maximum(g_u * shared[(SHAPES + k) * THREADS + thread], 0.0)
            below, density, strike_density, slope = _integral_term(
                h, h_u, carry, q_tau, deviation, inverse, cosine[k], inv_cosine[k]
            )
            gain = weight[k] * inv_cosine[k] * lead * strike_density
            cost = weight[k] * inv_cosine[k] * lag * density
            left += q_tau * weight[k] * below
            right += gain - cost
            gains += gain
            shared[(LEFT + k) * THREADS + thread] = cost
            shared[k * THREADS + thread] = cost - (gain - cost) * slope
        # Far from the solution either side may round to nothing.
        left = maximum(left, LEAST_SUM)
        right = maximum(right, LEAST_SUM)
        own = edge_slope / left - gains / right
        for k in range(angles):
            one = shared[(LEFT + k) * THREADS + thread] / left - shared[k * THREADS + thread] / right
            own -= one
            shared[(LEFT + k) * THREADS + thread] = one * shared[(SHAPES + k) * THREADS + thread]
        for j in range(nodes):
            total = where(i == j, own * size, 0.0)
            for k in range(angles):
                total += matrix[(i * angles + k) * nodes + j] * shared[(LEFT + k) * THREADS + thread]
            shared[j * THREADS + thread] = total
        shared[nodes * THREADS + thread] = log(left / right)
        for p in range(nodes):
            if p == i:
                pivot = 1.0 / shared[p * THREADS + thread]
                for j in range(p + 1, nodes + 1):
                    shared[j * THREADS + thread] *= pivot
            # Row p is ready, and nobody reads row p - 1 any more.
            jit.syncthreads()
            if p != i:
                factor = shared[p * THREADS + thread]
                for j in range(p + 1, nodes + 1):
                    shared[j * THREADS + thread] -= factor * shared[j * THREADS + first + p]
        g = minimum(maximum(g - shared[nodes * THREADS + thread], 0.3 * g), 3.0 * g)
        shared[UNKNOWN * THREADS + thread] = g
    jit.syncthreads()
    return g * size


@device
def _premium_h(shared, first, nodes, k, sines, to_premium, gap, log_rt):  # type: ignore[no-untyped-def]
    """h at one angle of the premium."""
    g = _interpolated(to_premium, k, shared, first, nodes)
    return maximum(g * _shape_at(sines, k, gap, log_rt), LEAST_H)


@device
def _settle(spot, strike, expiry, vol, rate, dividend_yield, is_call, usable, kind, span, exercised, premium):  # type: ignore[no-untyped-def]
    """Value and status of a row from its premium, bounded by exercise now and by the European value."""
    europe = _european_price(spot, strike, where(usable, span, expiry), vol, rate, dividend_yield, is_call)
    now = maximum(where(is_call, spot - strike, strike - spot), 0.0)
    certain = maximum(_certain_value(spot, strike, expiry, rate, dividend_yield, is_call), europe)
    single = where(exercised, now, maximum(europe + maximum(premium, 0.0), now))
    value = where(kind == 0, europe, where(usable, single, certain))
    value = where(expiry == 0.0, now, value)
    status = _row_status(spot, strike, expiry, vol, rate, dividend_yield)
    # The last is false for infinite and NaN.
    lost = ((kind == DOUBLE) & (status == 0)) | ((status != INVALID_INPUT) & ~(value - value == 0.0))
    status = where(lost, NOT_CONVERGED, status)
    return where(lost | (status == INVALID_INPUT), not_a_number(), value), status


@kernel(COUNT, COUNT, *SCHEME, *OPTION_COLUMNS, FLOATS_OUT, BYTES_OUT, threads=THREADS, blocks=5)
def american_price_rows(  # type: ignore[no-untyped-def]
    size, varies, nodes, angles, steps, premium,
    at, places, cosine, inv_cosine, weight, matrix, sines, to_premium, p_cosine, p_inv_cosine, p_weight,
    spot, strike, expiry, vol, rate, dividend_yield, is_call,
    one_spot, one_strike, one_expiry, one_vol, one_rate, one_dividend_yield, one_is_call,
    price, status,
):  # fmt: skip
    memory = jit.shared_memory(np.float64, NUMBERS)
    shared = as_pointer(memory)
    thread = np.int64(jit.threadIdx.x)
    group = quotient(thread, nodes)
    first = group * nodes
    i = thread - first
    groups = quotient(np.int64(THREADS), nodes)
    for start in range(np.int64(jit.blockIdx.x) * groups, size, np.int64(jit.gridDim.x) * groups):
        # Threads beyond the last row do its work again, so that all meet at every barrier.
        row = min(start + group, size - 1)
        s, x, e, y, a, b, call = option_row(
            varies, row, spot, strike, expiry, vol, rate, dividend_yield, is_call,
            one_spot, one_strike, one_expiry, one_vol, one_rate, one_dividend_yield, one_is_call,
        )  # fmt: skip
        kind, usable, scale, log_spot, t, v, r, q, log_x = _put_frame(s, x, e, y, a, b, call)
        gap, log_rt = _bend(t, v, r, log_x)
        h = _solve(
            shared, thread, first, i, nodes, angles, steps, at, places, cosine, inv_cosine, weight, matrix,
            t, v, r, q, log_x, gap, log_rt,
        )  # fmt: skip
        deviation = v * sqrt(t)
        far = minimum(maximum(log_spot, -MOST_LOG_SPOT), MOST_LOG_SPOT)
        ratio = exp(far)
        total = 0.0
        for k in range(i, premium, nodes):
            h_u = _premium_h(shared, first, nodes, k, sines, to_premium, gap, log_rt)
            total += p_weight[k] * _premium_term(
                far - log_x, h_u, ratio, (r - q) * t, r * t, q * t, deviation, 1.0 / deviation,
                p_cosine[k], p_inv_cosine[k],
            )  # fmt: skip
        shared[thread] = total
        jit.syncthreads()
        if i == 0 and start + group < size:
            early = 0.0
            for j in range(nodes):
                early += shared[first + j]
            value, state = _settle(
                s, x, e, y, a, b, call, usable, kind, t, log_spot <= log_x - h, early * scale
            )
            price[row] = value
            status[row] = as_byte(state)


@kernel(COUNT, COUNT, *SCHEME, *OPTION_COLUMNS, *[FLOATS_OUT] * 9, threads=THREADS, blocks=4)
def american_slopes_rows(  # type: ignore[no-untyped-def]
    size, varies, nodes, angles, steps, premium,
    at, places, cosine, inv_cosine, weight, matrix, sines, to_premium, p_cosine, p_inv_cosine, p_weight,
    spot, strike, expiry, vol, rate, dividend_yield, is_call,
    one_spot, one_strike, one_expiry, one_vol, one_rate, one_dividend_yield, one_is_call,
    early, early_delta, early_gamma, early_speed, span, exercised, is_usable, the_kind, distance,
):  # fmt: skip
    memory = jit.shared_memory(np.float64, NUMBERS)
    shared = as_pointer(memory)
    thread = np.int64(jit.threadIdx.x)
    group = quotient(thread, nodes)
    first = group * nodes
    i = thread - first
    groups = quotient(np.int64(THREADS), nodes)
    for start in range(np.int64(jit.blockIdx.x) * groups, size, np.int64(jit.gridDim.x) * groups):
        row = min(start + group, size - 1)
        s, x, e, y, a, b, call = option_row(
            varies, row, spot, strike, expiry, vol, rate, dividend_yield, is_call,
            one_spot, one_strike, one_expiry, one_vol, one_rate, one_dividend_yield, one_is_call,
        )  # fmt: skip
        kind, usable, scale, log_spot, t, v, r, q, log_x = _put_frame(s, x, e, y, a, b, call)
        gap, log_rt = _bend(t, v, r, log_x)
        h = _solve(
            shared, thread, first, i, nodes, angles, steps, at, places, cosine, inv_cosine, weight, matrix,
            t, v, r, q, log_x, gap, log_rt,
        )  # fmt: skip
        deviation = v * sqrt(t)
        far = minimum(maximum(log_spot, -MOST_LOG_SPOT), MOST_LOG_SPOT)
        ratio = exp(far)
        f0 = 0.0
        f1 = 0.0
        f2 = 0.0
        f3 = 0.0
        for k in range(i, premium, nodes):
            h_u = _premium_h(shared, first, nodes, k, sines, to_premium, gap, log_rt)
            v0, v1, v2, v3 = _premium_slopes(
                far - log_x, h_u, ratio, (r - q) * t, r * t, q * t, log_x, deviation, 1.0 / deviation,
                p_cosine[k], p_inv_cosine[k],
            )  # fmt: skip
            f0 += p_weight[k] * v0
            f1 += p_weight[k] * v1
            f2 += p_weight[k] * v2
            f3 += p_weight[k] * v3
        shared[thread] = f0
        shared[THREADS + thread] = f1
        shared[2 * THREADS + thread] = f2
        shared[3 * THREADS + thread] = f3
        jit.syncthreads()
        if i == 0 and start + group < size:
            for j in range(1, nodes):
                f0 += shared[first + j]
                f1 += shared[THREADS + first + j]
                f2 += shared[2 * THREADS + first + j]
                f3 += shared[3 * THREADS + first + j]
            w0, w1, w2, w3 = _unscaled(f0, f1, f2, f3, ratio, scale, call)
            early[row] = w0
            early_delta[row] = w1
            early_gamma[row] = w2
            early_speed[row] = w3
            span[row] = t
            exercised[row] = where(log_spot <= log_x - h, 1.0, 0.0)
            is_usable[row] = where(usable, 1.0, 0.0)
            the_kind[row] = np.float64(kind)
            distance[row] = log_spot - (log_x - h)
