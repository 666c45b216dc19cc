"""The calendar of the synthetic market: weekdays without three fixed holidays, and its option expiries."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

SECONDS_PER_YEAR = 365 * 86_400
"""Time to expiry counts calendar time, a year being 365 days."""
NS_PER_YEAR = SECONDS_PER_YEAR * 1_000_000_000
CLOSE_HOUR_UTC = 20
"""Options expire at this hour, all year round."""

Dates = NDArray[np.datetime64]


def is_trading_day(day: date) -> bool:
    """Whether the market is open: no weekend, no 1 January, 4 July or 25 December."""
    return day.weekday() < 5 and (day.month, day.day) not in {(1, 1), (7, 4), (12, 25)}


def trading_days(start: date, count: int) -> Dates:
    """The first `count` trading days from `start` on."""
    days: list[date] = []
    day = start
    while len(days) < count:
        if is_trading_day(day):
            days.append(day)
        day += timedelta(days=1)
    return np.array(days, dtype="datetime64[D]")


def expiry_time_ns(day: date) -> int:
    """The instant of expiry on `day`, in nanoseconds since the Unix epoch."""
    days = (day - date(1970, 1, 1)).days
    return (days * 86_400 + CLOSE_HOUR_UTC * 3600) * 1_000_000_000


def expiry_dates(start: date, count: int) -> tuple[date, ...]:
    """`count` expiries after `start`, rising: coming monthly and quarterly first, then the others."""
    week_away = start + timedelta(days=7)
    months = _third_fridays(week_away, max(count, 4) * 3)
    quarters = [day for day in months if day.month % 3 == 0]
    front = months[0]
    chosen: list[date] = [front]
    weeklies = _fridays(start + timedelta(days=2), 4)
    # What a desk trades most comes first, so that a short list is still spread over the term structure.
    order = [
        next(day for day in quarters if day > front),
        weeklies[0],
        months[1],
        *quarters[:2],
        *weeklies[1:],
    ]
    for day in [*order, *months]:
        if len(chosen) < count and day not in chosen:
            chosen.append(day)
    return tuple(sorted(chosen[:count]))


def _third_fridays(start: date, count: int) -> list[date]:
    found: list[date] = []
    year, month = start.year, start.month
    while len(found) < count:
        first = date(year, month, 1)
        day = _open_on_or_before(first + timedelta(days=(4 - first.weekday()) % 7 + 14))
        if day >= start:
            found.append(day)
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)
    return found


def _fridays(start: date, count: int) -> list[date]:
    friday = start + timedelta(days=(4 - start.weekday()) % 7)
    return [_open_on_or_before(friday + timedelta(weeks=week)) for week in range(count)]


def _open_on_or_before(day: date) -> date:
    while not is_trading_day(day):
        day -= timedelta(days=1)
    return day
