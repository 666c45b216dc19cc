"""Shared books on the CPU: options outside, scenarios inside; each option's P&L goes to its holders at once.

An underlying's cells belong to it alone, and its rows are added in their order: how many threads share the
underlyings out, and which others are worked out with them, does not change a bit.
"""

from __future__ import annotations

import numpy as np

from gpu_kernels.engines.cpu import ops
from gpu_kernels.engines.cpu.columns import plain
from gpu_kernels.engines.cpu.compile import kernel
from gpu_kernels.engines.cpu.threads import workers
from gpu_kernels.formulas.revaluation import shocked_value
from gpu_kernels.scenarios import VOL_FLOOR
from gpu_kernels.shared_book import LANES, Floats, ScenarioTable, SharedInputs, SharedPoints, SharedRows

# Scenarios worked on at once: the columns of one underlying and the sums of its cells stay in the cache.
TILE = 1024
# Row × scenario numbers below which a second thread costs more than it gains: about 4 ms of one core.
SHARE_NUMBERS = 1 << 20
# Numbers of the sums of an underlying's cells held at once: 32 MiB, however many hold it.
SUMS_MAX = 1 << 22
# Stands for √T of an expired option, whose value is then intrinsic to the last bit.
EXPIRED_ROOT_TIME = 1e-100
# Stands for σ√T of 0 in today's value.
SMALLEST_DEVIATION = 1e-104
# Stands for a spot or strike of 0 in logarithms.
SMALLEST = 1e-290

_value = shocked_value(ops)
_exp, _log, _sqrt, _maximum = ops.exp, ops.log, ops.sqrt, ops.maximum


def cell_pnl(rows: SharedRows, table: ScenarioTable, now: SharedInputs, out: Floats) -> None:
    """Writes the P&L of the chosen underlyings' cells in every scenario into `out` (cells, scenarios)."""
    starts = np.concatenate(([0], np.cumsum(np.diff(rows.first_row)[now.chosen])))
    layout = rows.first_row, rows.first_cell, rows.cell, rows.strike, rows.sign
    pairs = rows.first_holder, plain(rows.holder), rows.weight, rows.puts, now.linear
    held = (*map(plain, layout), *map(plain, pairs))
    owed = now.owed(rows, table.elapsed)
    market = tuple(
        map(plain, (now.chosen, starts, now.spot, now.rate, now.dividend_yield, now.expiry, now.vol, owed))
    )
    shocks = (table.spot_return, table.spot_factor, table.vol_change, table.piece, table.count, table.elapsed)
    arrays = (held, market, tuple(map(plain, shocks)))

    def work(start: int, stop: int) -> None:
        write_cells(*arrays, start, stop, out)

    shared = int(starts[-1]) * table.spot_return.shape[1] >= SHARE_NUMBERS
    workers().run(len(now.chosen), work, 1 if shared else max(1, len(now.chosen)))


@kernel
def write_cells(held, market, shocks, start, stop, out):  # type: ignore[no-untyped-def]
    first_row, first_cell, cell, strike, sign, first_holder, holder, weight, puts, linear = held
    chosen, starts, spot, rate, dividend_yield, expiry, vol, owed = market
    spot_return, spot_factor, vol_change, piece, count, elapsed = shocks
    for k in range(start, stop):
        b = chosen[k]
        cells = first_cell[b + 1] - first_cell[b]
        rows = first_row[b + 1] - first_row[b]
        tile = min(TILE, max(LANES, SUMS_MAX // max(cells, 1) // LANES * LANES))
        width = min(tile, spot_factor.shape[1])
        value = np.empty(width)
        sums = np.empty((cells, width))
        by_factor, fixed = np.empty(cells), np.empty(cells)
        known = spot[k] - spot[k] == 0.0
        here = max(spot[k], SMALLEST) if known else 1.0
        for n in range(piece.shape[0]):
            for low in range(0, piece[n, 1], tile):
                wide = min(tile, piece[n, 1] - low)
                at = piece[n, 0] + low
                moves = spot_return[b, at : at + wide]
                factors = spot_factor[b, at : at + wide]
                vols = vol_change[b, at : at + wide]
                sums[:, :wide] = 0.0
                by_factor[:] = 0.0
                fixed[:] = 0.0
                for p in range(rows if known else 0):
                    sigma = vol[starts[k] + p]
                    if sigma - sigma != 0.0:  # NaN, or beyond all numbers
                        continue
                    row = first_row[b] + p
                    time = expiry[starts[k] + p]
                    left = max(time - elapsed[n], 0.0)
                    # What is left of the spot without the dividends before expiry, today and at the horizon.
                    paid = owed[1 + n, starts[k] + p] if owed.shape[1] else 0.0
                    free = max(here - owed[0, starts[k] + p], SMALLEST) if owed.shape[1] else here
                    forward = free * _exp(-dividend_yield[k] * time)
                    bond = strike[row] * _exp(-rate[k] * time)
                    forward_then = here * _exp(-dividend_yield[k] * left)
                    bond_then = strike[row] * _exp(-rate[k] * left)
                    level = _log(max(strike[row], SMALLEST))
                    carry = rate[k] - dividend_yield[k]
                    side = sign[row]
                    deviation = max(sigma * _sqrt(time), SMALLEST_DEVIATION)
                    moneyness = _log(free) - level + carry * time
                    today = _value(side, forward, bond, moneyness, deviation, 1.0 / deviation)
                    centre = _log(here) - level + carry * left
                    root = max(_sqrt(left), EXPIRED_ROOT_TIME)
                    if paid == 0.0:
                        for s in range(wide):
                            deviation = max(sigma + vols[s], VOL_FLOOR) * root
                            value[s] = (
                                _value(
                                    side,
                                    forward_then * factors[s],
                                    bond_then,
                                    centre + moves[s],
                                    deviation,
                                    1.0 / deviation,
                                )
                                - today
                            )
                    else:
                        gone = paid * _exp(-dividend_yield[k] * left)
                        inverse = 1.0 / max(bond_then, SMALLEST)
                        for s in range(wide):
                            deviation = max(sigma + vols[s], VOL_FLOOR) * root
                            rest = _maximum(forward_then * factors[s] - gone, SMALLEST)
                            centre = _log(rest * inverse)
                            value[s] = (
                                _value(side, rest, bond_then, centre, deviation, 1.0 / deviation) - today
                            )
                    for pair in range(first_holder[row], first_holder[row + 1]):
                        c, size, put = holder[pair], weight[pair], puts[pair]
                        if size != 0.0:
                            line = sums[c]
                            for s in range(wide):
                                line[s] += size * value[s]
                        by_factor[c] += put * forward_then
                        fixed[c] += put * (forward + (bond_then - bond))
                filled = min(wide, count[n] - low)
                for c in range(cells):
                    place = cell[first_cell[b] + c]
                    own = linear[first_cell[b] + c] * here if known else 0.0
                    line, answer = sums[c], out[place, piece[n, 2] + low : piece[n, 2] + low + filled]
                    for s in range(filled):
                        answer[s] = line[s] + ((own - by_factor[c]) * factors[s] + (fixed[c] - own))


def cell_points(rows: SharedRows, now: SharedPoints, fields: Floats, out: Floats) -> None:
    """Writes value, gross value and Greeks of the chosen underlyings' cells into `out`."""
    held = plain(rows.first_cell), plain(rows.cell)
    write_points(held, tuple(plain(column) for column in now), fields, out)


@kernel
def write_points(held, now, fields, out):  # type: ignore[no-untyped-def]
    first_cell, cell = held
    chosen, spot, first, first_holder, holder, weight, gross, owned, linear, gross_linear = now
    width = fields.shape[1]
    start = 0
    for k in range(chosen.shape[0]):
        b = chosen[k]
        for c in range(first_cell[b], first_cell[b + 1]):
            out[cell[c]] = 0.0
        for p in range(first[b], first[b + 1]):
            option = fields[start]
            start += 1
            for pair in range(first_holder[p], first_holder[p + 1]):
                answer = out[cell[first_cell[b] + holder[pair]]]
                size = weight[pair]
                answer[0] += size * option[0]
                answer[1] += gross[pair] * abs(option[0])
                for g in range(1, width):
                    answer[1 + g] += size * option[g]
        if spot[k] - spot[k] == 0.0:
            for c in range(first_cell[b], first_cell[b + 1]):
                answer = out[cell[c]]
                answer[0] += owned[c] * spot[k]
                answer[1] += gross_linear[c] * spot[k]
                answer[2] += linear[c]
