"""What to do to the market: shocks, grids, named days, past windows, simulations; and limits on losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from risk_cli.stress.toml_file import Section, read_toml

DAYS_PER_YEAR = 365.0
LEVELS = (0.975, 0.99)
WEIGHTINGS = ("plain", "age", "filtered_ewma", "filtered_garch")
DISTRIBUTIONS = ("normal", "student_t", "jump")
SCENARIOS_MAX = 10_000_000
LIMIT_KEYS = ("es_975", "stress_loss")
WHOLE_FILE = ""  # the scope of a limit on all portfolios of the file together

BySymbol = Mapping[str, float]
VOL_CHANGE_MAX = 2.0  # 200 points; beyond it, it was meant in points
DAYS_MAX = 3_660.0  # some ten years go by


@dataclass(frozen=True, slots=True)
class Shock:
    """[[scenario]]: simple returns and absolute vol changes by symbol, a rate change, and days gone by."""

    section: Section
    name: str
    spot: BySymbol
    vol: BySymbol
    rate: float
    elapsed: float  # years


@dataclass(frozen=True, slots=True)
class Grid:
    """[[ladder]]: every spot move with every vol change."""

    section: Section
    name: str
    spot: tuple[float, ...]
    vol: tuple[float, ...]
    beta: BySymbol
    rate: float
    elapsed: float  # years


@dataclass(frozen=True, slots=True)
class NamedDay:
    """[[named]]: a day of the built-in library; every underlying moves by its beta times the index."""

    section: Section
    name: str
    beta: BySymbol


@dataclass(frozen=True, slots=True)
class Replay:
    """[[replay]]: one scenario, the move of every underlying from one day of the history to another."""

    section: Section
    name: str
    first: date | None
    last: date | None


@dataclass(frozen=True, slots=True)
class Past:
    """[[historical]]: every day of a window happens again; the losses make a distribution."""

    section: Section | None
    name: str
    first: date | None = None
    last: date | None = None
    window_days: int = 0  # 0: all
    horizon_days: int = 1
    weighting: str = "plain"
    decay: float | None = None
    missing: str = "refuse"


@dataclass(frozen=True, slots=True)
class Simulation:
    """[[monte_carlo]]: simulated moves; the losses make a distribution."""

    section: Section | None
    name: str
    scenarios: int = 4096
    seed: int = 1
    horizon_days: float = 1.0  # trading days of 1/252 year
    distribution: str = "normal"
    dof: float = 5.0
    vol_beta: float = 0.0


@dataclass(frozen=True, slots=True)
class Limit:
    """A loss in currency that is not to be exceeded, by one portfolio or by the whole file."""

    scope: str
    name: str  # es_975 or stress_loss
    amount: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a scenario file asks for, in its order within each kind."""

    file: str
    shocks: tuple[Shock, ...] = ()
    grids: tuple[Grid, ...] = ()
    named: tuple[NamedDay, ...] = ()
    replays: tuple[Replay, ...] = ()
    distributions: tuple[Past | Simulation, ...] = ()
    limits: tuple[Limit, ...] = ()
    market: Section | Path | None = None


def read_scenarios(path: Path) -> Plan:
    """The plan of a file."""
    top = read_toml(path)
    kinds = ("scenario", "ladder", "named", "replay", "historical", "monte_carlo")
    top.only(*kinds, "limits", "market")
    distributions: tuple[Past | Simulation, ...] = (
        *(_past(section) for section in top.sections("historical")),
        *(_simulation(section) for section in top.sections("monte_carlo")),
    )
    plan = Plan(
        file=path.name,
        shocks=tuple(_shock(section) for section in top.sections("scenario")),
        grids=tuple(_grid(section) for section in top.sections("ladder")),
        named=tuple(_named(section) for section in top.sections("named")),
        replays=tuple(_replay(section) for section in top.sections("replay")),
        distributions=distributions,
        limits=_limits(top.section("limits")),
        market=_market(top),
    )
    if not any(top.sections(kind) for kind in kinds) and not plan.limits:
        raise top.fault(
            None, f"asks for nothing; give at least one of {', '.join(f'[[{k}]]' for k in kinds)}"
        )
    _expect_names_once(plan)
    if any(limit.name == "stress_loss" for limit in plan.limits) and not _stresses(plan):
        raise top.section("limits").fault("stress_loss", "there is no scenario to hold it against")
    return plan


def _expect_names_once(plan: Plan) -> None:
    """Two of one name could not be told apart in JSON and CSV."""
    seen: set[str] = set()
    items: tuple[Shock | Grid | NamedDay | Replay, ...] = (
        *plan.shocks,
        *plan.grids,
        *plan.named,
        *plan.replays,
    )
    for one in items:
        if one.name in seen:
            raise one.section.fault("name", f"{one.name!r} is there twice")
        seen.add(one.name)


def _stresses(plan: Plan) -> bool:
    return bool(plan.shocks or plan.grids or plan.named or plan.replays)


def _market(top: Section) -> Section | Path | None:
    if "market" not in top:
        return None
    if isinstance(top.values["market"], str):
        return top.path.parent / top.text("market")
    return top.section("market")


def _shock(section: Section) -> Shock:
    section.only("name", "spot", "vol", "rate", "elapsed_days")
    spot = section.by_symbol("spot")
    for symbol, move in spot.items():
        if move < -1.0:
            raise section.fault("spot", f"{symbol} = {move:g}: nothing falls by more than all of it (-1)")
    return Shock(
        section,
        section.text("name"),
        spot,
        section.by_symbol("vol", low=-VOL_CHANGE_MAX, high=VOL_CHANGE_MAX),
        section.number("rate", 0.0, low=-1.0, high=1.0),
        section.number("elapsed_days", 0.0, low=0.0, high=DAYS_MAX) / DAYS_PER_YEAR,
    )


def _grid(section: Section) -> Grid:
    section.only("name", "spot", "vol", "beta", "rate", "elapsed_days")
    spot = section.numbers("spot")
    if min(spot) < -1.0:
        raise section.fault("spot", f"{min(spot):g}: nothing falls by more than all of it (-1)")
    return Grid(
        section,
        section.text("name"),
        spot,
        section.numbers("vol", low=-VOL_CHANGE_MAX, high=VOL_CHANGE_MAX) if "vol" in section else (0.0,),
        section.by_symbol("beta", 1.0),
        section.number("rate", 0.0, low=-1.0, high=1.0),
        section.number("elapsed_days", 0.0, low=0.0, high=DAYS_MAX) / DAYS_PER_YEAR,
    )


def _named(section: Section) -> NamedDay:
    from gpu_kernels.errors import InvalidInput
    from gpu_kernels.stress_library import stress_event

    section.only("name", "beta")
    name = section.text("name")
    try:
        stress_event(name)
    except InvalidInput as error:
        raise section.fault("name", error.reason) from None
    return NamedDay(section, name, section.by_symbol("beta", 1.0))


def _replay(section: Section) -> Replay:
    section.only("name", "from", "to")
    first, last = section.day("from"), section.day("to")
    if first is not None and last is not None and first >= last:
        raise section.fault("to", f"{last} is not after {first}")
    return Replay(section, section.text("name"), first, last)


def _past(section: Section) -> Past:
    section.only("name", "from", "to", "window_days", "horizon_days", "weighting", "decay", "missing")
    decay = section.number("decay", above=0.0, high=1.0) if "decay" in section else None
    return Past(
        section,
        section.text("name", "history"),
        section.day("from"),
        section.day("to"),
        section.whole("window_days", 0, low=0),
        section.whole("horizon_days", 1, low=1, high=252),
        section.text("weighting", "plain", WEIGHTINGS),
        decay,
        section.text("missing", "refuse", ("refuse", "carry")),
    )


def _simulation(section: Section) -> Simulation:
    section.only("name", "scenarios", "seed", "horizon_days", "distribution", "dof", "vol_beta")
    return Simulation(
        section,
        section.text("name", "simulation"),
        section.whole("scenarios", 4096, low=40, high=SCENARIOS_MAX),
        section.whole("seed", 1, low=0, high=2**53),
        section.number("horizon_days", 1.0, above=0.0, high=2520.0),
        section.text("distribution", "normal", DISTRIBUTIONS),
        section.number("dof", 5.0, above=2.0),
        section.number("vol_beta", 0.0),
    )


def _limits(section: Section) -> tuple[Limit, ...]:
    limits: list[Limit] = []
    for key, value in section.values.items():
        if isinstance(value, dict):
            inner = section.section(key)
            inner.only(*LIMIT_KEYS)
            limits.extend(Limit(key, name, inner.number(name, above=0.0)) for name in inner.values)
        elif key in LIMIT_KEYS:
            limits.append(Limit(WHOLE_FILE, key, section.number(key, above=0.0)))
        else:
            raise section.fault(key, f"is unknown; there are {', '.join(LIMIT_KEYS)} and tables by portfolio")
    return tuple(limits)
