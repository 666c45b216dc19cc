"""What `risk hedge` takes beyond trades: Kelly's sizes, a band around the delta, and the next trades."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.hedging import Hedge, RebalancingPlan, delta_hedge, rebalancing_plan, whalley_wilmott_band
from risk_cli.answers import plain_table
from risk_cli.refusals import BadInput
from risk_cli.stress.book import Book
from risk_cli.stress.market_file import Market
from risk_cli.stress.portfolio_file import Desk
from risk_cli.stress.shocks import covariance_of
from risk_client.positions import OPTION

Floats = NDArray[np.float64]

PLAN_REACH_MAX = 0.9
NEXT_SHOWN = 5  # spots either way, in the table


@dataclass(frozen=True, slots=True)
class Sizing:
    """The command line; 0 and nothing: not asked for. `expected_return` is by underlying and year."""

    expected_return: tuple[str, ...] = ()  # each NAME=VALUE
    capital: float = 0.0
    fraction: float = 0.0  # 0: a half
    leverage: float = 0.0  # 0: no bound
    cost_rate: float = 0.0
    risk_aversion: float = 0.0
    plan_reach: float = 0.0

    def check(self, objective: str) -> None:
        """Refuses what the objective would pass over, and what is missing."""
        kelly = ("expected_return", "capital", "fraction", "leverage")
        delta = ("cost_rate", "risk_aversion", "plan_reach")
        for name in (*kelly, *delta):
            value = getattr(self, name)
            option, wanted = f"--{name.replace('_', '-')}", "kelly" if name in kelly else "delta"
            if value and objective != wanted:
                raise BadInput(f"{option}: is of --objective {wanted}")
            if not isinstance(value, tuple) and not 0.0 <= value < math.inf:
                raise BadInput(f"{option}: must be a number that is not negative, not {value:g}")
        if objective == "kelly":
            for name in ("expected_return", "capital"):
                if not getattr(self, name):
                    raise BadInput(f"--{name.replace('_', '-')}: is missing; kelly needs it")
        if self.plan_reach > PLAN_REACH_MAX:
            raise BadInput(f"--plan-reach: must be at most {PLAN_REACH_MAX:g}, not {self.plan_reach:g}")
        if self.cost_rate > 1.0:
            raise BadInput(f"--cost-rate: must be at most 1, not {self.cost_rate:g}")

    def returns_of(self, traded: Desk) -> Floats:
        """Expected return of each instrument's underlying."""
        found: dict[str, float] = {}
        for one in self.expected_return:
            name, _, value = one.partition("=")
            try:
                found[name.strip()] = float(value)
            except ValueError:
                raise BadInput(f"--expected-return: {one!r} is not NAME=VALUE") from None
            if not math.isfinite(found[name.strip()]):
                raise BadInput(f"--expected-return: {one!r} is no finite number")
        names = [traded[row].underlying for row in range(len(traded))]
        for name in names:
            if name not in found:
                raise BadInput(f"--expected-return: says nothing of {name}")
        unknown = sorted(found.keys() - set(names))
        if unknown:
            raise BadInput(f"--expected-return: no instrument is on {unknown[0]}")
        return np.array([found[name] for name in names])


def expect_one_linear_each(traded: Desk, why: str) -> None:
    """Refuses options, and two instruments on one underlying."""
    seen: set[str] = set()
    for row in range(len(traded)):
        name = traded[row].underlying
        if traded.positions.kind[row] == OPTION or name in seen:
            raise traded.fault(row, "symbol", f"{why} takes one spot or future per underlying")
        seen.add(name)


def kelly(
    book: Book,
    market: Market,
    rows: NDArray[np.int64],
    delta: Floats,
    asked: Sizing,
    given: Mapping[str, Any],
) -> tuple[Hedge, Sequence[str]]:
    """Trades in units of the instruments, which are these `rows` of the book; `delta` is by underlying."""
    from gpu_kernels.optimise.kelly import kelly_sizes

    layout, portfolio = book.layout, book.portfolio
    place, linear = layout.underlying[rows], rows - layout.options
    unit = portfolio.linear.multiplier[linear] * portfolio.carry[linear]
    cov, origin, notes = covariance_of(layout.underlyings, market)
    whole = kelly_sizes(
        given["mean"],
        cov[np.ix_(place, place)],
        spot=book.spots[place],
        capital=asked.capital,
        fraction=asked.fraction or 0.5,
        held=delta[place],
        lot_size=given["lot_size"] * unit,
        limit=given["limit"] * unit,
        leverage=asked.leverage or math.inf,
        cost_per_lot=given["cost_per_lot"],
        budget=given["budget"] or math.inf,
    )
    hedge = Hedge(
        whole.trades / unit, whole.lots, whole.costs, whole.risk_before, whole.risk_after, whole.measure
    )
    return hedge, (origin, *notes)


def banded(
    engine: gk.Engine,
    book: Book,
    rows: NDArray[np.bool_],
    greeks: Floats,
    asked: Sizing,
    lot_size: float,
    cost_per_lot: float,
) -> tuple[Hedge, Floats, tuple[RebalancingPlan, ...]]:
    """A delta hedge by the underlyings themselves, its band, and where asked for the next trades in each."""
    delta, gamma = greeks[:2]
    band = np.zeros(len(delta))
    if asked.risk_aversion:
        band = whalley_wilmott_band(
            gamma, spot=book.spots, cost_rate=asked.cost_rate, risk_aversion=asked.risk_aversion
        )
    hedge = delta_hedge(
        delta,
        spot=book.spots,
        lot_size=lot_size,
        cost_per_lot=cost_per_lot,
        cost_rate=asked.cost_rate,
        band=band,
    )
    if not asked.plan_reach:
        return hedge, band, ()
    desk = book.portfolio.rows(rows)
    plans = (
        rebalancing_plan(engine, desk, number, band=float(width), lot_size=lot_size, reach=asked.plan_reach)
        for number, width in enumerate(band)
    )
    return hedge, band, tuple(plans)


def plan_body(labels: Sequence[str], plans: Sequence[Any]) -> list[dict[str, Any]]:
    """The plans of a library or a service, as JSON has them."""
    found = []
    for label, plan in zip(labels, plans, strict=True):
        if isinstance(plan, RebalancingPlan):
            up, down = (plan.spots_up, plan.trades_up), (plan.spots_down, plan.trades_down)
        else:
            up, down = (plan.spot_up, plan.trade_up), (plan.spot_down, plan.trade_down)
        ways = {
            way: [{"spot": float(s), "trade": float(t)} for s, t in zip(spots, trades, strict=True)]
            for way, (spots, trades) in (("up", up), ("down", down))
        }
        found.append({"instrument": label, "due_now": float(plan.due_now), **ways})
    return found


def plan_tables(plans: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The nearest of the next trades."""
    cells = []
    for plan in plans:
        for way, name in (("up", "rises to"), ("down", "falls to")):
            for step in plan[way][:NEXT_SHOWN]:
                side = "buy" if step["trade"] > 0 else "sell"
                cells.append(
                    (plan["instrument"], name, f"{step['spot']:,.6g}", side, f"{abs(step['trade']):,.10g}")
                )
    if not plans:
        return []
    title = f"Next trades, the nearest {NEXT_SHOWN} each way, once the trades above are done"
    return [plain_table(title, ("instrument", "spot", "", "", "units"), cells, left=2)]
