"""Early exercise premiums of many options on one underlying, tabulated around today's market.

What the right of early exercise is worth, today and in every scenario, is a smooth function of today's
spot and vol. So it is tabulated once, at a few spots and vols around an anchor; afterwards an American
value is the European value, always worked out in full, plus the premium read from the table. The error of
reading is measured off the nodes and at the corners of the ranges, doubled for what lies between, and kept
beside it together with the bound of the interpolants from which the table is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.american_book import AmericanBook
from gpu_kernels.dividend_points import premium_points
from gpu_kernels.dividend_premiums import DividendPremiums, dividend_premiums, lasts
from gpu_kernels.engines.engine import Engine
from gpu_kernels.options import Options
from gpu_kernels.portfolio import Portfolio
from gpu_kernels.revaluation import position_pnl
from gpu_kernels.scenarios import VOL_FLOOR, Scenarios

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

# Log spots around the anchor that a table covers, and the places at which it has premiums.
SPOT_RANGE = 0.01
SPOT_NODES = 5
# Vols around each option's own that a table covers, absolute; one whose premium hardly knows the vol may
# go as far as the wide range, and counts as if it were at the end of the narrow one.
VOL_RANGE = 0.02
WIDE_VOL_RANGE = 0.25
# Error of the American interpolants that a table is made from, as a part of the spot.
TOLERANCE = 1e-4
# Value and Greeks for which a table has premiums, in this order.
POINT_FIELDS = ("price", "delta", "gamma", "vega", "theta", "rho", "vanna", "volga", "charm")
# Where the error is measured beside the corners: places in -1..1 of the ranges of spot and vol.
_CHECKS = ((0.85, 0.7), (-0.45, -0.9), (0.3, 1.0), (-1.0, 0.5))
# The error is taken for so many times the largest that was measured.
SAFETY = 2.0


@dataclass(frozen=True)
class PremiumTable:
    """Premiums of C options in S scenarios around one spot and each option's vol."""

    spot: float
    vol: Floats  # (C,)
    rate: float
    dividend_yield: float
    spot_range: float  # log
    vol_range: Floats  # (C,)
    nodes: Floats  # (N,) log spots less the anchor's
    in_scenarios: Singles  # (N, C, S)
    by_vol: Singles  # (3, C, S): slope in vol, its change with log spot, half the curvature in vol
    today: Floats  # (N, 3, C, 9): at each spot and at vol less range, vol, vol plus range
    error: float  # bound of one premium, as a part of the spot; a P&L is the difference of two
    # Years after its making until an ex-date is passed, today or at a scenario's horizon: premiums jump then.
    lasts: float = np.inf

    def strain(self, spot: float, vol: Floats, rate: float, dividend_yield: float) -> float:
        """How far the market is from the anchor, as a part of the range; above 1 nothing may be read."""
        if rate != self.rate or dividend_yield != self.dividend_yield or not spot > 0.0:
            return np.inf
        along = abs(np.log(spot / self.spot)) / self.spot_range
        across = (np.abs(vol - self.vol) / self.vol_range).max(initial=0.0)
        return float(max(along, across))

    def today_at_nodes(self, vol: Floats) -> Floats:
        """Premiums and derivatives (POINT_FIELDS) at these vols, summed by `spot_weights`: (N, C, 9)."""
        across = _quadratic(self._off(vol) / VOL_RANGE)
        return np.asarray(np.einsum("vc,nvcf->ncf", across, self.today))

    def spot_weights(self, spot: float) -> Floats:
        """Weights (N,) of the nodes at this spot, for sums of ``in_scenarios`` over options."""
        return lagrange(self.nodes, float(np.log(spot / self.spot)))

    def sums(self, weight: Floats | csr_array) -> Floats:
        """Sums over options with weights (B, C), at each node: (N, B, S)."""
        return np.stack([np.asarray(weight @ node.astype(np.float64)) for node in self.in_scenarios])

    def vol_sums(self, weight: Floats | csr_array, vol: Floats) -> tuple[Floats, Floats]:
        """What moved vols add to the sums at the anchor's spot, and its slope in log spot: (B, S) each."""
        off = self._off(vol)
        moved = np.flatnonzero(off)
        if not moved.size:
            nothing = np.zeros((weight.shape[0], self.by_vol.shape[2]))
            return nothing, nothing
        first, half = weight[:, moved] * off[moved], weight[:, moved] * off[moved] ** 2
        slope, cross, curve = (self.by_vol[k, moved].astype(np.float64) for k in range(3))
        return first @ slope + half @ curve, first @ cross

    def _off(self, vol: Floats) -> Floats:
        return np.clip(vol - self.vol, -VOL_RANGE, VOL_RANGE)


def build_premium_table(engine: Engine, options: Options, scenarios: Scenarios) -> PremiumTable:
    """Tabulates American options (C,) on one underlying for scenarios (S, 1); only the cpu engine can.

    The options have one spot, rate and yield. Scenarios may have any number of horizons.
    """
    book = Portfolio(options=options, quantity=np.ones(len(options)))
    paying = _paying(engine, book, scenarios)
    nodes = (
        SPOT_RANGE
        * np.cos(np.pi * (np.arange(SPOT_NODES) + 0.5) / SPOT_NODES)
        / np.cos(np.pi / (2 * SPOT_NODES))
    )
    nodes[SPOT_NODES // 2] = 0.0
    in_scenarios = np.empty((SPOT_NODES, len(book), len(scenarios)), np.float32)
    by_vol = np.empty((3, len(book), len(scenarios)), np.float32)
    error = 0.0
    for horizon in np.unique(scenarios.elapsed):
        columns = np.flatnonzero(scenarios.elapsed == horizon)
        made = _of_horizon(engine, book, paying, scenarios.select(columns), nodes)
        in_scenarios[:, :, columns], by_vol[:, :, columns] = made.in_scenarios, made.by_vol
        error = max(error, made.error)
    most = np.abs(by_vol).max(axis=2)
    flat = (most[0] + most[2] * WIDE_VOL_RANGE) * WIDE_VOL_RANGE <= TOLERANCE * book.spot[0]
    return PremiumTable(
        spot=float(book.spot[0]),
        vol=book.vol,
        rate=float(book.rate[0]),
        dividend_yield=float(book.dividend_yield[0]),
        spot_range=SPOT_RANGE,
        vol_range=np.where(flat, WIDE_VOL_RANGE, VOL_RANGE),
        nodes=nodes,
        in_scenarios=in_scenarios,
        by_vol=by_vol,
        today=_today(engine, book, nodes),
        error=error + (TOLERANCE if flat.any() else 0.0),
        lasts=lasts(book, scenarios),
    )


def _paying(engine: Engine, book: Portfolio, scenarios: Scenarios) -> DividendPremiums | None:
    """Premiums of the options with dividends to come, from anywhere in the ranges of a table."""
    if not book.paying.any():
        return None
    return dividend_premiums(engine, book.rows(book.paying), scenarios, SPOT_RANGE, VOL_RANGE)


# For each node, the places of the others.
_OTHERS = {
    count: np.array([[j for j in range(count) if j != i] for i in range(count)]) for count in (SPOT_NODES,)
}


def lagrange(nodes: Floats, at: float) -> Floats:
    """Weights with which values at the nodes make the interpolating polynomial's value at a point."""
    count = len(nodes)
    others = nodes[_OTHERS[count]]
    return np.asarray(((at - others) / (nodes[:, None] - others)).prod(axis=1))


def _quadratic(at: Floats) -> Floats:
    """Weights (3, C) of values at -1, 0 and 1."""
    return np.stack((0.5 * at * (at - 1.0), 1.0 - at * at, 0.5 * at * (at + 1.0)))


@dataclass(frozen=True)
class _Made:
    in_scenarios: Floats
    by_vol: Floats
    error: float


def _of_horizon(
    engine: Engine, book: Portfolio, paying: DividendPremiums | None, scenarios: Scenarios, nodes: Floats
) -> _Made:
    """Tables for scenarios of one horizon, and the error that they show off the nodes."""
    edge, spread = float(nodes[0]), VOL_RANGE
    at = [(float(node), 0.0) for node in nodes]
    at += [(move, sign * spread) for move in (0.0, edge, -edge) for sign in (1.0, -1.0)]
    at += [(move * SPOT_RANGE, change * spread) for move, change in _CHECKS]
    found, interpolant_error = _premiums(engine, book, paying, scenarios, at)
    count = len(nodes)
    base = found[:count]
    (up, down), (up_right, down_right), (up_left, down_left) = (
        found[count + 2 * k : count + 2 * k + 2] for k in range(3)
    )
    slope = (up - down) / (2.0 * spread)
    cross = ((up_right - down_right) - (up_left - down_left)) / (2.0 * spread * 2.0 * edge)
    curve = (up + down - 2.0 * base[count // 2]) / (2.0 * spread * spread)
    error = 0.0
    # The corners made the table but are not on it: what they differ by is measured with the rest.
    for (move, change), exact in zip(at[count + 2 :], found[count + 2 :], strict=True):
        read = np.tensordot(lagrange(nodes, move), base, axes=1)
        read += change * (slope + move * cross + change * curve)
        error = max(error, float(np.abs(read - exact).max(initial=0.0)) / float(book.spot[0]))
    return _Made(base, np.stack((slope, cross, curve)), SAFETY * error + interpolant_error)


def _premiums(
    engine: Engine,
    book: Portfolio,
    paying: DividendPremiums | None,
    scenarios: Scenarios,
    at: list[tuple[float, float]],
) -> tuple[Floats, float]:
    """Premiums (A, C, S) with today's spot and vols moved as ``at`` says; error of their interpolants."""
    if paying is None:
        return _plain_premiums(engine, book, scenarios, at)
    found = np.empty((len(at), len(book), len(scenarios)))
    error, plain = 0.0, ~book.paying
    if plain.any():
        found[:, plain], error = _plain_premiums(engine, book.rows(plain), scenarios, at)
    elapsed, moves, changes = (
        float(scenarios.elapsed[0]),
        scenarios.spot_return[:, 0],
        scenarios.vol_change[:, 0],
    )
    for place, (move, change) in enumerate(at):
        found[place, book.paying] = paying.premiums(elapsed, moves + move, changes + change)
    return found, max(error, paying.error)


def _plain_premiums(
    engine: Engine, book: Portfolio, scenarios: Scenarios, at: list[tuple[float, float]]
) -> tuple[Floats, float]:
    """The same of options without dividends to come."""
    moved = [
        Scenarios(
            spot_return=scenarios.spot_return + move,
            vol_change=scenarios.vol_change + change,
            rate_change=scenarios.rate_change,
            elapsed=scenarios.elapsed,
        )
        for move, change in at
    ]
    every = Scenarios.stacked(moved)
    # The vol is floored after the shock, as it would be had today's vol been the moved one.
    american = AmericanBook(engine, book, every, tolerance=TOLERANCE)
    plain = book.europeans()
    pnl = american.position_pnl(every) - position_pnl(engine, plain, every)
    both = (
        _options(book, book.spot, book.vol, american=True),
        _options(book, book.spot, book.vol, american=False),
    )
    now = engine.price(both[0]).price - engine.price(both[1]).price
    premiums = pnl + now[:, None]
    return premiums.reshape(len(book), len(at), len(scenarios)).transpose(1, 0, 2), american.error


def _today(engine: Engine, book: Portfolio, nodes: Floats) -> Floats:
    """Premiums of value and Greeks at every node of spot and vol, (N, 3, C, 9)."""
    out = np.empty((len(nodes), 3, len(book), len(POINT_FIELDS)))
    if book.paying.any():
        out[:, :, book.paying] = premium_points(engine, book.rows(book.paying), nodes, VOL_RANGE)
    if not book.paying.all():
        out[:, :, ~book.paying] = _plain_today(engine, book.rows(~book.paying), nodes)
    return out


def _plain_today(engine: Engine, book: Portfolio, nodes: Floats) -> Floats:
    """The same of options without dividends to come."""
    count = len(book)
    spots = np.repeat(book.spot[None] * np.exp(nodes)[:, None], 3, axis=0).reshape(len(nodes), 3, count)
    vols = np.maximum(book.vol + VOL_RANGE * np.array([-1.0, 0.0, 1.0])[:, None], VOL_FLOOR)
    vols = np.broadcast_to(vols, (len(nodes), 3, count))
    american = engine.greeks(_options(book, spots, vols, american=True))
    european = engine.greeks(_options(book, spots, vols, american=False))
    columns = [getattr(american, name) - getattr(european, name) for name in POINT_FIELDS]
    return np.ascontiguousarray(np.stack(columns, axis=-1))


def _options(book: Portfolio, spot: Floats, vol: Floats, *, american: bool) -> Options:
    """The book's options at other spots and vols, of any leading shape."""
    shape = np.broadcast_shapes(spot.shape, vol.shape)
    columns: dict[str, Any] = {
        name: np.ascontiguousarray(np.broadcast_to(getattr(book, name), shape))
        for name in ("strike", "expiry", "rate", "dividend_yield", "is_call")
    }
    return Options(
        spot=np.ascontiguousarray(np.broadcast_to(spot, shape)),
        vol=np.ascontiguousarray(np.broadcast_to(vol, shape)),
        american=american,
        **columns,
    )
