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
from gpu_kernels.shocked_options import options_of, vol_changes

if TYPE_CHECKING:
    from gpu_kernels.engines.engine import Engine

Floats = NDArray[np.float64]

# Places along spot, vols and rates at which a position is priced; a side that does not move has one.
NODES = (32, 8, 4)
# Points per position at which the interpolant is checked.
CHECKS = 12
# A position whose measured error is larger, as a part of its spot, is priced exactly instead.
TOLERANCE = 1e-5
# Bytes of (position, scenario) numbers held at once: 32 MiB.
BLOCK_NUMBERS = 1 << 22


class AmericanBook:
    """A portfolio whose American rows are revalued through Chebyshev interpolants; asked for by making one.

    Built for the ranges of spot, vol and rate that ``scenarios`` span, at their one horizon, and good for
    any scenarios within them. ``error`` is the largest deviation from exact prices found at CHECKS random
    points of every position, or the size of its last coefficients if that is more, as a part of its spot;
    positions beyond ``tolerance`` are priced exactly (``exact`` holds their rows), so that no interpolated
    row was seen to be worse. Only the cpu engine has this.
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
        errors = np.maximum(self._measured_errors(seed), self._left_out())
        good = (errors <= tolerance) & ~self._kinked()
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
        count = self._rows.options
        step = max(1, BLOCK_NUMBERS // count)
        for start in range(0, len(scenarios), step):
            part = scenarios.select(slice(start, start + step))
            total[start : start + len(part)] += self._pnl(part).sum(axis=0)
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
        change = vol_changes(rows, shocks(rows, scenarios))
        self._vol_low = np.maximum(rows.vol + change.min(axis=1, initial=np.inf), VOL_FLOOR)
        self._vol_high = np.maximum(rows.vol + change.max(axis=1, initial=-np.inf), VOL_FLOOR)
        self._rate_low, self._rate_high = (
            float(scenarios.rate_change.min()),
            float(scenarios.rate_change.max()),
        )
        sign = np.where(rows.is_call, -1.0, 1.0)
        furthest = np.where(rows.is_call, low[rows.underlying], high[rows.underlying])
        with np.errstate(divide="ignore"):
            reach = sign * (np.log(rows.spot) - np.log(rows.strike) + furthest)
        ranges = self._kernel.Ranges(
            reach=reach,
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

    def _left_out(self) -> Floats:
        """What the last coefficients say about those left out, per row and as a part of its spot."""
        rows, tensor = self._rows, self._tensor
        size = np.abs(tensor.premium.reshape(*tensor.premium.shape[:2], tensor.vols, tensor.rates))
        left = size[:, -3:].sum(axis=(2, 3)).max(axis=1, initial=0.0)
        if tensor.vols > 1:
            left = np.maximum(left, size[:, :, -1].sum(axis=(1, 2)))
        if tensor.rates > 1:
            left = np.maximum(left, size[:, :, :, -1].sum(axis=(1, 2)))
        scale = np.where(rows.is_call, 1.0, np.divide(rows.strike, np.maximum(rows.spot, 1e-290)))
        return np.asarray(np.where(np.isnan(left), np.inf, left * scale))

    def _kinked(self) -> NDArray[np.bool_]:
        """Rows whose boundary is not smooth in the rate: where it crosses the yield, or 0 under a put."""
        rows = self._rows
        if self._rate_high <= self._rate_low:
            return np.zeros(rows.options, dtype=bool)
        low, high = rows.rate + self._rate_low, rows.rate + self._rate_high
        crosses = (low <= rows.dividend_yield) & (rows.dividend_yield <= high)
        return np.asarray(crosses | (~rows.is_call & (low <= 0.0)))

    def _measured_errors(self, seed: int) -> Floats:
        """Largest error of each position at random points of its own ranges, as a part of its spot."""
        rows = self._rows
        worst = np.zeros(rows.options)
        if not rows.options:
            return worst
        for number in range(CHECKS):
            at = philox_uniforms(seed, 0, self._return_low.size + 2, 1, stream=number)
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
        moves = shocks(book, scenarios)
        market = self._plain._market(moves)
        prepared = self._plain._rows(self._engine, book.europeans(), moves, None)._replace(today=self._today)
        out = np.empty((book.options, market.spot_return.shape[1]))
        self._kernel.pnl_rows(prepared, market, self._tensor, self._plain._flags(market), out)
        return out[:, : len(scenarios)]

    def _keep(self, good: NDArray[np.bool_]) -> None:
        def kept(value: Any) -> Any:
            return np.ascontiguousarray(value[good]) if isinstance(value, np.ndarray) else value

        self._tensor = type(self._tensor)(*(kept(value) for value in self._tensor))
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
        step = max(1, BLOCK_NUMBERS // self._rows.options)
        for start in range(0, len(scenarios), step):
            part = scenarios.select(slice(start, start + step))
            change = vol_changes(self._rows, shocks(self._rows, part))
            low = np.maximum(self._rows.vol + change.min(axis=1), VOL_FLOOR)
            high = np.maximum(self._rows.vol + change.max(axis=1), VOL_FLOOR)
            if (low < self._vol_low - slack).any() or (high > self._vol_high + slack).any():
                raise InvalidInput("vol_change", "is outside the range built for")
