"""Full revaluation of a portfolio under scenarios: what an engine's kernel is given, and what is made of it.

An engine prices blocks of options under scenarios that share one horizon; the checks, linear positions,
horizons, groups and buffers are here and the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.errors import InvalidInput
from gpu_kernels.portfolio import Portfolio
from gpu_kernels.scenarios import Scenarios, VolShockSurface

if TYPE_CHECKING:
    from gpu_kernels.engines.engine import Engine

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Rows × scenarios that `position_pnl` may answer with: beyond it a caller wants sums, not 8 GiB of rows.
POSITION_PNL_MAX = 1 << 30
# American rows whose P&L per scenario is held at once, fewer where that is more numbers (128 MiB).
AMERICAN_BLOCK = 256
AMERICAN_NUMBERS = 1 << 24
# Numbers of futures' P&L per scenario that are held at once: 8 MiB.
FUTURES_NUMBERS = 1 << 20
# So many are added up by themselves: sums depend on the book only, not on how many are held.
AMERICAN_SUM = 16


@dataclass(frozen=True)
class Shocks:
    """Scenarios that share a horizon, one row per underlying, one column per scenario.

    ``node`` and ``node_weight`` say for every option row which four rows of ``surface`` make up its vol shock
    beside ``vol_change``; they are None without a vol shock surface.
    """

    spot_return: Floats  # (U, S) log returns
    vol_change: Floats  # (U, S) or (1, S)
    rate_change: Floats | None  # (S,), None when all are zero
    elapsed: float  # years
    surface: Floats | None  # (nodes, S)
    node: Integers | None  # (P, 4)
    node_weight: Floats | None  # (P, 4)

    @property
    def scenarios(self) -> int:
        """Number of scenarios."""
        return int(self.spot_return.shape[1])

    def of_rows(self, rows: Integers) -> Shocks:
        """The same shocks with the surface nodes of these option rows."""
        if self.node is None or self.node_weight is None:
            return self
        return replace(self, node=self.node[rows], node_weight=self.node_weight[rows])


# Writes the options' P&L under the shocks into (G, S): per group, or all in row 0 when there are no groups.
GroupKernel = Callable[[Portfolio, Shocks, Floats], None]
# Writes the options' P&L under the shocks into (P, S).
PositionKernel = Callable[[Portfolio, Shocks, Floats], None]


# A book beyond all numbers has an infinite P&L, which whoever reads it sees; NumPy need not warn besides.
@np.errstate(over="ignore", invalid="ignore")
def revalue_with(
    kernel: GroupKernel,
    portfolio: Portfolio,
    scenarios: Scenarios,
    by: str | None,
    out: Any,
    apart: PositionKernel | None = None,
) -> Floats:
    """P&L (S,), or (G, S) by group, from an engine's ``kernel`` for options.

    With ``apart`` that kernel gets European rows without dividends only, and this one the others, in blocks.
    """
    if apart is not None and portfolio.apart.any():
        kernel = partial(_with_apart, kernel, apart)
    check(portfolio, scenarios)
    groups = _group_count(portfolio, by)
    answer = _buffer(out, (len(scenarios),) if by is None else (groups, len(scenarios)))
    total = answer.reshape(groups, len(scenarios))
    book = portfolio if by else portfolio.ungrouped()
    for columns, part in _horizons(scenarios):
        if columns is None:
            kernel(book, shocks(book, part), total)
        else:
            piece = np.empty((groups, len(part)))
            kernel(book, shocks(book, part), piece)
            total[:, columns] = piece
    _add_linear(book, scenarios, total)
    return answer


@np.errstate(over="ignore", invalid="ignore")
def position_pnl_with(
    kernel: PositionKernel,
    portfolio: Portfolio,
    scenarios: Scenarios,
    apart: PositionKernel | None = None,
) -> Floats:
    """P&L of every position (options, then linear) in every scenario, (P, S), from its kernels."""
    if apart is not None and portfolio.apart.any():
        kernel = partial(_rows_with_apart, kernel, apart)
    check(portfolio, scenarios)
    if len(portfolio) * len(scenarios) > POSITION_PNL_MAX:
        raise InvalidInput(
            "scenarios",
            f"{len(portfolio)} positions × {len(scenarios)} scenarios exceed {POSITION_PNL_MAX} numbers",
        )
    answer = np.empty((len(portfolio), len(scenarios)))
    options = portfolio.options
    book = portfolio.ungrouped()
    for columns, part in _horizons(scenarios):
        if columns is None:
            kernel(book, shocks(book, part), answer[:options])
        else:
            piece = np.empty((options, len(part)))
            kernel(book, shocks(book, part), piece)
            answer[:options, columns] = piece
    answer[options:] = portfolio.linear.pnl(scenarios)
    return answer


def _with_apart(
    european: GroupKernel, apart: PositionKernel, portfolio: Portfolio, shocks: Shocks, out: Floats
) -> None:
    """Plain rows by one kernel, the others by the other; only the book decides the order of sums."""
    plain = np.flatnonzero(~portfolio.apart)
    part = portfolio.rows(plain)
    european(part, shocks.of_rows(plain), out)
    rows = np.flatnonzero(portfolio.apart)
    held = AMERICAN_NUMBERS // max(1, shocks.scenarios) // AMERICAN_SUM * AMERICAN_SUM
    step = max(AMERICAN_SUM, min(AMERICAN_BLOCK, held))
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        pnl = np.empty((len(block), shocks.scenarios))
        apart(portfolio.rows(block), shocks.of_rows(block), pnl)
        _refuse_nan(portfolio, pnl, block)
        group = np.zeros(len(block), np.int64) if portfolio.group is None else portfolio.group[block]
        for first in range(0, len(block), AMERICAN_SUM):
            sixteen = slice(first, first + AMERICAN_SUM)
            some, own = pnl[sixteen], group[sixteen]
            for number in np.unique(own):
                out[number] += some[own == number].sum(axis=0)


def _rows_with_apart(
    european: PositionKernel, apart: PositionKernel, portfolio: Portfolio, shocks: Shocks, out: Floats
) -> None:
    plain = np.flatnonzero(~portfolio.apart)
    piece = np.empty((len(plain), shocks.scenarios))
    european(portfolio.rows(plain), shocks.of_rows(plain), piece)
    out[plain] = piece
    rows = np.flatnonzero(portfolio.apart)
    for start in range(0, len(rows), AMERICAN_BLOCK):
        block = rows[start : start + AMERICAN_BLOCK]
        pnl = np.empty((len(block), shocks.scenarios))
        apart(portfolio.rows(block), shocks.of_rows(block), pnl)
        _refuse_nan(portfolio, pnl, block)
        out[block] = pnl


def _refuse_nan(portfolio: Portfolio, pnl: Floats, rows: Integers) -> None:
    bad = np.argwhere(np.isnan(pnl))
    if len(bad):
        row, scenario = (int(i) for i in bad[0])
        why = "dividends and a wild vol" if portfolio.paying[rows[row]] else "two exercise boundaries"
        raise InvalidInput("options", f"has no price in scenario {scenario}: it has {why}", int(rows[row]))


def position_pnl(engine: Engine, portfolio: Portfolio, scenarios: Scenarios) -> Floats:
    """P&L of every position (options, then linear) in every scenario, (P, S), in currency."""
    answer: Floats = engine.module("revaluation").position_pnl(engine, portfolio, scenarios)
    return answer


def check(portfolio: Portfolio, scenarios: Scenarios) -> None:
    """Raise unless the scenarios have a column for every underlying of the portfolio."""
    if not isinstance(portfolio, Portfolio):
        raise InvalidInput("portfolio", f"must be a Portfolio, got {type(portfolio).__name__}")
    if not isinstance(scenarios, Scenarios):
        raise InvalidInput("scenarios", f"must be Scenarios, got {type(scenarios).__name__}")
    for field, column in (
        ("underlying", portfolio.underlying),
        ("linear.underlying", portfolio.linear.underlying),
    ):
        bad = np.flatnonzero(column >= scenarios.underlyings)
        if bad.size:
            row = int(bad[0])
            raise InvalidInput(
                field, f"is {column[row]}, but the scenarios have {scenarios.underlyings} underlyings", row
            )


def shocks(portfolio: Portfolio, scenarios: Scenarios) -> Shocks:
    """Scenarios of one horizon laid out for kernels: underlyings in rows, scenarios side by side."""
    surface = scenarios.vol_shock_surface
    node, weight = (None, None) if surface is None else surface_nodes(portfolio, surface)
    rate = scenarios.rate_change
    return Shocks(
        spot_return=np.ascontiguousarray(scenarios.spot_return.T),
        vol_change=np.ascontiguousarray(scenarios.vol_change.T),
        rate_change=np.ascontiguousarray(rate) if rate.any() else None,
        elapsed=float(scenarios.elapsed[0]) if len(scenarios) else 0.0,
        surface=None
        if surface is None
        else np.ascontiguousarray(surface.shock.reshape(len(scenarios), surface.shock[0].size).T),
        node=node,
        node_weight=weight,
    )


def surface_nodes(portfolio: Portfolio, surface: VolShockSurface) -> tuple[Integers, Floats]:
    """For every option the four surface nodes around it, (P, 4), and their bilinear weights."""
    with np.errstate(divide="ignore"):
        moneyness = np.log(portfolio.strike) - np.log(portfolio.spot)
    low_m, up_m, share_m = _bracket(surface.log_moneyness, np.nan_to_num(moneyness))
    low_t, up_t, share_t = _bracket(surface.tenor, portfolio.expiry)
    tenors = len(surface.tenor)
    own = surface.shock.shape[1] > 1
    first = (portfolio.underlying if own else np.zeros_like(portfolio.underlying)) * (
        len(surface.log_moneyness) * tenors
    )
    node = np.stack([first + m * tenors + t for m in (low_m, up_m) for t in (low_t, up_t)], axis=1)
    weight = np.stack([a * b for a in (1.0 - share_m, share_m) for b in (1.0 - share_t, share_t)], axis=1)
    return np.ascontiguousarray(node), np.ascontiguousarray(weight)


def _bracket(nodes: Floats, at: Floats) -> tuple[Integers, Integers, Floats]:
    """Nodes below and above each point and its place between them; beyond the edges, the edge."""
    upper = np.clip(np.searchsorted(nodes, at, side="right"), 1, max(1, len(nodes) - 1))
    lower = upper - 1
    upper = np.minimum(upper, len(nodes) - 1)
    width = np.where(upper > lower, nodes[upper] - nodes[lower], 1.0)
    return lower, upper, np.clip((at - nodes[lower]) / width, 0.0, 1.0)


def _horizons(scenarios: Scenarios) -> Iterator[tuple[Integers | None, Scenarios]]:
    """Scenarios cut by horizon: kernels work out the time to expiry once per position."""
    if not len(scenarios):
        return
    distinct = np.unique(scenarios.elapsed)
    if len(distinct) == 1:
        yield None, scenarios
        return
    for years in distinct:
        columns = np.flatnonzero(scenarios.elapsed == years)
        yield columns, scenarios.select(columns)


def _add_linear(portfolio: Portfolio, scenarios: Scenarios, total: Floats) -> None:
    linear = portfolio.linear
    if not len(linear):
        return
    group = (
        np.zeros(len(linear), np.int64) if portfolio.group is None else portfolio.group[portfolio.options :]
    )
    exposure = np.zeros((len(total), portfolio.underlyings))
    worth = np.where(linear.expiry > 0.0, 0.0, linear.size * linear.spot)
    np.add.at(exposure, (group, linear.underlying), worth)
    for underlying in np.unique(linear.underlying):
        move = np.expm1(scenarios.spot_return[:, underlying])
        for row in np.flatnonzero(exposure[:, underlying]):
            total[row] += exposure[row, underlying] * move
    futures = np.flatnonzero(linear.expiry > 0.0)
    step = max(1, FUTURES_NUMBERS // max(1, len(scenarios)))
    for start in range(0, len(futures), step):
        rows = futures[start : start + step]
        np.add.at(total, group[rows], linear.rows(rows).pnl(scenarios))


def _group_count(portfolio: Portfolio, by: str | None) -> int:
    if by is None:
        return 1
    if by != "group":
        raise InvalidInput("by", f'must be None or "group", got {by!r}')
    if portfolio.group is None:
        raise InvalidInput("group", 'the portfolio has none, but by="group" was asked for')
    return portfolio.groups


def _buffer(out: Any, shape: tuple[int, ...]) -> Floats:
    if out is None:
        return np.empty(shape)
    if not isinstance(out, np.ndarray) or out.dtype != np.float64:
        raise InvalidInput("out", "must be a float64 array")
    if out.shape != shape or not out.flags.c_contiguous or not out.flags.writeable:
        raise InvalidInput("out", f"must be a writable C-contiguous array of shape {shape}, got {out.shape}")
    return out
