"""American positions under many scenarios: an interpolant per position, its error measured and stated."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpu_kernels.errors import InvalidInput
from gpu_kernels.portfolio import Portfolio
from gpu_kernels.revaluation import check, shocks
from gpu_kernels.scenarios import VOL_FLOOR, Scenarios
from gpu_kernels.shocked_options import kinked_in_rate, options_of, vol_changes

if TYPE_CHECKING:
    from gpu_kernels.engines.engine import Engine

Floats = NDArray[np.float64]

# Places along spot, vols and rates at which a position is priced; a side that does not move has one.
NODES = (32, 8, 4)
# The error bound of an interpolant is this many times the largest one found on its grid of checks. Were the
# coefficients nothing beyond one and a half times the nodes, √2 would do for each direction that moves.
SAFETY = 2.0
# A position whose bound is larger, as a part of its spot, is priced exactly instead.
TOLERANCE = 1e-5
# Coefficients are left out as long as all that is left out stays below this part of the tolerance.
LEFT_OUT = 0.1
# Bytes of (position, scenario) numbers held at once: 32 MiB.
BLOCK_NUMBERS = 1 << 22
# Stands for a spot of 0 in quotients.
SMALLEST = 1e-290


@dataclass(frozen=True)
class _Kept:
    """A tensor without its small coefficients, and the size of its last ones as a part of each spot."""

    tensor: Any
    last: Floats


def _said(options: int, wide: int, kinked: int, tolerance: float) -> tuple[str, ...]:
    """What is not interpolated, and why."""
    notes = []
    if wide:
        notes.append(
            f"{wide} of {options} American positions are priced exactly: "
            f"the error bound of their interpolants is above {tolerance:g} of spot"
        )
    if kinked:
        notes.append(
            f"{kinked} of {options} American positions are priced exactly: "
            "their exercise boundary has a kink in the rate"
        )
    return tuple(notes)


class AmericanBook:
    """A portfolio whose American rows are revalued through Chebyshev interpolants; asked for by making one.

    Built for the ranges of spot, vol and rate that ``scenarios`` span, at their one horizon, and good for
    any scenarios within them. Each position has an error bound, as a part of its spot: SAFETY times the
    largest deviation from exact prices on a grid of checks finer than the nodes, or the size of the last
    coefficients where that is more, plus all that was left out. Positions whose bound is above ``tolerance``
    are priced exactly; ``exact`` holds their rows, ``notes`` say how many and why, ``bounds`` are those of
    the ``interpolated`` rows and ``error`` is the largest of them. Only the cpu engine has this.
    """

    def __init__(
        self,
        engine: Engine,
        portfolio: Portfolio,
        scenarios: Scenarios,
        *,
        tolerance: float = TOLERANCE,
        nodes: tuple[int, int, int] = NODES,
    ) -> None:
        check(portfolio, scenarios)
        if len(np.unique(scenarios.elapsed)) != 1:
            raise InvalidInput("elapsed", "must be the same in all scenarios")
        self._kernel = engine.module("american_interpolant")
        self._fit = engine.module("american_interpolant_fit")
        self._plain = engine.module("revaluation")
        self._engine = engine
        self.elapsed = float(scenarios.elapsed[0])
        self._book = portfolio
        american = np.flatnonzero(portfolio.american & ~portfolio.paying)
        self._rows = portfolio.rows(american).ungrouped()
        columns, ranges, counts = self._ranges(self._rows, scenarios, nodes)
        self._today = engine.price(options_of(self._rows)).price
        tensor = self._fit.build(columns, ranges, engine, counts)
        highest = np.exp(np.maximum(self._return_high, 0.0))[self._rows.underlying]
        kept = self._shortened(tensor, highest, LEFT_OUT * tolerance)
        self._tensor = kept.tensor
        found = self._fit.largest_errors(columns, ranges, tensor, engine, counts)
        spots = np.maximum(self._rows.spot, SMALLEST)
        bounds = np.maximum(SAFETY * found / spots, kept.last) + LEFT_OUT * tolerance
        kinked = kinked_in_rate(self._rows, self._rate_low, self._rate_high)
        self._divide(portfolio, american, bounds, kinked, tolerance)

    def _divide(
        self,
        portfolio: Portfolio,
        american: NDArray[np.int64],
        bounds: Floats,
        kinked: NDArray[np.bool_],
        tolerance: float,
    ) -> None:
        """Keep the interpolants that are good enough; all other rows are priced in full."""
        close = bounds <= tolerance
        good = close & ~kinked
        self.bounds = bounds[good]
        self.error = float(self.bounds.max(initial=0.0))
        self.exact = american[~good]
        self.interpolated = american[good]
        self.notes = _said(len(american), int((~close & ~kinked).sum()), int(kinked.sum()), tolerance)
        self._rows = self._rows.rows(np.flatnonzero(good))
        self._keep(good)
        rest = np.ones(len(portfolio), dtype=bool)
        rest[self.interpolated] = False
        self._rest = portfolio.rows(rest).ungrouped()
        self._rest_rows = np.flatnonzero(rest)

    def revalue(self, scenarios: Scenarios) -> Floats:
        """P&L (S,) under scenarios within the ranges that the book was built for."""
        check(self._rest, scenarios)
        total = np.asarray(self._engine.revalue(self._rest, scenarios))
        if not self._rows.options:
            return total
        self._check_within(scenarios)
        step = max(1, BLOCK_NUMBERS // self._rows.options)
        for start in range(0, len(scenarios), step):
            part = scenarios.select(slice(start, start + step)) if len(scenarios) > step else scenarios
            prepared, market, flags = self._prepared(self._rows, part)
            pnl = self._kernel.pnl_sum(prepared, market, self._tensor, flags)
            total[start : start + len(part)] += pnl[: len(part)]
        return total

    def position_pnl(self, scenarios: Scenarios) -> Floats:
        """P&L of every position (options, then linear), (P, S), under scenarios within the book's ranges."""
        out = np.empty((len(self.interpolated) + len(self._rest_rows), len(scenarios)))
        out[self._rest_rows] = self._plain.position_pnl(self._engine, self._rest, scenarios)
        if self._rows.options:
            self._check_within(scenarios)
            out[self.interpolated] = self._pnl(scenarios)
        return out

    def premium_pnl(self, scenarios: Scenarios) -> Floats:
        """What the right of early exercise adds to the P&L of every position, (P, S)."""
        plain = self._plain.position_pnl(self._engine, self._book.europeans(), scenarios)
        return np.asarray(self.position_pnl(scenarios) - plain)

    def moved(self, spots: ArrayLike, vols: ArrayLike) -> AmericanBook:
        """The same interpolants from other spots (U,) and vols (P,) of today, at the same times to expiry.

        Good for scenarios that lead from there to where those of the making led to.
        """
        other = copy(self)
        other._book = self._book.with_spots(spots).with_vols(np.asarray(vols, np.float64))
        other._rows = other._book.rows(self.interpolated).ungrouped()
        other._rest = other._book.rows(self._rest_rows).ungrouped()
        other._today = self._engine.price(options_of(other._rows)).price
        with np.errstate(divide="ignore", invalid="ignore"):
            gone = np.log(other._rows.spot) - np.log(self._rows.spot)
        sign = np.where(self._rows.is_call, -1.0, 1.0)
        other._tensor = self._tensor._replace(frame=self._tensor.frame + sign * gone, spot=other._rows.spot)
        other._return_low, other._return_high = self._return_low.copy(), self._return_high.copy()
        other._return_low[self._rows.underlying] = self._return_low[self._rows.underlying] - gone
        other._return_high[self._rows.underlying] = self._return_high[self._rows.underlying] - gone
        return other

    def _ranges(
        self, rows: Portfolio, scenarios: Scenarios, nodes: tuple[int, int, int]
    ) -> tuple[tuple[Any, ...], Any, tuple[int, int, int]]:
        """The options at the horizon, what their interpolants cover, and their nodes in each direction."""
        low, high = scenarios.spot_return.min(axis=0), scenarios.spot_return.max(axis=0)
        self._return_low, self._return_high = low, high
        self._vol_low, self._vol_high = self._vol_span(scenarios)
        self._rate_low, self._rate_high = (
            float(scenarios.rate_change.min()),
            float(scenarios.rate_change.max()),
        )
        sign = np.where(rows.is_call, -1.0, 1.0)
        ends = low[rows.underlying], high[rows.underlying]
        furthest, nearest = np.where(rows.is_call, ends, ends[::-1])
        with np.errstate(divide="ignore", invalid="ignore"):
            now = np.log(rows.spot) - np.log(rows.strike)
        ranges = self._fit.Ranges(
            nearest=sign * (now + nearest),
            reach=sign * (now + furthest),
            vol_low=self._vol_low,
            vol_high=self._vol_high,
            rate_low=rows.rate + self._rate_low,
            rate_high=rows.rate + self._rate_high,
        )
        columns = (
            rows.spot,
            rows.strike,
            np.maximum(rows.expiry - self.elapsed, 0.0),
            np.maximum(rows.vol, VOL_FLOOR),
            rows.rate,
            rows.dividend_yield,
            rows.is_call,
        )
        counts = (
            nodes[0],
            nodes[1] if (self._vol_high > self._vol_low).any() else 1,
            nodes[2] if self._rate_high > self._rate_low else 1,
        )
        return columns, ranges, counts

    def _shortened(self, tensor: Any, highest: Floats, share: float) -> _Kept:
        """The tensor without coefficients up to ``share`` of each spot, and the size of the last ones.

        ``highest`` is the largest multiple of its spot today that an option is priced at.
        """
        rows = self._rows
        size = np.abs(tensor.premium)
        last = size[:, -3:].sum(axis=2).max(axis=1, initial=0.0)
        for order in tensor.orders:
            if order.any():
                last = np.maximum(last, size[:, :, order == order.max()].sum(axis=(1, 2)))
        # From units of the tensor to parts of the spot.
        scale = np.where(rows.is_call, highest, np.divide(rows.strike, np.maximum(rows.spot, SMALLEST)))
        short = self._fit.shortened(tensor, share / np.maximum(scale, SMALLEST))
        return _Kept(short, np.where(np.isnan(last), np.inf, last * scale))

    def _pnl(self, scenarios: Scenarios, rows: Portfolio | None = None) -> Floats:
        """P&L per American row and scenario."""
        book = self._rows if rows is None else rows
        prepared, market, flags = self._prepared(book, scenarios)
        out = np.empty((book.options, market.spot_return.shape[1]))
        self._kernel.pnl_rows(prepared, market, self._tensor, flags, out)
        return out[:, : len(scenarios)]

    def _prepared(self, book: Portfolio, scenarios: Scenarios) -> tuple[Any, Any, tuple[bool, bool, bool]]:
        """What the kernels take: rows with today's American values, the market, which of it moves."""
        moves = shocks(book, scenarios)
        market = self._plain._market(moves)
        rows = self._plain._rows(self._engine, book.europeans(), moves, None)._replace(today=self._today)
        return rows, market, self._plain._flags(market)

    def _keep(self, good: NDArray[np.bool_]) -> None:
        def kept(value: Any) -> Any:
            return np.ascontiguousarray(value[good])

        orders = self._tensor.orders
        self._tensor = type(self._tensor)(*(kept(value) for value in self._tensor[:-1]), orders)
        self._today, self._vol_low, self._vol_high = (
            kept(column) for column in (self._today, self._vol_low, self._vol_high)
        )

    def _check_within(self, scenarios: Scenarios) -> None:
        slack = 1e-12
        returns = scenarios.spot_return
        bad = np.argwhere((returns < self._return_low - slack) | (returns > self._return_high + slack))
        if len(bad):
            row, column = (int(i) for i in bad[0])
            raise InvalidInput("spot_return", f"of underlying {column} is outside the range built for", row)
        rate = scenarios.rate_change
        wild = np.flatnonzero((rate < self._rate_low - slack) | (rate > self._rate_high + slack))
        if len(wild):
            raise InvalidInput("rate_change", "is outside the range built for", int(wild[0]))
        if (scenarios.elapsed != self.elapsed).any():
            raise InvalidInput("elapsed", f"must be {self.elapsed}, for which the book was built")
        low, high = self._vol_span(scenarios)
        if (low < self._vol_low - slack).any() or (high > self._vol_high + slack).any():
            raise InvalidInput("vol_change", "is outside the range built for")

    def _vol_span(self, scenarios: Scenarios) -> tuple[Floats, Floats]:
        """Lowest and highest vol of every row under the scenarios."""
        rows = self._rows
        if scenarios.vol_shock_surface is None:
            change = scenarios.vol_change
            own = rows.underlying if change.shape[1] > 1 else np.zeros_like(rows.underlying)
            low, high = change.min(axis=0)[own], change.max(axis=0)[own]
        else:
            low, high = np.full(rows.options, np.inf), np.full(rows.options, -np.inf)
            step = max(1, BLOCK_NUMBERS // max(1, rows.options))
            for start in range(0, len(scenarios), step):
                moved = vol_changes(rows, shocks(rows, scenarios.select(slice(start, start + step))))
                low, high = np.minimum(low, moved.min(axis=1)), np.maximum(high, moved.max(axis=1))
        return np.maximum(rows.vol + low, VOL_FLOOR), np.maximum(rows.vol + high, VOL_FLOOR)
