"""A stress run on this machine's engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

import gpu_kernels as gk
from gpu_kernels.es_components import component_es
from gpu_kernels.revaluation import position_pnl
from risk_cli.engine_choice import engine_for
from risk_cli.progress_bar import Advance
from risk_cli.refusals import BadInput, CannotDo
from risk_cli.stress.book import Book, Layout, arrange, at_market
from risk_cli.stress.limits import ES_LEVEL, usages
from risk_cli.stress.market_file import Market
from risk_cli.stress.outcome import Distribution, Exposure, Floats, Ladder, Outcome, Stress
from risk_cli.stress.portfolio_file import Desk
from risk_cli.stress.scenario_file import LEVELS, Past, Plan, Simulation
from risk_cli.stress.shocks import Draws, Stresses, build_past, build_simulation, build_stresses
from risk_cli.stress.wording import dividend_words, scenario_words
from risk_client.positions import SPOT

# Positions × scenarios between two moves of the progress bar; the sums do not depend on it.
BLOCK = 1 << 18
# An American position costs about as much as so many European ones.
AMERICAN_COST = 64


def run_in_process(
    desk: Desk,
    plan: Plan,
    market: Market,
    engine_name: str,
    progress: Callable[[int], Advance],
) -> Outcome:
    """The whole run; `progress` is given the work's size and answers with what tells it of work done."""
    layout = arrange(desk)
    book = at_market(layout, market)
    stresses = build_stresses(plan, layout.underlyings, tuple(market.quotes), market.history)
    draws = [_draws(one, layout, market) for one in asked_distributions(plan, market)]
    count = len(stresses.names) + sum(len(one.scenarios) for one in draws)
    engine = engine_for(engine_name, book.portfolio, count)
    advance = progress(count * _cost(book))
    values, exposures = _today(engine, book)
    done = _stresses(engine, book, stresses, advance)
    distributions = tuple(_distribution(engine, book, one, advance) for one in draws)
    american = int(np.count_nonzero(book.portfolio.american))
    outcome = Outcome(
        layout=layout,
        value_today=float(values.sum()),
        exposures=exposures,
        stresses=done,
        ladders=ladder_grids(stresses, done),
        distributions=distributions,
        worst_by_position=_worst_by_position(engine, book, stresses, done),
        made_with={
            "engine": engine.name,
            "device": engine.device,
            "method": "full revaluation of every position in every scenario",
            "market": f"{market.file}, {market.moment:%Y-%m-%d %H:%M} UTC",
            "scenarios": plan.file,
            "positions": f"{len(layout.positions):,} positions, of them {layout.options:,} options "
            f"({american:,} American)",
        },
        notes=(*market.notes, *dividend_words(market.dividends, layout.underlyings), *stresses.notes),
    )
    return replace(outcome, usages=usages(plan.limits, layout, done, distributions))


def asked_distributions(plan: Plan, market: Market) -> tuple[Past | Simulation, ...]:
    """What the file asks for, else the whole history, or a simulation where there is none."""
    if plan.distributions:
        return plan.distributions
    if market.history is not None:
        return (Past(None, "history"),)
    return (Simulation(None, "simulation"),)


def _draws(one: Past | Simulation, layout: Layout, market: Market) -> Draws:
    if isinstance(one, Past):
        return build_past(one, layout.underlyings, market.history)
    return build_simulation(one, layout.underlyings, market)


def _cost(book: Book) -> int:
    """Work of one scenario, in European positions."""
    american = int(np.count_nonzero(book.portfolio.american))
    return len(book.portfolio) + (AMERICAN_COST - 1) * american


def _today(engine: gk.Engine, book: Book) -> tuple[Floats, tuple[Exposure, ...]]:
    """Value of every position, and the sums of its Greeks by underlying."""
    layout, portfolio = book.layout, book.portfolio
    size = portfolio.quantity * portfolio.multiplier
    greeks = engine.greeks(book.options)
    bad = np.flatnonzero(np.asarray(greeks.status) > gk.Status.EXPIRED)
    if bad.size:
        desk, row = layout.positions, int(bad[0])
        status = gk.Status(int(np.asarray(greeks.status)[row]))
        raise CannotDo(f"{desk.place(row)}: {desk[row].label} has no price: {status.name}")
    linear = portfolio.linear
    held, of_linear = linear.size, linear.greeks()
    worth = held * linear.spot
    # A future is settled every day: it moves with the market but is worth nothing by itself.
    is_spot = layout.positions.positions.kind[layout.options :] == SPOT
    values = np.concatenate([size * np.asarray(greeks.price), np.where(is_spot, worth, 0.0)])

    def total(options: Floats, others: Floats | float = 0.0) -> Floats:
        rows = np.concatenate([options, np.broadcast_to(others, len(linear))])
        return np.bincount(layout.underlying, rows, minlength=len(layout.underlyings)).astype(float)

    spot = portfolio.spot
    columns = {
        "value": np.bincount(layout.underlying, values, minlength=len(layout.underlyings)).astype(float),
        "delta": total(
            size * np.asarray(greeks.delta) * spot, held * portfolio.carry * linear.underlying_spot
        ),
        "gamma": total(size * np.asarray(greeks.gamma) * spot * spot * 0.01),
        "vega": total(size * np.asarray(greeks.vega) * 0.01),
        "theta": total(size * np.asarray(greeks.theta) / 365.0, held * of_linear.theta / 365.0),
        "rho": total(size * np.asarray(greeks.rho) * 1e-4, held * of_linear.rho * 1e-4),
    }
    exposures = tuple(
        Exposure(symbol, float(book.spots[row]), **{name: float(c[row]) for name, c in columns.items()})
        for row, symbol in enumerate(layout.underlyings)
    )
    return values, exposures


def _by_cell(engine: gk.Engine, book: Book, scenarios: gk.Scenarios, advance: Advance) -> Floats:
    """P&L (C, S), in blocks of scenarios so that progress can be seen."""
    answer = np.empty((len(book.layout.cells), len(scenarios)))
    cost = _cost(book)
    step = max(1, BLOCK // cost)
    for start in range(0, len(scenarios), step):
        part = slice(start, min(start + step, len(scenarios)))
        answer[:, part] = engine.revalue(book.portfolio, scenarios.select(part), by="group")
        advance((part.stop - start) * cost)
    return answer


def _stresses(engine: gk.Engine, book: Book, asked: Stresses, advance: Advance) -> tuple[Stress, ...]:
    if asked.scenarios is None:
        return ()
    return stresses_of(asked, asked.scenarios, _by_cell(engine, book, asked.scenarios, advance))


def stresses_of(asked: Stresses, scenarios: gk.Scenarios, by_cell: Floats) -> tuple[Stress, ...]:
    """Each scenario with its P&L by cell (C, S); a point of a ladder is named by what moves there."""
    names = list(asked.names)
    words = scenario_words(asked.kinds, scenarios)
    for grid, rows in asked.ladders:
        names[rows] = [f"{grid.name}: {what}" for what in words[rows]]
    return tuple(
        Stress(kind, name, float(column.sum()), column, what)
        for kind, name, column, what in zip(asked.kinds, names, by_cell.T, words, strict=True)
    )


def ladder_grids(asked: Stresses, done: Sequence[Stress]) -> tuple[Ladder, ...]:
    """The ladders' results as grids."""
    return tuple(
        Ladder(
            grid.name,
            grid.spot,
            grid.vol,
            np.array([one.pnl for one in done[rows]]).reshape(len(grid.spot), len(grid.vol)),
        )
        for grid, rows in asked.ladders
    )


def _worst_by_position(engine: gk.Engine, book: Book, asked: Stresses, done: Sequence[Stress]) -> Floats:
    if asked.scenarios is None:
        return np.empty(0)
    worst = min(range(len(done)), key=lambda number: done[number].pnl)
    return position_pnl(engine, book.portfolio, asked.scenarios.select([worst]))[:, 0]


def _distribution(engine: gk.Engine, book: Book, draws: Draws, advance: Advance) -> Distribution:
    by_cell = _by_cell(engine, book, draws.scenarios, advance)
    pnl = by_cell.sum(axis=0)
    weights = draws.scenarios.weights
    tails = tails_of(draws, pnl)
    parts = component_es(engine, book.portfolio, draws.scenarios, ES_LEVEL, pnl=pnl)
    notes = (*draws.notes, *(warning for tail in tails for warning in tail.warnings))
    return Distribution(
        draws.name, draws.what, draws.labels, pnl, by_cell, weights, tails, parts.by_position, notes
    )


def tails_of(draws: Draws, pnl: Floats) -> tuple[gk.TailRisk, ...]:
    """VaR and ES at each level that the scenarios are enough for; the first level is a must."""
    weights = draws.scenarios.weights
    tails: list[gk.TailRisk] = []
    for level in LEVELS:
        try:
            tails.append(gk.tail_risk(pnl, level, weights=weights))
        except gk.InvalidInput as error:
            if level == LEVELS[0]:
                raise BadInput(f"{draws.name}: {error.reason}") from None
    return tuple(tails)
