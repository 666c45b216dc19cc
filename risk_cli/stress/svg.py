"""Small SVG charts for the report: a histogram, a heat map and bars. No library, no external resource."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from risk_cli.answers import money
from risk_cli.stress.outcome import Floats

# Okabe and Ito's colour-blind-safe blue and vermilion, thinned towards the page; the rest is the page's own.
BLUE, ORANGE = "#0072b2", "#d55e00"
INK, GREY, LINE, BAD = "var(--ink)", "var(--grey)", "var(--line)", "var(--bad)"
_WIDTH = 900
MARK_ROOM = 190.0  # width of a mark's words


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line in a histogram."""

    at: float
    text: str
    colour: str


def short(value: float) -> str:
    """Currency in few characters: 1.2m, 340k."""
    size = abs(value)
    for limit, unit, letter in ((999_500, 1e6, "m"), (999.5, 1e3, "k")):
        if size >= limit:
            shown = f"{value / unit:.1f}" if size < 100 * unit else f"{value / unit:,.0f}"
            return f"{shown.removesuffix('.0')}{letter}"
    return f"{value:.0f}" if round(value) else "0"


def ticks(low: float, high: float, wanted: int = 6) -> list[float]:
    """Round numbers across a range."""
    span = high - low or 1.0
    step = 10.0 ** np.floor(np.log10(span / wanted))
    for factor in (1, 2, 5, 10):
        if span / (step * factor) <= wanted:
            step *= factor
            break
    first = np.ceil(low / step) * step
    return [float(first + number * step) for number in range(int((high - first) / step + 1e-9) + 1)]


def histogram(pnl: Floats, weights: Floats | None, marks: Sequence[Mark], title: str) -> str:
    """P&L across, probability up; outcomes beyond the first mark stand out."""
    low, high = float(pnl.min()), float(pnl.max())
    low, high = min(low, *(m.at for m in marks)), max(high, 0.0)
    pad = (high - low or 1.0) * 0.02
    low, high = low - pad, high + pad
    bins = int(np.clip(2.0 * np.sqrt(len(pnl)), 20, 70))
    counts, edges = np.histogram(pnl, bins, (low, high), weights=weights)
    share = counts / counts.sum()
    top, bottom, left, right = 70.0, 300.0, 10.0, _WIDTH - 10.0

    def across(value: float) -> float:
        return left + (value - low) / (high - low) * (right - left)

    parts = [_open(_WIDTH, 350, title)]
    for value, start, end in zip(share, edges, edges[1:], strict=False):
        height = float(value / share.max()) * (bottom - top)
        colour = ORANGE if end <= marks[0].at else BLUE
        label = f"{money(float(start))} to {money(float(end))}: {value:.1%} of outcomes"
        parts.append(
            f'<rect x="{across(start):.1f}" y="{bottom - height:.1f}" '
            f'width="{across(end) - across(start) - 1:.1f}" height="{height:.1f}" fill="{colour}">'
            f"<title>{escape(label)}</title></rect>"
        )
    parts.append(_line(left, bottom, right, bottom, GREY))
    for value in ticks(low, high, 8):
        parts.append(_line(across(value), bottom, across(value), bottom + 5, GREY))
        parts.append(_text(across(value), bottom + 20, short(value), "middle", GREY))
    parts.append(_text((left + right) / 2, bottom + 42, "profit and loss (P&L)", "middle", GREY))
    leftmost = min(marks, key=lambda m: m.at)
    for row, mark in enumerate(sorted(marks, key=lambda m: m.at, reverse=True)):
        height = top - 48 + 20 * row
        parts.append(
            _line(across(mark.at), height - 10, across(mark.at), bottom, mark.colour, 'stroke-width="2"')
        )
        # The leftmost mark's words stand to its left, where no other mark is, if there is room for them.
        to_left = across(mark.at) > (MARK_ROOM if mark is leftmost else right - MARK_ROOM)
        anchor, gap = ("end", -6.0) if to_left else ("start", 6.0)
        parts.append(_text(across(mark.at) + gap, height, mark.text, anchor, mark.colour, 600))
    return "".join([*parts, "</svg>"])


def heat_map(
    rows: Sequence[str], columns: Sequence[str], values: Floats, title: str, axes: tuple[str, str]
) -> str:
    """A grid of P&L: losses orange, gains blue, each cell with its number."""
    left, top, height = 92.0, 48.0, 36.0
    width = min(130.0, (_WIDTH - left - 4) / len(columns))
    peak = float(np.abs(values).max()) or 1.0
    parts = [_open(_WIDTH, top + height * len(rows) + 8, title)]
    parts.append(_text(left, 14, f"{axes[1]} →", "start", GREY))
    parts.append(_text(4, top - 10, f"{axes[0]} ↓", "start", GREY))
    for place, name in enumerate(columns):
        parts.append(_text(left + (place + 0.5) * width, top - 10, name, "middle", INK))
    for row, name in enumerate(rows):
        y = top + row * height
        parts.append(_text(left - 10, y + height / 2 + 5, name, "end", INK))
        for place, value in enumerate(values[row].tolist()):
            x, strength = left + place * width, abs(value) / peak
            ink = "#ffffff" if strength > 0.6 else INK
            what = f"{axes[0]} {name}, {axes[1]} {columns[place]}: {money(value)}"
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{width - 2:.1f}" height="{height - 2:.1f}" rx="3" '
                f'fill="{ORANGE if value < 0 else BLUE}" fill-opacity="{opacity(strength):.2f}">'
                f"<title>{escape(what)}</title></rect>"
            )
            parts.append(_text(x + width / 2 - 1, y + height / 2 + 4, short(value), "middle", ink))
    return "".join([*parts, "</svg>"])


def bars(names: Sequence[str], values: Sequence[float], title: str, unit: str, positive: str = BLUE) -> str:
    """Horizontal bars around zero with their numbers; `positive` is the colour of values above zero."""
    negative = BLUE if positive == ORANGE else ORANGE
    label = max(90.0, min(330.0, 8.6 * max(len(name) for name in names) + 14))
    low, high = min(0.0, *values), max(0.0, *values)
    span = (high - low) or 1.0
    # Room beside the bars for the numbers, on the side where they are.
    room_left, room_right = (70.0 if low < 0 else 0.0), 74.0
    left, right = label + room_left, _WIDTH - room_right
    zero = left - low / span * (right - left)
    parts = [_open(_WIDTH, 26.0 * len(names) + 26, title)]
    for row, (name, value) in enumerate(zip(names, values, strict=True)):
        y, length = 26.0 * row + 4, abs(value) / span * (right - left)
        x = zero if value >= 0 else zero - length
        colour = positive if value >= 0 else negative
        parts.append(_text(label - 10, y + 14, name, "end", INK))
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(length, 0.5):.1f}" '
            f'height="18" rx="2" fill="{colour}">'
            f"<title>{escape(f'{name}: {money(value)}')}</title></rect>"
        )
        anchor, at = ("start", x + length + 6) if value >= 0 else ("end", x - 6)
        parts.append(_text(at, y + 14, short(value), anchor, INK))
    bottom = 26.0 * len(names) + 2
    parts.append(_line(zero, 0, zero, bottom, GREY))
    parts.append(_text(zero, bottom + 18, unit, "middle" if low < 0 else "start", GREY))
    return "".join([*parts, "</svg>"])


def gauge(share: float, breached: bool) -> str:
    """A bar that fills with the share of a limit that is used."""
    filled = min(share, 1.0) * 200.0
    colour = ORANGE if breached else BLUE
    return (
        f'<svg class="gauge" viewBox="0 0 204 16" width="204" height="16" role="img" '
        f'aria-label="{share:.0%} used">'
        f'<rect x="1" y="1" width="202" height="14" rx="3" fill="none" stroke="{LINE}"/>'
        f'<rect x="2" y="2" width="{filled:.1f}" height="12" rx="2" fill="{colour}"/></svg>'
    )


def opacity(strength: float) -> float:
    """Of a colour over the page; strength 0 is nearly the page, 1 the colour itself."""
    return float(0.06 + 0.94 * min(max(strength, 0.0), 1.0) ** 0.8)


def _open(width: float, height: float, title: str) -> str:
    label = escape(title, quote=True)
    return f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{label}">'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, more: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" {more}/>'


def _text(x: float, y: float, text: str, anchor: str, colour: str, weight: int = 400) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-weight="{weight}">'
        f"{escape(text)}</text>"
    )
