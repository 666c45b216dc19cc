"""The American boundary and premium of one row, its nodes and angles side by side in each vector instruction.

What `american_solver` does for sixteen rows at once leaves most of a vector idle when there are only a few.
Here one row fills it: every sum has its terms in the same order as there, so that the results are the same
to the last bit, and a row does not depend on how many others come with it.
"""

from __future__ import annotations

from typing import Any

from gpu_kernels.engines.cpu import ops
from gpu_kernels.engines.cpu.american_solver import (
    LEAST_STEP,
    MOST_STEP,
    carray,
    compiled,
    stack,
)
from gpu_kernels.formulas.american import american

_, _, _, shape, seed, edge_term, integral_term, premium_term, _, _, _ = american(ops)
log = ops.log
exp = ops.exp
sqrt = ops.sqrt

MOST_ANGLES = 96
angle_row = stack(MOST_ANGLES)


@compiled
def sizes_across(places, gap, log_rt, size, count):  # type: ignore[no-untyped-def]
    """`shape` at the first `count` columns of places (4, n)."""
    if gap > 0.0:
        for m in range(count):
            size[m] = shape(places[0, m], places[1, m], places[2, m], places[3, m], gap, log_rt)
    else:
        for m in range(count):
            size[m] = places[0, m] * places[3, m]


def one_row_solver(nodes: int, angles: int) -> Any:
    """solve(...): writes h = log(X/B) at the angles of the premium; gives log B, of a strike of 1, today.

    `width` is the number of nodes and `count` the number of premium angles, at run time, lest the loops be
    unrolled before they are vectorised.
    """
    many = nodes * angles
    node_row, many_row, square = stack(nodes), stack(many), stack(nodes * nodes)

    @compiled
    def solve(  # type: ignore[no-untyped-def]
        expiry, vol, rate, dividend_yield, log_x, far, gap, log_rt, steps,
        at, places, cosine, inv_cosine, weight, matrix, sines, to_premium, width, count, h_out,
    ):  # fmt: skip  # type: ignore[no-untyped-def]
        g = carray(node_row(), (nodes,))
        size = carray(node_row(), (nodes,))
        size_u = carray(many_row(), (many,))
        g_u = carray(many_row(), (many,))
        left_slope = carray(many_row(), (many,))
        right_slope = carray(many_row(), (many,))
        residual = carray(node_row(), (nodes,))
        jacobian = carray(square(), (nodes, nodes))  # [j, i] is the derivative of equation i by unknown j
        node_v = carray(node_row(), (nodes,))
        node_inv_v = carray(node_row(), (nodes,))
        node_q = carray(node_row(), (nodes,))
        node_carry = carray(node_row(), (nodes,))
        node_lead = carray(node_row(), (nodes,))
        node_lag = carray(node_row(), (nodes,))
        node_slope = carray(node_row(), (nodes,))
        node_h = carray(node_row(), (nodes,))
        left = carray(node_row(), (nodes,))
        right = carray(node_row(), (nodes,))
        gains = carray(node_row(), (nodes,))
        factor = carray(node_row(), (nodes,))
        root = sqrt(expiry)
        total_vol = vol * root
        whole_r = rate * root * root
        whole_q = dividend_yield * root * root
        inv_x = exp(-log_x)
        pull = rate - min(dividend_yield, 0.0)
        sizes_across(at, gap, log_rt, size, width)
        sizes_across(places, gap, log_rt, size_u, angles * width)
        for i in range(width):
            g[i] = seed(at[0, i] * root, vol, pull, log_x, far) / size[i]
        for _ in range(steps):
            for i in range(width):
                place = at[0, i]
                v = total_vol * place
                inv_v = 1.0 / v
                r_tau = whole_r * (place * place)
                q_tau = whole_q * (place * place)
                h = g[i] * size[i]
                begin, slope = edge_term(h, log_x, q_tau, r_tau - q_tau, v, inv_v)
                node_v[i] = v
                node_inv_v[i] = inv_v
                node_q[i] = q_tau
                node_carry[i] = r_tau - q_tau
                node_lead[i] = r_tau * inv_v * inv_x * exp(h)
                node_lag[i] = q_tau * inv_v
                node_slope[i] = slope
                node_h[i] = h
                left[i] = begin
                right[i] = 0.0
                gains[i] = 0.0
            # The first two terms at once, as it is compiled for sixteen rows: only one product is rounded.
            for m in range(angles * width):
                g_u[m] = matrix[0, m] * g[0] + matrix[1, m] * g[1]
            for j in range(2, nodes):
                unknown = g[j]
                for m in range(angles * width):
                    g_u[m] += matrix[j, m] * unknown
            for k in range(angles):
                c = cosine[k]
                inv_c = inv_cosine[k]
                w = weight[k]
                w_inv_c = w * inv_c
                for i in range(width):
                    m = k * nodes + i
                    h_u = g_u[m] * size_u[m]
                    below, density, strike_density, slope = integral_term(
                        node_h[i], h_u if h_u > 0.0 else 0.0,
                        node_carry[i], node_q[i], node_v[i], node_inv_v[i], c, inv_c,
                    )  # fmt: skip
                    gain = w_inv_c * node_lead[i] * strike_density
                    cost = w_inv_c * node_lag[i] * density
                    left[i] += node_q[i] * w * below
                    right[i] += gain - cost
                    gains[i] += gain
                    left_slope[m] = cost
                    right_slope[m] = cost - (gain - cost) * slope
            for i in range(width):
                # Far from the solution either side may round to nothing.
                left[i] = max(left[i], 1e-300)
                right[i] = max(right[i], 1e-300)
                inv_left = 1.0 / left[i]
                inv_right = 1.0 / right[i]
                residual[i] = log(left[i] * inv_right)
                gains[i] = node_slope[i] * inv_left - gains[i] * inv_right
                left[i] = inv_left
                right[i] = inv_right
            for k in range(angles):
                for i in range(width):
                    m = k * nodes + i
                    own = left_slope[m] * left[i] - right_slope[m] * right[i]
                    left_slope[m] = own * size_u[m]
                    gains[i] -= own
            for j in range(nodes):
                for i in range(width):
                    jacobian[j, i] = (
                        matrix[j, i] * left_slope[i] + matrix[j, nodes + i] * left_slope[nodes + i]
                    )
            for k in range(2, angles):
                for j in range(nodes):
                    for i in range(width):
                        jacobian[j, i] += matrix[j, k * nodes + i] * left_slope[k * nodes + i]
            for i in range(width):
                jacobian[i, i] += gains[i] * size[i]
            eliminate(jacobian, residual, factor, width)
            for j in range(width):
                old = g[j]
                new = old - residual[j]
                new = new if new > LEAST_STEP * old else LEAST_STEP * old
                g[j] = new if new < MOST_STEP * old else MOST_STEP * old
        size_h = carray(angle_row(), (MOST_ANGLES,))
        sizes_across(sines, gap, log_rt, size_h, count)
        for m in range(count):
            h_out[m] = 0.0
        for j in range(nodes):
            unknown = g[j]
            for m in range(count):
                h_out[m] += to_premium[j, m] * unknown
        for m in range(count):
            h_out[m] = max(h_out[m] * size_h[m], 1e-14)
        return log_x - g[0] * size[0]

    return solve


@compiled
def eliminate(jacobian, residual, factor, width):  # type: ignore[no-untyped-def]
    """Gauss without pivoting, rows side by side; the solution comes in place of the residual."""
    for i in range(width):
        inv = 1.0 / jacobian[i, i]
        scaled = residual[i] * inv
        for m in range(width):
            factor[m] = jacobian[i, m] if m > i else 0.0
            residual[m] = scaled if m == i else residual[m] - factor[m] * scaled
        for j in range(i + 1, width):
            pivot = jacobian[j, i] * inv
            for m in range(width):
                jacobian[j, m] = pivot if m == i else jacobian[j, m] - factor[m] * pivot
    for i in range(width - 1, -1, -1):
        done = residual[i]
        for m in range(width):
            residual[m] -= (jacobian[i, m] if m < i else 0.0) * done


@compiled
def premium_of_row(x, log_x, h_u, expiry, vol, rate, dividend_yield, cosine, inv_cosine, weight):  # type: ignore[no-untyped-def]
    """Premium of early exercise in units of the put's strike; x = log(S/K), clipped."""
    term = carray(angle_row(), (MOST_ANGLES,))
    v = vol * sqrt(expiry)
    inv_v = 1.0 / v
    spot = exp(x)
    lead = x - log_x
    r_tau = rate * expiry
    q_tau = dividend_yield * expiry
    for k in range(cosine.shape[0]):
        term[k] = premium_term(
            lead, h_u[k], spot, r_tau - q_tau, r_tau, q_tau, v, inv_v, cosine[k], inv_cosine[k]
        )
    total = 0.0
    for k in range(cosine.shape[0]):
        total += weight[k] * term[k]
    return total
