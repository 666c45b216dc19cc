"""The sources of a feed, from a TOML file or from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from book_service.adapters.errors import PlanError
from book_service.adapters.feed_plan import FILES, FORMATS, SourcePlan, check_names
from book_service.adapters.replay_pace import Pace, Times
from book_service.adapters.symbol_terms import SymbolTerms
from risk_cli.refusals import BadInput
from risk_cli.stress.toml_file import Section, read_toml

_TOP = ("speed", "times", "pause_s_max", "source")
_ADDRESS = ("path", "url", "server")
_SOURCE = (
    "name", "format", *_ADDRESS, "day", "orderbook", "symbols", "columns", "constants", "time_unit", "levels",
    "every_s", "map", "only_mapped", "tick_size",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FeedPlan:
    """All sources of one feed, and how fast files are played."""

    sources: tuple[SourcePlan, ...]
    pace: Pace


@dataclass(frozen=True, slots=True)
class SingleSource:
    """One source of the command line. Pairs are written LEFT=RIGHT."""

    where: str
    format: str
    name: str
    day: str
    orderbook: str
    symbols: Sequence[str]
    names: Sequence[str]
    ticks: Sequence[str]
    columns: Sequence[str]
    constants: Sequence[str]
    time_unit: str


def feed_of_file(path: Path, speed: float | None, times: Times | None) -> FeedPlan:
    """Reads the file; what the command line gives as well is taken from there."""
    top = read_toml(path)
    top.only(*_TOP)
    wanted = top.text("times", "original", choices=("original", "now"))
    pace = Pace(
        speed=top.number("speed", 1.0, low=0.0, high=1e9),
        times="now" if wanted == "now" else "original",
        pause_s_max=top.number("pause_s_max", 60.0, low=0.0, high=1e9),
    )
    if speed is not None:
        pace = replace(pace, speed=speed)
    if times is not None:
        pace = replace(pace, times=times)
    sections = top.sections("source")
    if not sections:
        raise top.fault(None, "has no [[source]]")
    sources = tuple(_source(section, path.parent) for section in sections)
    try:
        check_names(sources)
    except PlanError as fault:
        raise top.fault(None, str(fault)) from None
    return FeedPlan(sources, pace)


def feed_of_line(one: SingleSource, speed: float | None, times: Times | None) -> FeedPlan:
    """A feed of one source."""
    try:
        ticks = {symbol: _tick(text) for symbol, text in _pairs("--tick", one.ticks).items()}
        default = ticks.pop("default", 0.0)
        kind = one.format or _guessed(one.where)
        source = SourcePlan(
            name=one.name or kind,
            format=kind,
            where=one.where,
            day=_day(one.day),
            orderbook=one.orderbook,
            symbols=tuple(one.symbols),
            columns=_pairs("--column", one.columns),
            constants=_pairs("--constant", one.constants),
            time_unit=one.time_unit,
            terms=SymbolTerms(_pairs("--map", one.names), False, ticks, default),
        )
        return FeedPlan((source,), Pace(1.0 if speed is None else speed, times or "original"))
    except PlanError as fault:
        raise BadInput(f"risk feed: {fault}") from None


def _source(section: Section, folder: Path) -> SourcePlan:
    section.only(*_SOURCE)
    kind = section.text("format", choices=FORMATS)
    given = [name for name in _ADDRESS if name in section]
    wanted = "path" if kind in FILES else "server" if kind == "venue" else "url"
    if given != [wanted]:
        raise section.fault(given[0] if given else None, f"a {kind} source has {wanted!r}, and only that")
    where = section.text(wanted)
    moment = section.day("day")
    only_mapped = section.values.get("only_mapped", False)
    if not isinstance(only_mapped, bool):
        raise section.fault("only_mapped", "must be true or false")
    ticks = section.by_symbol("tick_size")
    default = ticks.pop("default", 0.0)
    try:
        return SourcePlan(
            name=section.text("name"),
            format=kind,
            where=str(folder / where) if kind in FILES else where,
            day=moment,
            orderbook=str(folder / section.text("orderbook")) if "orderbook" in section else "",
            symbols=_texts(section, "symbols"),
            columns=_table(section, "columns"),
            constants=_table(section, "constants"),
            time_unit=section.text("time_unit", "ns"),
            levels=section.whole("levels", 10, low=1, high=1_000),
            every_s=section.number("every_s", 0.1, low=0.001, high=3600.0),
            terms=SymbolTerms(_table(section, "map"), only_mapped, ticks, default),
        )
    except PlanError as fault:
        raise section.fault(fault.field if fault.field in section else None, str(fault)) from None


def _table(section: Section, key: str) -> dict[str, str]:
    inner = section.section(key)
    return {name: inner.text(name) for name in inner.values}


def _texts(section: Section, key: str) -> tuple[str, ...]:
    values = section.values.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
        raise section.fault(key, "must be a list of texts")
    return tuple(values)


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        left, sign, right = text.rpartition("=")
        if not (left and sign and right):
            raise BadInput(f"{option}: {text!r} is not LEFT=RIGHT")
        if left in found:
            raise BadInput(f"{option}: {left!r} is there twice")
        found[left] = right
    return found


def _tick(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadInput(f"--tick: {text!r} is no number") from None


def _day(text: str) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadInput(f"--day: {text!r} is no date (YYYY-MM-DD)") from None


def _guessed(where: str) -> str:
    """The format of a file or address whose ending says it."""
    for ending, kind in ((".csv", "csv"), (".parquet", "parquet"), (".itch", "itch"), ("_ITCH50", "itch")):
        if where.removesuffix(".gz").endswith(ending):
            return kind
    if where.startswith(("ws://", "wss://")):
        return "websocket"
    raise BadInput(f"--format: is missing, and {where!r} does not say it; there are {', '.join(FORMATS)}")
