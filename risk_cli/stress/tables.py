"""A stress run as tables to read, as JSON, and as one tidy table for CSV and Parquet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import RenderableType

from risk_cli.answers import money, plain_table
from risk_cli.stress.book import Cell
from risk_cli.stress.outcome import Distribution, Floats, Ladder, Outcome, Usage

POSITIONS_SHOWN = 10
LIMIT_TITLES = {"es_975": "expected shortfall 97.5 %", "stress_loss": "worst stress loss"}
WHAT_TO_DO = (
    "The parts below show what causes it; the command risk hedge works out trades that lower the risk."
)
CUTS: Mapping[str, Callable[[Cell], str]] = {
    "portfolio": lambda cell: cell.portfolio,
    "group": lambda cell: cell.group or "(no group)",
    "underlying": lambda cell: cell.underlying,
}


def cuts_of(outcome: Outcome) -> tuple[str, ...]:
    """The ways to split that have more than one part."""
    return tuple(
        name for name, what in CUTS.items() if len({what(cell) for cell in outcome.layout.cells}) > 1
    )


def limit_title(usage: Usage) -> str:
    """The limit in words, with the portfolio if it is one's own."""
    title = LIMIT_TITLES[usage.name]
    return f"{usage.scope}: {title}" if usage.scope else title


def tables(outcome: Outcome) -> list[RenderableType]:
    """What is printed when neither JSON nor CSV was asked for."""
    shown: list[RenderableType] = [_first_line(outcome)]
    if outcome.usages:
        shown.append(_limits(outcome))
        if any(one.breached for one in outcome.usages):
            shown.append(f"A limit is breached. {WHAT_TO_DO}\n")
    shown.extend(_tail(one) for one in outcome.distributions)
    if outcome.stresses:
        shown.append(_stresses(outcome))
    shown.extend(_ladder(one) for one in outcome.ladders)
    if outcome.distributions:
        shown.append(_largest(outcome, outcome.distributions[0]))
    if outcome.exposures:
        shown.append(exposure_table(outcome))
    shown.extend(_notes(outcome))
    return shown


def es_tables(outcome: Outcome) -> list[RenderableType]:
    """What `risk es` prints."""
    shown: list[RenderableType] = [_first_line(outcome)]
    shown.extend(_tail(one) for one in outcome.distributions)
    shown.append(_largest(outcome, outcome.distributions[0]))
    shown.extend(_notes(outcome))
    return shown


def _first_line(outcome: Outcome) -> str:
    made = outcome.made_with
    return (
        f"value today {money(outcome.value_today)}   ({made['positions']}; engine {made['engine']}, "
        f"{made['device']}; market {made['market']})\n"
    )


def _notes(outcome: Outcome) -> list[str]:
    notes = (*outcome.notes, *(note for one in outcome.distributions for note in one.notes))
    return [f"note: {note}" for note in dict.fromkeys(notes)]


def _limits(outcome: Outcome) -> RenderableType:
    rows = [
        (
            limit_title(one),
            one.by,
            money(one.used),
            money(one.limit),
            f"{one.used / one.limit:.0%}",
            "BREACHED" if one.breached else "kept",
        )
        for one in outcome.usages
    ]
    return plain_table(
        "Limits on losses", ("limit", "most used in", "loss", "at most", "used", ""), rows, left=2
    )


def _tail(one: Distribution) -> RenderableType:
    rows = [
        (f"{tail.level:.1%}", money(tail.var), money(tail.es), f"± {money(tail.es_std_error)}")
        for tail in one.tails
    ]
    columns = ("level", "value at risk", "expected shortfall", "std. error")
    return plain_table(f"Losses, {one.name}: {one.what}", columns, rows)


def _stresses(outcome: Outcome) -> RenderableType:
    """Ladders have a table of their own: here only their worst point."""
    listed = [one for one in outcome.stresses if one.kind != "ladder"]
    worst = {ladder.name: ladder for ladder in outcome.ladders}
    grid = [one for one in outcome.stresses if one.kind == "ladder"]
    for name in worst:
        points = [one for one in grid if one.name.startswith(f"{name}: ")]
        listed.append(min(points, key=lambda one: one.pnl))
    portfolios = list(dict.fromkeys(cell.portfolio for cell in outcome.layout.cells))
    apart = portfolios if len(portfolios) > 1 else []
    rows = []
    for one in sorted(listed, key=lambda stress: stress.pnl):
        sums = outcome.by(CUTS["portfolio"], one.by_cell)
        kind = "worst of ladder" if one.kind == "ladder" else one.kind
        rows.append((one.name, kind, money(one.pnl), *(money(sums[name]) for name in apart)))
    return plain_table(
        "Stress scenarios, worst first: P&L in the currency of the prices, minus is a loss",
        ("scenario", "kind", "P&L", *apart),
        rows,
        left=2,
    )


def _ladder(ladder: Ladder) -> RenderableType:
    rows = [
        (f"{move:+.0%}", *(money(value) for value in line))
        for move, line in zip(ladder.spot, ladder.pnl.tolist(), strict=True)
    ]
    columns = ("spot \\ vol", *(f"{change * 100:+.0f} pts" for change in ladder.vol))
    return plain_table(f"P&L of {ladder.name}: spot moves down, changes of implied vol across", columns, rows)


def _largest(outcome: Outcome, one: Distribution) -> RenderableType:
    rows = []
    order = one.components.argsort()[::-1][:POSITIONS_SHOWN]
    for row in order:
        position = outcome.layout.positions[int(row)]
        part = float(one.components[row])
        rows.append(
            (
                position.label,
                position.portfolio,
                position.group,
                f"{position.quantity:,g}",
                money(part),
                f"{part / one.tails[0].es:.1%}" if one.tails[0].es else "",
            )
        )
    columns = ("position", "portfolio", "group", "quantity", "part of ES", "")
    return plain_table(f"Where the expected shortfall of {one.name} comes from", columns, rows, left=3)


def exposure_table(outcome: Outcome) -> RenderableType:
    """Value and Greeks by underlying, in a desk's units."""
    rows = [
        (
            one.underlying,
            f"{one.spot:,.2f}",
            *(money(x) for x in (one.value, one.delta, one.gamma, one.vega, one.theta, one.rho)),
        )
        for one in outcome.exposures
    ]
    columns = ("underlying", "spot", "value", "delta", "gamma", "vega", "theta", "rho")
    title = (
        "Exposure today, as amounts: delta held, gamma its change per 1 % of spot; "
        "gain per vol point (vega), day (theta), 0.01 % of interest (rho)"
    )
    return plain_table(title, columns, rows)


def body(outcome: Outcome) -> dict[str, Any]:
    """The run as JSON."""
    return {
        "value_today": outcome.value_today,
        "made_with": dict(outcome.made_with),
        "limits": [
            {
                "portfolio": one.scope or None,
                "name": one.name,
                "used": one.used,
                "limit": one.limit,
                "breached": one.breached,
                "by": one.by,
            }
            for one in outcome.usages
        ],
        "stress": [
            {"kind": one.kind, "name": one.name, "pnl": one.pnl, **_split(outcome, one.by_cell)}
            for one in outcome.stresses
        ],
        "ladders": [
            {"name": one.name, "spot": one.spot, "vol": one.vol, "pnl": one.pnl.tolist()}
            for one in outcome.ladders
        ],
        "distributions": [distribution_body(outcome, one) for one in outcome.distributions],
        "exposures": [
            {name: getattr(one, name) for name in one.__dataclass_fields__} for one in outcome.exposures
        ],
        "notes": list(outcome.notes),
    }


def distribution_body(outcome: Outcome, one: Distribution) -> dict[str, Any]:
    """A distribution's tail and where it comes from, as JSON."""
    positions = outcome.layout.positions
    return {
        "name": one.name,
        "what": one.what,
        "scenarios": len(one.pnl),
        "tail": [
            {"level": t.level, "var": t.var, "es": t.es, "es_std_error": t.es_std_error} for t in one.tails
        ],
        "component_es": {
            **_split(outcome, outcome.cell_sums(one.components)),
            "by_position": [
                {"position": positions[row].label, "portfolio": positions[row].portfolio, "es": part}
                for row, part in enumerate(one.components.tolist())
            ],
        },
        "notes": list(one.notes),
    }


def _split(outcome: Outcome, by_cell: Floats) -> dict[str, dict[str, float]]:
    return {f"by_{name}": outcome.by(what, by_cell) for name, what in CUTS.items()}


def tidy_rows(outcome: Outcome) -> list[dict[str, Any]]:
    """One number a row: what it is, of which scenario or level, of which portfolio (empty: all)."""
    rows: list[dict[str, Any]] = []

    def add(measure: str, name: str, portfolio: str, amount: float) -> None:
        rows.append({"measure": measure, "name": name, "portfolio": portfolio, "amount": amount})

    add("value", "today", "", outcome.value_today)
    portfolios = tuple(dict.fromkeys(cell.portfolio for cell in outcome.layout.cells))
    for stress in outcome.stresses:
        add(f"pnl of {stress.kind}", stress.name, "", stress.pnl)
        sums = outcome.by(CUTS["portfolio"], stress.by_cell)
        for portfolio in portfolios:
            add(f"pnl of {stress.kind}", stress.name, portfolio, sums[portfolio])
    for one in outcome.distributions:
        for tail in one.tails:
            add(f"value at risk {tail.level:g}", one.name, "", tail.var)
            add(f"expected shortfall {tail.level:g}", one.name, "", tail.es)
    for usage in outcome.usages:
        add(f"limit {usage.name}", usage.by, usage.scope, usage.limit)
        add(f"used of {usage.name}", usage.by, usage.scope, usage.used)
    return rows
