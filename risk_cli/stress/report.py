"""A self-contained HTML page of a stress run, for a reader who has read no documentation."""

from __future__ import annotations

from html import escape
from pathlib import Path

from risk_cli.answers import money, whole_file
from risk_cli.stress import svg
from risk_cli.stress.outcome import Distribution, Ladder, Outcome, Stress
from risk_cli.stress.report_parts import card, section, table, wide
from risk_cli.stress.report_style import STYLE
from risk_cli.stress.tables import CUTS, WHAT_TO_DO, cuts_of, limit_title
from risk_cli.stress.wording import position_words
from risk_client.positions import FUTURE

SCENARIOS_SHOWN = 15
LADDER_POINTS_SHOWN = 3
POSITIONS_SHOWN = 12


def write_report(path: Path, outcome: Outcome, portfolio: str) -> None:
    """Writes the page."""
    with whole_file(path) as beside:
        beside.write_text(page(outcome, portfolio), encoding="utf-8")


def page(outcome: Outcome, portfolio: str) -> str:
    """The whole page as text."""
    sections = [
        _headline(outcome),
        _in_short(outcome),
        _limits(outcome),
        *(_distribution(one) for one in outcome.distributions),
        _stresses(outcome),
        *(_ladder(one) for one in outcome.ladders),
        _contributions(outcome),
        _exposure(outcome),
        _made_with(outcome),
    ]
    title = f"Stress report: {portfolio}"
    head = (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
    )
    made = outcome.made_with
    top = (
        f"<header><h1>{escape(title)}</h1><p>What this book of {escape(made['positions'])} is worth and what "
        f"it could lose. Market: {escape(made['market'])}. Amounts are in the currency of the prices; "
        "P&amp;L is profit (+) and loss (−) against today.</p></header>"
    )
    return f"{head}<body><main>{top}{''.join(sections)}</main></body></html>\n"


def _headline(outcome: Outcome) -> str:
    positions = outcome.layout.positions.positions
    cards = [
        card(
            "Value today",
            money(outcome.value_today),
            "What the positions would fetch if all were closed now"
            + ("; below zero: what closing them would cost." if outcome.value_today < 0 else ".")
            + (" Futures count as nought." if (positions.kind == FUTURE).any() else ""),
        )
    ]
    for one in outcome.distributions[:1]:
        tail = one.tails[0]
        cards.append(
            card(
                "Expected shortfall 97.5 %",
                money(tail.es),
                f"The average loss over the worst 2.5 % of outcomes ({one.name}).",
            )
        )
        cards.append(
            card(
                "Value at risk 97.5 %",
                money(tail.var),
                "All but the worst 2.5 % of outcomes lose less.",
            )
        )
    worst = outcome.worst
    if worst is not None:
        cards.append(card("Worst stress", money(worst.pnl), f"P&L under “{worst.name}”.", worst.pnl < 0))
    if outcome.usages:
        broken = sum(one.breached for one in outcome.usages)
        state = f"{broken} breached" if broken else "all kept"
        cards.append(card("Limits", state, f"{len(outcome.usages)} set in the scenario file.", bool(broken)))
    return f'<div class="cards">{"".join(cards)}</div>'


def _in_short(outcome: Outcome) -> str:
    """What a reader who reads nothing else should know."""
    said = []
    for one in outcome.distributions[:1]:
        parts = outcome.by(CUTS["underlying"], outcome.cell_sums(one.components))
        most = max(parts, key=parts.__getitem__)
        said.append(
            f"In the worst 2.5 % of outcomes ({one.name}) the book loses <b>{money(one.tails[0].es)}</b> "
            f"on average, most of it through {escape(most)} ({svg.short(parts[most])})."
        )
    worst = outcome.worst
    if worst is not None:
        under = min(outcome.by(CUTS["underlying"], worst.by_cell).items(), key=lambda item: item[1])
        said.append(
            f"Of {len(outcome.stresses)} stress scenarios “{escape(worst.name)}” is the worst: "
            + (
                f"a loss of <b>{money(-worst.pnl)}</b>, and {escape(under[0])} is hit hardest "
                f"({svg.short(under[1])})."
                if worst.pnl < 0
                else f"even there the book gains {money(worst.pnl)}."
            )
        )
    if outcome.usages:
        broken = [one for one in outcome.usages if one.breached]
        nearest = max(outcome.usages, key=lambda one: one.used / one.limit)
        said.append(
            f"<b>{len(broken)} of {len(outcome.usages)} limits breached</b>: "
            f"{escape(', '.join(limit_title(one) for one in broken))}. {escape(WHAT_TO_DO)}"
            if broken
            else f"Every limit is kept; nearest is {escape(limit_title(nearest))}, of which "
            f"{nearest.used / nearest.limit:.0%} is used."
        )
    items = "".join(f"<li>{one}</li>" for one in said)
    return f'<section><h2>In short</h2><ul class="short">{items}</ul></section>' if said else ""


def _limits(outcome: Outcome) -> str:
    if not outcome.usages:
        return ""
    rows = [
        (
            escape(limit_title(one)),
            f'<b class="{"bad" if one.breached else "good"}">{one.used / one.limit:.0%} '
            f"used, {'breached' if one.breached else 'kept'}</b>",
            svg.gauge(one.used / one.limit, one.breached),
            money(one.used),
            money(one.limit),
            escape(one.by),
        )
        for one in outcome.usages
    ]
    columns = ("limit", "usage", "", "loss", "at most", "in")
    words = "The largest losses that the desk allows itself, and how much of each is used."
    return section("Limits", words, table(columns, rows, (0, 1, 2, 5), more=(2, 5)))


def _distribution(one: Distribution) -> str:
    first = one.tails[0]
    marks = [
        svg.Mark(-first.var, f"VaR 97.5 %: {money(first.var)}", svg.BAD),
        svg.Mark(-first.es, f"ES 97.5 %: {money(first.es)}", svg.INK),
    ]
    chart = svg.histogram(one.pnl, one.weights, marks, f"Distribution of P&L, {one.name}")
    rows = [(f"{t.level:.1%}", money(t.var), money(t.es), f"± {money(t.es_std_error)}") for t in one.tails]
    levels = table(
        ("level", "value at risk (VaR)", "expected shortfall (ES)", "std. error of ES"), rows, (0,), (3,)
    )
    worst = one.pnl.argsort(kind="stable")[:5]
    days = ", ".join(f"{one.labels[row]} ({svg.short(float(one.pnl[row]))})" for row in worst)
    words = (
        f"{one.what}. Each bar counts outcomes with a P&L in its range; orange ones lie beyond the "
        "value at risk. Expected shortfall is the average of that orange tail; its standard error says how "
        "far it may be off because the tail has few outcomes."
    )
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in one.notes)
    after = f'<p class="note">Worst outcomes: {escape(days)}.</p>{notes}'
    return section(f"How large losses are: {one.name}", words, f"{wide(chart)}{levels}{after}")


def _listed(outcome: Outcome, of_a_ladder: int) -> list[Stress]:
    """All scenarios, worst first; of each ladder only its worst points, which else fill the table."""
    ordered = sorted(outcome.stresses, key=lambda one: one.pnl)
    points = {ladder.name: 0 for ladder in outcome.ladders}
    chosen: list[Stress] = []
    for one in ordered:
        ladder = next((name for name in points if one.kind == "ladder" and one.name.startswith(name)), None)
        if ladder is not None:
            points[ladder] += 1
        if ladder is None or points[ladder] <= of_a_ladder:
            chosen.append(one)
    return chosen


def _named(one: Stress) -> str:
    """Name and moves; a ladder's point has its moves in its name."""
    what = "" if one.kind == "ladder" else f'<div class="what">{escape(one.what)}</div>'
    return f"{escape(one.name)}{what}"


def _stresses(outcome: Outcome) -> str:
    if not outcome.stresses:
        return ""
    apart = _listed(outcome, 1)
    inside = ""
    if len(apart) > 1:
        ordered = apart[: 2 * SCENARIOS_SHOWN]
        inside += wide(
            svg.bars([one.name for one in ordered], [one.pnl for one in ordered], "P&L by scenario", "P&L")
        )
    portfolios = list(dict.fromkeys(cell.portfolio for cell in outcome.layout.cells))
    split = portfolios if len(portfolios) > 1 else []
    rows = []
    for one in _listed(outcome, LADDER_POINTS_SHOWN)[:SCENARIOS_SHOWN]:
        sums = outcome.by(CUTS["portfolio"], one.by_cell)
        under = min(outcome.by(CUTS["underlying"], one.by_cell).items(), key=lambda item: item[1])
        rows.append(
            (
                _named(one),
                f"<b>{money(one.pnl)}</b>",
                f"{escape(under[0])}&nbsp;({svg.short(under[1])})",
                one.kind,
                *(money(sums[name]) for name in split),
            )
        )
    columns = ("worst scenarios", "P&L", "hit hardest", "kind", *split)
    words = (
        "What the book gains or loses if the market jumps to each scenario at once. Kinds: scenario = "
        "written by the desk, ladder = a point of a grid, named = a day of the past, replay = a window of "
        "the price history."
    )
    listed = table(columns, rows, (0, 2, 3), more=range(3, len(columns)))
    return section("Stress scenarios", words, inside + listed)


def _ladder(ladder: Ladder) -> str:
    chart = svg.heat_map(
        [f"{move:+.0%}" if move else "0 %" for move in ladder.spot],
        [f"{100 * change:+.0f} pts" if change else "0" for change in ladder.vol],
        ladder.pnl,
        f"P&L by spot and vol move, {ladder.name}",
        ("spot", "implied vol"),
    )
    words = (
        "Every move of the underlyings' prices (spot, down) with every change of implied volatility (across; "
        "10 pts: the yearly swing that option prices imply goes from 20 % to 30 %). Blue cells are gains, "
        "orange cells losses; the stronger the colour, the larger."
    )
    return section(f"Ladder: {ladder.name}", words, wide(chart))


def _contributions(outcome: Outcome) -> str:
    if outcome.distributions:
        one = outcome.distributions[0]
        parts, total = one.components, one.tails[0].es
        words = (
            f"Each part's average loss in the worst 2.5 % of outcomes ({one.name}); together they make the "
            f"expected shortfall of {money(total)}. Orange parts add to it, blue ones take from it: they "
            "hedge the rest."
        )
        title, unit = "Where the expected shortfall comes from", "part of expected shortfall"
    elif outcome.stresses and outcome.worst is not None:
        parts, unit = -outcome.worst_by_position, "loss in the worst stress"
        words = f"Each part's loss under “{outcome.worst.name}”. Blue parts gain."
        title = "Where the worst stress loss comes from"
    else:
        return ""
    by_cell, inside = outcome.cell_sums(parts), ""
    for cut in cuts_of(outcome):
        sums = sorted(outcome.by(CUTS[cut], by_cell).items(), key=lambda item: -item[1])
        chart = svg.bars([n for n, _ in sums], [v for _, v in sums], f"{title}, by {cut}", unit, svg.ORANGE)
        inside += f"<h3>By {cut}</h3>{wide(chart)}"
    positions = outcome.layout.positions
    order = parts.argsort()[::-1]
    chosen = [*order[:POSITIONS_SHOWN], *(row for row in order[POSITIONS_SHOWN:][-3:] if parts[row] < 0)]
    names = [position_words(positions[int(row)]) for row in chosen]
    chart = svg.bars(names, [float(parts[row]) for row in chosen], f"{title}, by position", unit, svg.ORANGE)
    inside += f"<h3>By position: the {POSITIONS_SHOWN} largest, and the best hedges</h3>{wide(chart)}"
    return section(title, words, inside)


def _exposure(outcome: Outcome) -> str:
    if not outcome.exposures:
        return ""
    rows = [
        (
            escape(one.underlying),
            f"{one.spot:,.2f}",
            *(money(x) for x in (one.value, one.delta, one.gamma, one.vega, one.theta, one.rho)),
        )
        for one in outcome.exposures
    ]
    names = ("value", "delta", "gamma", "vega", "theta", "rho")
    totals = ("all", "", *(money(sum(getattr(one, name) for one in outcome.exposures)) for name in names))
    columns = ("underlying", "spot", "value", "delta", "gamma", "vega", "theta", "rho")
    words = (
        "Small moves, today. Delta: the position in shares or index, as an amount. Gamma: how much "
        "delta changes when spot moves 1 %. Vega: gain per 1 point of implied vol. Theta: gain per day that "
        "passes. Rho: gain per 0.01 % of interest."
    )
    return section("Exposure by underlying", words, table(columns, [*rows, totals], (0,)))


def _made_with(outcome: Outcome) -> str:
    words = {
        "engine": "engine",
        "device": "device",
        "method": "method",
        "market": "market data",
        "scenarios": "scenario file",
        "positions": "book",
    }
    rows = [(words.get(name, name), escape(text)) for name, text in outcome.made_with.items()]
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in outcome.notes)
    return section(
        "What this was computed with",
        "Every position is priced again in every scenario; no shortcut by Greeks.",
        table(("", ""), rows, (0, 1)) + notes,
    )
