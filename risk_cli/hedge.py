"""`risk hedge`: what to trade against a desk's risk, on this machine at a market file, or by a server."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from risk_cli.answers import Form, expect_apart, money, plain_table, show
from risk_cli.engine_choice import engine_for
from risk_cli.hedge_sizing import (
    Sizing,
    banded,
    expect_one_linear_each,
    kelly,
    plan_body,
    plan_tables,
)
from risk_cli.refusals import DONE, BadInput, CannotDo
from risk_cli.server_options import Server
from risk_cli.servers import named_engine, risk_server
from risk_cli.stress.book import Book, Layout, arrange, at_market
from risk_cli.stress.command import SAMPLES
from risk_cli.stress.limits import ES_LEVEL
from risk_cli.stress.market_file import Market, read_market
from risk_cli.stress.portfolio_file import Desk, both, read_portfolio, spot_desk
from risk_cli.stress.scenario_file import Past, Simulation
from risk_cli.stress.shocks import build_past, build_simulation
from risk_cli.wire_positions import instruments_message
from risk_client.columns import Texts
from risk_client.sizing import kelly as kelly_message

Floats = NDArray[np.float64]

OBJECTIVES = ("delta", "delta_gamma_vega", "min_expected_shortfall", "kelly")
# What makes Greeks comparable: what each loses in a move of this size, as in risk_service.
SPOT_MOVE = 0.01  # of the spot
VOL_MOVE = 0.01  # absolute
# What an objective takes, in prices of every position.
GREEKS_COST, TAIL_COST = 16.0, 500.0
_OWN = "\0"  # begins the portfolio names of instruments, which no file can hold


@dataclass(frozen=True, slots=True)
class Request:
    """The command line. `name` is a portfolio that the server keeps; `monte_carlo` 0: history."""

    portfolio: Path | None
    instruments: Path | None
    market: Path | None
    name: str
    server: Server
    engine: str
    objective: str
    lot_size: float
    cost_per_lot: float
    budget: float
    monte_carlo: int
    seed: int
    sample: bool
    sizing: Sizing


@dataclass(frozen=True, slots=True)
class Answer:
    """Trades in units of each instrument."""

    labels: Sequence[str]
    trades: Floats
    costs: Floats
    risk_before: float
    risk_after: float
    measure: str
    made_with: str
    notes: Sequence[str] = ()
    band: Floats | None = None
    plan: Sequence[Any] = ()


def run_hedge(request: Request, form: Callable[[], Form]) -> int:
    """Runs it; the exit status."""
    shape = form()
    if request.objective not in OBJECTIVES:
        raise BadInput(f"--objective: {request.objective!r} is none of {', '.join(OBJECTIVES)}")
    for name, value, low in (
        ("lot-size", request.lot_size, 1e-6),
        ("cost-per-lot", request.cost_per_lot, 0.0),
        ("budget", request.budget, 0.0),
    ):
        if not low <= value <= 1e12:
            raise BadInput(f"--{name}: must be from {low:g} to 1e12, not {value:g}")
    request.sizing.check(request.objective)
    read = {
        "--portfolio": request.portfolio,
        "--instruments": request.instruments,
        "--market": request.market,
    }
    expect_apart({"--parquet": shape.parquet}, read)
    if request.instruments is None and request.objective != "delta":
        raise BadInput(f"--instruments: is missing; {request.objective} needs to know what may be traded")
    answer = _of_server(request) if request.server else _of_this_machine(request)
    _show(answer, shape)
    return DONE


def _of_server(request: Request) -> Answer:
    for option, given in (("--portfolio", request.portfolio), ("--market", request.market)):
        if given is not None:
            raise BadInput(f"{option}: the server has its own; say --name of the portfolio that it keeps")
    if request.sample or request.monte_carlo:
        raise BadInput("--sample, --monte-carlo: the server has a book and a history of its own")
    if not request.name:
        raise BadInput("--name: is missing: the portfolio that the server keeps")
    with risk_server(request.server) as client:
        instruments, sizing, kelly = None, request.sizing, None
        if request.instruments is not None:
            held, traded = client.get_portfolio(request.name), _instruments(request.instruments)
            instruments = instruments_message(traded, tuple(held.underlyings))
            if request.objective == "kelly":
                kelly = kelly_message(
                    sizing.returns_of(traded),
                    sizing.capital,
                    fraction=sizing.fraction,
                    leverage=sizing.leverage,
                )
        came = client.hedge(
            request.name,
            request.objective,  # type: ignore[arg-type]
            instruments,
            lot_size=request.lot_size,
            cost_per_lot=request.cost_per_lot,
            budget=request.budget,
            cost_rate=sizing.cost_rate or (),
            risk_aversion=sizing.risk_aversion,
            plan_reach=sizing.plan_reach,
            kelly=kelly,
            engine=named_engine(request.engine),
        )
    made_with = f"{came.provenance.engine}, live at {request.server}"
    return Answer(
        came.symbols, came.trade, came.cost, came.risk_before, came.risk_after, came.measure, made_with,
        came.warnings, came.band, came.plan,
    )  # fmt: skip


def _of_this_machine(request: Request) -> Answer:
    if request.name:
        raise BadInput("--name: is a portfolio of a server; say --server")
    portfolio, market_file = request.portfolio, request.market
    if request.sample:
        if portfolio or market_file:
            raise BadInput("--sample: brings its own --portfolio and --market")
        portfolio, market_file = SAMPLES / "desk.csv", SAMPLES / "market.toml"
    if portfolio is None or market_file is None:
        missing = "--portfolio" if portfolio is None else "--market"
        raise BadInput(f"{missing}: is missing (or try --sample, or --server)")
    desk = read_portfolio(portfolio, "hedge")
    market = read_market(market_file)
    traded = _instruments(request.instruments) if request.instruments else _underlyings(desk)
    book = at_market(arrange(both(desk, _units(traded))), market)
    limit = traded.positions.quantity
    tail = request.objective == "min_expected_shortfall"
    band: Floats | None = None
    plan: Sequence[Any] = ()
    engine = engine_for(request.engine, book.portfolio, TAIL_COST if tail else GREEKS_COST)
    if tail:
        hedge, notes = _least_tail(engine, book, market, request, limit)
    elif request.objective == "kelly":
        hedge, notes = _kelly(engine, book, market, request, traded)
    elif request.instruments is None and not request.budget:
        rows = _places(book.layout) < 0
        hedge, band, plan = banded(
            engine, book, rows, _sums(engine, book), request.sizing, request.lot_size, request.cost_per_lot
        )
        notes = ()
    else:
        if request.sizing != Sizing():
            option = "--instruments" if request.instruments else "--budget"
            raise BadInput(
                f"{option}: a band and a plan are of the underlyings alone, unless a server makes them"
            )
        hedge, notes = _greeks(engine, book, request, limit), ()
    labels = [traded[row].label for row in range(len(traded))]
    return Answer(
        labels, hedge.trades, hedge.costs, hedge.risk_before, hedge.risk_after,
        hedge.measure, f"{engine.name}, {engine.device}; market {market.file}", notes, band, plan,
    )  # fmt: skip


def _instruments(path: Path) -> Desk:
    """What may be traded; the quantity is the largest trade either way."""
    found = read_portfolio(path, "hedge")
    bad = np.flatnonzero(~(found.positions.quantity > 0.0))
    if bad.size:
        raise found.fault(int(bad[0]), "quantity", "must be above 0: it is the largest trade")
    return found


def _underlyings(desk: Desk) -> Desk:
    return spot_desk(desk.positions.underlying.named().distinct, math.inf)


def _units(traded: Desk) -> Desk:
    """One unit of each instrument, as a portfolio of its own."""
    count = len(traded)
    own = Texts(np.arange(count, dtype=np.int32), tuple(f"{_OWN}{number}" for number in range(count)))
    units = replace(traded.positions, portfolio=own, quantity=np.ones(count))
    return replace(traded, positions=units)


def _places(layout: Layout) -> NDArray[np.int64]:
    """Per row the number of its instrument; -1 for the desk's own."""
    names = layout.positions.positions.portfolio
    numbers = [int(one[1:]) if one.startswith(_OWN) else -1 for one in names.distinct]
    return names.spread(np.array(numbers, np.int64))


def _sums(engine: gk.Engine, book: Book) -> Floats:
    """Delta, gamma and vega (3, U) of the desk's own rows by underlying."""
    layout, rows = book.layout, _row_greeks(engine, book)
    desk = _places(layout) < 0
    return np.array(
        [np.bincount(layout.underlying[desk], row[desk], len(layout.underlyings)) for row in rows]
    )


def _kelly(
    engine: gk.Engine, book: Book, market: Market, request: Request, traded: Desk
) -> tuple[Any, Sequence[str]]:
    """Trades towards fractional Kelly's holdings; for what the desk holds counts its delta."""
    expect_one_linear_each(traded, "--objective kelly")
    place = _places(book.layout)
    rows = np.flatnonzero(place >= 0)
    given = {
        "mean": request.sizing.returns_of(traded),
        "limit": np.minimum(traded.positions.quantity, 1e12),
        "lot_size": request.lot_size,
        "cost_per_lot": request.cost_per_lot,
        "budget": request.budget,
    }
    delta = _sums(engine, book)[0]
    return kelly(book, market, rows[np.argsort(place[rows])], delta, request.sizing, given)


def _greeks(engine: gk.Engine, book: Book, request: Request, limit: Floats) -> Any:
    """Trades that make the Greeks of every underlying small."""
    from gpu_kernels.optimise.greek_hedge import greek_hedge

    rows, exposure = _row_greeks(engine, book), _sums(engine, book)
    layout, place = book.layout, _places(book.layout)
    count, spots = len(layout.underlyings), book.spots
    desk = place < 0
    used = 1 if request.objective == "delta" else 3
    matrix = np.zeros((used, count, len(limit)))
    matrix[:, layout.underlying[~desk], place[~desk]] = rows[:used, ~desk]
    move = SPOT_MOVE * spots
    scale = (move, 0.5 * np.square(move), np.full(count, VOL_MOVE))[:used]
    hedge = greek_hedge(
        np.concatenate(exposure[:used]),
        matrix.reshape(used * count, len(limit)),
        scale=np.concatenate(scale),
        lot_size=request.lot_size,
        limit=np.minimum(limit, 1e12),
        cost_per_lot=request.cost_per_lot,
        budget=request.budget or math.inf,
    )
    names = ("delta", "gamma", "vega")[:used]
    measure = f"root of the summed squares of {', '.join(names)} in a 1 % move of spot and of one vol point"
    return replace(hedge, measure=measure)


def _row_greeks(engine: gk.Engine, book: Book) -> Floats:
    """Delta, gamma and vega (3, P) of every row, quantities and multipliers included."""
    portfolio = book.portfolio
    greeks = engine.greeks(book.options)
    bad = np.flatnonzero(np.asarray(greeks.status) > gk.Status.EXPIRED)
    if bad.size:
        desk, first = book.layout.positions, int(bad[0])
        raise CannotDo(f"{desk.place(first)}: {desk[first].label} has no price")
    size = portfolio.quantity * portfolio.multiplier
    linear = portfolio.linear
    rows = np.zeros((3, len(book.layout.positions)))
    for row, column in zip(rows, (greeks.delta, greeks.gamma, greeks.vega), strict=True):
        row[: len(size)] = size * np.asarray(column)
    rows[0, len(size) :] = linear.size * portfolio.carry
    return rows


def _least_tail(
    engine: gk.Engine, book: Book, market: Market, request: Request, limit: Floats
) -> tuple[Any, Sequence[str]]:
    """Trades that make the expected shortfall plus what they cost least."""
    from gpu_kernels.optimise.min_es_hedge import min_es_hedge

    layout = book.layout
    if request.monte_carlo or market.history is None:
        wanted = Simulation(None, "simulation", seed=request.seed)
        if request.monte_carlo:
            wanted = replace(wanted, scenarios=request.monte_carlo)
        draws = build_simulation(wanted, layout.underlyings, market)
    else:
        draws = build_past(Past(None, "history"), layout.underlyings, market.history)
    by_cell = np.asarray(engine.revalue(book.portfolio, draws.scenarios, by="group"))
    own = np.array([cell.portfolio.startswith(_OWN) for cell in layout.cells])
    units = np.empty((len(limit), by_cell.shape[1]))
    for cell, row in zip(layout.cells, by_cell, strict=True):
        if cell.portfolio.startswith(_OWN):
            units[int(cell.portfolio[1:])] = row
    hedge = min_es_hedge(
        by_cell[~own].sum(axis=0),
        units,
        limit=limit,
        level=ES_LEVEL,
        lot_size=request.lot_size,
        cost_per_lot=request.cost_per_lot,
        budget=request.budget or math.inf,
        weights=draws.scenarios.weights,
    )
    return hedge, (draws.what, *draws.notes)


def _show(answer: Answer, form: Form) -> None:
    rows = [
        {"instrument": label, "trade": float(trade), "cost": float(cost)}
        for label, trade, cost in zip(answer.labels, answer.trades, answer.costs, strict=True)
    ]
    body = {
        "measure": answer.measure,
        "risk_before": answer.risk_before,
        "risk_after": answer.risk_after,
        "cost": float(sum(answer.costs)),
        "made_with": answer.made_with,
        "notes": list(answer.notes),
        "trades": rows,
    }
    plans = plan_body(answer.labels, answer.plan) if answer.plan else []
    if plans:
        body["plan"] = plans
    if answer.band is not None and np.any(answer.band):
        body["band"] = [float(one) for one in answer.band]
    cells = [
        (label, "buy" if trade > 0 else "sell" if trade < 0 else "", f"{abs(trade):,.10g}", money(cost))
        for label, trade, cost in zip(answer.labels, answer.trades, answer.costs, strict=True)
    ]
    risk = [
        ("risk before", money(answer.risk_before)),
        ("risk after", money(answer.risk_after)),
        ("cost of the trades", money(float(sum(answer.costs)))),
    ]
    tables: list[Any] = [
        plain_table(f"Trades   ({answer.made_with})", ("instrument", "", "units", "cost"), cells, left=2),
        plain_table(f"Risk: {answer.measure}", ("", " "), risk),
        *plan_tables(plans),
        *(f"note: {note}" for note in answer.notes),
    ]
    show(form, "hedge", tables, body, rows, ("instrument", "trade", "cost"))
