"""American options on the XLA engine: the collocation over whole arrays, in one program per method and size.

Greeks and implied volatility put the same programs to work from the host. Rows with two exercise boundaries
go to the grid.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from gpu_kernels.engines.engine import Columns
from gpu_kernels.engines.xla import cash_dividends, european, ops
from gpu_kernels.engines.xla.compile import Program, coarse_bucket, run_rows
from gpu_kernels.formulas import american_fallback, american_greeks, american_implied_vol
from gpu_kernels.formulas.american import DOUBLE, NEVER, american
from gpu_kernels.formulas.american_tables import (
    GREEK_RULE,
    SCHEMES,
    BoundaryTables,
    angles,
    boundary_tables,
    interpolation,
    place_table,
)
from gpu_kernels.formulas.black_scholes import black_scholes
from gpu_kernels.results import GreeksResult, ImpliedVolResult, PriceResult

__all__ = ["CHUNK_ROWS", "greeks", "implied_vol", "price", "slopes"]

# An array of nodes x angles x rows takes 6 MB.
CHUNK_ROWS = 4096
MOST_LOG_SPOT = 700.0
INVALID_INPUT, NOT_CONVERGED = 2, 5

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


def price(columns: Columns, method: str, out: PriceResult) -> None:
    """Write value and status of each row."""
    run_rows(PRICE_ROWS[method], tuple(columns), out.columns(), coarse_bucket)
    if (out.status == NOT_CONVERGED).any():
        american_fallback.price(columns.full(out.status.size), out, cash_dividends.solve)


def greeks(columns: Columns, method: str, out: GreeksResult) -> None:
    """Write value, eight derivatives and status of each row."""
    full = columns.full(out.status.size)
    american_greeks.greeks(full, method, out, slopes, european.greeks)
    american_fallback.greeks(full, out, cash_dividends.solve)


def implied_vol(columns: Columns, prices: Any, method: str, out: ImpliedVolResult) -> None:
    """Write the volatility at which each row is worth its price, and its status."""
    american_implied_vol.implied_vol(columns.full(out.status.size), prices, method, out, price)


def slopes(columns: Columns, method: str) -> NDArray[np.float64]:
    """Premium, its three spot derivatives, expiry used, exercised, usable, kind, distance: (9, rows)."""
    out = np.empty((9, columns.spot.size))
    run_rows(SLOPES_ROWS[method], tuple(columns), tuple(out), coarse_bucket)
    return out


class _Boundary(NamedTuple):
    """Rows as puts on a strike of 1, with h = log(X/B) at the angles of the premium integral."""

    kind: Any
    usable: Any
    scale: Any
    log_spot: Any
    expiry: Any
    vol: Any
    rate: Any
    dividend_yield: Any
    log_x: Any
    edge: Any  # log of the boundary at the full expiry
    h: Any  # (angles, rows)


def _boundaries(columns: tuple[Any, ...], method: str, premium: tuple[int, int]) -> _Boundary:
    scheme = SCHEMES[method]
    kind, usable, scale, x, t, v, r, q, log_x = _put_frame(*columns)
    gap, log_rt = _bend(t, v, r, log_x)
    made = boundary_tables(scheme.nodes, scheme.angles)
    size = _shapes(made.xi, gap, log_rt)
    size_u = _shapes(made.places, gap, log_rt).reshape(scheme.nodes, scheme.angles, -1)
    first = _seed(
        made.xi[:, None] * jnp.sqrt(t), v, r - jnp.minimum(q, 0.0), log_x, _perpetual(v, r, q, log_x)
    )
    g = first / size
    for _ in range(scheme.steps):
        g = _newton_step(g, size, size_u, (t, v, r, q, log_x), made)
    sine = angles(*premium).sine
    h = (interpolation(scheme.nodes, sine) @ g) * _shapes(sine, gap, log_rt)
    edge = log_x - g[0] * size[0]
    return _Boundary(kind, usable, scale, x, t, v, r, q, log_x, edge, jnp.maximum(h, 1e-14))


def _shapes(xi: Any, gap: Any, log_rt: Any) -> Any:
    return _shape(*place_table(xi).T[:, :, None], gap, log_rt)


def _newton_step(g: Any, size: Any, size_u: Any, row: tuple[Any, ...], made: BoundaryTables) -> Any:
    """g after one step on log(left/right) of smooth pasting at each node."""
    t, v, r, q, log_x = row
    nodes = g.shape[0]
    rule = made.angles
    cosine, weight = rule.cosine[None, :, None], rule.weight[None, :, None]
    matrix = made.matrix.reshape(nodes, -1, nodes)
    h = g * size
    tau = made.xi[:, None] ** 2 * t
    sd = made.xi[:, None] * (v * jnp.sqrt(t))
    carry, q_tau = (r - q) * tau, q * tau
    left, left_edge_slope = _edge_term(h, log_x, q_tau, carry, sd, 1.0 / sd)
    h_u = jnp.maximum(jnp.einsum("ikj,jr->ikr", matrix, g) * size_u, 0.0)
    below, density, strike_density, slope = _integral_term(
        h[:, None], h_u, carry[:, None], q_tau[:, None], sd[:, None], 1.0 / sd[:, None], cosine, 1.0 / cosine
    )
    gain = weight / cosine * (r * tau / sd * ops.exp(h - log_x))[:, None] * strike_density
    cost = weight / cosine * (q_tau / sd)[:, None] * density
    # Far from the solution either side may round to nothing.
    left = jnp.maximum(left + (q_tau[:, None] * weight * below).sum(axis=1), 1e-300)
    right = jnp.maximum((gain - cost).sum(axis=1), 1e-300)
    by_h_u = cost / left[:, None] - (cost - (gain - cost) * slope) / right[:, None]
    jacobian = jnp.einsum("ikr,ikj->ijr", by_h_u * size_u, matrix)
    own = left_edge_slope / left - gain.sum(axis=1) / right - by_h_u.sum(axis=1)
    jacobian = jacobian + jnp.eye(nodes)[:, :, None] * (own * size)[:, None]
    change = _solved(jacobian, jnp.log(left / right))
    return jnp.clip(g - change, 0.3 * g, 3.0 * g)


def _solved(matrix: Any, right: Any) -> Any:
    """The solution of each row's system, matrix (n, n, rows), right (n, rows).

    Gauss and Jordan without pivoting, side by side for all rows: the diagonal dominates, since a node's own
    derivative is the largest, and XLA's own solver takes one row after the other.
    """
    whole = jnp.concatenate((matrix, right[:, None]), axis=1)
    for i in range(matrix.shape[0]):
        pivot = whole[i] / whole[i, i]
        factors = whole[:, i].at[i].set(0.0)
        whole = (whole - factors[:, None] * pivot[None]).at[i].set(pivot)
    return whole[:, -1]


def _frame(b: _Boundary, rule: Any) -> tuple[Any, ...]:
    """What every premium integrand begins with, and the angles it is taken at."""
    sd = b.vol * jnp.sqrt(b.expiry)
    x = jnp.clip(b.log_spot, -MOST_LOG_SPOT, MOST_LOG_SPOT)
    r_tau, q_tau = b.rate * b.expiry, b.dividend_yield * b.expiry
    cosine = rule.cosine[:, None]
    return (x - b.log_x, b.h, ops.exp(x), r_tau - q_tau, r_tau, q_tau), (sd, 1.0 / sd, cosine, 1.0 / cosine)


def _priced(method: str, *columns: Any) -> tuple[Any, ...]:
    spot, strike, expiry, vol, rate, dividend_yield, is_call = columns
    premium = (SCHEMES[method].premium, 1)
    rule = angles(*premium)
    b = _boundaries(columns, method, premium)
    first, last = _frame(b, rule)
    early = b.scale * jnp.maximum(rule.weight @ _premium_term(*first, *last), 0.0)
    span = jnp.where(b.usable, b.expiry, expiry)
    europe = _european_price(spot, strike, span, vol, rate, dividend_yield, is_call)
    now = jnp.maximum(jnp.where(is_call, spot - strike, strike - spot), 0.0)
    certain = jnp.maximum(_certain_value(spot, strike, expiry, rate, dividend_yield, is_call), europe)
    single = jnp.where(b.log_spot <= b.edge, now, jnp.maximum(europe + early, now))
    value = jnp.where(b.kind == NEVER, europe, jnp.where(b.usable, single, certain))
    value = jnp.where(expiry == 0.0, now, value)
    status = _row_status(spot, strike, expiry, vol, rate, dividend_yield)
    bad = status == INVALID_INPUT
    lost = ((b.kind == DOUBLE) & (status == 0)) | (~jnp.isfinite(value) & ~bad)
    state = jnp.where(lost, NOT_CONVERGED, status).astype(jnp.uint8)
    return jnp.where(lost | bad, jnp.nan, value), state


def _sloped(method: str, *columns: Any) -> tuple[Any, ...]:
    rule = angles(*GREEK_RULE)
    b = _boundaries(columns, method, GREEK_RULE)
    first, last = _frame(b, rule)
    parts = (rule.weight @ term for term in _premium_slopes(*first, b.log_x, *last))
    four = _unscaled(*parts, first[2], b.scale, columns[6])
    return (*four, b.expiry, b.log_spot <= b.edge, b.usable, b.kind, b.log_spot - b.edge)


PRICE_ROWS = {method: Program(partial(_priced, method)) for method in SCHEMES}
SLOPES_ROWS = {method: Program(partial(_sloped, method)) for method in SCHEMES}
