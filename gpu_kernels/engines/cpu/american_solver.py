"""The American boundary and price of a block of lanes, eight options side by side in each vector instruction.

Every loop over `lanes` is innermost and free of branches, and all scratch lives in stack arrays of constant
shape, which LLVM knows not to overlap: so each of these loops becomes a handful of vector instructions.
`lanes` is a run-time number, lest the loops be unrolled before they are vectorised.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gpu_kernels.engines.cpu import ops
from gpu_kernels.engines.cpu.compile import FASTMATH
from gpu_kernels.formulas.american import american

LANES = 16
LEAST_STEP = 0.3  # a Newton step changes g by this factor at most, either way
MOST_STEP = 3.0

_, _, _, shape, _, edge_term, integral_term, _, _, _, _ = american(ops)
log = ops.log
exp = ops.exp
# An array on memory that is already there; its constant shape is what lets LLVM tell arrays apart.
carray: Any = numba.carray  # type: ignore[attr-defined]


def stack(count: int) -> Any:
    """A function that gives a pointer to `count` float64 on its caller's stack, aligned to a cache line."""

    @intrinsic
    def stack_doubles(typingctx: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            with builder.goto_entry_block():
                block = builder.alloca(ir.DoubleType(), ir.Constant(ir.IntType(32), count))
            block.align = 64
            return block

        return types.CPointer(types.float64)(), codegen  # type: ignore[no-untyped-call]

    return stack_doubles


def compiled(function: Any) -> Any:
    """A function of its own, called by kernels; it is not cached itself, the kernel that holds it is."""
    return numba.njit(nogil=True, fastmath=set(FASTMATH), error_model="numpy")(function)


@compiled
def sizes_at(places, gap, log_rt, size, lanes):  # type: ignore[no-untyped-def]
    """`shape` at each row of places; only where the yield exceeds the rate is it more than a product."""
    bent = 0.0
    for a in range(lanes):
        bent = max(bent, gap[a])
    for k in range(places.shape[0]):
        place = places[k, 0]
        inv_place = places[k, 1]
        log_square = places[k, 2]
        curve = places[k, 3]
        if bent > 0.0:
            for a in range(lanes):
                size[k, a] = shape(place, inv_place, log_square, curve, gap[a], log_rt[a])
        else:
            for a in range(lanes):
                size[k, a] = place * curve


def boundary_solver(nodes: int, angles: int) -> Any:
    """solve(g, root, v, r, q, log_x, steps, tables..., lanes): Newton steps on g (nodes, LANES), in place.

    g starts as the first guess of h = log(X/B) and ends as the polynomial's values h / shape at the nodes.
    """
    square = nodes * nodes
    node_rows, square_rows = stack(nodes * LANES), stack(square * LANES)
    place_rows = stack(nodes * angles * LANES)
    angle_rows, few_rows = stack(angles * LANES), stack(8 * LANES)

    @compiled
    def solve(  # type: ignore[no-untyped-def]
        g_in, root_in, v_in, r_in, q_in, log_x_in, gap_in, log_rt_in, steps,
        at, places, cosine, inv_cosine, weight, matrix, lanes,
    ):  # fmt: skip  # type: ignore[no-untyped-def]
        g = carray(node_rows(), (nodes, LANES))
        size = carray(node_rows(), (nodes, LANES))
        size_u = carray(place_rows(), (nodes * angles, LANES))
        residual = carray(node_rows(), (nodes, LANES))
        jacobian = carray(square_rows(), (square, LANES))
        left_slope = carray(angle_rows(), (angles, LANES))
        right_slope = carray(angle_rows(), (angles, LANES))
        option = carray(few_rows(), (8, LANES))
        node = carray(few_rows(), (8, LANES))
        sums = carray(few_rows(), (8, LANES))
        for a in range(lanes):
            option[0, a] = root_in[a]
            option[1, a] = v_in[a] * root_in[a]
            option[2, a] = r_in[a] * root_in[a] * root_in[a]
            option[3, a] = q_in[a] * root_in[a] * root_in[a]
            option[4, a] = log_x_in[a]
            option[5, a] = exp(-log_x_in[a])
            option[6, a] = gap_in[a]
            option[7, a] = log_rt_in[a]
        sizes_at(at, option[6], option[7], size, lanes)
        sizes_at(places, option[6], option[7], size_u, lanes)
        for j in range(nodes):
            for a in range(lanes):
                g[j, a] = g_in[j, a] / size[j, a]
        for _ in range(steps):
            for i in range(nodes):
                place = at[i, 0]
                for a in range(lanes):
                    v = option[1, a] * place
                    inv_v = 1.0 / v
                    r_tau = option[2, a] * (place * place)
                    q_tau = option[3, a] * (place * place)
                    h = g[i, a] * size[i, a]
                    left, slope = edge_term(h, option[4, a], q_tau, r_tau - q_tau, v, inv_v)
                    node[0, a] = v
                    node[1, a] = inv_v
                    node[2, a] = q_tau
                    node[3, a] = r_tau - q_tau
                    # r/B and q, each times tau over vol sqrt(tau): what multiplies the density on the right.
                    node[4, a] = r_tau * inv_v * option[5, a] * exp(h)
                    node[5, a] = q_tau * inv_v
                    node[6, a] = slope
                    node[7, a] = h
                    sums[0, a] = left
                    sums[1, a] = 0.0
                    sums[2, a] = 0.0
                for k in range(angles):
                    row = i * angles + k
                    c = cosine[k]
                    inv_c = inv_cosine[k]
                    w = weight[k]
                    w_inv_c = w * inv_c
                    for a in range(lanes):
                        g_u = 0.0
                        for j in range(nodes):
                            g_u += matrix[row, j] * g[j, a]
                        h_u = g_u * size_u[row, a]
                        below, density, strike_density, slope = integral_term(
                            node[7, a], h_u if h_u > 0.0 else 0.0,
                            node[3, a], node[2, a], node[0, a], node[1, a], c, inv_c,
                        )  # fmt: skip
                        gain = w_inv_c * node[4, a] * strike_density
                        cost = w_inv_c * node[5, a] * density
                        sums[0, a] += node[2, a] * w * below
                        sums[1, a] += gain - cost
                        sums[2, a] += gain
                        left_slope[k, a] = cost
                        right_slope[k, a] = cost - (gain - cost) * slope
                for a in range(lanes):
                    # Far from the solution either side may round to nothing.
                    sums[0, a] = max(sums[0, a], 1e-300)
                    sums[1, a] = max(sums[1, a], 1e-300)
                    inv_left = 1.0 / sums[0, a]
                    inv_right = 1.0 / sums[1, a]
                    residual[i, a] = log(sums[0, a] * inv_right)
                    sums[0, a] = inv_left
                    sums[1, a] = inv_right
                    sums[3, a] = node[6, a] * inv_left - sums[2, a] * inv_right
                for k in range(angles):
                    for a in range(lanes):
                        one = left_slope[k, a] * sums[0, a] - right_slope[k, a] * sums[1, a]
                        left_slope[k, a] = one * size_u[i * angles + k, a]
                        sums[3, a] -= one
                for j in range(nodes):
                    for a in range(lanes):
                        total = 0.0
                        for k in range(angles):
                            total += matrix[i * angles + k, j] * left_slope[k, a]
                        jacobian[i * nodes + j, a] = total
                for a in range(lanes):
                    jacobian[i * nodes + i, a] += sums[3, a] * size[i, a]
            # Gauss without pivoting: the diagonal dominates, since a node's own derivative is the largest.
            for i in range(nodes):
                for a in range(lanes):
                    sums[0, a] = 1.0 / jacobian[i * nodes + i, a]
                    residual[i, a] *= sums[0, a]
                for j in range(i + 1, nodes):
                    for a in range(lanes):
                        jacobian[i * nodes + j, a] *= sums[0, a]
                for m in range(i + 1, nodes):
                    for a in range(lanes):
                        sums[1, a] = jacobian[m * nodes + i, a]
                        residual[m, a] -= sums[1, a] * residual[i, a]
                    for j in range(i + 1, nodes):
                        for a in range(lanes):
                            jacobian[m * nodes + j, a] -= sums[1, a] * jacobian[i * nodes + j, a]
            for i in range(nodes - 1, -1, -1):
                for m in range(i):
                    for a in range(lanes):
                        residual[m, a] -= jacobian[m * nodes + i, a] * residual[i, a]
            for j in range(nodes):
                for a in range(lanes):
                    old = g[j, a]
                    new = old - residual[j, a]
                    new = new if new > LEAST_STEP * old else LEAST_STEP * old
                    g[j, a] = new if new < MOST_STEP * old else MOST_STEP * old
        for j in range(nodes):
            for a in range(lanes):
                g_in[j, a] = g[j, a]

    return solve
