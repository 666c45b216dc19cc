"""Daily closes and vols read from a file, and the historical scenarios of any set of underlyings."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

import gpu_kernels as gk
from gpu_kernels.covariance import CovarianceEstimate, covariance_from_returns
from gpu_kernels.historical_scenarios import historical_scenarios
from service_kit.errors import SettingError

VOL_SUFFIX = ".vol"
BUSINESS_DAYS_PER_YEAR = 252.0

Weighting = Literal["plain", "age", "filtered_ewma", "filtered_garch"]


class NoHistory(LookupError):
    """An underlying has no price history, so it has no historical scenarios."""

    def __init__(self, underlying: str) -> None:
        self.underlying = underlying
        super().__init__(f"no price history of {underlying}")


@dataclass(frozen=True, slots=True)
class PriceHistory:
    """Closes and vols per day (rows) and underlying (columns)."""

    underlyings: tuple[str, ...]
    closes: NDArray[np.float64]
    vols: NDArray[np.float64]
    place: Mapping[str, int] = field(init=False)  # of each underlying

    def __post_init__(self) -> None:
        object.__setattr__(self, "place", {name: place for place, name in enumerate(self.underlyings)})

    @property
    def days(self) -> int:
        """Daily returns that the history has."""
        return len(self.closes) - 1

    def scenarios(
        self,
        underlyings: tuple[str, ...],
        days: int,
        *,
        horizon_days: int = 1,
        weighting: Weighting = "plain",
        decay: float | None = None,
    ) -> gk.Scenarios:
        """One scenario per day of the last `days`: log returns and vol changes over the horizon from there.

        `age` weights recent days more, the filtered ones scale returns to today's volatility; `decay` is
        their parameter per day.
        """
        columns = [self._column(name) for name in underlyings]
        # The closes are the operator's own file: a day on which a price halves was such a day.
        return historical_scenarios(
            self.closes[:, columns],
            self.vols[:, columns],
            window_days=days,
            horizon_days=horizon_days,
            weighting=weighting,
            decay=decay,
            jump_limit=None,
            days_per_year=BUSINESS_DAYS_PER_YEAR,
        )

    def covariance(
        self, underlyings: tuple[str, ...], days: int, shrinkage: float | None = None
    ) -> CovarianceEstimate:
        """Covariance per year of log returns of the last `days`; `shrinkage` None is Ledoit and Wolf's."""
        columns = [self._column(name) for name in underlyings]
        returns = np.diff(np.log(self.closes[-days - 1 :, columns]), axis=0)
        return covariance_from_returns(returns, periods_per_year=BUSINESS_DAYS_PER_YEAR, shrinkage=shrinkage)

    def _column(self, underlying: str) -> int:
        if underlying not in self.place:
            raise NoHistory(underlying)
        return self.place[underlying]


def read(path: Path) -> PriceHistory:
    """Reads a CSV with a column `date`, a close per underlying, and a vol per underlying named NAME.vol."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        names = tuple(name for name in header[1:] if not name.endswith(VOL_SUFFIX))
        _check_header(path, header, names)
        places = [header.index(name) for name in names]
        vol_places = [header.index(name + VOL_SUFFIX) for name in names]
        closes, vols = [], []
        before = date.min
        for number, row in enumerate(rows, start=2):
            before = _date_after(before, path, number, row)
            closes.append([_number(path, number, header, row, place) for place in places])
            vols.append([_number(path, number, header, row, place) for place in vol_places])
    if len(closes) < 2:
        raise SettingError("risk.history", f"{path} has {len(closes)} days; two are the least")
    return PriceHistory(names, np.array(closes), np.array(vols))


def _check_header(path: Path, header: list[str], names: tuple[str, ...]) -> None:
    if header[:1] != ["date"] or not names:
        raise SettingError(
            "risk.history", f"{path} must begin with a column `date`, then a close per underlying"
        )
    for name in names:
        if name + VOL_SUFFIX not in header:
            raise SettingError("risk.history", f"{path} has no column {name}{VOL_SUFFIX}")


def _date_after(before: date, path: Path, line: int, row: list[str]) -> date:
    """The row's date. Files that begin with the newest day would turn every loss into a gain."""
    try:
        found = date.fromisoformat(row[0] if row else "")
    except ValueError as error:
        raise SettingError(
            "risk.history", f"{path} line {line}: {row[:1]} is no date (YYYY-MM-DD)"
        ) from error
    if found <= before:
        raise SettingError("risk.history", f"{path} line {line}: {found} does not come after {before}")
    return found


def _number(path: Path, line: int, header: list[str], row: list[str], place: int) -> float:
    try:
        value = float(row[place])
    except (IndexError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value > 0.0):
        raise SettingError("risk.history", f"{path} line {line}: {header[place]} is no positive number")
    return value
