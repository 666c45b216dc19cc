"""Early exercise premiums as Chebyshev interpolants, built once and evaluated in scenario loops.

In the frame of the put on a strike of 1 (a call is that put with spot and strike changed over) let x be log
spot and E(vol, rate) the logarithm of the exercise boundary. The premium over the European value is smooth
in (x − E, vol, rate) for x > E, so that a tensor of Chebyshev polynomials in the three converges
exponentially; below E the value is intrinsic. E itself is a tensor in vol and rate.

Each option keeps the coefficients it needs: those whose sizes add up to less than a stated part of its spot
are left out, and as no polynomial exceeds 1 that part bounds what leaving them out can do.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.engines.cpu import chebyshev
from gpu_kernels.engines.cpu.american import block_state
from gpu_kernels.engines.cpu.american_moves import METHOD, PREMIUM
from gpu_kernels.engines.cpu.american_revaluation import values_at_spots
from gpu_kernels.engines.cpu.american_rows import EDGE, KIND, USABLE
from gpu_kernels.engines.cpu.compile import kernel
from gpu_kernels.engines.cpu.revaluation import Market, Rows, _exp, _value
from gpu_kernels.engines.cpu.threads import workers
from gpu_kernels.engines.engine import Engine
from gpu_kernels.options import Options
from gpu_kernels.scenarios import VOL_FLOOR

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Scenarios in a tile: the basis functions of a tile stay in the first-level cache.
TILE = 256
# Positions that one thread takes at a time.
BLOCK_ROWS = 16
TWO_BOUNDARIES = 2.0
# The premium's range starts at the boundary and is at least this long, in logs.
LEAST_RANGE = 1e-3
# And it goes so much beyond what is needed, lest rounding lead out of it.
SLACK = 1e-9
# Products of vol and rate that are added in one pass over a tile.
GROUP = 4
NEVER_EXERCISED = -1e9


class Ranges(NamedTuple):
    """What each interpolant covers: log spot in the put's frame, vol and rate, each from low to high."""

    nearest: Floats
    reach: Floats
    vol_low: Floats
    vol_high: Floats
    rate_low: Floats
    rate_high: Floats


class Tensor(NamedTuple):
    """Coefficients per option: premium (P, K, M) and boundary (P, M) over M products of vol and rate.

    Products are in the order of their degree, so that an option uses the first few: ``kept`` (P, K) of them
    for each power along x − E, of which there are ``degrees`` (P,), and ``edge_kept`` (P,) for its boundary.
    """

    premium: Floats
    edge: Floats
    kept: Integers
    degrees: Integers
    edge_kept: Integers
    used: Integers  # (P,) products of which any coefficient is kept
    near: Floats  # (P,) range of x − E: from near
    length: Floats  # (P,) on so far
    frame: Floats  # (P,) x at today's spot
    vol_centre: Floats
    vol_scale: Floats
    rate_centre: Floats
    rate_scale: Floats
    rate: Floats
    spot: Floats
    strike: Floats
    orders: Integers  # (2, M) power of vol and of rate in each product; the same for all options


def build(
    columns: tuple[Floats, ...], ranges: Ranges, engine: Engine, counts: tuple[int, int, int]
) -> Tensor:
    """Interpolants of options given as (spot, strike, expiry, vol, rate, yield, is_call) at the horizon."""
    spot, strike, expiry, _, rate, dividend, is_call = columns
    number, (along, vols, rates) = len(spot), counts
    vol_nodes = chebyshev.scaled_nodes(vols, ranges.vol_low, ranges.vol_high)
    rate_nodes = chebyshev.scaled_nodes(rates, ranges.rate_low, ranges.rate_high)
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
    transform = chebyshev.to_coefficients(along)
    orders = chebyshev.orders(vols, rates)
    mixed = chebyshev.mixed(vols, rates)
    wide = -(-every // GROUP) * GROUP if every > 1 else 1
    edge, premium = np.zeros((number, wide)), np.zeros((number, along, wide))
    near, length = np.empty(number), np.empty(number)

    def work(start: int, stop: int) -> None:
        own = tuple(column[start * every : stop * every] for column in grid)
        part = Ranges(*(column[start:stop] for column in ranges))
        at = slice(start, stop)
        edge[at, :every], near[at], length[at], values = _premiums(own, part, mixed, along, engine)
        # Axes: option, product of vol and rate, place along x − E.
        premium[at, :, :every] = np.einsum("kj,mn,pnj->pkm", transform, mixed, values, optimize=True)

    workers().run(number, work, max(1, 64 // every))
    return Tensor(
        premium=premium,
        edge=edge,
        kept=np.full((number, along), wide),
        degrees=np.full(number, along),
        edge_kept=np.full(number, wide),
        used=np.full(number, wide),
        near=near,
        length=length,
        frame=np.where(is_call, -1.0, 1.0) * np.log(spot / strike),
        vol_centre=(ranges.vol_high + ranges.vol_low) / 2.0,
        vol_scale=chebyshev.inverse_half(ranges.vol_high - ranges.vol_low),
        rate_centre=(ranges.rate_high + ranges.rate_low) / 2.0,
        rate_scale=chebyshev.inverse_half(ranges.rate_high - ranges.rate_low),
        rate=rate,
        spot=spot,
        strike=strike,
        orders=np.pad(orders, ((0, 0), (0, wide - every))),
    )


def shortened(tensor: Tensor, allowed: Floats) -> Tensor:
    """The tensor with coefficients left out whose sizes add up to at most ``allowed`` (P,) per option.

    Sizes are in units of the option's tensor: of the spot for a call, of the strike for a put.
    """
    count, along, _ = tensor.premium.shape
    if not count:
        return tensor
    share = allowed[:, None] / (along + 1)
    kept = _needed(tensor.premium, share)
    present = kept > 0
    degrees = np.where(present.any(axis=1), along - np.argmax(present[:, ::-1], axis=1), 1)
    # A place along x − E within those in use takes its constant in any case.
    kept = np.maximum(kept, 1)
    edge_kept = np.maximum(_needed(tensor.edge[:, None], share)[:, 0], 1)
    inside = np.arange(along) < degrees[:, None]
    used = np.maximum(np.where(inside, kept, 1).max(axis=1), edge_kept)
    return tensor._replace(kept=kept, degrees=degrees, edge_kept=edge_kept, used=used)


def _needed(coefficients: Floats, allowed: Floats) -> Integers:
    """How many of the last axis's first numbers leave no more than allowed: 0, 1, 2 or whole groups."""
    left = np.cumsum(np.abs(coefficients[..., ::-1]), axis=-1)[..., ::-1]
    # Not "at most": what is not a number is needed.
    count = np.asarray((~(left <= allowed[..., None])).sum(axis=-1))
    whole = -(-count // GROUP) * GROUP
    return np.asarray(np.where(count <= 2, count, whole), np.int64)


def _premiums(
    own: tuple[Floats, ...], ranges: Ranges, mixed: Floats, along: int, engine: Engine
) -> tuple[Floats, Floats, Floats, Floats]:
    """Boundary coefficients, start and length of the range of x − E, premiums at the nodes, as a put."""
    state = block_state(own, METHOD, PREMIUM)
    count, every = len(own[0]), len(mixed)

    def column(place: int) -> Floats:
        return np.asarray(state[:, place, :].reshape(-1)[:count])

    edge = np.where(column(USABLE) > 0.5, column(EDGE), NEVER_EXERCISED)
    edge[column(KIND) == TWO_BOUNDARIES] = np.nan
    live = edge > NEVER_EXERCISED
    coefficients = np.where(live, edge, 0.0).reshape(-1, every) @ mixed.T
    middle, spread = coefficients[:, 0], np.abs(coefficients[:, 1:]).sum(axis=1)
    near = np.maximum(ranges.nearest - (middle + spread) - SLACK, 0.0)
    length = np.maximum(ranges.reach - (middle - spread) + SLACK - near, LEAST_RANGE)
    # Options that are never exercised early have no boundary to count from.
    near, length = (np.where(np.isfinite(column), column, LEAST_RANGE) for column in (near, length))
    from_edge = np.repeat(near, every)[:, None] + (
        np.repeat(length, every)[:, None] * (1.0 + chebyshev.nodes(along)) / 2.0
    )
    coefficients = np.where(live, edge, np.where(np.isnan(edge), np.nan, NEVER_EXERCISED))
    coefficients = coefficients.reshape(-1, every) @ mixed.T
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
    premium = np.where(np.isnan(edge)[:, None], np.nan, premium)
    return coefficients, near, length, premium.reshape(-1, every, along)


def pnl_rows(rows: Rows, market: Market, tensor: Tensor, flags: tuple[bool, bool, bool], out: Floats) -> None:
    """Quantity times value less today's, of every row in every (padded) scenario, (P, S)."""
    width = out.shape[1]

    def work(start: int, stop: int) -> None:
        for low in range(0, width, TILE):
            block = np.zeros((stop - start, min(TILE, width - low)))
            _interpolated(rows, market, tensor, *flags, start, stop, low, 1, block)
            out[start:stop, low : low + TILE] = block

    workers().run(len(rows.weight), work, BLOCK_ROWS)


def pnl_sum(rows: Rows, market: Market, tensor: Tensor, flags: tuple[bool, bool, bool]) -> Floats:
    """The sum of `pnl_rows` over all rows, (S,), added up in an order that depends on the rows only."""
    count, width = len(rows.weight), market.spot_return.shape[1]
    sums = np.zeros((-(-count // BLOCK_ROWS), width))

    def work(start: int, stop: int) -> None:
        for low in range(0, width, TILE):
            block = np.zeros((1, min(TILE, width - low)))
            _interpolated(rows, market, tensor, *flags, start, stop, low, 0, block)
            sums[start // BLOCK_ROWS, low : low + TILE] = block[0]

    workers().run(count, work, BLOCK_ROWS)
    return np.asarray(sums.sum(axis=0))


@kernel
def _interpolated(rows, market, tensor, vol_moves, rate_moves, has_surface, start, stop, low, apart, out):  # type: ignore[no-untyped-def]
    """Add each row's P&L to a row of ``out`` of its own, or with ``apart`` 0 all to the first."""
    width = out.shape[1]
    products = tensor.orders.shape[1]
    sigma, drift, place, edge = np.empty(width), np.zeros(width), np.empty(width), np.empty(width)
    # A result of its own: `out` is a cut-out with a stride, into which nothing is stored side by side.
    one, other, pnl = np.empty(width), np.empty(width), np.empty(width)
    of_vol, of_rate = np.empty((products + 1, width)), np.empty((products + 1, width))
    basis = np.zeros((products, width))
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
        used = tensor.used[p]
        if used > 1:
            most_vol, most_rate = 0, 0
            for m in range(used):
                most_vol = max(most_vol, tensor.orders[0, m])
                most_rate = max(most_rate, tensor.orders[1, m])
            _chebyshev(sigma, tensor.vol_centre[p], tensor.vol_scale[p], 0.0, of_vol, most_vol)
            _chebyshev(drift, tensor.rate_centre[p], tensor.rate_scale[p], tensor.rate[p], of_rate, most_rate)
            for m in range(1, used):
                i, j = tensor.orders[0, m], tensor.orders[1, m]
                for s in range(width):
                    basis[m, s] = of_vol[i, s] * of_rate[j, s]
        # Read before the loops: a store might else change them, and nothing would be vectorised.
        sign, frame, near, stretch = rows.sign[p], tensor.frame[p], tensor.near[p], 2.0 / tensor.length[p]
        first = tensor.edge[p, 0]
        for s in range(width):
            edge[s] = first
        for m in range(1, tensor.edge_kept[p]):
            c = tensor.edge[p, m]
            for s in range(width):
                edge[s] += c * basis[m, s]
        for s in range(width):
            from_edge = frame - sign * moves[s] - edge[s]
            place[s] = min(max((from_edge - near) * stretch - 1.0, -1.0), 1.0)
            # Exercised where not above the boundary; kept as the sign of the distance.
            edge[s] = from_edge
            one[s] = 0.0
            other[s] = 0.0
        for k in range(tensor.degrees[p] - 1, 0, -1):
            _clenshaw(tensor.premium[p, k], tensor.kept[p, k], basis, place, 2.0, one, other)
            one, other = other, one
        _clenshaw(tensor.premium[p, 0], tensor.kept[p, 0], basis, place, 1.0, one, other)
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
            held = max(european + (of_spot * spot + of_strike) * max(other[s], 0.0), now)
            value = now if edge[s] <= 0.0 else held
            pnl[s] = weight * (value - today)
        row = apart * (p - start)
        for s in range(width):
            out[row, s] += pnl[s]


@kernel
def _chebyshev(values, centre, scale, offset, out, degree):  # type: ignore[no-untyped-def]
    """Chebyshev polynomials of each value, scaled to −1..1, up to a degree."""
    for s in range(values.shape[0]):
        t = min(max((values[s] + offset - centre) * scale, -1.0), 1.0)
        out[0, s] = 1.0
        out[1, s] = t
    for i in range(2, degree + 1):
        for s in range(values.shape[0]):
            out[i, s] = 2.0 * out[1, s] * out[i - 1, s] - out[i - 2, s]


@kernel
def _clenshaw(coefficients, count, basis, place, factor, before, last):  # type: ignore[no-untyped-def]
    """One step of Clenshaw's recurrence, its coefficient a sum over the basis of vol and rate.

    ``last`` is what came before ``before``; the step is written over it.
    """
    width = place.shape[0]
    first = coefficients[0]
    if count == 1:
        for s in range(width):
            last[s] = (factor * place[s] * before[s] - last[s]) + first
        return
    a = coefficients[1]
    if count == 2:
        for s in range(width):
            last[s] = (factor * place[s] * before[s] - last[s]) + (first + a * basis[1, s])
        return
    b, c = coefficients[2], coefficients[3]
    for s in range(width):
        last[s] = (factor * place[s] * before[s] - last[s]) + (
            (first + a * basis[1, s]) + (b * basis[2, s] + c * basis[3, s])
        )
    for m in range(4, count, 4):
        a, b, c, d = coefficients[m], coefficients[m + 1], coefficients[m + 2], coefficients[m + 3]
        for s in range(width):
            last[s] += (a * basis[m, s] + b * basis[m + 1, s]) + (c * basis[m + 2, s] + d * basis[m + 3, s])
