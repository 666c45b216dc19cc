"""A book on a terminal: both sides around the prices, with bars of what rests; or plain rows in a pipe."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from risk_cli.answers import plain_table
from risk_cli.book.ladder import Ladder, Level

BAR_WIDTH_MAX = 28
# Columns of the terminal that everything but the two bars takes.
NUMBERS_WIDTH = 62
BID, ASK = "green", "red"
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def drawn(ladder: Ladder, width: int) -> RenderableType:
    """The book in colour for a terminal of `width` columns."""
    bar = max(4, min(BAR_WIDTH_MAX, (width - NUMBERS_WIDTH) // 2))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    for name, side in (("orders", "right"), ("quantity", "right"), ("", "right"), ("bid", "right")):
        table.add_column(name, justify=side, no_wrap=True, header_style=f"bold {BID}")  # type: ignore[arg-type]
    for name, side in (("ask", "left"), ("", "left"), ("quantity", "left"), ("orders", "left")):
        table.add_column(name, justify=side, no_wrap=True, header_style=f"bold {ASK}")  # type: ignore[arg-type]
    for row in range(max(len(ladder.bids), len(ladder.asks))):
        bid = _cells(ladder, ladder.bids, row, bar, BID)
        ask = _cells(ladder, ladder.asks, row, bar, ASK)
        table.add_row(bid[3], bid[2], _mirrored(bid[1]), bid[0], *ask)
    if not ladder.bids and not ladder.asks:
        return Group(_title(ladder), Text("  the book is empty", style="dim"), "")
    note = Text("bright: at the level · dim: up to it   " + ladder.as_of, style="dim")
    return Group(_title(ladder), table, note, "")


def plain(ladder: Ladder) -> RenderableType:
    """The same as rows, one for each level."""
    title = "   ".join(text for text in (summary(ladder), ladder.as_of) if text)
    rows = [
        (name, ladder.price_text(one.price), f"{one.quantity:,}", f"{one.orders:,}", f"{one.up_to_here:,}")
        for name, side in (("ask", ladder.asks[::-1]), ("bid", ladder.bids))
        for one in side
    ]
    columns = ("side", "price", "quantity", "orders", "up to here")
    return plain_table(title, columns, rows)


def summary(ladder: Ladder) -> str:
    """One line: where the book stands, and when."""
    parts = [ladder.symbol]
    if ladder.mid is not None:
        spread = f"{ladder.spread_ticks:,} tick{'' if ladder.spread_ticks == 1 else 's'}"
        mid = f"{ladder.mid:,.{ladder.decimals + 1}f}"
        parts += [f"mid {mid}", f"spread {spread}"]
    if ladder.imbalance is not None:
        parts.append(f"imbalance {ladder.imbalance:+.0%}")
    parts += [text for text in (ladder.state, ladder.time_text()) if text]
    return "   ".join(parts)


def _title(ladder: Ladder) -> Text:
    head, _, rest = summary(ladder).partition("   ")
    return Text.assemble((head, "bold"), "   ", (rest, "dim"))


def _cells(ladder: Ladder, side: tuple[Level, ...], row: int, width: int, style: str) -> tuple[Text, ...]:
    """Price, bar, quantity and number of orders; empty below the last level."""
    if row >= len(side):
        return (Text(""),) * 4
    level = side[row]
    price = Text(ladder.price_text(level.price), style=f"bold {style}" if row == 0 else style)
    bar = _bar(level, ladder.deepest, width, style)
    return price, bar, Text(f"{level.quantity:,}"), Text(f"{level.orders:,}", style="dim")


def _bar(level: Level, full: int, width: int, style: str) -> Text:
    """Grows to the right: the level's own quantity bright, the better ones' behind it dim."""
    own, total = (round(amount / full * width) for amount in (level.quantity, level.up_to_here))
    # What is there is seen, if only as an eighth of a column.
    bright = "█" * own if own else _EIGHTHS[max(1, round(level.quantity / full * width * 8))]
    return Text.assemble((bright, style), ("░" * max(0, total - len(bright)), f"dim {style}"))


def _mirrored(bar: Text) -> Text:
    """The same growing to the left."""
    text = Text()
    for start, end, style in reversed([(span.start, span.end, span.style) for span in bar.spans]):
        # The eighths grow to the right only: to the left the right half is the nearest there is.
        piece = bar.plain[start:end]
        text.append("▐" if piece and piece in _EIGHTHS[1:8] else piece, style)
    return text
