"""Cash dividends that come with options in columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.dividend_schedules import CashDividends
from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from service_kit.errors import InvalidRequest

# Dividends in one schedule: a hundred years of quarters.
SCHEDULE_MAX = 400


def read_dividends(columns: wire.OptionColumns, rows: int) -> CashDividends | None:
    """The dividends of each row, None where the request has none; raises naming field and row."""
    if not columns.HasField("dividends"):
        if columns.dividend_schedule:
            raise InvalidRequest("options.dividend_schedule", "is given without dividends")
        return None
    paid = columns.dividends
    count = packing_rows(paid)
    schedule = _column(paid, "schedule", count)
    times, amounts = _column(paid, "ex_date", count), _column(paid, "amount", count)
    for name, values in (("ex_date", times), ("amount", amounts)):
        if count and not len(getattr(paid, name)):
            raise InvalidRequest(f"options.dividends.{name}", "is missing")
        bad = ~np.isfinite(values) | ((values < 0.0) if name == "amount" else False)
        if bad.any():
            why = "must be finite and not negative" if name == "amount" else "must be finite"
            raise InvalidRequest(f"options.dividends.{name}", why, int(np.flatnonzero(bad)[0]))
    try:
        own = packing.column(columns, "dividend_schedule", rows)
    except packing.PackingError as fault:
        raise InvalidRequest("options.dividend_schedule", fault.why) from fault
    return scheduled(schedule, times, amounts, own)


def scheduled(
    schedule: NDArray[np.uint32],
    times: NDArray[np.float64],
    amounts: NDArray[np.float64],
    own: NDArray[np.uint32],
) -> CashDividends:
    """Dividends sorted by schedule and ex-date, and the place of each row's schedule among those named."""
    numbers, index = np.unique(own, return_inverse=True)
    place = np.searchsorted(numbers, schedule)
    named = (place < len(numbers)) & (numbers[np.minimum(place, len(numbers) - 1)] == schedule)
    order = np.lexsort((times[named], place[named]))
    sizes = np.bincount(place[named], minlength=len(numbers))
    if sizes.max(initial=0) > SCHEDULE_MAX:
        number = int(numbers[sizes.argmax()])
        row = int(np.flatnonzero(schedule == number)[SCHEDULE_MAX])
        raise InvalidRequest(
            "options.dividends.schedule", f"{number} has more than {SCHEDULE_MAX} dividends", row
        )
    return CashDividends(
        times=times[named][order],
        amounts=amounts[named][order],
        offsets=np.concatenate(([0], np.cumsum(sizes))),
        index=index.reshape(-1),
    )


def packing_rows(paid: wire.DividendColumns) -> int:
    """How many dividends there are."""
    try:
        return packing.row_count(paid, ("schedule", "ex_date", "amount"))
    except packing.PackingError as fault:
        raise InvalidRequest(f"options.dividends.{fault.field}", fault.why, fault.row) from fault


def _column(paid: wire.DividendColumns, name: str, count: int) -> NDArray[Any]:
    try:
        column: NDArray[Any] = packing.column(paid, name, count)
    except packing.PackingError as fault:
        raise InvalidRequest(f"options.dividends.{name}", fault.why, fault.row) from fault
    return column
