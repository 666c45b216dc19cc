"""The pieces that the report's page is put together from."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape


def card(name: str, value: str, words: str, bad: bool = False) -> str:
    """A number with its name and what it means."""
    mark = " bad" if bad else ""
    return (
        f'<div class="card"><div class="name">{escape(name)}</div>'
        f'<div class="value{mark}">{escape(value)}</div>'
        f'<div class="words">{escape(words)}</div></div>'
    )


def section(title: str, words: str, inside: str) -> str:
    """A part of the page; `inside` is HTML already."""
    return f"<section><h2>{escape(title)}</h2><p>{escape(words)}</p>{inside}</section>"


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], words: Collection[int], more: Collection[int] = ()
) -> str:
    """Cells are HTML already; columns in `words` hold no numbers, a phone has no room for those in `more`."""

    def kind(place: int) -> str:
        names = [*(["number"] * (place not in words)), *(["more"] * (place in more))]
        return f' class="{" ".join(names)}"' if names else ""

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = (kind(place) for place in range(len(cells)))
        return "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))

    head = line([escape(name) for name in columns], "th")
    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def wide(chart: str) -> str:
    """A chart that a narrow screen scrolls instead of making it too small to read."""
    return f'<div class="wide">{chart}</div>'
