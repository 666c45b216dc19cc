"""Early exercise premiums as Chebyshev interpolants: built once per book, and their error bounded.

In the frame of the put on a strike of 1 (a call is that put with spot and strike changed over) let x be log
spot and E(vol, rate) the logarithm of the exercise boundary. The premium over the European value is smooth
in (x − E, vol, rate) for x > E, so that a tensor of Chebyshev polynomials in the three converges
exponentially; below E the value is intrinsic. E itself is a tensor in vol and rate.

Each option keeps the coefficients it needs: those whose sizes add up to less than a stated part of its spot
are left out, and as no polynomial exceeds 1 that part bounds what leaving them out can do.

What the full tensor misses is measured on a grid of its own, see `largest_errors`.
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
from gpu_kernels.engines.cpu.threads import workers
from gpu_kernels.engines.engine import Engine
from gpu_kernels.options import Options

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

TWO_BOUNDARIES = 2.0
# The premium's range starts at the boundary and is at least this long, in logs.
LEAST_RANGE = 1e-3
# And it goes so much beyond what is needed, lest rounding lead out of it.
SLACK = 1e-9
# Products of vol and rate that are added in one pass over a tile.
GROUP = 4
NEVER_EXERCISED = -1e9
# Log spots beyond this are taken for it: their exponentials are numbers.
FURTHEST = 300.0


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
    spot, strike, _, _, rate, _, is_call = columns
    number, (along, vols, rates) = len(spot), counts
    every = vols * rates
    grid = _on_grid(
        columns,
        chebyshev.scaled_nodes(vols, ranges.vol_low, ranges.vol_high),
        chebyshev.scaled_nodes(rates, ranges.rate_low, ranges.rate_high),
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


def _on_grid(columns: tuple[Floats, ...], vols: Floats, rates: Floats) -> tuple[Floats, ...]:
    """Each option at every pair of its vols (P, V) and rates (P, R), rates running fastest."""
    every = vols.shape[1] * rates.shape[1]
    grid = [np.repeat(column, every) for column in columns]
    grid[3] = np.repeat(vols, rates.shape[1], axis=1).reshape(-1)
    grid[4] = np.tile(rates, (1, vols.shape[1])).reshape(-1)
    return tuple(grid)


def largest_errors(
    columns: tuple[Floats, ...], ranges: Ranges, tensor: Tensor, engine: Engine, counts: tuple[int, int, int]
) -> Floats:
    """Largest difference of each option's value (P,) from its exact one over a grid of checks, in currency.

    The error of a polynomial through N Chebyshev nodes is cos(Nθ), which vanishes at the nodes, times a
    factor that varies slowly while the coefficients beyond N fall off. So it is measured where |cos(Nθ)| is
    1: at the N + 1 extrema in each direction, ends included, one more than the interpolant has nodes.
    """
    extrema = tuple(chebyshev.extrema(count) for count in counts)
    vols = _spread(extrema[1], ranges.vol_low, ranges.vol_high)
    rates = _spread(extrema[2], ranges.rate_low, ranges.rate_high)
    every = vols.shape[1] * rates.shape[1]
    grid = _on_grid(columns, vols, rates)
    orders, used = chebyshev.orders(counts[1], counts[2]), counts[1] * counts[2]
    in_vol, in_rate = (chebyshev.polynomials(counts[1 + k], extrema[1 + k]) for k in (0, 1))
    basis = (in_vol[orders[0]][:, :, None] * in_rate[orders[1]][:, None, :]).reshape(used, every)
    along = chebyshev.polynomials(counts[0], extrema[0])
    worst = np.empty(len(columns[0]))

    def work(start: int, stop: int) -> None:
        own = tuple(column[start * every : stop * every] for column in grid)
        at = slice(start, stop)
        edge = (tensor.edge[at, :used] @ basis).reshape(-1)
        premium = np.einsum("kx,pkm,mc->pcx", along, tensor.premium[at, :, :used], basis, optimize=True)
        near, length = (np.repeat(column[at], every)[:, None] for column in (tensor.near, tensor.length))
        from_edge = near + length * (1.0 + extrema[0]) / 2.0
        # Without a boundary to count from, over the spots of the scenarios.
        live = (edge > NEVER_EXERCISED / 2.0)[:, None]
        span = np.repeat(ranges.nearest[at], every), np.repeat(ranges.reach[at], every)
        place = np.where(live, edge[:, None] + from_edge, _spread(extrema[0], *span))
        exercised = live & (from_edge <= 0.0)
        error = _value_errors(own, place, exercised, premium.reshape(place.shape), engine)
        worst[at] = error.reshape(stop - start, -1).max(axis=1)

    workers().run(len(worst), work, max(1, 64 // every))
    return np.where(np.isnan(worst), np.inf, worst)


def _value_errors(
    own: tuple[Floats, ...], place: Floats, exercised: NDArray[np.bool_], premium: Floats, engine: Engine
) -> Floats:
    """Distance of interpolated values from exact ones at log spots ``place`` (n, K) of the put's frame."""
    strike, is_call = own[1][:, None], own[6][:, None]
    # Where some nodes have a boundary and others have none, what goes through them may be anywhere.
    spots = strike * np.exp(np.where(is_call, -1.0, 1.0) * np.clip(place, -FURTHEST, FURTHEST))
    exact = values_at_spots(own, block_state(own, METHOD, PREMIUM), spots)
    european = _european_values(own, spots, engine)
    now = np.maximum(np.where(is_call, spots - strike, strike - spots), 0.0)
    held = np.maximum(european + np.where(is_call, spots, strike) * np.maximum(premium, 0.0), now)
    error = np.abs(held - exact)
    # At the interpolant's own boundary it answers with the value of exercise.
    return np.asarray(np.where(exercised, np.maximum(error, np.abs(now - exact)), error))


def _european_values(own: tuple[Floats, ...], spots: Floats, engine: Engine) -> Floats:
    """European values of each row at spots of its own, (n, K)."""
    _, strike, expiry, vol, rate, dividend, is_call = (
        np.broadcast_to(column[:, None], spots.shape) for column in own
    )
    options = Options(
        spot=spots,
        strike=strike,
        expiry=expiry,
        vol=vol,
        rate=rate,
        dividend_yield=dividend,
        is_call=is_call,
    )
    return engine.price(options).price


def _spread(at: Floats, low: Floats, high: Floats) -> Floats:
    """Places of −1..1 spread over low to high, (P, count)."""
    return np.asarray((low + high)[:, None] / 2.0 + (high - low)[:, None] / 2.0 * at)


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
    strike, is_call = own[1], own[6]
    sign = np.where(is_call, -1.0, 1.0)[:, None]
    at = np.where(live, edge, 0.0)[:, None] + from_edge
    spots = strike[:, None] * np.exp(sign * at)
    values = values_at_spots(own, state, spots)
    european = _european_values(own, spots, engine)
    scale = np.where(is_call[:, None], spots, strike[:, None])
    premium = np.where(live[:, None], (values - european) / scale, 0.0)
    premium = np.where(np.isnan(edge)[:, None], np.nan, premium)
    return coefficients, near, length, premium.reshape(-1, every, along)
