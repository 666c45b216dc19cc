"""`risk book replay`: the venue at any moment again, from the log or the audit log, with its state hash."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType

from risk_cli.answers import Form, plain_table, show
from risk_cli.book.drawing import drawn, plain
from risk_cli.book.ladder import Ladder, body_of, ladder_of, rows_of
from risk_cli.book.show import COLUMNS
from risk_cli.extras import extra_needed
from risk_cli.refusals import DONE, BadInput, CannotDo

if TYPE_CHECKING:
    from book_service.replay import Moment
    from book_service.settings import BookServiceSettings


@dataclass(frozen=True, slots=True)
class Request:
    """The command line; None and empty texts where something was not given."""

    symbols: Sequence[str]
    partition: int | None
    offset: int | None
    until: str
    audit: Path | None
    snapshots: Path | None
    levels: int
    settings: Path | None


def run_replay(request: Request, form: Callable[[], Form]) -> int:
    """Rebuilds and shows it; the exit status."""
    shape = form()
    until_ns = _time_ns(request.until) if request.until else None
    if request.audit is not None and request.snapshots is not None:
        raise BadInput("--snapshots: an audit log is replayed from its beginning")
    with extra_needed("book replay"):
        from book_service.settings import BookServiceSettings
        from risk_cli.settings import loaded
        from service_kit.errors import ServiceKitError, SettingError
    try:
        settings = loaded(BookServiceSettings, request.settings)
        partition = _partition(request, settings)
        moment = _rebuilt(request, settings, partition, until_ns)
    except SettingError as fault:
        raise BadInput(str(fault)) from None
    except ServiceKitError as fault:
        raise CannotDo(str(fault)) from None
    for refused in moment.refused:
        print(f"risk: passed over: {refused}", file=sys.stderr)
    ladders = [_ladder(moment, symbol, request.levels) for symbol in request.symbols]
    facts = _facts(moment, request)
    depth = [drawn(one, Console().width) if sys.stdout.isatty() else plain(one) for one in ladders]
    tables: list[RenderableType] = [plain_table("", ("", " "), [(k, str(v)) for k, v in facts.items()], 2)]
    body: dict[str, Any] = {**facts, "books": [body_of(one) for one in ladders]}
    rows = [{**row, "state_hash": moment.state_hash} for one in ladders for row in rows_of(one)]
    show(shape, "book replay", [*tables, *depth], body, rows, (*COLUMNS, "state_hash"))
    return DONE


def _partition(request: Request, settings: BookServiceSettings) -> int:
    """The partition of the symbols, which must share one; else the one that was given."""
    from book_service.wiring import ORDER_PARTITIONS
    from service_kit.kafka.partitioning import partition_of

    listed = [one.symbol for one in settings.book.listed()]
    for symbol in request.symbols:
        if symbol not in listed:
            raise BadInput(f"{symbol}: is not traded; book.instruments has {', '.join(listed) or 'none'}")
    theirs = {partition_of(symbol, ORDER_PARTITIONS) for symbol in request.symbols}
    if request.partition is not None:
        theirs.add(request.partition)
    if len(theirs) > 1:
        raise BadInput(f"these symbols are in partitions {sorted(theirs)}: ask for one partition at a time")
    if not theirs:
        raise BadInput("give a symbol or --partition")
    partition = theirs.pop()
    if partition >= ORDER_PARTITIONS:
        raise BadInput(f"--partition: must be below {ORDER_PARTITIONS}")
    return partition


def _rebuilt(request: Request, settings: BookServiceSettings, partition: int, until_ns: int | None) -> Moment:
    from book_service.replay import replay, replay_audit
    from service_kit.kafka.admin import check_broker

    book = settings.book
    controls = book.first_controls()
    through = request.offset
    if request.audit is not None:
        return replay_audit(
            request.audit, book.listed(), controls, partition, through_offset=through, until_time_ns=until_ns
        )
    check_broker(settings.kafka)
    return replay(
        settings.kafka,
        book.listed(),
        controls,
        partition,
        through_offset=through,
        until_time_ns=until_ns,
        snapshots=request.snapshots,
    )


def _ladder(moment: Moment, symbol: str, levels: int) -> Ladder:
    book = moment.book(symbol, levels)
    if book is None:
        raise CannotDo(f"{symbol}: the venue has no book of it")
    return ladder_of(book)


def _facts(moment: Moment, request: Request) -> dict[str, Any]:
    time_text = ""
    if moment.time_ns:
        time_text = f"{datetime.fromtimestamp(moment.time_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S.%f} UTC"
    source = "the audit log" if request.audit is not None else "the log"
    if moment.from_snapshot is not None:
        source = f"{moment.from_snapshot.name} and the log after it"
    return {
        "state_hash": moment.state_hash,
        "partition": moment.partition,
        "next_offset": moment.next_offset,
        "orders": moment.orders,
        "reports": moment.reports,
        "time": time_text,
        "time_ns": moment.time_ns,
        "from": source,
    }


def _time_ns(text: str) -> int:
    """A whole number of nanoseconds since 1970, or a date with time, UTC where it names no zone."""
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"--until: {text!r} is neither a date with time nor nanoseconds") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    whole = int(moment.replace(microsecond=0).timestamp())
    return whole * 1_000_000_000 + moment.microsecond * 1_000
