"""Early exercise premiums as Chebyshev interpolants, evaluated in scenario loops.

How they are made, and what is known of their error, is in `american_interpolant_fit`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.engines.cpu.american_interpolant_fit import Tensor
from gpu_kernels.engines.cpu.compile import kernel
from gpu_kernels.engines.cpu.revaluation import Market, Rows, _exp, _value
from gpu_kernels.engines.cpu.threads import workers
from gpu_kernels.scenarios import VOL_FLOOR

Floats = NDArray[np.float64]

# Scenarios in a tile: the basis functions of a tile stay in the first-level cache.
TILE = 256
# Positions that one thread takes at a time.
BLOCK_ROWS = 16


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
