"""What a feed is made of: sources, each in its own format; checked as a whole before anything is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from book_service.adapters import itch, tabular
from book_service.adapters.errors import PlanError
from book_service.adapters.itch import ItchAdapter
from book_service.adapters.json_feed import JsonFeed
from book_service.adapters.lobster import Lobster
from book_service.adapters.raw_columns import RawColumns
from book_service.adapters.symbol_terms import SymbolTerms
from book_service.adapters.tabular import TableMapping
from book_service.adapters.websocket_json import WebSocketFeed

FILES: Final = ("itch", "lobster", "csv", "parquet")
LIVE: Final = ("websocket", "venue")
FORMATS: Final = (*FILES, *LIVE)
LEVELS_MAX: Final = 1_000
_PARQUET = ".parquet"


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """One source. `where` is a file, a ws:// or wss:// address, or the HOST:PORT of book_service (venue)."""

    name: str
    format: str
    where: str
    day: date | None = None  # of the exchange, New York: for itch and lobster
    orderbook: str = ""  # lobster's second file
    symbols: tuple[str, ...] = ()  # to subscribe to (websocket, venue), or the file's own (lobster)
    columns: Mapping[str, str] = field(default_factory=dict)  # as TableMapping
    constants: Mapping[str, str] = field(default_factory=dict)
    time_unit: str = "ns"
    levels: int = 10  # of the venue's book
    every_s: float = 0.1  # how often the venue's book is asked for
    terms: SymbolTerms = field(default_factory=SymbolTerms)

    def __post_init__(self) -> None:
        if not self.name:
            raise PlanError("name", "is missing")
        if self.format not in FORMATS:
            raise PlanError("format", f"{self.format!r} is none of {', '.join(FORMATS)}")
        if not self.where:
            raise PlanError("path" if self.format in FILES else "address", "is missing")
        if self.format in ("itch", "lobster") and self.day is None:
            raise PlanError("day", f"is missing: {self.format} tells the time of day only")
        if self.format == "lobster" and (not self.orderbook or len(self.symbols) != 1):
            raise PlanError("orderbook", "lobster needs it, and exactly one symbol")
        if self.format in LIVE and not self.symbols:
            raise PlanError("symbols", f"a {self.format} needs at least one")
        if self.format == "websocket" and not self.where.startswith(("ws://", "wss://")):
            raise PlanError("address", f"{self.where!r} begins with neither ws:// nor wss://")
        if self.format in ("csv", "parquet") and (self.format == "parquet") != self.where.endswith(_PARQUET):
            raise PlanError("path", f"{self.where!r} does not end as a {self.format} file of ours ends")
        if not 1 <= self.levels <= LEVELS_MAX:
            raise PlanError("levels", f"must be from 1 to {LEVELS_MAX}")
        if not 0.001 <= self.every_s <= 3600.0:
            raise PlanError("every_s", "must be from 0.001 to 3600")


def check_names(plans: Sequence[SourcePlan]) -> None:
    """Sources are told apart by name, downstream too."""
    names = [plan.name for plan in plans]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PlanError("name", f"{twice[0]!r} is there twice")


def open_file(plan: SourcePlan) -> Iterator[RawColumns]:
    """Events of a file in our terms, in its order, in pieces; AdapterError or OSError at what is bad."""
    path = Path(plan.where)
    if plan.format == "itch":
        pieces = itch.replay(path, ItchAdapter(plan.name, _midnight_ns(plan)))
    elif plan.format == "lobster":
        lobster = Lobster(plan.name, plan.symbols[0], _midnight_ns(plan), path, Path(plan.orderbook))
        pieces = lobster.events()
    else:
        mapping = TableMapping(plan.name, plan.columns, plan.constants, plan.time_unit)
        pieces = tabular.replay(path, mapping)
    for events in pieces:
        ours = plan.terms.apply(events)
        if len(ours):
            yield ours


def open_socket(plan: SourcePlan) -> WebSocketFeed:
    """The connection of a websocket source; its events are not yet in our terms."""
    return WebSocketFeed(plan.where, JsonFeed(plan.name, plan.symbols))


def _midnight_ns(plan: SourcePlan) -> int:
    if plan.day is None:
        raise PlanError("day", "is missing")
    try:
        zone = ZoneInfo("America/New_York")
    except ZoneInfoNotFoundError as error:
        raise PlanError("day", "this machine has no time zones: install tzdata") from error
    return int(datetime.combine(plan.day, time(), zone).timestamp()) * 1_000_000_000
