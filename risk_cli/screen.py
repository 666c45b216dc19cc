"""The desk view on a terminal: tables, sparklines and alerts in colour, or plain lines in a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from protos.book.v1.book_pb2 import Book
from protos.risk.v1.risk_pb2 import RiskAlert, RiskMetrics
from risk_cli.desk_view import DeskView, sparkline

BOOK_LEVELS = 5
# Columns of the terminal.
BOOK_WIDTH = 36
FILLS_WIDTH = 40
# What the other columns of a table need; its trail gets what is left.
PORTFOLIO_WIDTH = 112
UNDERLYING_WIDTH = 90
TRAIL_LEAST = 8
# Columns with the room that each needs, and which go first where the terminal is too narrow for all.
PORTFOLIO_COLUMNS = {
    "portfolio": 10, "value": 13, "delta $": 12, "vega": 11, "theta/day": 12, "VaR 97.5": 11, "ES 97.5": 11,
    "ES trail": 11, "worst stress": 15, "left out": 7,
}  # fmt: skip
PORTFOLIO_FRAME = 6
PORTFOLIO_LESS = ("ES trail", "theta/day", "left out", "vega", "worst stress", "delta $")
UNDERLYING_COLUMNS = {
    "underlying": 12, "spot": 11, "trail": 10, "delta": 11, "gamma": 9, "vega": 12, "hedge (units)": 10,
    "age": 10,
}  # fmt: skip
UNDERLYING_LESS = ("trail", "age", "gamma", "vega")


def render(view: DeskView, title: str, width: int) -> RenderableType:
    """The whole screen."""
    parts: list[RenderableType] = [
        Panel(_portfolios(view, width), title=f"[bold]{title}[/bold]", border_style="cyan", padding=(0, 1)),
        _underlyings(view, width),
    ]
    if view.books or view.fills:
        parts.append(_market(view, width))
    parts.extend((_alerts(view), _footer(view)))
    return Group(*parts)


def plain_lines(view: DeskView) -> Iterator[str]:
    """One line per portfolio, for logs and pipes."""
    for name in sorted(view.metrics):
        metrics = view.metrics[name]
        delta = _dollar_delta(metrics)
        tail = metrics.historical[0]
        yield (
            f"{name} value={metrics.value:,.0f} delta={delta:,.0f} gamma={_total(metrics, 'gamma'):,.1f} "
            f"vega={_total(metrics, 'vega'):,.0f} theta={_total(metrics, 'theta'):,.0f} "
            f"VaR={tail.value_at_risk:,.0f} ES={tail.expected_shortfall:,.0f} "
            f"left_out={len(metrics.faults)} engine={metrics.provenance.engine}"
        )


def timing_line(view: DeskView) -> str:
    """How long ticks take, stage by stage."""
    stages = (
        f"{name} p50 {one.p50:.1f} ms p99 {one.p99:.1f} ms" for name, one in view.times.percentiles().items()
    )
    return "tick timing: " + (", ".join(stages) or "no ticks yet")


def alert_line(alert: RiskAlert) -> str:
    """One alert."""
    return f"alert {'RAISED' if alert.raised else 'over'}: {alert.portfolio}: {alert.text}"


def _that_fit(columns: Mapping[str, int], less: Sequence[str], room: int) -> list[str]:
    """The columns that there is room for: `less` go one after the other."""
    names = list(columns)
    for name in less:
        if sum(columns[one] for one in names) <= room:
            break
        names.remove(name)
    return names


def _headed(names: Sequence[str]) -> Table:
    """A table with these columns: the first names the row, trails are drawn, the others are numbers."""
    table = Table(box=SIMPLE_HEAD, expand=True, pad_edge=False)
    for name in names:
        table.add_column(
            name,
            style="bold" if name == names[0] else "",
            justify="left" if name == names[0] or "trail" in name else "right",
            # These two headings wrap rather than widen their column.
            no_wrap=name not in ("left out", "hedge (units)"),
            min_width=4,
        )
    return table


def _portfolios(view: DeskView, width: int) -> Table:
    names = _that_fit(PORTFOLIO_COLUMNS, PORTFOLIO_LESS, width - PORTFOLIO_FRAME)
    table = _headed(names)
    for portfolio in sorted(view.metrics):
        row = _portfolio_row(view, view.metrics[portfolio], width - PORTFOLIO_WIDTH)
        table.add_row(*(row[name] for name in names))
    return table


def _portfolio_row(view: DeskView, metrics: RiskMetrics, trail: int) -> dict[str, RenderableType]:
    tail = metrics.historical[0]
    worst = min(metrics.stress_pnl, default=0.0)
    breached = {usage.name for usage in metrics.limits if usage.breached}
    return {
        "portfolio": metrics.portfolio,
        "value": f"{metrics.value:,.0f}",
        "delta $": _signed(_dollar_delta(metrics)),
        "vega": _signed(_total(metrics, "vega")),
        "theta/day": _signed(_total(metrics, "theta") / 365.0),
        "VaR 97.5": Text(
            f"{tail.value_at_risk:,.0f}", style="bold red" if "value at risk" in breached else ""
        ),
        "ES 97.5": Text(f"{tail.expected_shortfall:,.0f}", style="bold yellow"),
        "ES trail": Text(sparkline(_newest(view.es_trail[metrics.portfolio], trail)), style="yellow"),
        "worst stress": Text(f"{worst:,.0f}", style="bold red" if "worst stress" in breached else ""),
        "left out": Text(str(len(metrics.faults)), style="red" if metrics.faults else "dim"),
    }


def _newest(values: Iterable[float], room: int) -> list[float]:
    return list(values)[-max(TRAIL_LEAST, room) :]


def _underlyings(view: DeskView, width: int) -> Table:
    names = _that_fit(UNDERLYING_COLUMNS, UNDERLYING_LESS, width)
    table = _headed(names)
    totals: dict[str, list[float]] = {}
    for metrics in view.metrics.values():
        greeks = metrics.greeks
        for row, name in enumerate(greeks.underlying):
            total = totals.setdefault(name, [greeks.spot[row], 0.0, 0.0, 0.0, greeks.age_ns[row] / 1e6])
            for place, greek in enumerate(("delta", "gamma", "vega"), start=1):
                total[place] += getattr(greeks, greek)[row]
    for name in sorted(totals):
        spot, delta, gamma, vega, age_ms = totals[name]
        cells: dict[str, RenderableType] = {
            "underlying": name,
            "spot": f"{spot:,.2f}",
            "trail": Text(sparkline(_newest(view.spot_trail[name], width - UNDERLYING_WIDTH)), style="cyan"),
            "delta": _signed(delta),
            "gamma": _signed(gamma),
            "vega": _signed(vega),
            "hedge (units)": _signed(-delta),
            "age": f"{age_ms:,.0f} ms",
        }
        table.add_row(*(cells[one] for one in names))
    return table


def _market(view: DeskView, width: int) -> Table:
    grid = Table.grid(expand=True, padding=(0, 2))
    if width < BOOK_WIDTH + FILLS_WIDTH:
        return _fills(view)
    books = [view.books[name] for name in sorted(view.books)][: max(1, (width - FILLS_WIDTH) // BOOK_WIDTH)]
    for _ in books:
        grid.add_column(ratio=1)
    grid.add_column(width=FILLS_WIDTH)
    grid.add_row(*(_book(book) for book in books), _fills(view))
    return grid


def _fills(view: DeskView) -> Table:
    fills = Table(box=SIMPLE_HEAD, title="fills", title_style="bold", expand=True)
    for name in ("symbol", "side", "price", "quantity"):
        fills.add_column(name, justify="left" if name in ("symbol", "side") else "right", no_wrap=True)
    for fill in reversed(view.fills):
        style = "green" if fill.side == "buy" else "red"
        fills.add_row(fill.symbol, Text(fill.side, style=style), f"{fill.price:,.2f}", f"{fill.quantity:,}")
    return fills


def _book(book: Book) -> Table:
    table = Table(box=SIMPLE_HEAD, title=f"book {book.symbol}", title_style="bold", expand=True)
    for name in ("bid qty", "bid", "ask", "ask qty"):
        # Where it is narrow the headings wrap, never a price.
        table.add_column(name, justify="right", no_wrap=name in ("bid", "ask"))
    for level in range(BOOK_LEVELS):
        table.add_row(
            *_level(book.bid_quantity, book.bid_price_ticks, level, book.tick_size, "green"),
            *reversed(_level(book.ask_quantity, book.ask_price_ticks, level, book.tick_size, "red")),
        )
    return table


def _level(quantities: object, prices: object, level: int, tick: float, style: str) -> tuple[Text, Text]:
    quantity, price = list(quantities), list(prices)  # type: ignore[call-overload]
    if level >= len(price):
        return Text(""), Text("")
    return Text(f"{quantity[level]:,}"), Text(f"{price[level] * tick:,.2f}", style=style)


def _alerts(view: DeskView) -> RenderableType:
    if not view.alerts:
        return Text("no alerts", style="dim")
    lines = Text()
    for alert in view.alerts:
        mark, style = ("▲ ", "bold red") if alert.raised else ("▽ ", "green")
        lines.append(mark, style=style)
        lines.append(f"{alert.portfolio}: {alert.text}\n", style=style)
    return Panel(lines, title="alerts", border_style="red", padding=(0, 1))


def _footer(view: DeskView) -> Text:
    engines = {metrics.provenance.engine for metrics in view.metrics.values()}
    degraded = any(metrics.provenance.degraded for metrics in view.metrics.values())
    text = Text(timing_line(view), style="dim")
    text.append(f"   numbers {view.numbers:,}   trades {view.trades:,}   engine {', '.join(sorted(engines))}")
    if degraded:
        text.append("   DEGRADED", style="bold red")
    return text


def _total(metrics: RiskMetrics, greek: str) -> float:
    return float(sum(getattr(metrics.greeks, greek)))


def _dollar_delta(metrics: RiskMetrics) -> float:
    """Units of different underlyings do not add; their worth does.

    An underlying without a price has no spot; its positions are left out of every number, and said to be.
    """
    pairs = zip(metrics.greeks.delta, metrics.greeks.spot, strict=True)
    return float(sum(delta * spot for delta, spot in pairs if delta != 0.0))


def _signed(value: float) -> Text:
    return Text(f"{value:,.0f}", style="green" if value > 0 else "red" if value < 0 else "dim")
