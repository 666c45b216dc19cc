"""`risk book verify`: reads an audit log and says whether it is as it was written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from risk_cli.answers import Form, plain_table, show
from risk_cli.extras import extra_needed
from risk_cli.refusals import DONE, FAILED, BadInput, CannotDo

if TYPE_CHECKING:
    from book_service.audit import Mark

_COLUMNS = ("folder", "topic", "partition", "files", "records", "first_offset", "last_offset", "head")
_HEX_DIGITS = 64


def _marks(settings: Path | None) -> dict[tuple[str, int], Mark]:
    """What orders.executed says about the chain of each partition."""
    from book_service.settings import BookServiceSettings
    from book_service.venue_output import audit_mark
    from protos.topics import ORDERS_INCOMING
    from risk_cli.settings import loaded
    from service_kit.errors import ServiceKitError, SettingError
    from service_kit.kafka.admin import check_broker
    from service_kit.kafka.control_log import PARTITIONS
    from service_kit.kafka.lookup import LogLookup

    try:
        kafka = loaded(BookServiceSettings, settings).kafka
        check_broker(kafka)
        with LogLookup(kafka) as look:
            found = {(ORDERS_INCOMING, home): audit_mark(look, home) for home in range(PARTITIONS)}
    except SettingError as fault:
        raise BadInput(str(fault)) from None
    except ServiceKitError as fault:
        raise CannotDo(str(fault)) from None
    return {place: mark for place, mark in found.items() if mark is not None}


def run_verify(
    path: Path, head: str, against_log: bool, settings: Path | None, form: Callable[[], Form]
) -> int:
    """Checks every hash, and the marks on orders.executed; the status is 1 if a record is not as written."""
    shape = form()
    wanted = head.lower()
    if head and (len(wanted) != _HEX_DIGITS or not set(wanted) <= set("0123456789abcdef")):
        raise BadInput(f"--head: must be {_HEX_DIGITS} hex digits, as an earlier verify has printed them")
    with extra_needed("book verify"):
        from book_service.audit import verify
    found = verify(path, wanted or None, _marks(settings) if against_log else None)
    if not found.chains and found.broken is None:
        raise BadInput(f"{path}: holds no audit log")
    rows = [{name: getattr(one, name) for name in _COLUMNS} for one in found.chains]
    rows = [{**row, "folder": str(row["folder"])} for row in rows]
    broken = found.broken
    body = {
        "sound": found.sound,
        "chains": rows,
        "broken": None
        if broken is None
        else {"file": str(broken.file), "record": broken.record, "why": broken.why},
    }
    title = "every record is as it was written" if found.sound else "what is sound before the broken record"
    cells = [["" if row[name] is None else str(row[name]) for name in _COLUMNS] for row in rows]
    show(shape, "book verify", [plain_table(title, _COLUMNS, cells, left=2)], body, rows, _COLUMNS)
    if broken is not None:
        print(f"risk: {broken}", file=sys.stderr)
        return FAILED
    return DONE
