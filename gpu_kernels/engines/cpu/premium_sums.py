"""Tabulated premiums on the CPU: summed over contracts into their holders' cells, and read at a spot.

A holder's sums are kept at the table's nodes. A move of the spot is then a product with the nodes' weights,
however many contracts are held; a moved vol takes one pass over them.
"""

from __future__ import annotations

from math import log

import numpy as np

from gpu_kernels.engines.cpu.columns import plain
from gpu_kernels.engines.cpu.compile import kernel
from gpu_kernels.premium_sums import Floats, Holdings, Integers
from gpu_kernels.premium_tables import VOL_RANGE, PremiumTable, Singles


def sum_scenarios(held: Holdings, table: PremiumTable, sums: Singles) -> None:
    """Writes what each cell's options are worth in scenarios at each node, (cells, N + 2, S)."""
    write_nodes(tuple(plain(column) for column in held), plain(table.in_scenarios), sums)


def sum_at_vols(held: Holdings, table: PremiumTable, vol: Floats, sums: Singles, today: Floats) -> None:
    """Writes what these vols add to that, and values and Greeks of today at each node."""
    own = tuple(plain(column) for column in held)
    off = np.clip(vol - table.vol, -VOL_RANGE, VOL_RANGE)
    write_vols(own, plain(table.by_vol), off, sums)
    write_today(own, plain(table.today), off, VOL_RANGE, today)


def add_at(
    table: PremiumTable,
    spot: float,
    cells: Integers,
    sums: Singles,
    today: Floats,
    points: Floats,
    pnl: Floats,
) -> None:
    """Adds the premiums at a spot to values, Greeks and P&L of the cells."""
    add_premiums(plain(cells), plain(table.nodes), log(spot / table.spot), sums, today, points, pnl)


@kernel
def write_nodes(held, in_scenarios, sums):  # type: ignore[no-untyped-def]
    """Writes what each cell's contracts are worth in scenarios at each node: all rows but two."""
    first, cell, weight, _ = held
    nodes, contracts, scenarios = in_scenarios.shape
    line = np.empty((sums.shape[0], scenarios))
    for n in range(nodes):
        line[:] = 0.0
        for c in range(contracts):
            values = in_scenarios[n, c]
            for pair in range(first[c], first[c + 1]):
                size, own = weight[pair], line[cell[pair]]
                for s in range(scenarios):
                    own[s] += size * values[s]
        for k in range(sums.shape[0]):
            answer, own = sums[k, n], line[k]
            for s in range(scenarios):
                answer[s] = own[s]


@kernel
def write_vols(held, by_vol, off, sums):  # type: ignore[no-untyped-def]
    """Writes what moved vols add, at the anchor's spot and per log spot, into the last two rows."""
    first, cell, weight, _ = held
    scenarios = by_vol.shape[2]
    level = np.zeros((sums.shape[0], scenarios))
    slope = np.zeros((sums.shape[0], scenarios))
    for c in range(off.shape[0]):
        if off[c] == 0.0:
            continue
        along, cross, curve = by_vol[0, c], by_vol[1, c], by_vol[2, c]
        for pair in range(first[c], first[c + 1]):
            once = weight[pair] * off[c]
            twice = once * off[c]
            own, own_slope = level[cell[pair]], slope[cell[pair]]
            for s in range(scenarios):
                own[s] += once * along[s] + twice * curve[s]
                own_slope[s] += once * cross[s]
    for k in range(sums.shape[0]):
        answer, answer_slope, own, own_slope = sums[k, -2], sums[k, -1], level[k], slope[k]
        for s in range(scenarios):
            answer[s] = own[s]
            answer_slope[s] = own_slope[s]


@kernel
def write_today(held, today, off, spread, points):  # type: ignore[no-untyped-def]
    """Writes value, gross value and Greeks of each cell's premiums at each node, at vols so far off."""
    first, cell, weight, gross = held
    nodes, _, contracts, fields = today.shape
    points[:] = 0.0
    value = np.empty(fields)
    for c in range(contracts):
        if first[c] == first[c + 1]:
            continue
        at = off[c] / spread
        low, middle, high = 0.5 * at * (at - 1.0), 1.0 - at * at, 0.5 * at * (at + 1.0)
        for n in range(nodes):
            for f in range(fields):
                value[f] = low * today[n, 0, c, f] + middle * today[n, 1, c, f] + high * today[n, 2, c, f]
            for pair in range(first[c], first[c + 1]):
                answer, size = points[cell[pair], n], weight[pair]
                answer[0] += size * value[0]
                answer[1] += gross[pair] * value[0]
                for f in range(1, fields):
                    answer[1 + f] += size * value[f]


@kernel
def add_premiums(place, nodes, x, sums, points, out_points, out_pnl):  # type: ignore[no-untyped-def]
    """Adds premiums at a log spot to the cells' values and Greeks, and what they change by to P&L."""
    count, scenarios = nodes.shape[0], sums.shape[2]
    weight = np.empty(count + 2)
    for n in range(count):
        weight[n] = 1.0
        for m in range(count):
            if m != n:
                weight[n] *= (x - nodes[m]) / (nodes[n] - nodes[m])
    weight[count] = 1.0
    weight[count + 1] = x
    for k in range(place.shape[0]):
        answer, pnl = out_points[place[k]], out_pnl[place[k]]
        price = 0.0
        for n in range(count):
            today, share = points[k, n], weight[n]
            price += share * today[0]
            for f in range(answer.shape[0]):
                answer[f] += share * today[f]
        for s in range(scenarios):
            pnl[s] -= price
        for n in range(count + 2):
            values, share = sums[k, n], weight[n]
            for s in range(scenarios):
                pnl[s] += share * values[s]
