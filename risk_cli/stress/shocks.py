"""From what a scenario file asks for to the scenarios that gpu_kernels takes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.errors import InvalidInput
from risk_cli.refusals import BadInput
from risk_cli.stress.history_file import History
from risk_cli.stress.market_file import Market, VolSurface
from risk_cli.stress.scenario_file import BySymbol, Grid, NamedDay, Past, Plan, Replay, Shock, Simulation
from risk_cli.stress.toml_file import Section

TRADING_DAYS = 252.0
# Between any two underlyings, where neither history nor market file says; the answer then says so.
ASSUMED_CORRELATION = 0.5
MONTH = 30.0 / 365.0

Floats = NDArray[np.float64]
Made = TypeVar("Made")
_Item = Shock | Grid | NamedDay | Replay


@dataclass(frozen=True, slots=True)
class Stresses:
    """All stress scenarios in one stack, with what each is."""

    kinds: tuple[str, ...]
    names: tuple[str, ...]
    scenarios: gk.Scenarios | None  # None if there are none
    ladders: tuple[tuple[Grid, slice], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Draws:
    """The scenarios of one distribution."""

    name: str
    what: str
    scenarios: gk.Scenarios
    labels: tuple[str, ...]
    notes: tuple[str, ...]


def build_stresses(
    plan: Plan, symbols: Sequence[str], known: Collection[str], history: History | None
) -> Stresses:
    """Custom shocks, ladders, named days and replays, in this order; `known` symbols may be named unheld."""
    kinds: list[str] = []
    parts: list[gk.Scenarios] = []
    ladders: list[tuple[Grid, slice]] = []
    count = 0
    items: tuple[_Item, ...] = (*plan.shocks, *plan.grids, *plan.named, *plan.replays)
    for item in items:
        kind, part = _built(item, symbols, known, history)
        if isinstance(item, Grid):
            ladders.append((item, slice(count, count + len(part))))
        kinds.extend([kind] * len(part))
        parts.append(part)
        count += len(part)
    if not parts:
        return Stresses((), (), None, (), ())
    stack = gk.Scenarios.stacked(parts)
    notes = tuple(dict.fromkeys(stack.notes))
    return Stresses(tuple(kinds), stack.names, stack, tuple(ladders), notes)


def _built(
    item: _Item,
    symbols: Sequence[str],
    known: Collection[str],
    history: History | None,
) -> tuple[str, gk.Scenarios]:
    from gpu_kernels.stress_library import ladder, shock_scenario, stress_scenarios

    if isinstance(item, Replay):
        return "replay", _replay(item, symbols, history)
    if isinstance(item, Shock):
        shock = item
        spot = _held(shock.section, "spot", shock.spot, symbols, known)
        vol = _held(shock.section, "vol", shock.vol, symbols, known)
        return "scenario", _refused_by(
            shock.section,
            lambda: shock_scenario(
                shock.name, symbols, spot=spot, vol=vol, rate=shock.rate, elapsed=shock.elapsed
            ),
        )
    beta = _betas(item, symbols, known)
    if isinstance(item, NamedDay):
        day = item
        return "named", _refused_by(
            day.section, lambda: stress_scenarios([day.name], len(symbols), beta=beta)
        )
    grid = item
    return "ladder", _refused_by(
        grid.section,
        lambda: ladder(
            grid.spot,
            grid.vol,
            len(symbols),
            beta=beta,
            rate=grid.rate,
            elapsed=grid.elapsed,
            name=grid.name,
        ),
    )


def _held(
    section: Section, key: str, given: BySymbol, symbols: Sequence[str], known: Collection[str]
) -> dict[str, float]:
    """Shocks of symbols that are held; a symbol that nobody knows is a slip of the pen."""
    for symbol in given:
        if symbol != "default" and symbol not in symbols and symbol not in known:
            raise section.fault(key, f"names {symbol!r}, which neither portfolio nor market has")
    return {symbol: move for symbol, move in given.items() if symbol in symbols or symbol == "default"}


def _betas(item: Grid | NamedDay, symbols: Sequence[str], known: Collection[str]) -> Floats:
    held = _held(item.section, "beta", item.beta, symbols, known)
    return np.array([held.get(symbol, held["default"]) for symbol in symbols])


def _refused_by(section: Section | None, make: Callable[[], Made]) -> Made:
    """What the kernels refuse is told with the file and line that asked for it."""
    try:
        return make()
    except InvalidInput as error:
        if section is None:
            raise
        raise section.fault(None, str(error)) from None


def _replay(item: Replay, symbols: Sequence[str], history: History | None) -> gk.Scenarios:
    if history is None:
        raise item.section.fault(None, "needs a history: name one in the market file")
    days = history.of(symbols).between(item.first, item.last)
    if len(days.dates) < 2:
        raise item.section.fault(None, f"{history.file} has fewer than two days from `from` to `to`")
    ends = [0, -1]
    gaps = np.argwhere(np.isnan(days.closes[ends]))
    if len(gaps):
        row, column = (int(place) for place in gaps[0])
        raise item.section.fault(
            None, f"{history.file} has no close of {symbols[column]} on {days.dates[ends[row]]}"
        )
    vols = days.vols[ends]
    return gk.Scenarios(
        spot_return=np.diff(np.log(days.closes[ends]), axis=0),
        vol_change=np.nan_to_num(np.diff(vols, axis=0)),
        names=[item.name],
    )


def build_past(past: Past, symbols: Sequence[str], history: History | None) -> Draws:
    """The days of a window, each a scenario from where the market is now."""
    from gpu_kernels.historical_scenarios import historical_scenarios

    if history is None:
        raise _complaint(past, "needs a history: name one in the market file")
    days = history.of(symbols).between(past.first, past.last)
    if past.window_days:
        kept = slice(max(0, len(days.dates) - past.window_days - past.horizon_days), None)
        days = History(days.file, days.dates[kept], days.symbols, days.closes[kept], days.vols[kept])
    if len(days.dates) <= past.horizon_days:
        raise _complaint(past, f"{days.file} has {len(days.dates)} days there, which is too few")
    missing = tuple(s for s, column in zip(symbols, days.vols.T, strict=True) if np.isnan(column).any())
    # An underlying whose vol history is not whole keeps its vol.
    vols = np.where(np.isnan(days.vols).any(axis=0), 0.0, days.vols)
    scenarios = _refused_by(
        past.section,
        lambda: historical_scenarios(
            days.closes,
            vols,
            horizon_days=past.horizon_days,
            weighting=past.weighting,  # type: ignore[arg-type]
            decay=past.decay,
            missing=past.missing,  # type: ignore[arg-type]
        ),
    )
    dates = days.dates[past.horizon_days :]
    what = (
        f"{len(scenarios):,} past moves over {_days(past.horizon_days)} from {days.dates[0]} to {dates[-1]}, "
        f"{_WEIGHTS[past.weighting]}"
    )
    notes = list(scenarios.notes)
    if missing:
        notes.append(f"no vol history of {', '.join(missing)}: the past moves leave its vol as it is")
    return Draws(past.name, what, scenarios, tuple(str(day) for day in dates), tuple(notes))


_WEIGHTS = {
    "plain": "all equally likely",
    "age": "recent ones likelier",
    "filtered_ewma": "scaled to today's volatility (EWMA)",
    "filtered_garch": "scaled to today's volatility (GARCH)",
}


def build_simulation(simulation: Simulation, symbols: Sequence[str], market: Market) -> Draws:
    """Simulated moves with the covariance of the history, or of the market's vols where there is none."""
    from gpu_kernels.simulated_scenarios import simulate_scenarios

    covariance, origin, notes = covariance_of(symbols, market)
    scenarios = _refused_by(
        simulation.section,
        lambda: simulate_scenarios(
            simulation.scenarios,
            mean=np.zeros(len(symbols)),
            cov=covariance,
            seed=simulation.seed,
            horizon=simulation.horizon_days / TRADING_DAYS,
            distribution=simulation.distribution,  # type: ignore[arg-type]
            dof=simulation.dof,
            vol_beta=simulation.vol_beta,
        ),
    )
    law = {"normal": "normal", "student_t": f"Student-t ({simulation.dof:g})", "jump": "jump"}
    what = (
        f"{simulation.scenarios:,} simulated {law[simulation.distribution]} moves over "
        f"{_days(simulation.horizon_days)}, {origin}, seed {simulation.seed}"
    )
    labels = tuple(f"draw {number + 1}" for number in range(simulation.scenarios))
    return Draws(simulation.name, what, scenarios, labels, (*notes, *scenarios.notes))


def covariance_of(symbols: Sequence[str], market: Market) -> tuple[Floats, str, tuple[str, ...]]:
    """Per year; where it comes from; and what had to be assumed."""
    from gpu_kernels.covariance import covariance_from_returns

    if market.history is not None:
        days = market.history.of(symbols)
        returns = np.diff(np.log(days.closes), axis=0)
        whole = returns[~np.isnan(returns).any(axis=1)]
        estimate = covariance_from_returns(whole)
        return estimate.cov, f"covariance of {len(whole):,} days of {days.file}", ()
    vols = np.array([_month_vol(market, symbol) for symbol in symbols])
    notes: tuple[str, ...] = ()
    correlation = market.correlation
    if correlation is None:
        correlation = ASSUMED_CORRELATION
        if len(symbols) > 1:
            notes = (
                f"{market.file} gives neither history nor correlation: {ASSUMED_CORRELATION:g} between "
                "any two underlyings is assumed for the simulation",
            )
    matrix = np.full((len(symbols), len(symbols)), correlation)
    np.fill_diagonal(matrix, 1.0)
    return matrix * np.outer(vols, vols), f"vols of {market.file}, correlation {correlation:g}", notes


def _month_vol(market: Market, symbol: str) -> float:
    """At-the-money vol of an option of a month: the nearest to a view of the next days."""
    vol = market.quotes[symbol].vol
    return float(vol.at(0.0, MONTH)) if isinstance(vol, VolSurface) else vol


def _days(count: float) -> str:
    return "1 day" if count == 1 else f"{count:g} days"


def _complaint(past: Past, reason: str) -> BadInput:
    return BadInput(reason) if past.section is None else past.section.fault(None, reason)
