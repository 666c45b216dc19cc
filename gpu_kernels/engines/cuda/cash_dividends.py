"""The grid of `formulas.cash_dividends` on the CUDA engine: one thread per row.

A node of neighbouring rows is in neighbouring memory.

The march along a grid is a chain of dependent operations, so a row takes some milliseconds whatever the
device, and as many rows as there are threads take no longer.
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np
from cupyx import jit
from numpy.typing import NDArray

from gpu_kernels.engines.cuda import ops
from gpu_kernels.engines.cuda.compile import COUNT, FLAGS, FLOATS, FLOATS_OUT, kernel, quotient, where
from gpu_kernels.formulas.cash_dividends import ESCROWED, LIQUIDATOR, MIDDLE, Schedule
from gpu_kernels.formulas.cash_dividends_grid import NO_EVENT, grid_nodes, stepped

# Five arrays of nodes x rows are kept on the device while a chunk is worked on.
SCRATCH_ARRAYS = 5
SCRATCH_BYTES = 1 << 28
THREADS = 64

exp, log, maximum, minimum = ops.exp, ops.log, ops.maximum, ops.minimum
_payoff, _at_expiry, _generator, _gone, _cubic = grid_nodes(ops)


def solve(
    columns: Any,
    american: Any,
    schedule: Schedule,
    policy: int,
    spacing: Any,
    points: int,
    steps: int,
    keep: int = MIDDLE,
) -> NDArray[np.float64]:
    """Values at the middle nodes of each row's grid, (n, keep); columns are full length."""
    size, nodes = spacing.size, points + 1
    out = np.empty((size, keep))
    plan = stepped(columns, schedule, steps, policy)
    chunk = max(SCRATCH_BYTES // (8 * SCRATCH_ARRAYS * nodes), THREADS)
    spot, strike, _, vol, rate, dividend_yield, is_call = columns
    for start in range(0, size, chunk):
        rows = slice(start, min(start + chunk, size))
        count = rows.stop - start
        given = (spot, strike, vol, rate, dividend_yield, is_call, american, spacing)
        inputs = [cupy.asarray(np.ascontiguousarray(array[rows])) for array in given]
        inputs += [cupy.asarray(np.ascontiguousarray(array[:, rows]).reshape(-1)) for array in plan]
        scratch = [cupy.empty(nodes * count, np.float64) for _ in range(SCRATCH_ARRAYS)]
        found = cupy.empty(keep * count, np.float64)
        first = points // 2 - keep // 2
        rules = (policy == LIQUIDATOR, policy == ESCROWED, first, keep)
        counts = tuple(map(np.int64, (count, nodes, plan.time.shape[0], *rules)))
        cash_dividend_rows.launch(-(-count // THREADS), (*counts, *inputs, *scratch, found))
        out[rows] = np.asarray(found.get()).reshape(keep, count).T
    return out


@kernel(*[COUNT] * 7, *[FLOATS] * 5, FLAGS, FLAGS, *[FLOATS] * 7, *[FLOATS_OUT] * 6, threads=THREADS)
def cash_dividend_rows(  # type: ignore[no-untyped-def]
    size, nodes, steps, liquidator, escrowed, first, keep,
    spots, strikes, vols, rates, yields, calls, americans, spacings,
    time, implicit, fresh, amounts, left, ahead,
    spot, value, push, inverse, upper, out,
):  # fmt: skip
    for row in range(jit.grid(1), size, jit.gridsize(1)):
        strike = strikes[row]
        rate = rates[row]
        call = calls[row]
        american = americans[row]
        spacing = spacings[row]
        middle = quotient(nodes, 2)
        last_node = nodes - 1
        for j in range(nodes):
            at = j * size + row
            here = spots[row] * exp((j - middle) * spacing)
            spot[at] = here
            end = (j == 0) | (j == last_node)
            value[at] = where(end, _payoff(here, strike, call), _at_expiry(here, strike, call, spacing))
            push[at] = 0.0
        low, mid, high = _generator(vols[row], rate, yields[row], spacing)
        bottom = spot[row]
        near = (spot[size + row] - bottom) / (spot[2 * size + row] - spot[size + row])
        top = last_node * size + row
        far = (spot[top] - spot[top - size]) / (spot[top - size] - spot[top - 2 * size])
        factored = -1.0
        for n in range(steps):
            step = n * size + row
            h = time[step]
            scale = implicit[step] * h
            below = -scale * low
            above = -scale * high
            if h > 0.0 and scale != factored:
                factored = scale
                up = 0.0
                for j in range(1, last_node):
                    at = j * size + row
                    diagonal = 1.0 - scale * mid
                    a = where(j == 1, 0.0, below)
                    b = where(j == last_node - 1, 0.0, above)
                    diagonal += where(j == 1, below * (1.0 + near), 0.0)
                    diagonal += where(j == last_node - 1, above * (1.0 + far), 0.0)
                    a -= where(j == last_node - 1, above * far, 0.0)
                    b -= where(j == 1, below * near, 0.0)
                    inv = 1.0 / (diagonal - a * up)
                    up = b * inv
                    inverse[at] = inv
                    upper[at] = up
            if h > 0.0:
                forget = fresh[step] > 0.5
                rest = h - scale
                under = value[row]
                done = 0.0
                for j in range(1, last_node):
                    at = j * size + row
                    here = value[at]
                    added = where(forget, 0.0, push[at])
                    push[at] = added
                    change = low * under + mid * here + high * value[at + size]
                    under = here
                    a = where(j == 1, 0.0, below) - where(j == last_node - 1, above * far, 0.0)
                    done = (here + rest * change + h * added - a * done) * inverse[at]
                    value[at] = done
                for k in range(nodes - 3):
                    at = (nodes - 3 - k) * size + row
                    value[at] -= upper[at] * value[at + size]
                if american:
                    for j in range(1, last_node):
                        at = j * size + row
                        free = value[at] - h * push[at]
                        kept = maximum(free, _payoff(spot[at] + ahead[step], strike, call))
                        push[at] = (kept - free) / h
                        value[at] = kept
                value[row] = value[size + row] - near * (value[2 * size + row] - value[size + row])
                value[top] = value[top - size] + far * (value[top - size] - value[top - 2 * size])
            amount = amounts[step]
            if (amount > NO_EVENT) & (escrowed != 0) & american:
                for j in range(nodes):
                    at = j * size + row
                    exercised = _payoff(spot[at] + ahead[step] + amount, strike, call)
                    value[at] = maximum(value[at], exercised)
            if (amount > NO_EVENT) & (escrowed == 0):
                gone = _gone(strike, rate, left[step], call, american)
                # What early exercise adds is forgotten at an ex-date: its place holds the values before.
                for j in range(nodes):
                    push[j * size + row] = value[j * size + row]
                for j in range(nodes):
                    at = j * size + row
                    target = spot[at] - amount
                    inside = maximum(target, bottom)
                    cell = np.int64(log(inside / bottom) / spacing) - 1
                    m = min(max(cell, np.int64(0)), nodes - 4) * size + row
                    between = _cubic(
                        inside, spot[m], spot[m + size], spot[m + 2 * size], spot[m + 3 * size],
                        push[m], push[m + size], push[m + 2 * size], push[m + 3 * size],
                    )  # fmt: skip
                    share = maximum(target, 0.0) / bottom
                    moved = where(target <= bottom, gone + share * (push[row] - gone), between)
                    moved = where((target <= 0.0) & (liquidator == 0), push[at], moved)
                    exercised = _payoff(spot[at], strike, call)
                    value[at] = where(american, maximum(moved, exercised), moved)
        for k in range(keep):
            out[k * size + row] = value[(first + k) * size + row]
