"""American positions under many scenarios: an interpolant per position, its error measured and stated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.errors import InvalidInput
from gpu_kernels.portfolio import Portfolio
from gpu_kernels.random_streams import philox_uniforms
from gpu_kernels.revaluation import check, shocks
from gpu_kernels.scenarios import VOL_FLOOR, Scenarios
from gpu_kernels.shocked_options import kinked_in_rate, options_of, vol_changes

if TYPE_CHECKING:
    from gpu_kernels.engines.engine import Engine

Floats = NDArray[np.float64]

# Places along spot, vols and rates at which a position is priced; a side that does not move has one.
NODES = (32, 8, 4)
# Points per position at which the interpolant is checked; the first few are corners of its ranges.
CHECKS = 12
CORNERS = 4
# A position whose measured error is larger, as a part of its spot, is priced exactly instead.
TOLERANCE = 1e-5
# Coefficients are left out as long as all that is left out stays below this part of the tolerance.
LEFT_OUT = 0.1
# Bytes of (position, scenario) numbers held at once: 32 MiB.
BLOCK_NUMBERS = 1 << 22


class AmericanBook:
    """A portfolio whose American rows are revalued through Chebyshev interpolants; asked for by making one.

    Built for the ranges of spot, vol and rate that ``scenarios`` span, at their one horizon, and good for
    any scenarios within them. ``error`` is the largest deviation from exact prices found at CHECKS random
    points of every position, or the size of its last coefficients and of those left out if that is more, as
    a part of its spot; positions beyond ``tolerance`` are priced exactly (``exact`` holds their rows), so
    that no interpolated row was seen to be worse. Only the cpu engine has this.
    """

    def __init__(
        self,
        engine: Engine,
        portfolio: Portfolio,
        scenarios: Scenarios,
        *,
        tolerance: float = TOLERANCE,
        nodes: tuple[int, int, int] = NODES,
        seed: int = 0,
    ) -> None:
        check(portfolio, scenarios)
        if len(np.unique(scenarios.elapsed)) != 1:
            raise InvalidInput("elapsed", "must be the same in all scenarios")
        self._kernel = engine.module("american_interpolant")
        self._plain = engine.module("revaluation")
        self._engine = engine
        self.elapsed = float(scenarios.elapsed[0])
        american = np.flatnonzero(portfolio.american)
        self._rows = portfolio.rows(american).ungrouped()
        self._build(self._rows, scenarios, nodes)
        bound = self._shorten(LEFT_OUT * tolerance)
        errors = np.maximum(self._measured_errors(seed), bound)
        kinked = kinked_in_rate(self._rows, self._rate_low, self._rate_high)
        good = (errors <= tolerance) & ~kinked
        self.error = float(errors[good].max(initial=0.0))
        self.exact = american[~good]
        self._rows = self._rows.rows(np.flatnonzero(good))
        self._keep(good)
        rest = np.ones(len(portfolio), dtype=bool)
        rest[american[good]] = False
        self._rest = portfolio.rows(rest).ungrouped()
        self._interpolated = american[good]
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
        out = np.empty((len(self._interpolated) + len(self._rest_rows), len(scenarios)))
        out[self._rest_rows] = self._plain.position_pnl(self._engine, self._rest, scenarios)
        if self._rows.options:
            self._check_within(scenarios)
            out[self._interpolated] = self._pnl(scenarios)
        return out

    def _build(self, rows: Portfolio, scenarios: Scenarios, nodes: tuple[int, int, int]) -> None:
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
        ranges = self._kernel.Ranges(
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
        self._tensor = self._kernel.build(columns, ranges, self._engine, counts)
        self._today = self._engine.price(options_of(rows)).price if rows.options else np.empty(0)

    def _shorten(self, share: float) -> Floats:
        """Leave out coefficients up to ``share`` of each spot; bound on them and the rest."""
        rows, tensor = self._rows, self._tensor
        size = np.abs(tensor.premium)
        missing = size[:, -3:].sum(axis=2).max(axis=1, initial=0.0)
        for order in tensor.orders:
            if order.any():
                missing = np.maximum(missing, size[:, :, order == order.max()].sum(axis=(1, 2)))
        # From units of the tensor to parts of the spot.
        scale = np.where(rows.is_call, 1.0, np.divide(rows.strike, np.maximum(rows.spot, 1e-290)))
        self._tensor = self._kernel.shortened(tensor, share / np.maximum(scale, 1e-290))
        return np.asarray(np.where(np.isnan(missing), np.inf, missing * scale + share))

    def _measured_errors(self, seed: int) -> Floats:
        """Largest error of each position at random points of its own ranges, as a part of its spot."""
        rows = self._rows
        worst = np.zeros(rows.options)
        if not rows.options:
            return worst
        for number in range(CHECKS):
            at = philox_uniforms(seed, 0, self._return_low.size + 2, 1, stream=number)
            at = np.rint(at) if number < CORNERS else at
            spread = at[:-2, 0] * (self._return_high - self._return_low) + self._return_low
            vol_at, rate_at = at[-2, 0], at[-1, 0]
            rate_change = self._rate_low + rate_at * (self._rate_high - self._rate_low)
            wanted = self._vol_low + vol_at * (self._vol_high - self._vol_low)
            # One scenario whose vol differs by position: today's vols are moved instead.
            moved = rows.with_vols(wanted)
            scenario = Scenarios(spread[None, :], rate_change=rate_change, elapsed=self.elapsed)
            exact = self._plain.position_pnl(self._engine, moved, scenario)[:, 0]
            exact += (
                (self._engine.price(options_of(moved)).price - self._today) * rows.quantity * rows.multiplier
            )
            found = self._pnl(scenario, moved)[:, 0]
            size = np.abs(rows.quantity * rows.multiplier) * rows.spot
            part = np.divide(np.abs(found - exact), size, out=np.zeros_like(size), where=size > 0.0)
            worst = np.maximum(worst, np.where(np.isnan(part), np.inf, part))
        return worst

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
