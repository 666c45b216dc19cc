"""The grid of `formulas.cash_dividends` on the XLA engine: all rows march together."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from gpu_kernels.engines.xla import ops
from gpu_kernels.engines.xla.compile import Program, bucket, coarse_bucket, padded
from gpu_kernels.formulas.cash_dividends import ESCROWED, LIQUIDATOR, MIDDLE, Schedule
from gpu_kernels.formulas.cash_dividends_grid import NO_EVENT, Steps, grid_nodes, stepped

# Arrays of nodes x rows take 3 MB each at the usual resolution.
CHUNK_ROWS = 1024

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
    size = spacing.size
    out = np.empty((size, keep))
    plan = stepped(columns, schedule, steps, policy)
    for start in range(0, size, CHUNK_ROWS):
        rows = slice(start, min(start + CHUNK_ROWS, size))
        width = coarse_bucket(rows.stop - start)
        row = tuple(
            padded(column[rows], rows.stop - start, width) for column in (*columns, american, spacing)
        )
        part = _widened(Steps(*(array[:, rows] for array in plan)), width)
        rules = np.array([policy == LIQUIDATOR, policy == ESCROWED])
        values = SOLVE(points, keep, rules, row, tuple(part))
        out[rows] = np.asarray(values)[: rows.stop - start]
    return out


def _widened(plan: Steps, width: int) -> Steps:
    """The plan for `width` rows and one of a few numbers of steps; what is added does nothing."""
    length, rows = plan.time.shape
    added = ((0, bucket(length) - length), (0, width - rows))
    still = (0.0, 1.0, 0.0, NO_EVENT, 0.0, 0.0)
    return Steps(*(np.pad(a, added, constant_values=v) for a, v in zip(plan, still, strict=True)))


def _solved(points: int, keep: int, rules: Any, row: tuple[Any, ...], plan: tuple[Any, ...]) -> Any:
    liquidator, escrowed = rules
    spot0, strike, _, vol, rate, dividend_yield, is_call, american, spacing = (one[:, None] for one in row)
    middle = points // 2
    spot = spot0 * ops.exp((jnp.arange(points + 1) - middle) * spacing)
    payoff = _payoff(spot, strike, is_call)
    kink = _at_expiry(spot, strike, is_call, spacing)
    value = jnp.concatenate((payoff[:, :1], kink[:, 1:-1], payoff[:, -1:]), axis=1)
    bands = _generator(vol, rate, dividend_yield, spacing)
    # Beyond both ends the value is linear in spot.
    left = (spot[:, 1:2] - spot[:, :1]) / (spot[:, 2:3] - spot[:, 1:2])
    right = (spot[:, -1:] - spot[:, -2:-1]) / (spot[:, -2:-1] - spot[:, -3:-2])
    ends = (left, right)

    def one_step(state: tuple[Any, Any], now: tuple[Any, ...]) -> tuple[tuple[Any, Any], None]:
        time, implicit, fresh, amount, remaining, ahead = (one[:, None] for one in now)
        value, push = state
        push = jnp.where(fresh > 0.5, 0.0, push)
        pays = _payoff(spot + ahead, strike, is_call)
        value, push = _step(value, push, time, implicit, bands, ends, pays, american)

        def paid(before: Any) -> Any:
            gone = _gone(strike, rate, remaining, is_call, american)
            moved = _after(before, spot, spacing, amount, gone, liquidator)
            after = jnp.where(escrowed, before, moved)
            beside = jnp.where(escrowed, ahead + amount, 0.0)
            after = jnp.where(american, jnp.maximum(after, _payoff(spot + beside, strike, is_call)), after)
            return jnp.where(amount > NO_EVENT, after, before)

        value = jax.lax.cond(jnp.any(amount > NO_EVENT), paid, lambda before: before, value)
        return (value, push), None

    (value, _), _ = jax.lax.scan(one_step, (value, jnp.zeros_like(value)), plan)
    first = middle - keep // 2
    return value[:, first : first + keep]


def _step(
    value: Any, push: Any, time: Any, implicit: Any, bands: Any, ends: Any, payoff: Any, american: Any
) -> tuple[Any, Any]:
    """One step back in time: solve, then split off what early exercise adds."""
    low, mid, high = bands
    left, right = ends
    here = value[:, 1:-1]
    change = low * value[:, :-2] + mid * here + high * value[:, 2:]
    target = here + (1.0 - implicit) * time * change + time * push[:, 1:-1]
    whole = jnp.ones_like(here)
    below, above = -implicit * time * low * whole, -implicit * time * high * whole
    diagonal = (1.0 - implicit * time * mid) * whole
    lowest, highest = below[:, :1], above[:, :1]
    diagonal = diagonal.at[:, 0].add((lowest * (1.0 + left))[:, 0])
    above = above.at[:, 0].add((-lowest * left)[:, 0])
    diagonal = diagonal.at[:, -1].add((highest * (1.0 + right))[:, 0])
    below = below.at[:, -1].add((-highest * right)[:, 0])
    below, above = below.at[:, 0].set(0.0), above.at[:, -1].set(0.0)
    inner = jax.lax.linalg.tridiagonal_solve(below, diagonal, above, target[:, :, None])[:, :, 0]
    free = inner - time * push[:, 1:-1]
    # A row that has arrived is exercised no more: its steps know of no dividends.
    kept = jnp.where(american & (time > 0.0), jnp.maximum(free, payoff[:, 1:-1]), inner)
    added = jnp.where(american & (time > 0.0), (kept - free) / jnp.where(time > 0.0, time, 1.0), 0.0)
    first = kept[:, :1] - left * (kept[:, 1:2] - kept[:, :1])
    last = kept[:, -1:] + right * (kept[:, -1:] - kept[:, -2:-1])
    return jnp.concatenate((first, kept, last), axis=1), jnp.pad(added, ((0, 0), (1, 1)))


def _after(value: Any, spot: Any, spacing: Any, amount: Any, gone: Any, liquidator: Any) -> Any:
    """value(S) becomes value(S - D), by cubic interpolation in S; at S = 0 the stock stays there."""
    target = spot - amount
    lowest = spot[:, :1]
    below = target <= lowest
    inside = jnp.where(below, lowest, target)
    cell = jnp.floor(ops.log(inside / lowest) / spacing).astype(jnp.int64)
    first = jnp.clip(cell - 1, 0, spot.shape[1] - 4)
    near = [jnp.take_along_axis(array, first + k, axis=1) for array in (spot, value) for k in range(4)]
    share = jnp.maximum(target, 0.0) / lowest
    moved = jnp.where(below, gone + share * (value[:, :1] - gone), _cubic(inside, *near))
    return jnp.where(liquidator | (target > 0.0), moved, value)


SOLVE = Program(_solved, static=(0, 1))
