"""Early exercise premiums as Chebyshev interpolants, built once and evaluated in scenario loops.

In the frame of the put on a strike of 1 (a call is that put with spot and strike changed over) let x be log
spot and E(vol, rate) the logarithm of the exercise boundary. The premium over the European value is smooth
in (x − E, vol, rate) for x > E, so that a tensor of Chebyshev polynomials in the three converges
exponentially; below E the value is intrinsic. E itself is a tensor in vol and rate.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.engines.cpu.american import block_state
from gpu_kernels.engines.cpu.american_revaluation import METHOD, PREMIUM, values_at_spots
from gpu_kernels.engines.cpu.american_rows import EDGE, KIND, USABLE
from gpu_kernels.engines.cpu.compile import kernel
from gpu_kernels.engines.cpu.revaluation import Market, Rows, _exp, _value
from gpu_kernels.engines.cpu.threads import workers
from gpu_kernels.engines.engine import Engine
from gpu_kernels.options import Options
from gpu_kernels.scenarios import VOL_FLOOR

Floats = NDArray[np.float64]

# Scenarios in a tile: the basis functions of a tile stay in the first-level cache.
TILE = 256
# Positions that one thread takes at a time.
BLOCK_ROWS = 16
TWO_BOUNDARIES = 2.0
# The premium's range starts at the boundary and is at least this long, in logs.
LEAST_RANGE = 1e-3
NEVER_EXERCISED = -1e9


class Ranges(NamedTuple):
    """What each interpolant covers: put-frame log spot up to ``reach``, vol and rate low to high."""

    reach: Floats
    vol_low: Floats
    vol_high: Floats
    rate_low: Floats
    rate_high: Floats


class Tensor(NamedTuple):
    """Coefficients per option: premium (P, K, M) and boundary (P, M) over M products of vol and rate."""

    premium: Floats
    edge: Floats
    length: Floats  # (P,) range of x − E
    frame: Floats  # (P,) x at today's spot
    vol_centre: Floats
    vol_scale: Floats
    rate_centre: Floats
    rate_scale: Floats
    rate: Floats
    spot: Floats
    strike: Floats
    vols: int
    rates: int


def build(
    columns: tuple[Floats, ...], ranges: Ranges, engine: Engine, counts: tuple[int, int, int]
) -> Tensor:
    """Interpolants of options given as (spot, strike, expiry, vol, rate, yield, is_call) at the horizon."""
    spot, strike, expiry, _, rate, dividend, is_call = columns
    number, (along, vols, rates) = len(spot), counts
    vol_nodes = _scaled_nodes(vols, ranges.vol_low, ranges.vol_high)
    rate_nodes = _scaled_nodes(rates, ranges.rate_low, ranges.rate_high)
    every = vols * rates
    grid = (
        np.repeat(spot, every),
        np.repeat(strike, every),
        np.repeat(expiry, every),
        np.repeat(vol_nodes, rates, axis=1).reshape(-1),
        np.tile(rate_nodes, (1, vols)).reshape(-1),
        np.repeat(dividend, every),
        np.repeat(is_call, every),
    )
    edge, premium, length = np.empty(number * every), np.empty((number * every, along)), np.empty(number)

    def work(start: int, stop: int) -> None:
        part = slice(start * every, stop * every)
        own = tuple(column[part] for column in grid)
        edge[part], length[start:stop], premium[part] = _premiums(
            own, ranges.reach[start:stop], every, along, engine
        )

    workers().run(number, work, max(1, 64 // every))
    transform = _to_coefficients(along)
    mixed = np.kron(_to_coefficients(vols), _to_coefficients(rates))
    # Axes: option, product of vol and rate, place along x − E.
    tensor = np.einsum(
        "kj,mn,pnj->pkm", transform, mixed, premium.reshape(number, every, along), optimize=True
    )
    return Tensor(
        premium=np.ascontiguousarray(tensor),
        edge=np.ascontiguousarray(edge.reshape(number, every) @ mixed.T),
        length=length,
        frame=np.where(is_call, -1.0, 1.0) * np.log(spot / strike),
        vol_centre=(ranges.vol_high + ranges.vol_low) / 2.0,
        vol_scale=_inverse(ranges.vol_high - ranges.vol_low),
        rate_centre=(ranges.rate_high + ranges.rate_low) / 2.0,
        rate_scale=_inverse(ranges.rate_high - ranges.rate_low),
        rate=rate,
        spot=spot,
        strike=strike,
        vols=vols,
        rates=rates,
    )


def _premiums(
    own: tuple[Floats, ...], reach: Floats, every: int, along: int, engine: Engine
) -> tuple[Floats, Floats, Floats]:
    """Boundary of each grid option, range of x − E per option, premiums at the nodes, as a put."""
    state = block_state(own, METHOD, PREMIUM)
    count = len(own[0])

    def column(place: int) -> Floats:
        return np.asarray(state[:, place, :].reshape(-1)[:count])

    edge = np.where(column(USABLE) > 0.5, column(EDGE), NEVER_EXERCISED)
    edge[column(KIND) == TWO_BOUNDARIES] = np.nan
    lowest = edge.reshape(-1, every).min(axis=1)
    length = np.maximum(np.where(lowest > NEVER_EXERCISED, reach - lowest, 1.0), LEAST_RANGE) * (1.0 + 1e-9)
    from_edge = np.repeat(length, every)[:, None] * (1.0 + _nodes(along)) / 2.0
    live = edge > NEVER_EXERCISED
    _, strike, expiry, vol, rate, dividend, is_call = own
    sign = np.where(is_call, -1.0, 1.0)[:, None]
    at = np.where(live, edge, 0.0)[:, None] + from_edge
    spots = strike[:, None] * np.exp(sign * at)
    values = values_at_spots(own, state, spots)
    wide = (count, along)
    european = engine.price(
        Options(
            spot=spots,
            strike=np.broadcast_to(strike[:, None], wide),
            expiry=np.broadcast_to(expiry[:, None], wide),
            vol=np.broadcast_to(vol[:, None], wide),
            rate=np.broadcast_to(rate[:, None], wide),
            dividend_yield=np.broadcast_to(dividend[:, None], wide),
            is_call=np.broadcast_to(is_call[:, None], wide),
        )
    ).price
    scale = np.where(is_call[:, None], spots, strike[:, None])
    premium = np.where(live[:, None], (values - european) / scale, 0.0)
    return edge, length, np.where(np.isnan(edge)[:, None], np.nan, premium)


def _nodes(count: int) -> Floats:
    """Chebyshev points of the first kind in (−1, 1); one point is the middle."""
    return np.asarray(np.cos(np.pi * (np.arange(count) + 0.5) / count))


def _scaled_nodes(count: int, low: Floats, high: Floats) -> Floats:
    return np.asarray((low + high)[:, None] / 2.0 + (high - low)[:, None] / 2.0 * _nodes(count))


def _to_coefficients(count: int) -> Floats:
    """Values at the nodes to Chebyshev coefficients."""
    angle = np.pi * (np.arange(count) + 0.5) / count
    matrix = np.cos(np.outer(np.arange(count), angle)) * (2.0 / count)
    matrix[0] /= 2.0
    return np.asarray(matrix)


def _inverse(width: Floats) -> Floats:
    return np.divide(2.0, width, out=np.zeros_like(width), where=width > 0.0)


def pnl_rows(rows: Rows, market: Market, tensor: Tensor, flags: tuple[bool, bool, bool], out: Floats) -> None:
    """Quantity times value less today's, of every row in every (padded) scenario, (P, S)."""
    width = out.shape[1]

    def work(start: int, stop: int) -> None:
        for low in range(0, width, TILE):
            high = min(low + TILE, width)
            block = np.empty((stop - start, high - low))
            _interpolated(rows, market, tensor, *flags, start, stop, low, block)
            out[start:stop, low:high] = block

    workers().run(len(rows.weight), work, BLOCK_ROWS)


@kernel
def _interpolated(rows, market, tensor, vol_moves, rate_moves, has_surface, start, stop, low, out):  # type: ignore[no-untyped-def]
    width = out.shape[1]
    vols, rates = tensor.vols, tensor.rates
    products = vols * rates
    sigma, drift, place, edge = np.empty(width), np.zeros(width), np.empty(width), np.empty(width)
    # A result of its own: `out` is a cut-out with a stride, into which nothing is stored side by side.
    upper, upper2, pnl = np.empty(width), np.empty(width), np.empty(width)
    of_vol, of_rate = np.empty((max(vols, 2), width)), np.empty((max(rates, 2), width))
    basis = np.empty((products, width))
    for p in range(start, stop):
        u = rows.underlying[p]
        moves = market.spot_return[u, low : low + width]
        factors = market.spot_factor[u, low : low + width]
        changes = market.vol_change[u if market.vol_change.shape[0] > 1 else 0, low : low + width]
        for s in range(width):
            sigma[s] = rows.vol[p] + changes[s]
        if has_surface:
            for k in range(4):
                share = rows.node_weight[p, k]
                node = market.surface[rows.node[p, k], low : low + width]
                for s in range(width):
                    sigma[s] += share * node[s]
        for s in range(width):
            sigma[s] = max(sigma[s], VOL_FLOOR)
        if rate_moves:
            for s in range(width):
                drift[s] = market.rate_change[low + s]
        _chebyshev(sigma, tensor.vol_centre[p], tensor.vol_scale[p], 0.0, of_vol, vols)
        _chebyshev(drift, tensor.rate_centre[p], tensor.rate_scale[p], tensor.rate[p], of_rate, rates)
        for i in range(vols):
            for j in range(rates):
                for s in range(width):
                    basis[i * rates + j, s] = of_vol[i, s] * of_rate[j, s]
        sign = rows.sign[p]
        for s in range(width):
            edge[s] = 0.0
        for m in range(products):
            c = tensor.edge[p, m]
            for s in range(width):
                edge[s] += c * basis[m, s]
        stretch, frame = 2.0 / tensor.length[p], tensor.frame[p]
        for s in range(width):
            from_edge = frame - sign * moves[s] - edge[s]
            place[s] = min(max(from_edge * stretch - 1.0, -1.0), 1.0)
            # Exercised where not above the boundary; kept as the sign of the distance.
            edge[s] = from_edge
            upper[s] = 0.0
            upper2[s] = 0.0
        for k in range(tensor.premium.shape[1] - 1, 0, -1):
            _clenshaw(tensor.premium[p, k], basis, place, upper, upper2, 2.0)
        _clenshaw(tensor.premium[p, 0], basis, place, upper, upper2, 1.0)
        # Read before the loop: a store to `out` might else change them, and nothing would be vectorised.
        weight, today, time, root = rows.weight[p], rows.today[p], rows.time[p], rows.root_time[p]
        forward, discounted, centre = rows.forward[p], rows.strike[p], rows.log_moneyness[p]
        spot_today, strike = tensor.spot[p], tensor.strike[p]
        # The premium is in units of the spot for a call, of the strike for a put.
        of_spot, of_strike = (1.0, 0.0) if sign > 0.0 else (0.0, strike)
        for s in range(width):
            deviation = sigma[s] * root
            carry = drift[s] * time
            european = _value(
                sign,
                forward * factors[s],
                discounted * _exp(-carry),
                centre + moves[s] + carry,
                deviation,
                1.0 / deviation,
            )
            spot = spot_today * factors[s]
            now = max(sign * (spot - strike), 0.0)
            held = max(european + (of_spot * spot + of_strike) * max(upper[s], 0.0), now)
            value = now if edge[s] <= 0.0 else held
            pnl[s] = weight * (value - today)
        for s in range(width):
            out[p - start, s] = pnl[s]


@kernel
def _chebyshev(values, centre, scale, offset, out, count):  # type: ignore[no-untyped-def]
    """Chebyshev polynomials of each value, scaled to −1..1."""
    for s in range(values.shape[0]):
        t = min(max((values[s] + offset - centre) * scale, -1.0), 1.0)
        out[0, s] = 1.0
        out[1, s] = t
    for i in range(2, count):
        for s in range(values.shape[0]):
            out[i, s] = 2.0 * out[1, s] * out[i - 1, s] - out[i - 2, s]


@kernel
def _clenshaw(coefficients, basis, place, upper, upper2, factor):  # type: ignore[no-untyped-def]
    """One step of Clenshaw's recurrence, its coefficient a sum over the basis of vol and rate."""
    width = place.shape[0]
    first = coefficients[0]
    for s in range(width):
        before = upper[s]
        upper[s] = (factor * place[s] * before - upper2[s]) + first
        upper2[s] = before
    m = 1
    while m + 3 < basis.shape[0]:
        a, b, c, d = coefficients[m], coefficients[m + 1], coefficients[m + 2], coefficients[m + 3]
        for s in range(width):
            upper[s] += (a * basis[m, s] + b * basis[m + 1, s]) + (c * basis[m + 2, s] + d * basis[m + 3, s])
        m += 4
    while m < basis.shape[0]:
        a = coefficients[m]
        for s in range(width):
            upper[s] += a * basis[m, s]
        m += 1
