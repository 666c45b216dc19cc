"""A book's depth as a picture: what rests at each price, and what must trade to reach it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from risk_cli.book.ladder import Ladder, Level
from risk_cli.extras import extra_needed
from risk_cli.refusals import BadInput

BID, ASK, INK = "#1a7f4b", "#c0392b", "#2c3e50"
SIZE_INCHES = (9.0, 5.0)
DOTS_PER_INCH = 130


def write_picture(path: Path, ladder: Ladder) -> None:
    """Writes a PNG; needs matplotlib."""
    if path.suffix.lower() != ".png":
        raise BadInput(f"--png: {path.name} does not end in .png")
    if not ladder.bids and not ladder.asks:
        raise BadInput(f"--png: the book of {ladder.symbol} is empty")
    with extra_needed("book show --png"):
        from matplotlib.figure import Figure
        from matplotlib.ticker import StrMethodFormatter
    figure = Figure(figsize=SIZE_INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    axes: Any = figure.add_subplot()
    for side, colour, name in ((ladder.bids, BID, "bids"), (ladder.asks, ASK, "asks")):
        if side:
            _side(axes, ladder, side, colour, name)
    if ladder.mid is not None:
        axes.axvline(ladder.mid, color=INK, linewidth=0.8, linestyle=(0, (4, 4)))
        ticks = "tick" if ladder.spread_ticks == 1 else "ticks"
        axes.annotate(
            f"mid {ladder.mid:,.{ladder.decimals + 1}f}\nspread {ladder.spread_ticks:,} {ticks}",
            (ladder.mid, 1.0), xycoords=("data", "axes fraction"), xytext=(0, -4),
            textcoords="offset points", ha="center", va="top", fontsize=8.5, color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 2.0},
        )  # fmt: skip
    axes.set_title(ladder.symbol, loc="left", fontsize=14, fontweight="bold", color=INK)
    axes.set_title("   ".join(t for t in (ladder.state, ladder.time_text()) if t), loc="right", fontsize=8.5)
    axes.set_xlabel("price")
    axes.set_ylabel("quantity")
    axes.xaxis.set_major_formatter(StrMethodFormatter(f"{{x:,.{ladder.decimals}f}}"))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_ylim(bottom=0, top=ladder.deepest * 1.12)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for edge in ("top", "right"):
        axes.spines[edge].set_visible(False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, -0.24), ncols=4, frameon=False, fontsize=8.5)
    figure.savefig(path)


def _side(axes: Any, ladder: Ladder, side: tuple[Level, ...], colour: str, name: str) -> None:
    """Bars of the levels before the step of what stands up to each."""
    prices = [level.price for level in side]
    # A step holds from its level to the next one away from the market, and a little beyond the last.
    away = -1 if name == "bids" else 1
    reach = abs(prices[-1] - prices[0]) * 0.03 or ladder.tick_size
    steps = [*prices, prices[-1] + away * reach]
    totals = [level.up_to_here for level in side]
    axes.fill_between(steps, [*totals, totals[-1]], step="post", color=colour, alpha=0.16, linewidth=0)
    axes.step(
        [prices[0], *steps], [0, *totals, totals[-1]], where="post", color=colour, linewidth=1.5,
        label=f"{name}, up to the price",
    )  # fmt: skip
    # A bar is a tick wide, or as wide as a wide range needs to show it.
    width = max(ladder.tick_size * 0.8, (abs(prices[-1] - prices[0]) or ladder.tick_size) / 120)
    axes.bar(prices, [level.quantity for level in side], width, color=colour, label=f"{name}, at the price")
