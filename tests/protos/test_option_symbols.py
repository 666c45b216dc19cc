"""What a symbol says of a contract, and which columns of it may stand beside it."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from protos import osi

NEW_YORK, WINTER = ZoneInfo("America/New_York"), timezone(timedelta(hours=-5))
DAYS = [date(2024, 1, 19), date(2024, 7, 19), date(2024, 3, 10), date(2024, 11, 3), date(2024, 2, 29)]


def ns(moment: datetime) -> int:
    return (moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1_000


def within(moment: datetime, day: date) -> bool:
    return bool(osi.are_within(np.array([ns(moment)]), np.array([day], "datetime64[D]"))[0])


@pytest.mark.parametrize("day", DAYS)
def test_every_hour_at_which_contracts_expire_is_of_its_day_and_of_no_other(day: date) -> None:
    of_day = [
        datetime.combine(day, time(hour, minute), NEW_YORK) for hour, minute in ((9, 30), (16, 0), (16, 15))
    ]
    of_day += [datetime.combine(day, time(hour), UTC) for hour in (0, 12, 20, 21, 23)]
    of_day.append(datetime.combine(day, time(23, 59, 59, 999_999), NEW_YORK))
    of_day.append(datetime.fromtimestamp(osi.expiry_time_ns(day) / 1e9, UTC))
    for moment in of_day:
        assert within(moment, day), moment
    # The last second of New York is of the next day elsewhere; all others are of one day alone.
    for moment in of_day[:8]:
        assert not within(moment, day + timedelta(days=1)), moment
        assert not within(moment, day - timedelta(days=1)), moment


def test_a_moment_is_of_a_day_where_a_calendar_of_utc_or_new_york_has_it() -> None:
    draw = random.Random(7)
    for _ in range(2_000):
        day = draw.choice(DAYS)
        moment = datetime.combine(day, time(), UTC) + timedelta(minutes=draw.randrange(-3_000, 4_500))
        still = moment.date() > day and moment.astimezone(WINTER).date() == day and moment.time() != time()
        assert within(moment, day) == (moment.date() == day or still), (moment, day)


@pytest.mark.parametrize(
    ("root", "underlying", "others", "belied"),
    [
        ("AAPL", "AAPL", {"AAPL", "MSFT"}, False),
        ("AAPL", "MSFT", {"AAPL", "MSFT"}, True),
        ("SPXW", "SPX", {"SPX", "NDX"}, False),
        ("SPXW", "SPXW", {"SPX", "SPXW"}, False),
        ("SPXW", "NDX", {"NDX"}, True),
        ("RUTW", "SPX", {"SPX"}, True),
        ("XSP", "SPX", {"SPX"}, True),
        ("SPX", "ES", {"ES"}, False),
        ("SPX", "ES", {"ES", "SPX"}, True),
        ("AAPL1", "AAPL", {"AAPL", "MSFT"}, False),
        ("AAPL1", "MSFT", {"AAPL", "MSFT"}, False),
        ("BRKB", "BRK.B", {"BRK.A", "BRK.B"}, False),
        ("GOOG", "GOOGL", {"GOOGL"}, False),
    ],
)
def test_a_root_belies_an_underlying_only_where_it_names_another(
    root: str, underlying: str, others: set[str], belied: bool
) -> None:
    assert osi.belies(root, underlying, others) is belied
