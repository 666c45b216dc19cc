"""American options on the reference engine: the same collocation, written out over whole arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.engines.engine import Columns
from gpu_kernels.engines.reference import cash_dividends, european, ops
from gpu_kernels.formulas import american_fallback, american_greeks, american_implied_vol
from gpu_kernels.formulas.american import DOUBLE, NEVER, SINGLE, american
from gpu_kernels.formulas.american_tables import (
    GREEK_RULE,
    SCHEMES,
    angles,
    boundary_tables,
    interpolation,
    place_table,
)
from gpu_kernels.formulas.black_scholes import black_scholes
from gpu_kernels.results import GreeksResult, ImpliedVolResult, PriceResult
from gpu_kernels.status import Status

Floats = NDArray[np.float64]

# An array of nodes x angles x rows takes 6 MB.
CHUNK_ROWS = 4096

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


class Boundary(NamedTuple):
    """Rows as puts on a strike of 1, with h = log(X/B) at the angles of the premium integral."""

    kind: Any
    usable: Any
    scale: Floats
    log_spot: Floats
    expiry: Floats
    vol: Floats
    rate: Floats
    dividend_yield: Floats
    log_x: Floats
    edge: Floats  # log of the boundary at the full expiry
    h: Floats  # (angles, rows)


def boundaries(columns: Columns, method: str, premium: tuple[int, int]) -> Boundary:
    """Solve for the boundary of every row by Newton's method on all its nodes at once."""
    scheme = SCHEMES[method]
    kind, usable, scale, x, t, v, r, q, log_x = _put_frame(*columns)
    gap, log_rt = _bend(t, v, r, log_x)
    far = _perpetual(v, r, q, log_x)
    made = boundary_tables(scheme.nodes, scheme.angles)
    size = _shape(*place_table(made.xi).T[:, :, None], gap, log_rt)
    size_u = _shape(*place_table(made.places).T[:, :, None], gap, log_rt)
    g = _seed(made.xi[:, None] * np.sqrt(t), v, r - np.minimum(q, 0.0), log_x, far) / size
    for _ in range(scheme.steps):
        residual, jacobian = _equations(g, size, size_u, t, v, r, q, log_x, made)
        change = np.linalg.solve(jacobian.transpose(2, 0, 1), residual.T[:, :, None])[:, :, 0].T
        g = np.clip(g - change, 0.3 * g, 3.0 * g)
    sine = angles(*premium).sine
    h = interpolation(scheme.nodes, sine) @ g * _shape(*place_table(sine).T[:, :, None], gap, log_rt)
    edge = log_x - g[0] * size[0]
    return Boundary(kind, usable, scale, x, t, v, r, q, log_x, edge, np.maximum(h, 1e-14))


def _equations(
    g: Floats,
    size: Floats,
    size_u: Floats,
    t: Floats,
    v: Floats,
    r: Floats,
    q: Floats,
    log_x: Floats,
    made: Any,
) -> tuple[Floats, Floats]:
    """log(left/right) of smooth pasting at each node (n, rows), and its derivatives (n, n.

    Rows) with respect to g.
    """
    nodes, rows = g.shape
    rule = made.angles
    cosine, weight = rule.cosine[None, :, None], rule.weight[None, :, None]
    matrix = made.matrix.reshape(nodes, -1, nodes)
    h = g * size
    tau = made.xi[:, None] ** 2 * t
    sd = made.xi[:, None] * (v * np.sqrt(t))
    carry, q_tau = (r - q) * tau, q * tau
    left, left_edge_slope = _edge_term(h, log_x, q_tau, carry, sd, 1.0 / sd)
    h_u = np.maximum(np.einsum("ikj,jr->ikr", matrix, g) * size_u.reshape(nodes, -1, rows), 0.0)
    below, density, strike_density, slope = _integral_term(
        h[:, None], h_u, carry[:, None], q_tau[:, None], sd[:, None], 1.0 / sd[:, None], cosine, 1.0 / cosine
    )
    gain = weight / cosine * (r * tau / sd * np.exp(h - log_x))[:, None] * strike_density
    cost = weight / cosine * (q_tau / sd)[:, None] * density
    left = left + (q_tau[:, None] * weight * below).sum(axis=1)
    # Far from the solution either side may round to nothing.
    left, right = np.maximum(left, 1e-300), np.maximum((gain - cost).sum(axis=1), 1e-300)
    by_h_u = cost / left[:, None] - (cost - (gain - cost) * slope) / right[:, None]
    jacobian = np.einsum("ikr,ikj->ijr", by_h_u * size_u.reshape(nodes, -1, rows), matrix)
    own = left_edge_slope / left - gain.sum(axis=1) / right - by_h_u.sum(axis=1)
    jacobian[np.arange(nodes), np.arange(nodes)] += own * size
    return np.log(left / right), jacobian


def price(columns: Columns, method: str, out: PriceResult) -> None:
    """Write value and status of each row."""
    full = columns.full(out.status.size)
    with np.errstate(all="ignore"):
        _price(full, method, out)
    american_fallback.price(full, out, cash_dividends.solve)


def _price(columns: Columns, method: str, out: PriceResult) -> None:
    spot, strike, expiry, vol, rate, dividend_yield, is_call = columns
    premium = (SCHEMES[method].premium, 1)
    rule = angles(*premium)
    b = boundaries(columns, method, premium)
    sd = b.vol * np.sqrt(b.expiry)
    x = np.clip(b.log_spot, -700.0, 700.0)
    r_tau, q_tau = b.rate * b.expiry, b.dividend_yield * b.expiry
    cosine = rule.cosine[:, None]
    terms = _premium_term(
        x - b.log_x, b.h, np.exp(x), r_tau - q_tau, r_tau, q_tau, sd, 1.0 / sd, cosine, 1.0 / cosine
    )
    early = b.scale * np.maximum(rule.weight @ terms, 0.0)
    span = np.where(b.usable, b.expiry, expiry)
    europe = _european_price(spot, strike, span, vol, rate, dividend_yield, is_call)
    now = np.maximum(np.where(is_call, spot - strike, strike - spot), 0.0)
    certain = np.maximum(_certain_value(spot, strike, expiry, rate, dividend_yield, is_call), europe)
    single = np.where(b.log_spot <= b.edge, now, np.maximum(europe + early, now))
    value = np.where(b.kind == NEVER, europe, np.where(b.usable, single, certain))
    value = np.where(expiry == 0.0, now, value)
    status = _row_status(spot, strike, expiry, vol, rate, dividend_yield)
    lost = (b.kind == DOUBLE) & (status == Status.OK)
    lost |= ~np.isfinite(value) & (status != Status.INVALID_INPUT)
    out.status[:] = np.where(lost, Status.NOT_CONVERGED, status)
    out.price[:] = np.where(lost | (status == Status.INVALID_INPUT), np.nan, value)


def slopes(columns: Columns, method: str) -> Floats:
    """Premium, its three spot derivatives, expiry used, exercised, usable, kind, distance: (9, rows)."""
    with np.errstate(all="ignore"):
        rule = angles(*GREEK_RULE)
        b = boundaries(columns, method, GREEK_RULE)
        sd = b.vol * np.sqrt(b.expiry)
        x = np.clip(b.log_spot, -700.0, 700.0)
        r_tau, q_tau = b.rate * b.expiry, b.dividend_yield * b.expiry
        cosine = rule.cosine[:, None]
        terms = _premium_slopes(
            x - b.log_x,
            b.h,
            np.exp(x),
            r_tau - q_tau,
            r_tau,
            q_tau,
            b.log_x,
            sd,
            1.0 / sd,
            cosine,
            1.0 / cosine,
        )
        parts = (rule.weight @ term for term in terms)
        four = _unscaled(*parts, np.exp(x), b.scale, columns.is_call)
        return np.stack((*four, b.expiry, b.log_spot <= b.edge, b.usable, b.kind, b.log_spot - b.edge))


def greeks(columns: Columns, method: str, out: GreeksResult) -> None:
    """Write value, eight derivatives and status of each row."""
    full = columns.full(out.status.size)
    american_greeks.greeks(full, method, out, slopes, european.greeks)
    american_fallback.greeks(full, out, cash_dividends.solve)


def implied_vol(columns: Columns, prices: Any, method: str, out: ImpliedVolResult) -> None:
    """Write the volatility at which each row is worth its price, and its status."""
    american_implied_vol.implied_vol(columns.full(out.status.size), prices, method, out, price)


__all__ = ["CHUNK_ROWS", "SINGLE", "boundaries", "greeks", "implied_vol", "price", "slopes"]
